//! `vectis bench`: its counts repeat, and are not above the committed ones.

use std::collections::BTreeMap;

use crate::changed::Changed;
use crate::harness::{finish, free_port, is_bundled, one_machine, the_only_machine, vectis};

#[test]
fn nothing_takes_more_instructions_than_it_did() {
    if !is_bundled() {
        println!("skipped: the committed counts are the bundled kernel's");
        return;
    }
    let _machine = the_only_machine();
    let end = finish(vectis().args(["bench", "--check"]));
    assert!(end.status.success(), "{}", end.text);
    // The table is there, with what is added to a bare machine.
    let row = end
        .text
        .lines()
        .find(|line| line.starts_with("| ping, halted"));
    assert!(
        row.is_some_and(|row| row.contains("11,521")),
        "{}",
        end.text
    );
}

#[test]
fn two_guests_that_measure_at_once_both_come_to_the_end() {
    let _machine = the_only_machine();
    let end = finish(vectis().args(["bench", "--guests", "2", "--json"]));
    assert!(end.status.success(), "{}", end.text);
    for guest in ["\"bench\"", "\"bench-2\""] {
        assert!(end.text.contains(guest), "no {guest}: {}", end.text);
    }
}

/// Told, not judged: the client's pace is in them.
#[test]
fn requests_are_counted_on_both_machines() {
    let _machine = one_machine();
    let end = finish(vectis().args(["bench", "--http"]));
    assert!(end.status.success(), "{}", end.text);
    let mut rows = 0;
    for line in end.text.lines().filter(|line| line.contains(" connection")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let count = |cell: &str| cell.parse::<u64>().expect("a count");
        let (bare, vectis) = (count(cells[2]), count(cells[3]));
        assert!(bare > 10_000 && vectis > 10_000, "{}", end.text);
        rows += 1;
    }
    assert_eq!(rows, 4, "{}", end.text);
}

/// Returns what the bench guest counts beside so many guests that wait for requests, by name.
fn counts_beside(others: usize) -> BTreeMap<String, u64> {
    // All of them sleep by the time that it begins.
    let mut file = Changed::of(
        "tests/systems/bench.toml",
        &format!("beside-{others}"),
        "guest.bench.command-line = \"work=accesses start=800000000\"",
    );
    for n in 1..=others {
        file = file.also(&format!(
            "[component.vmm-{n}]
             program = \"vmm\"
             priority = 200
             stack = \"80K\"
             [device.nic{n}]
             match = \"8086:10d3\"
             qemu = [\"e1000e,netdev=net{n}\"]
             [guest.idle-{n}]
             image = \"guests/web\"
             vmm = \"vmm-{n}\"
             memory = \"32M\"
             priority = 100
             devices = [\"nic{n}\"]"
        ));
    }
    let end = finish(
        vectis()
            .args(["run", "--icount", "--port", &free_port().to_string()])
            .args(["--timeout", "400", "--system"])
            .arg(&file.0),
    );
    assert!(end.status.success(), "{}", end.text);
    let serving = end.text.matches("web: serving").count();
    assert_eq!(serving, others, "{}", end.text);
    let counts = end.text.lines().filter_map(|line| {
        let (name, count) = line.split_once("# bench: ")?.1.split_once(' ')?;
        Some((name.to_owned(), count.parse().ok()?))
    });
    counts.collect()
}

/// A guest's turn among others costs it a little, and how many there are nothing.
#[test]
fn what_a_guest_does_costs_the_same_beside_one_guest_and_beside_three() {
    let _machine = the_only_machine();
    let (one, three) = (counts_beside(1), counts_beside(3));
    assert!(one.len() > 20, "{one:?}");
    for (name, &before) in &one {
        let Some(&now) = three.get(name) else {
            panic!("{name} was not measured: {three:?}");
        };
        // The kernel's tick, or the end of a turn, falls into some and not into others.
        let most = before + before / 20 + 100;
        assert!(
            now <= most || name.ends_with("-max"),
            "{name}: {before} beside one guest, {now} beside three"
        );
    }
}
