//! Images that are entered in 32-bit mode, on the devices of a PC.

use crate::changed::Changed;
use crate::client::Client;
use crate::harness::{Finished, Running, finish, one_machine, root, run_of};

/// Seconds for a run: a bound on failures.
const TIMEOUT: u32 = 240;

fn run(name: &str) -> Finished {
    let file = root().join(format!("tests/systems/{name}.toml"));
    finish(&mut run_of(&file, TIMEOUT))
}

/// Runs the Multiboot guest with another command line.
fn multiboot_with(word: &str) -> Finished {
    let keys = format!("guest.multiboot.command-line = \"{word}\"");
    Changed::of(
        "tests/systems/multiboot.toml",
        &format!("multiboot-{word}"),
        &keys,
    )
    .run()
}

#[test]
fn a_multiboot_image_finds_its_pc_and_powers_it_off() {
    let _machine = one_machine();
    let run = run("multiboot");
    assert!(run.status.success(), "{}", run.text);
    assert!(!run.text.contains("not ok"), "{}", run.text);
    assert!(run.text.contains("1..17"), "{}", run.text);
    assert!(run.text.contains("# multiboot: pass"), "{}", run.text);
    assert!(run.text.contains("guest finished"), "{}", run.text);
}

#[test]
fn a_pvh_image_is_entered_by_its_note() {
    let _machine = one_machine();
    let run = run("pvh");
    assert!(run.status.success(), "{}", run.text);
    assert!(run.text.contains("# meter: begins"), "{}", run.text);
}

/// It measures its clocks by the 8254, since no command line says what they are.
#[test]
fn a_guest_entered_by_pvh_serves_over_its_nic() {
    let _machine = one_machine();
    let file = Changed::new(
        "pvh",
        "guest.web.boot = \"pvh\"\nguest.web.machine = \"pc\"",
    );
    let path = file.0.display().to_string();
    let arguments = ["--system", &path, "--inject-fault", "guest:web"];
    let (mut system, port) = Running::serving(&arguments);
    // It has memory at 0, and yet is crashed where nothing is.
    // Kernels with SMEP have the CPU say that it was a fetch: code 0x14, not 0x4.
    let nowhere = "4 rip 0x7fffffffe000 ";
    system.wait_for(|line| line.contains("exception 14 code 0x") && line.contains(nowhere));
    system.wait_for(|line| line.contains(": serving on port "));
    let (status, _) = Client::connect(port).request("/").expect("an answer");
    assert_eq!(status, 200);
    assert!(system.interrupt().status.success());
}

#[test]
fn a_reset_is_no_success() {
    let _machine = one_machine();
    let run = multiboot_with("reset");
    assert!(!run.status.success(), "{}", run.text);
    assert!(run.text.contains("guest reset its machine"), "{}", run.text);
}

#[test]
fn code_that_cannot_be_interpreted_is_named() {
    let _machine = one_machine();
    let run = multiboot_with("bad");
    assert!(!run.status.success(), "{}", run.text);
    let line = run
        .text
        .lines()
        .find(|line| line.contains("boot32: instruction d9 e8 at 0x10"));
    assert!(
        line.is_some_and(|line| line.contains("is not interpreted")),
        "{}",
        run.text
    );
}

#[test]
fn code_that_leaves_memory_is_named() {
    let _machine = one_machine();
    let run = multiboot_with("outside");
    assert!(!run.status.success(), "{}", run.text);
    let expected = "code at 0x70000000 reaches 0x70000000, which is not its memory";
    assert!(run.text.contains(expected), "{}", run.text);
}
