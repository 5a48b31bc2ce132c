//! `vectis bench`: its counts repeat, and are not above the committed ones.

use crate::harness::{finish, is_bundled, one_machine, the_only_machine, vectis};

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
