//! A board that is not the machine: the boot ends with both values and the key.

use std::fs;
use std::path::PathBuf;

use crate::changed::Changed;
use crate::client::Client;
use crate::harness::{Finished, Running, one_machine, root};

/// A board like the usual one with other keys, in a file that goes when this does.
struct Board(PathBuf);

impl Board {
    fn new(name: &str, keys: &str) -> Self {
        let name = format!("target-test-board-{name}-{}", std::process::id());
        let file = root().join(format!("{name}.toml"));
        let text = format!(
            "board.inherit = \"board/qemu-q35/board.toml\"\nboard.name = \"{name}\"\n{keys}\n"
        );
        fs::write(&file, text).expect("a file in the project");
        Self(file)
    }

    /// Returns the key of a system that runs on it.
    fn key(&self) -> String {
        let board = self.0.file_name().expect("a name").to_string_lossy();
        format!("system.board = \"{board}\"")
    }

    /// Runs the project's system on it.
    fn run(&self, name: &str) -> Finished {
        Changed::new(name, &self.key()).run()
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn a_board_that_is_not_the_machine_is_named() {
    let _machine = one_machine();
    let args = "args = [\"-device\", \"isa-debug-exit,iobase=0xf4,iosize=4\"";
    for (name, keys, said) in [
        (
            "ecam",
            "board.ecam = { base = 0xa000_0000, buses = 256 }".to_owned(),
            "its configuration space is at 0xb0000000 (ACPI, MCFG), and `ecam` in [board] says \
             0xa0000000: change it",
        ),
        (
            "hpet",
            "device.hpet.memory = { base = 0xfed4_0000, size = \"4K\" }".to_owned(),
            "its HPET is at 0xfed00000 (ACPI, HPET), and `memory` in [device.hpet] of the board \
             says 0xfed40000: change it",
        ),
        (
            "no-hpet",
            format!("qemu.{args}, \"-machine\", \"hpet=off\"]"),
            "it has no HPET (ACPI has no table HPET), and the board has one at 0xfed00000",
        ),
    ] {
        let board = Board::new(name, &keys);
        let end = board.run(&format!("board-{name}"));
        let text = &end.text;
        assert!(!end.status.success(), "{name}: {text}");
        let line = format!("init: fatal: this machine is not the board: {said}");
        assert!(text.contains(&line), "{name}: no `{line}` in\n{text}");
        assert!(!text.contains("init: fault"), "{name}: {text}");
        assert!(!text.contains("[web]"), "{name}: the guest ran:\n{text}");
    }
}

/// The reason of a component's end is on COM1, not in the log alone.
#[test]
fn a_component_that_panics_says_why_on_com1() {
    let _machine = one_machine();
    // Its pin is one that the HPET cannot drive, which only the component finds out.
    let board = Board::new(
        "pin",
        "device.hpet = { irq = { pin = 5, trigger = \"level\" } }",
    );
    let board_file = board.0.file_name().expect("a name").to_string_lossy();
    let keys = format!("system.board = \"{board_file}\"\ndevice.nic0.dma = \"trusted\"");
    let end = Changed::new("board-pin", &keys).run_on("none");
    let text = &end.text;
    assert!(!end.status.success(), "{text}");
    for words in [
        "init: fault component=timer ",
        "cause=panic",
        "the HPET cannot drive the I/O APIC's pin, only those in ",
    ] {
        let lines: Vec<&str> = text.lines().filter(|line| line.contains(words)).collect();
        let on_com1 = lines.iter().any(|line| line.starts_with("init: "));
        assert!(on_com1, "no `{words}` of init's in\n{text}");
    }
}

#[test]
fn little_memory_and_memory_above_4_gib() {
    let _machine = one_machine();
    for (name, keys) in [
        (
            "small",
            "board.memory = \"128M\"\n\
             board.guest-memory = { base = 0x200_0000, size = \"64M\" }",
        ),
        (
            // QEMU has 2 GiB of it below 3 GiB, and the last 128 MiB here.
            "high",
            "board.memory = \"2944M\"\n\
             board.guest-memory = { base = 0x1_3000_0000, size = \"128M\" }",
        ),
    ] {
        let board = Board::new(name, keys);
        let system = Changed::new(name, &board.key());
        let file = system.0.to_str().expect("a name of ours");
        let (running, port) = Running::serving(&["--system", file]);
        let (status, page) = Client::connect(port).request("/").expect("the page");
        assert_eq!(status, 200, "{name}");
        assert!(page.contains("Vectis"), "{name}: {page}");
        let end = running.interrupt();
        assert!(end.status.success(), "{}", end.text);
    }
}
