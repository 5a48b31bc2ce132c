//! What confines a device: measured at boot, by each kind of IOMMU and without
//! one; and who holds what in the running system.

use crate::changed::Changed;
use crate::client::Client;
use crate::harness::{Running, finish, free_port, one_machine, vectis};

const CONFINED: &str = "reaches its guest's memory only, raises its own interrupts only (measured)";

/// The project's system with a NIC that is trusted.
fn trusted(name: &str) -> Changed {
    let device = "match = \"8086:10d3\"";
    Changed::new(name, device, &format!("{device}\ndma = \"trusted\""))
}

fn serving_on(changed: &Changed, iommu: &str) -> (Running, u16) {
    let file = changed.0.display().to_string();
    Running::serving(&["--system", &file, "--iommu", iommu, "--timeout", "120"])
}

#[test]
fn amd_vi_confines_dma_and_interrupts() {
    let _machine = one_machine();
    let (mut system, port) = Running::serving(&[]);
    let (status, _) = Client::connect(port).request("/").expect("an answer");
    assert_eq!(status, 200);
    let dump = finish(vectis().args(["dump", "I"])).text;
    let shown = "I nic0 (web): AMD-Vi, attached, 8192 pages, 3 vectors, 0 refused";
    assert!(dump.contains(shown), "{dump}");
    // The timer comes by message, and the keys are looked for by the timer.
    let counters = system.counters();
    assert!(counters["timer.interrupts"] > 0, "{counters:?}");
    assert!(system.text().contains(CONFINED), "{}", system.text());
    assert!(system.interrupt().status.success());
}

#[test]
fn what_is_not_confined_needs_its_owner_s_word() {
    let _machine = one_machine();
    // QEMU's VT-d confines DMA, but lets interrupts in compatibility format
    // through although they are off.
    let port = free_port().to_string();
    let end = finish(vectis().args(["run", "--port", &port, "--iommu", "intel"]));
    assert!(!end.status.success(), "{}", end.text);
    for words in [
        "reaches its guest's memory only, raises any interrupt (measured)",
        "device nic0 (8086:10d3) is not assigned",
        "`dma = \"trusted\"` in [device.nic0]",
        "vectis run --iommu amd",
    ] {
        assert!(end.text.contains(words), "no `{words}` in\n{}", end.text);
    }
    assert!(!end.text.contains("[web]"), "the guest ran:\n{}", end.text);
    // Without an IOMMU there is nothing to measure: the tool refuses.
    let end = finish(vectis().args(["run", "--port", &port, "--iommu", "none"]));
    assert!(!end.status.success(), "{}", end.text);
    let line = "error: [device.nic0] can reach all memory by DMA: \
                nothing on this board confines it";
    assert!(end.text.lines().any(|found| found == line), "{}", end.text);
}

#[test]
fn with_that_word_it_serves_on_vt_d() {
    let _machine = one_machine();
    let (mut system, port) = serving_on(&trusted("intel"), "intel");
    let (status, _) = Client::connect(port).request("/").expect("an answer");
    assert_eq!(status, 200);
    let dump = finish(vectis().args(["dump", "I"])).text;
    let shown = "I nic0 (web): VT-d, attached, 8192 pages, 3 vectors";
    assert!(dump.contains(shown), "{dump}");
    // The measurement's own attempts are on record.
    assert!(dump.contains("I refused 0: "), "{dump}");
    assert!(system.counters()["timer.interrupts"] > 0);
    assert!(system.interrupt().status.success());
}

#[test]
fn with_that_word_it_serves_without_an_iommu() {
    let _machine = one_machine();
    let (mut system, port) = serving_on(&trusted("none"), "none");
    let mut client = Client::connect(port);
    let (status, _) = client.request("/").expect("an answer");
    assert_eq!(status, 200);
    let text = system.text();
    // The measurement finds what there is to find.
    let open = "reaches all memory, raises any interrupt (measured); assigned, since it is trusted";
    assert!(text.contains(open), "{text}");
    // Timer and keys by the I/O APIC's pins. The guest's timer fires at the
    // latest when it closes a connection that has long been idle; if it never
    // does, the run ends at its own bound.
    while system.counters()["timer.interrupts"] == 0 {}
    drop(client);
    assert!(system.interrupt().status.success());
}

/// Slots that the table says are filled, for one thread.
fn filled(caps: &str, name: &str) -> Vec<String> {
    caps.lines()
        .skip_while(|line| *line != name)
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter(|line| line.starts_with("  slot"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_running_system_s_capabilities_are_those_of_the_table() {
    let _machine = one_machine();
    let end = finish(vectis().args(["caps", "--live"]));
    assert!(end.status.success(), "{}", end.text);
    assert!(end.text.contains("audit: 0 differences"), "{}", end.text);
    let caps = finish(vectis().arg("caps")).text;
    // Components without device pages or memory: a line a slot.
    for (name, slots) in [("console", 512), ("timer", 512), ("irq-router", 512)] {
        let pages = usize::from(name == "timer");
        let count = filled(&caps, name).len() + pages;
        let line = format!("audit: {name}: {count} of {slots} slots filled");
        assert!(end.text.contains(&line), "no `{line}` in\n{}", end.text);
    }
    assert!(
        end.text.contains("audit: guest:web: 1 of 4 slots filled"),
        "{}",
        end.text
    );
    // Device pages by holder: the unit's and the function's, and nothing in the
    // range of interrupt messages.
    let holders = |from: u64, to: u64| -> Vec<String> {
        let hex = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
        let lines = end.text.lines().filter_map(|line| {
            let (name, pages) = line
                .strip_prefix("audit: ")?
                .split_once(": device pages ")?;
            let (first, last) = pages.split_once('-')?;
            let inside = hex(first)? < to && hex(last)? >= from;
            inside.then(|| name.to_owned())
        });
        lines.collect()
    };
    assert_eq!(holders(0xfed8_0000, 0xfed8_4000), ["iommu"]);
    assert_eq!(holders(0xb000_0000, 0xc000_0000), ["pci-config"]);
    assert_eq!(holders(0xfee0_0000, 0xfef0_0000), [""; 0]);
}
