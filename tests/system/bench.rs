//! `vectis bench`: its counts repeat, and are not above the committed ones.

use crate::harness::{finish, is_bundled, the_only_machine, vectis};

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
