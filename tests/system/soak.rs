//! `vectis soak`, for as long as a test may take.

use crate::changed::Changed;
use crate::harness::{Running, finish, machines_of, one_machine, signal, vectis};

/// Returns the number behind `name` in a line of the summary.
fn number(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        .unwrap_or_else(|| panic!("no `{name}` in\n{text}"))
}

#[test]
fn crashes_under_load_lose_and_leak_nothing() {
    let _machine = one_machine();
    // The guest that serves stands on a PC's devices, and behind a shim at its start. One
    // of the others is behind a shim all the time.
    let keys = "guest.web.boot = \"pvh\"\nguest.web.machine = \"pc\"";
    let changed = Changed::of("tests/systems/soak-solo5.toml", "soak-pc", keys);
    let arguments = ["soak", "--minutes", "0.5", "--seed", "3", "--system"];
    let end = finish(vectis().args(arguments).arg(&changed.0));
    let text = &end.text;
    assert!(end.status.success(), "{text}");
    assert!(text.ends_with("nothing lost, nothing leaked"), "{text}");
    assert!(number(text, "requests answered") > 100, "{text}");
    assert_eq!(number(text, "  errors"), 0, "{text}");
    assert!(number(text, "component faults survived") >= 6, "{text}");
    // Hostile is started anew for each comparison.
    assert!(number(text, "guest restarts") >= 3, "{text}");
    for name in [
        "irq-router slots_used",
        "irq-router vectors_used",
        "iommu entries_used",
        "iommu pages_mapped",
        "iommu attached",
        "vmm-web table_slots_used",
        "vmm-hostile table_slots_used",
        "vmm-site table_slots_used",
        "console log_records_dropped",
    ] {
        assert!(
            text.contains(&format!("\n  {name} ")),
            "no {name} in\n{text}"
        );
    }
}

#[test]
fn a_soak_that_is_interrupted_says_how_far_it_came() {
    let _machine = one_machine();
    let mut soak = Running::start(vectis().args(["soak", "--minutes", "60", "--seed", "4"]));
    soak.wait_for(|line| line.contains("crashes begin"));
    let machines = machines_of(soak.id());
    signal(soak.id(), "INT");
    let status = soak.wait();
    let text = soak.text();
    assert!(status.success(), "{text}");
    assert!(text.contains("requests answered"), "{text}");
    assert!(text.contains("ended early"), "{text}");
    for machine in machines {
        assert!(!crate::harness::alive(machine), "QEMU goes on: {text}");
    }
}
