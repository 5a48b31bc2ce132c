//! A board that is not the machine: the boot ends with both values and the key.

use std::fs;
use std::path::PathBuf;

use crate::changed::Changed;
use crate::client::Client;
use crate::harness::{Finished, Running, finish, is_bundled, one_machine, root, run_of, vectis};

/// A board like the usual one with other keys, in a file that goes when this does.
struct Board(PathBuf);

impl Board {
    fn new(name: &str, keys: &str) -> Self {
        let text = format!(
            "board.inherit = \"board/qemu-q35/board.toml\"\nboard.name = \"test\"\n{keys}\n"
        );
        Self::of(name, &text)
    }

    /// Returns the board of this file.
    fn of(name: &str, text: &str) -> Self {
        let process = std::process::id();
        let file = root().join(format!("target-test-board-{name}-{process}.toml"));
        fs::write(&file, text).expect("a file in the project");
        Self(file)
    }

    /// Returns the project's system on it.
    fn system(&self, name: &str) -> Changed {
        let board = self.0.file_name().expect("a name").to_string_lossy();
        Changed::new(name, &format!("system.board = \"{board}\""))
    }

    /// Runs that.
    fn run(&self, name: &str) -> Finished {
        self.system(name).run()
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
            "the board has an HPET at 0xfed00000 ([device.hpet]), and it has no HPET (ACPI has no \
             table HPET), and this image has no other clock",
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
    let trusted = "device.nic0.dma = \"trusted\"";
    let end = board.system("board-pin").also(trusted).run_on("none");
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
        let system = board.system(name);
        let file = system.0.to_str().expect("a name of ours");
        let (running, port) = Running::serving(&["--system", file]);
        let (status, page) = Client::connect(port).request("/").expect("the page");
        assert_eq!(status, 200, "{name}");
        assert!(page.contains("Vectis"), "{name}: {page}");
        let end = running.interrupt();
        assert!(end.status.success(), "{}", end.text);
    }
}

/// The 8254 in place of the HPET, which is there too: a guest that sleeps until its own timer
/// has come 20 times is woken by nothing else, and the page is served.
#[test]
fn the_8254_is_the_clock_where_the_timer_has_it() {
    let _machine = one_machine();
    let pit = "component.timer.devices = [\"pit\"]";
    let end = Changed::of("tests/systems/multiboot.toml", "pit", pit).run_on("none");
    assert!(end.status.success(), "{}", end.text);
    assert!(end.text.contains("# multiboot: pass"), "{}", end.text);

    let system = Changed::new("pit", pit).also("device.nic0.dma = \"trusted\"");
    let file = system.0.to_str().expect("a name of ours");
    let arguments = ["--system", file, "--iommu", "none", "-v"];
    let (running, port) = Running::serving(&arguments);
    let (status, _) = Client::connect(port).request("/").expect("the page");
    assert_eq!(status, 200);
    let end = running.interrupt();
    assert!(end.status.success(), "{}", end.text);
    let line = "8254 on I/O APIC pin 2";
    assert!(end.text.contains(line), "no `{line}` in\n{}", end.text);
}

/// QEMU's `pc`: configuration space by ports, with 256 bytes of each function, and the 8254.
#[test]
fn the_page_is_served_on_pc() {
    let _machine = one_machine();
    let keys = "system.board = \"qemu-pc\"\ndevice.nic0.dma = \"trusted\"";
    let system = Changed::new("pc", keys);
    let file = system.0.to_str().expect("a name of ours");
    let (running, port) = Running::serving(&["--system", file, "-v"]);
    let (status, page) = Client::connect(port).request("/").expect("the page");
    assert_eq!(status, 200);
    assert!(page.contains("MSI-X table"), "{page}");
    let end = running.interrupt();
    assert!(end.status.success(), "{}", end.text);
    for line in ["1 functions, each with 256 bytes", "8254 on I/O APIC pin 2"] {
        assert!(end.text.contains(line), "no `{line}` in\n{}", end.text);
    }
    // And nobody has more or other ports than the table says.
    let mut caps = vectis();
    let end = finish(caps.args(["caps", "--live", "--system"]).arg(&system.0));
    assert!(end.status.success(), "{}", end.text);
    let line = "audit: 0 differences";
    assert!(end.text.contains(line), "no `{line}` in\n{}", end.text);
}

/// What has no machine of QEMU's is built; what runs it says which key is missing, before
/// anything is built.
#[test]
fn a_board_without_qemu_is_built_and_not_run() {
    let _machine = one_machine();
    let usual = fs::read_to_string(root().join("board/qemu-q35/board.toml")).expect("a board");
    let (metal, _) = usual.split_once("\n[qemu]").expect("it has one");
    let board = Board::of("metal", &metal.replace("\"qemu-q35\"", "\"metal\""));
    let system = board.system("metal");
    for iommu in ["amd", "intel"] {
        let end = system.run_on(iommu);
        assert!(!end.status.success(), "{}", end.text);
        for words in [
            "board metal has no machine to run",
            "has no `[qemu]`, which says how QEMU makes one",
            "`vectis build` with --iso, --disk or --boot",
        ] {
            assert!(end.text.contains(words), "no `{words}` in\n{}", end.text);
        }
        assert!(!end.text.contains("[1/"), "it was built:\n{}", end.text);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (out, boot) = (folder.path().join("out"), folder.path().join("boot.elf"));
    let mut build = vectis();
    build.arg("build").arg("--system").arg(&system.0);
    let end = finish(build.arg("--out").arg(out).arg("--boot").arg(&boot));
    assert!(end.status.success(), "{}", end.text);
    assert!(boot.is_file(), "{}", end.text);
}

/// What `vectis probe` prints of the usual machine is a board with which the system runs there.
#[test]
fn what_is_found_of_the_machine_is_its_board() {
    let _machine = one_machine();
    let mut probe = vectis();
    let end = finish(probe.args(["probe", "--iommu", "intel"]));
    assert!(end.status.success(), "{}", end.text);
    let start = end.text.find("# probe: ").expect("the first line");
    let stop = end.text.find("# verdict: ").expect("the last line");
    let board = &end.text[start..stop];
    for line in [
        "memory = \"512M\"",
        "guest-memory = { base = 0x2000000, size = \"448M\" }",
        "ecam = { base = 0xb0000000, buses = 256 }",
        "iommu = \"intel\"",
        "ports = { first = 0x3f8, count = 8 }",
        "ports = { first = 0x2f8, count = 8 }",
        "memory = { base = 0xfed00000, size = \"4K\" }",
        "irq = { pin = 22, trigger = \"level\" }",
        "message = true",
        "# CPU: pages of 1 GiB (pdpe1gb), instructions for the FS and GS base (fsgsbase)",
        "# 00:01.0 8086:10d3 class 020000: starts",
        "#   MSI-X: 5 entries",
        "#   IOMMU: VT-d unit at 0xfed90000",
    ] {
        let there = board.lines().any(|known| known.starts_with(line));
        assert!(there, "no `{line}` in\n{board}");
    }
    let usual = fs::read_to_string(root().join("board/qemu-q35/board.toml")).expect("a board");
    let (_, qemu) = usual.split_once("\n[qemu]").expect("it has one");
    let board = Board::of("probed", &format!("{board}\n[qemu]{qemu}"));
    // What the unit there does not refuse.
    let system = board.system("probed").also("device.nic0.dma = \"trusted\"");
    let end = finish(run_of(&system.0, 300).arg("--exit-after-ready"));
    assert!(end.status.success(), "{}", end.text);
}

/// QEMU's qemu64 has neither pages of 1 GiB nor FSGSBASE. A board says so, and the kernel is one
/// that needs neither; `probe` finds it out.
#[test]
fn a_cpu_with_the_least_serves() {
    if !is_bundled() {
        return;
    }
    let _machine = one_machine();
    let board = Board::new("least", "kernel.cpu = \"baseline\"\nqemu.cpu = \"qemu64\"");
    let system = board.system("least");
    let file = system.0.to_string_lossy();
    let (running, port) = Running::serving(&["--system", &file]);
    let (_, page) = Client::connect(port).request("/").expect("the page");
    assert!(page.contains("seL4 5.0.0 (bundled, baseline)"), "{page}");
    assert!(running.interrupt().status.success());

    // A guest's own FS and GS instructions are emulated, as the MSRs are.
    let file = board.0.file_name().expect("a name").to_string_lossy();
    let keys = format!("system.board = \"{file}\"\nguest.cpu.command-line = \"end=well\"");
    let end = Changed::of("tests/systems/cpu.toml", "least", &keys).run();
    assert!(end.status.success(), "{}", end.text);
    assert_eq!(end.text.matches("] ok ").count(), 25, "{}", end.text);

    let mut probe = vectis();
    let end = finish(probe.args(["probe", "--system"]).arg(&system.0));
    assert!(end.status.success(), "{}", end.text);
    for words in [
        "#   lacks pages of 1 GiB (pdpe1gb), which this kernel does not need",
        "\n[kernel]\ncpu = \"baseline\"\n",
    ] {
        assert!(end.text.contains(words), "no `{words}` in\n{}", end.text);
    }
}

#[test]
fn what_a_machine_lacks_is_no_key_of_its_board() {
    let _machine = one_machine();
    let args = "qemu.args = [\"-device\", \"isa-debug-exit,iobase=0xf4,iosize=4\"";
    let board = Board::new("bare", &format!("{args}, \"-machine\", \"hpet=off\"]"));
    let system = board.system("bare");
    let mut probe = vectis();
    let end = finish(probe.args(["probe", "--system"]).arg(&system.0));
    assert!(end.status.success(), "{}", end.text);
    for words in [
        "# no [device.hpet]: there is none",
        "irq = { pin = 2, trigger = \"edge\" }",
        "which would block the pins of the clocks",
        "# verdict: a system runs here",
    ] {
        assert!(end.text.contains(words), "no `{words}` in\n{}", end.text);
    }
    assert!(!end.text.contains("0xfed00000"), "{}", end.text);
}
