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
