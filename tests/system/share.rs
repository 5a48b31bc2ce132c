//! A guest's share of the CPU beside one that makes the components work, counted on a
//! machine whose clock counts instructions, and therefore the same in each run.

use crate::changed::Changed;
use crate::harness::{Running, free_port, the_only_machine, vectis};

/// Share that a guest keeps, in percent of its share beside one that only spins.
const KEPT: u64 = 80;

/// Bound on a run, in seconds: more than the longest takes, in which QEMU is busy with
/// 2,048 vectors at each toggle. A run that is cut off has left nothing.
const TIMEOUT: &str = "400";

/// An attacker, and the machine that it has.
struct Row {
    /// Of the test.
    name: &'static str,
    /// The attacker's command line.
    words: &'static str,
    /// Its memory.
    memory: &'static str,
    /// Its function: `match`, other keys, QEMU's device.
    device: Device,
    /// Whether it ends in each of its lives, and has another.
    restarts: bool,
    /// Its kind of machine.
    machine: &'static str,
}

/// A function.
#[derive(Clone, Copy)]
enum Device {
    /// The project's NIC.
    Nic,
    /// A function with as many MSI-X entries as there can be.
    ManyEntries,
}

const PLAIN: Row = Row {
    name: "",
    words: "",
    memory: "32M",
    device: Device::Nic,
    restarts: false,
    machine: "minimal",
};

/// Returns the units that the meter got done beside this attacker; 0 if it
/// never came to its end.
fn units(row: &Row, words: &str, restarts: bool) -> u64 {
    let mut file = Changed::of(
        "tests/systems/share.toml",
        &format!("share-{}", row.name),
        &format!(
            "guest.hostile.command-line = \"{words}\"
             guest.hostile.memory = \"{}\"
             guest.hostile.machine = \"{}\"",
            row.memory, row.machine
        ),
    );
    if restarts {
        file = file.also("guest.hostile.on-exit = \"restart\"");
    }
    if let Device::ManyEntries = row.device {
        file = file.also(
            "[device.nic0]
             match = \"1af4:1041\"
             dma = \"trusted\"
             qemu = [\"virtio-net-pci,disable-legacy=on,netdev=net0,vectors=2048\"]",
        );
    }
    let mut running = Running::start(
        vectis()
            .args(["run", "--icount", "--port", &free_port().to_string()])
            .args(["--timeout", TIMEOUT, "--system"])
            .arg(&file.0),
    );
    running.wait();
    let text = running.text();
    let lines: Vec<&str> = text.lines().collect();
    let at = |what: &str| lines.iter().position(|line| line.contains(what));
    let begins = at("# meter: begins");
    let Some(ends) = at(" units in ") else {
        return 0;
    };
    // The attack is under way when the count begins, and not over when it ends.
    if let Some(attack) = words
        .strip_prefix("attack=")
        .and_then(|attack| attack.split(':').next())
    {
        let started = at(&format!("] # {attack}"));
        assert!(started.is_some() && started < begins, "{text}");
        assert!(!lines[..ends].iter().any(|l| l.contains("ok ")), "{text}");
    }
    let words: Vec<&str> = lines[ends].split(' ').collect();
    let unit = words.iter().position(|word| *word == "units");
    unit.and_then(|at| words[at - 1].parse().ok())
        .unwrap_or_else(|| panic!("no number: {}", lines[ends]))
}

/// Checks that the meter keeps [`KEPT`] of its share beside a guest that only spins.
fn leaves_the_others_theirs(row: &Row) {
    let _machine = the_only_machine();
    let alone = units(row, "attack=spin:10000000", false);
    let beside = units(row, row.words, row.restarts);
    let kept = beside * 100 / alone.max(1);
    println!("{}: {beside} of {alone} units, {kept} %", row.name);
    assert!(
        alone > 0 && kept >= KEPT,
        "{}: {beside} units beside it, {alone} beside a guest that spins: {kept} %",
        row.name
    );
}

#[test]
fn a_run_that_counts_instructions_is_the_same_each_time() {
    let _machine = the_only_machine();
    let row = Row {
        name: "same",
        ..PLAIN
    };
    let first = units(&row, "attack=spin:10000000", false);
    assert!(first > 0);
    assert_eq!(units(&row, "attack=spin:10000000", false), first);
}

#[test]
fn function_mask_toggles_leave_the_others_theirs() {
    leaves_the_others_theirs(&Row {
        name: "mask",
        words: "attack=mask-toggles:1000000",
        device: Device::ManyEntries,
        ..PLAIN
    });
}

#[test]
fn decode_toggles_leave_the_others_theirs() {
    leaves_the_others_theirs(&Row {
        name: "decode",
        words: "attack=decode-toggles:1000000",
        ..PLAIN
    });
}

#[test]
fn a_deadline_that_is_past_leaves_the_others_theirs() {
    leaves_the_others_theirs(&Row {
        name: "deadline",
        words: "attack=deadline-past:1000000",
        ..PLAIN
    });
}

#[test]
fn a_loop_of_cli_leaves_the_others_theirs() {
    leaves_the_others_theirs(&Row {
        name: "cli",
        words: "attack=cli-loop:1000000",
        ..PLAIN
    });
}

#[test]
fn exits_at_once_leave_the_others_theirs() {
    leaves_the_others_theirs(&Row {
        name: "exits",
        words: "mode=exit-at-once",
        memory: "384M",
        restarts: true,
        ..PLAIN
    });
}

#[test]
fn a_periodic_timer_of_count_1_leaves_the_others_theirs() {
    leaves_the_others_theirs(&Row {
        name: "periodic",
        words: "attack=timer-flood:1000000",
        ..PLAIN
    });
}

#[test]
fn an_8254_of_count_2_leaves_the_others_theirs() {
    leaves_the_others_theirs(&Row {
        name: "pit",
        words: "attack=pit-flood:1000000",
        machine: "pc",
        ..PLAIN
    });
}
