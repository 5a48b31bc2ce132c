//! The probe guest on every kind of device: its view of configuration space and
//! MSI-X is as the contract says.

use crate::changed::Changed;
use crate::harness::{finish, is_bundled, one_machine, run_of};

fn probe(system: &str, functions: usize) -> String {
    probe_on(system, functions, &[])
}

/// Returns the same with more arguments for the machine.
fn probe_on(system: &str, functions: usize, machine: &[&str]) -> String {
    let _machine = one_machine();
    let file = format!("tests/systems/{system}.toml");
    let end = finish(run_of(file.as_ref(), 300).args(machine));
    assert!(end.status.success(), "{}", end.text);
    assert!(end.text.contains("# probe: pass"), "{}", end.text);
    assert!(!end.text.contains("] not ok"), "{}", end.text);
    // A probe that finds nothing passes as well: it must have found these.
    let found = end.text.matches(", class ").count();
    assert_eq!(found, functions, "{}", end.text);
    let checks = end.text.matches("] ok ").count();
    assert!(
        checks >= 25 * functions,
        "{checks} checks only:
{}",
        end.text
    );
    end.text
}

#[test]
fn e1000e() {
    probe("e1000e", 1);
}

#[test]
fn nvme() {
    probe("nvme", 1);
}

#[test]
fn a_bar_of_256_mib_in_large_pages() {
    probe("large-bars", 1);
}

#[test]
fn vmxnet3() {
    probe("vmxnet3", 1);
}

#[test]
fn xhci() {
    probe("xhci", 1);
}

#[test]
fn virtio_net() {
    probe("virtio-net", 1);
}

#[test]
fn e1000e_behind_a_root_port() {
    // QEMU's AMD-Vi takes DMA from behind a bridge for that of bus 0.
    let text = probe_on("root-port", 1, &["--iommu", "intel"]);
    assert!(text.contains("reaches its guest's memory only"), "{text}");
}

#[test]
fn two_functions_for_one_guest() {
    probe("two-functions", 2);
}

#[test]
fn a_function_chosen_by_class() {
    probe("class", 1);
}

#[test]
fn a_table_of_1500_entries() {
    let text = probe("many-entries", 1);
    // An attempt for each entry; those past the guest's slots fail, the last of them with
    // the line that counts the others.
    let slots = if is_bundled() { 26 } else { 62 };
    let refused = format!(
        "entry 1499: bind failed: no vector or slot left (M5); {} warnings suppressed",
        1500 - slots - 1
    );
    assert!(text.contains(&refused), "{text}");
}

#[test]
fn more_slots_than_the_kernel_has_are_an_error_of_the_build() {
    let _machine = one_machine();
    if !is_bundled() {
        println!("skipped: no number in range is too many for a kernel with 64-bit badges");
        return;
    }
    let end = Changed::of(
        "tests/systems/probe.toml",
        "slots",
        "system.name = \"slots\"
         guest.probe.slots = 27",
    )
    .run();
    let text = "guest probe asks for 27 slots (";
    assert!(end.text.contains(text), "{}", end.text);
    assert!(end.text.contains("badges have 28 bits"), "{}", end.text);
    assert!(!end.status.success());
}

#[test]
fn c4_ports_of_a_function() {
    let text = probe("io-bars", 1);
    assert!(
        text.lines()
            .any(|line| line.contains("] ok ") && line.ends_with("c4_ports_move")),
        "{text}"
    );
}

#[test]
fn bars_smaller_than_a_page() {
    let text = probe("small-bars", 1);
    assert!(
        text.lines()
            .any(|line| line.contains("] ok ") && line.ends_with("c4_small_bar_moves")),
        "{text}"
    );
}

#[test]
fn a_function_behind_a_second_root_bus() {
    let _machine = one_machine();
    let devices = [
        "pxb-pcie,bus_nr=128,id=pxb",
        "pcie-root-port,bus=pxb,id=rp1,chassis=9",
        "nvme,serial=vectis,bus=rp1",
    ];
    for (name, select) in [
        ("match", "match = \"1b36:0010\""),
        ("at", "address = \"81:00.0\""),
    ] {
        let end = Changed::of(
            "tests/systems/probe.toml",
            name,
            &format!(
                "system.name = \"second-root-bus\"
                 device.disk0 = {{ {select}, dma = \"trusted\", qemu = {devices:?} }}
                 guest.probe.devices = [\"disk0\"]"
            ),
        )
        .run_on("none");
        assert!(end.text.contains("# probe: pass"), "{}", end.text);
        assert_eq!(end.text.matches(", class ").count(), 1, "{}", end.text);
    }
}

#[test]
fn c4_a_bar_outside_the_window_is_said_and_given_a_place() {
    let _machine = one_machine();
    // The large neighbour makes the firmware put 64-bit BARs above 4 GiB.
    let end = Changed::of(
        "tests/systems/virtio-net.toml",
        "high-bar",
        "device.nic0.qemu = [
             \"virtio-net-pci,disable-legacy=on,netdev=net0\",
             \"pci-testdev,membar=8G\",
         ]",
    )
    .run();
    assert!(
        end.text
            .contains("is outside the window for BARs: the guest has it at 0x"),
        "{}",
        end.text
    );
    assert!(end.text.contains("# probe: pass"), "{}", end.text);
    assert!(!end.text.contains("outside the PCI window"), "{}", end.text);
}

#[test]
fn a_bar_with_too_many_pages_is_said_and_decodes_nothing() {
    let _machine = one_machine();
    let end = Changed::of(
        "tests/systems/nvme.toml",
        "large-bar",
        "device.disk0.qemu = [\"pci-testdev,membar=32G\"]
         device.disk0.match = \"1b36:0005\"",
    )
    .run();
    let what = "it needs 16384 capabilities, more than are left of the 4096 that the functions of \
                a guest share";
    assert!(end.text.contains(what), "{}", end.text);
    assert!(end.text.contains("# probe: pass"), "{}", end.text);
}

#[test]
fn c9_a_pin_delivers_and_is_acknowledged() {
    let text = probe("intx", 1);
    assert!(
        text.contains("c9_pin_delivers_until_it_is_lowered"),
        "{text}"
    );
}
