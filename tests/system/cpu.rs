//! A guest that sets up the CPU as other projects' unikernels do.

use crate::changed::Changed;
use crate::harness::{Finished, finish, is_bundled, one_machine, root, run_of};

const SYSTEM: &str = "tests/systems/cpu.toml";

/// Runs the guest with this word on its command line.
fn ended(end: &str) -> Finished {
    let line = format!("guest.cpu.command-line = \"end={end}\"");
    let changed = Changed::of(SYSTEM, end, &line);
    finish(&mut run_of(&changed.0, 120))
}

#[test]
fn bases_descriptors_and_flags_are_the_guest_s_own() {
    let _machine = one_machine();
    let end = ended("well");
    assert!(end.status.success(), "{}", end.text);
    assert!(end.text.contains("# cpu: pass"), "{}", end.text);
    assert!(!end.text.contains("not ok"), "{}", end.text);
    assert_eq!(end.text.matches("] ok ").count(), 25, "{}", end.text);
    // `vectis build` says what it did.
    let rewritten = end.text.lines().find(|line| line.contains("rewritten"));
    let line = rewritten.unwrap_or_else(|| panic!("nothing was rewritten: {}", end.text));
    assert!(line.ends_with(", 0 left"), "{line}");
}

#[test]
fn a_page_table_that_is_no_identity_map_ends_the_guest() {
    let _machine = one_machine();
    for (word, why) in [
        (
            "alias",
            "page table maps 0x8000000000 to 0x0: each address must lead to itself",
        ),
        // Through itself it maps a table as if it were a page.
        ("recursive", "page table maps 0xffffff0000000000 to "),
        (
            "no-code",
            "page table does not map the next instruction, 0x",
        ),
        (
            "outside",
            "page table at 0xfee00000 is not in the guest's RAM",
        ),
    ] {
        let end = ended(word);
        assert!(!end.status.success(), "{word}");
        for line in [
            why,
            "guest loaded a page table that is no identity map",
            "ip=0x",
        ] {
            assert!(end.text.contains(line), "no `{line}` in\n{}", end.text);
        }
        assert!(!end.text.contains("identity map\n[cpu]"), "{}", end.text);
    }
}

/// RAM is a second time where the image is linked, for its code, its stack, its tables and
/// its own page table. Newer kernels have that half for themselves.
#[test]
fn an_image_of_the_upper_half_runs_where_it_is_linked() {
    let _machine = one_machine();
    let end = finish(&mut run_of(&root().join("tests/systems/upper.toml"), 120));
    if !is_bundled() {
        let refused = "the installed one has the upper half of all addresses for itself";
        assert!(end.text.contains(refused), "{}", end.text);
        return;
    }
    assert!(end.status.success(), "{}", end.text);
    assert!(end.text.contains("# upper: pass"), "{}", end.text);
}
