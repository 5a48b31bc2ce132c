//! Which capabilities a guest sees, and what of them (C6, C7, M16).

use super::*;

#[test]
fn c6_only_known_capabilities_are_shown_in_order() {
    let mut rig = rig();
    assert_eq!(rig.capabilities(), [0xc8, 0xd0, 0xe0, 0xa0]);
    // The links were latched: what the device says later does not count.
    rig.fake.0.borrow_mut().put(PM, 4, 0x0000_4001);
    assert_eq!(rig.capabilities(), [0xc8, 0xd0, 0xe0, 0xa0]);
}

#[test]
fn c6_a_hidden_msi_is_read_only_even_if_permissive() {
    let mut world = world();
    world.router_error = Some(Error::Gone(1));
    let mut rig = rig_of(world, info(true));
    rig.log();
    assert_eq!(rig.capabilities(), [0xc8, 0xe0, 0xa0]);
    assert_eq!(rig.read(MSI + 4, Dword), 0xfee0_0000);
    for offset in (MSI..MSI + 16).step_by(4) {
        rig.write(offset, Dword, u32::MAX);
    }
    assert_eq!(rig.log(), []);
}

#[test]
fn c6_without_capabilities_the_status_bit_is_clear() {
    let mut world = world();
    world.put(0x34, 1, MSIX.into());
    world.put(MSIX + 1, 1, 0);
    let mut info = info(false);
    info.msix.entries = 0;
    let mut rig = rig_of(world, info);
    assert_eq!(rig.read(0x34, Byte), 0);
    assert_eq!(rig.read(0x06, Word), 0);
}

#[test]
fn c6_power_management_stays_in_d0() {
    let mut rig = rig();
    assert_eq!(rig.read(PM + 2, Word), 0x0022);
    assert_eq!(rig.read(PM + 4, Dword), 0x0000_0008);
    rig.write(PM + 4, Word, 0x0103);
    assert_eq!(rig.log(), []);
}

#[test]
fn c6_overlapping_capabilities_hide_the_earlier_in_the_list() {
    let mut world = world();
    // Power management linked to a second one in its own middle.
    world.put(PM, 4, 0x0022_cc01);
    world.put(PM + 4, 4, 0x0022_0001);
    let mut rig = rig_of(world, info(false));
    assert_eq!(rig.capabilities(), [0xcc]);
}

#[test]
fn c7_extended_capabilities_are_hidden() {
    for mut rig in [rig(), permissive()] {
        assert_eq!(rig.read(0x100, Dword), 0);
        rig.write(0x104, Dword, u32::MAX);
        assert_eq!(rig.read(0x104, Dword), 0);
        assert_eq!(rig.log(), []);
        rig.fake.0.borrow_mut().extended = false;
        assert_eq!(rig.read(0x100, Dword), u32::MAX);
    }
}

#[test]
fn c6_device_control_keeps_what_is_the_hosts() {
    let mut world = world();
    world.put(PCIE + 8, 2, 0x20ef);
    let mut rig = rig_of(world, info(false));
    rig.log();
    rig.write(PCIE + 8, Word, 0x5810);
    assert_eq!(rig.log(), [Write(PCIE + 8, Word, 0x58ff)]);
    // Device status: two bits are set, one is cleared, reserved ones are 0.
    rig.write(PCIE + 10, Word, 0xfff1);
    assert_eq!(rig.log(), [Write(PCIE + 10, Word, 1)]);
}

#[test]
fn m16_an_msix_that_is_not_usable_is_hidden_and_read_only() {
    for permissive in [false, true] {
        let mut info = info(permissive);
        info.msix.entries = 0;
        let mut rig = rig_of(world(), info);
        rig.log();
        assert_eq!(rig.capabilities(), [0xc8, 0xd0, 0xe0]);
        for offset in (MSIX..MSIX + 12).step_by(4) {
            rig.write(offset, Dword, u32::MAX);
        }
        assert_eq!(rig.log(), []);
        let control = if permissive { 4 } else { 0 };
        assert_eq!(rig.read(MSIX + 2, Word), control, "off in the device too");
    }
}

#[test]
fn m16_an_msix_that_msix_does_not_take_is_hidden() {
    let mut world = world();
    world.error = Some(Error::NotFound);
    let mut rig = rig_of(world, info(false));
    assert_eq!(rig.capabilities(), [0xc8, 0xd0, 0xe0]);
}

/// Makes a virtio function of a fake: structures in BAR 1, the window to BARs, and one that
/// points nowhere, in front of MSI-X.
fn virtio_world() -> (World, [(u16, u32); 6]) {
    let mut world = world();
    let capabilities = [
        (0x40, 0x0110_5009),
        (0x50, 0x0214_6409),
        (0x64, 0x0310_7409),
        (0x74, 0x0514_8809),
        (0x88, 0x0410_c009),
        // Type 1, past the end of its BAR.
        (0xc0, 0x0110_a009),
    ];
    world.put(0x00, 4, 0x1041_1af4);
    world.put(0x34, 1, 0x40);
    for (index, (at, header)) in (0u32..).zip(capabilities) {
        for (offset, value) in [(0, header), (4, 1), (8, 0x1000 * index), (12, 0x1000)] {
            world.put(at + offset, 4, value);
        }
    }
    world.put(0x50 + 16, 4, 4);
    world.put(0x74 + 16, 4, 0x5ec2_e700);
    world.put(0xc0 + 12, 4, u32::MAX);
    (world, capabilities)
}

fn virtio_info(permissive: bool) -> FunctionInfo {
    let mut info = info(permissive);
    (info.vendor, info.device) = (0x1af4, 0x1041);
    info.bars[1] = BarInfo {
        size: 0x10_0000,
        ..info.bars[1]
    };
    info
}

#[test]
fn c6_virtio_structures_are_shown_and_read_only() {
    for permissive in [false, true] {
        let mut rig = rig_of(virtio_world().0, virtio_info(permissive));
        rig.log();
        assert_eq!(rig.capabilities(), [0x40, 0x50, 0x64, 0x88, 0xa0]);
        // Links are ours, the rest is the device's.
        assert_eq!(rig.read(0x64, Dword), 0x0310_8809);
        assert_eq!(rig.read(0x68, Dword), 1);
        assert_eq!(rig.read(0x6c, Dword), 0x2000);
        assert_eq!(rig.read(0x60, Dword), 4, "the multiplier");
        for offset in (0x40..0x74).chain(0x88..0x98).step_by(4) {
            rig.write(offset, Dword, u32::MAX);
        }
        assert_eq!(rig.log(), []);
    }
}

#[test]
fn c6_virtio_window_to_bars_is_closed_under_every_policy() {
    for permissive in [false, true] {
        let mut rig = rig_of(virtio_world().0, virtio_info(permissive));
        rig.fake.0.borrow_mut().logs_reads = true;
        rig.log();
        for offset in 0x84..0x88 {
            rig.write(offset, Byte, 0xff);
            assert_eq!(rig.read(offset, Byte), 0);
        }
        rig.write(0x84, Dword, u32::MAX);
        rig.write(0x86, Word, 0xffff);
        assert_eq!(rig.read(0x84, Dword), 0);
        assert_eq!(rig.log(), [], "the device hears nothing of it");
    }
}

#[test]
fn c6_nothing_is_laid_over_virtios_window() {
    for permissive in [false, true] {
        // A second list entry, whose registers hold the window's data register.
        for over in [0x0110_a009, 0x0022_a001] {
            let (mut world, _) = virtio_world();
            world.put(0x88 + 1, 1, 0x80);
            world.put(0x80, 4, over);
            world.put(0x84, 4, 1);
            world.put(0x88, 4, 0);
            world.put(0x8c, 4, 0x1000);
            world.put(0x75, 1, 0x80);
            let mut rig = rig_of(world, virtio_info(permissive));
            rig.log();
            assert!(!rig.capabilities().contains(&0x80), "{over:#x}");
            rig.write(0x84, Dword, u32::MAX);
            assert_eq!(rig.read(0x84, Dword), 0);
            assert_eq!(rig.log(), []);
        }
    }
}

#[test]
fn c6_vendor_capabilities_of_others_stay_hidden() {
    let mut rig = rig_of(virtio_world().0, info(false));
    assert_eq!(rig.capabilities(), [0xa0]);
}
