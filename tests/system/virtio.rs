//! Virtio functions, driven by kit: the page over a virtio network.

use crate::changed::Changed;
use crate::client::{Client, all_answered, metric};
use crate::harness::{Running, one_machine};

const SYSTEM: &str = "tests/systems/web-virtio.toml";

/// Gets the page by many requests, with interrupts for them.
fn serves(port: u16) {
    let (status, page) = Client::connect(port).request("/").expect("the page");
    assert_eq!(status, 200);
    for shown in ["virtio network", "1af4:1041", "<td>0<td>rx"] {
        assert!(page.contains(shown), "no {shown} in {page}");
    }
    all_answered((0..4).map(|_| Client::connect(port)).collect(), 50);
    let (_, metrics) = Client::connect(port).request("/metrics").expect("metrics");
    let interrupts = "vectis_guest_interrupts_total{entry=\"0\",purpose=\"rx\"}";
    assert!(metric(&metrics, interrupts) > 10.0, "{metrics}");
    assert_eq!(metric(&metrics, "vectis_guest_link_up"), 1.0);
}

/// It starts again only if something has reset it: on a root bus that is its device status.
#[test]
fn a_virtio_network_serves_in_each_life() {
    let _machine = one_machine();
    let words = "guest.web.command-line = \"exit=on-lease lives=3\"";
    let changed = Changed::of(SYSTEM, "virtio-lives", words);
    let file = changed.0.display().to_string();
    let (mut system, port) = Running::serving(&["--system", &file]);
    let restarts = system.text().matches("guest finished: restart").count();
    assert_eq!(restarts, 2, "{}", system.text());
    serves(port);
    let counters = system.counters();
    assert_eq!(counters["irq-router.vectors_used"], 3);
    assert_eq!(counters["iommu.faults"], 0);
    assert!(system.interrupt().status.success());
}

/// As on a cloud: the function is not behind an IOMMU, and there is none.
#[test]
fn a_virtio_network_serves_without_an_iommu() {
    let _machine = one_machine();
    let plain = "device.nic0.qemu = [\"virtio-net-pci,disable-legacy=on,netdev=net0\"]";
    let changed = Changed::of(SYSTEM, "virtio-plain", plain);
    let file = changed.0.display().to_string();
    let (system, port) = Running::serving(&["--system", &file, "--iommu", "none"]);
    let said = ": reaches all memory (measured), may raise any interrupt (not measured)";
    assert!(system.text().contains(said), "{}", system.text());
    serves(port);
    assert!(system.interrupt().status.success());
}
