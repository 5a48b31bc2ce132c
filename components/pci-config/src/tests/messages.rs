//! Plain MSI (P1 to P3): the 82574's, which is 64 bits wide and has one message,
//! and others of every form.

use super::*;
use spec::FunctionId;

const CONTROL: u16 = MSI + 2;
const ADDRESS: u16 = MSI + 4;
/// Address of the guest's message.
const APIC: u32 = 0xfee0_1000;

fn block(log2: u8) -> Block {
    Block {
        function: FunctionId(0),
        log2,
    }
}

/// Returns a function whose MSI capability has this message control, and whose
/// PCI Express capability, which lies behind it, does not get in its way.
fn rig_with(control: u16) -> Rig {
    let mut world = world();
    world.put(MSI + 1, 1, MSIX.into());
    world.put(CONTROL, 2, control.into());
    for at in (MSI + 4..MSI + 24).step_by(4) {
        world.put(at, 4, 0);
    }
    let rig = rig_of(world, info(false));
    rig.log();
    rig
}

/// Returns the same with a message written and MSI on.
fn live(control: u16) -> Rig {
    let mut rig = rig_with(control);
    rig.write(ADDRESS, Dword, APIC);
    let data = if control & 0x80 != 0 { 12 } else { 8 };
    rig.write(MSI + data, Word, 0x41);
    rig.write(CONTROL, Word, 1);
    rig.log();
    rig
}

#[test]
fn p1_enabling_binds_and_gives_the_device_our_message() {
    let mut rig = rig();
    rig.write(0x04, Word, 0x0006);
    rig.log();
    rig.write(ADDRESS, Dword, APIC | 3);
    rig.write(MSI + 12, Word, 0x41);
    assert_eq!(rig.log(), [], "nothing before it is on");
    assert_eq!(rig.write(CONTROL, Word, 1), Effect::NONE);
    let on = [
        Write(0x04, Word, 0x0406),
        Event::Unbind,
        Event::Bind(block(0), APIC.into(), 0x41, 0),
        Write(ADDRESS, Dword, OURS.0 as u32),
        Write(MSI + 8, Dword, 0),
        Write(MSI + 12, Word, OURS.1),
        Write(CONTROL, Word, 0x0081),
    ];
    assert_eq!(rig.log(), on);
    assert_eq!(rig.read(ADDRESS, Dword), APIC, "the guest reads its own");
    assert_eq!(rig.read(MSI + 12, Dword), 0x41);
    assert_eq!(rig.read(CONTROL, Word), 0x0081);
    assert_eq!(rig.write(CONTROL, Word, 1), Effect::NONE);
    assert_eq!(rig.log(), [], "no change, nothing happens");
    assert_eq!(rig.write(CONTROL, Word, 0), Effect::NONE);
    let off = [
        Write(CONTROL, Word, 0x0080),
        Event::Unbind,
        Write(0x04, Word, 0x0006),
    ];
    assert_eq!(rig.log(), off);
}

#[test]
fn p1_every_write_of_address_or_data_acts_at_once() {
    let mut rig = live(0x0080);
    for (at, width, value, address, data) in [
        (ADDRESS, Dword, 0xfee0_2000, 0xfee0_2000, 0x41),
        (ADDRESS, Dword, 0xfee0_2000, 0xfee0_2000, 0x41),
        (MSI + 8, Dword, 1, 0x1_fee0_2000, 0x41),
        (MSI + 8, Byte, 0, 0xfee0_2000, 0x41),
        (MSI + 12, Dword, 0xffff_0052, 0xfee0_2000, 0x52),
        (MSI + 13, Byte, 1, 0xfee0_2000, 0x152),
        (ADDRESS, Word, 0x1004, 0xfee0_1004, 0x152),
    ] {
        assert_eq!(rig.write(at, width, value), Effect::NONE, "{at:#x}");
        // Nothing but the route: the device's enable stays as it is.
        assert_eq!(rig.log(), [Event::Message(address, data)], "{at:#x}");
    }
}

#[test]
fn p1_a_failed_bind_leaves_the_device_off_and_is_retried() {
    let mut rig = rig_with(0x0080);
    rig.fake.0.borrow_mut().router_error = Some(Error::Exhausted);
    rig.write(CONTROL, Word, 1);
    assert_eq!(rig.functions.counters.failures, 1);
    assert_eq!(rig.device(CONTROL, Word), 0x0080);
    assert_eq!(rig.read(CONTROL, Word), 0x0081);
    rig.fake.0.borrow_mut().router_error = None;
    rig.log();
    rig.write(MSI + 12, Word, 0x61);
    assert_eq!(rig.log()[1], Event::Bind(block(0), 0, 0x61, 0));
    assert_eq!(rig.device(CONTROL, Word), 0x0081);
    assert_eq!(rig.device(MSI + 12, Word), OURS.1);
}

#[test]
fn p2_each_form_has_its_registers() {
    // Message control, data, mask, first byte behind.
    for (control, data, mask, end) in [
        (0x0000, 8, None, 12),
        (0x0080, 12, None, 16),
        (0x0100, 8, Some(12), 20),
        (0x0180, 12, Some(16), 24),
    ] {
        let mut rig = rig_with(control);
        for at in (4..24).step_by(4) {
            rig.write(MSI + at, Dword, u32::MAX);
        }
        assert_eq!(rig.log(), [], "{control:#x}");
        assert_eq!(rig.read(ADDRESS, Dword), 0xffff_fffc);
        assert_eq!(rig.read(MSI + data, Dword), 0xffff, "{control:#x}");
        if let Some(mask) = mask {
            assert_eq!(rig.read(MSI + mask, Dword), 1, "one message");
            rig.fake.0.borrow_mut().put(MSI + mask + 4, 4, 1);
            assert_eq!(rig.read(MSI + mask + 4, Dword), 1, "pending");
        }
        for at in (end..24).step_by(4) {
            assert_eq!(rig.read(MSI + at, Dword), 0, "{control:#x} {at}");
        }
    }
}

#[test]
fn p2_messages_are_offered_up_to_what_can_be_given() {
    for (device, offered) in [(0, 0), (3, 3), (5, 4), (7, 4)] {
        let mut rig = rig_with(device << 1);
        assert_eq!(rig.read(CONTROL, Word) >> 1 & 7, offered);
        rig.write(CONTROL, Word, 0x0071);
        assert_eq!(rig.read(CONTROL, Word) >> 4 & 7, offered);
        let bind = Event::Bind(block(offered as u8), 0, 0, 0);
        assert!(rig.log().contains(&bind));
        assert_eq!(rig.device(CONTROL, Word) >> 4 & 7, offered);
    }
}

#[test]
fn p2_another_number_of_messages_is_bound_anew() {
    let mut rig = live(0x0086);
    assert_eq!(rig.write(CONTROL, Word, 0x0021), Effect::NONE);
    let log = rig.log();
    assert!(log.contains(&Write(CONTROL, Word, 0x0086)), "off between");
    assert!(log.contains(&Event::Bind(block(2), APIC.into(), 0x41, 0)));
    assert_eq!(rig.device(CONTROL, Word), 0x00a7);
}

#[test]
fn p2_masks_reach_device_and_route() {
    let mut rig = rig_with(0x0184);
    rig.write(MSI + 16, Dword, 0xffff_fff2);
    assert_eq!(rig.read(MSI + 16, Dword), 2, "four messages");
    assert_eq!(rig.log(), [], "kept until it is on");
    rig.write(CONTROL, Word, 0x0021);
    let log = rig.log();
    assert!(log.contains(&Event::Bind(block(2), 0, 0, 2)));
    assert!(log.contains(&Write(MSI + 16, Dword, 2)));
    assert_eq!(rig.write(MSI + 16, Byte, 5), Effect::NONE);
    assert_eq!(
        rig.log(),
        [Write(MSI + 16, Dword, 5), Event::Mask(5)],
        "the device first: an event on its way is held"
    );
}

/// What was sent before a register was written is here once the register was read
/// after it (PCIe 6.0 section 2.4.1): only then may a vector be given back, or an
/// event be held.
#[test]
fn m20_m21_a_register_is_read_back_before_the_router_acts() {
    let mut rig = live(0x0180);
    rig.fake.0.borrow_mut().logs_reads = true;
    rig.write(MSI + 16, Dword, 1);
    let masked = [
        Write(MSI + 16, Dword, 1),
        Event::Read(MSI + 16),
        Event::Mask(1),
    ];
    assert_eq!(rig.log(), masked);
    rig.write(CONTROL, Word, 0);
    let off = [
        Event::Read(CONTROL),
        Write(CONTROL, Word, 0x0180),
        Event::Read(CONTROL),
        Event::Unbind,
    ];
    assert_eq!(rig.log()[..4], off);
}

#[test]
fn p2_bits_that_firmware_left_set_do_not_stay() {
    // Extended data enabled, and more messages allowed than the guest asks for.
    let mut rig = live(0x06e6);
    assert_eq!(rig.device(CONTROL, Word), 0x0287);
    rig.write(CONTROL, Word, 0);
    assert_eq!(rig.device(CONTROL, Word), 0x0286);
}

#[test]
fn p3_only_one_of_msi_and_msix_is_on() {
    let mut rig = live(0x0080);
    rig.write(MSIX + 2, Word, 0xc000);
    assert_eq!(
        rig.log(),
        [Event::MsixControl(0x4000), Write(MSIX + 2, Word, 0x4004)],
        "the function mask alone"
    );
    rig.write(CONTROL, Word, 0);
    rig.write(MSIX + 2, Word, 0x8000);
    assert_eq!(rig.read(MSIX + 2, Word), 0x8004);
    rig.log();
    rig.write(CONTROL, Word, 1);
    assert_eq!(rig.log(), []);
    assert_eq!(rig.read(CONTROL, Word), 0x0080);
}

#[test]
fn c5_intx_stays_off_while_msi_is_on() {
    let mut rig = live(0x0080);
    rig.write(0x04, Word, 0x0006);
    assert_eq!(rig.log(), [Write(0x04, Word, 0x0406)]);
}

#[test]
fn c6_a_second_msi_capability_is_hidden_and_read_only() {
    let mut world = world();
    world.put(PCIE, 4, 0x0000_a005);
    let mut rig = rig_of(world, info(true));
    rig.log();
    assert_eq!(rig.capabilities(), [0xc8, 0xd0, 0xa0]);
    for at in (PCIE..PCIE + 12).step_by(4) {
        rig.write(at, Dword, u32::MAX);
    }
    assert_eq!(rig.log(), []);
}

#[test]
fn c6_an_msi_that_overlaps_is_hidden_and_read_only() {
    let mut world = world();
    // With mask bits it would run into PCI Express.
    world.put(CONTROL, 2, 0x0180);
    let mut rig = rig_of(world, info(true));
    rig.log();
    assert_eq!(rig.capabilities(), [0xc8, 0xe0, 0xa0]);
    for at in (MSI..PCIE).step_by(4) {
        rig.write(at, Dword, u32::MAX);
    }
    assert_eq!(rig.log(), []);
}

#[test]
fn m24_reset_switches_off_and_forgets() {
    let mut rig = live(0x0180);
    rig.write(MSI + 16, Dword, 1);
    rig.log();
    // Nothing resets this function, and that is said when all else is done.
    assert_eq!(rig.functions.reset(VMM, FunctionId(0)), Err(Error::Refused));
    let log = rig.log();
    let at = |event| log.iter().position(|e| *e == event).expect("happened");
    assert!(at(Write(CONTROL, Word, 0x0180)) < at(Event::Unbind));
    for register in [ADDRESS, MSI + 8, MSI + 12, MSI + 16] {
        assert_eq!(rig.read(register, Dword), 0);
    }
    assert_eq!(rig.read(CONTROL, Word), 0x0180);
    rig.write(0x04, Word, 0x0006);
    assert_eq!(
        rig.log(),
        [Write(0x04, Word, 0x0006)],
        "INTx is the guest's"
    );
}

#[test]
fn m23_throttled_messages_are_masked_where_they_can_be() {
    let mut rig = live(0x0180);
    rig.write(MSI + 16, Dword, 0x0000_0000);
    rig.log();
    assert_eq!(rig.functions.throttle_msi(VMM, FunctionId(0), true), Ok(()));
    assert_eq!(rig.device(MSI + 16, Dword), u32::MAX);
    assert_eq!(rig.device(CONTROL, Word) & 1, 1, "it stays on");
    // A mask that the guest sets meanwhile reaches the device at the end.
    rig.write(MSI + 16, Dword, 1);
    assert_eq!(rig.device(MSI + 16, Dword), u32::MAX);
    assert_eq!(rig.read(MSI + 16, Dword), 1, "the guest sees its own");
    assert_eq!(
        rig.functions.throttle_msi(VMM, FunctionId(0), false),
        Ok(())
    );
    assert_eq!(rig.device(MSI + 16, Dword), 1);
}

#[test]
fn m23_messages_without_mask_bits_are_switched_off() {
    let mut rig = live(0x0080);
    assert_eq!(rig.functions.throttle_msi(VMM, FunctionId(0), true), Ok(()));
    assert_eq!(rig.device(CONTROL, Word), 0x0080);
    assert_eq!(rig.device(0x04, Word) & 0x400, 0x400, "INTx stays off");
    assert_eq!(rig.read(CONTROL, Word), 0x0081, "the guest sees its own");
    assert_eq!(
        rig.functions.throttle_msi(VMM, FunctionId(0), false),
        Ok(())
    );
    assert_eq!(rig.device(CONTROL, Word), 0x0081);
    // The number of messages stays.
    let mut rig = live(0x0082);
    rig.write(CONTROL, Word, 0x11);
    assert_eq!(rig.functions.throttle_msi(VMM, FunctionId(0), true), Ok(()));
    assert_eq!(rig.device(CONTROL, Word), 0x0092);
    assert_eq!(
        rig.functions.throttle_msi(VMM, FunctionId(0), false),
        Ok(())
    );
    assert_eq!(rig.device(CONTROL, Word), 0x0093);
}

#[test]
fn m23_only_live_messages_of_the_own_function_are_throttled() {
    let mut rig = rig_with(0x0080);
    let refused = Err(Error::NotFound);
    assert_eq!(
        rig.functions.throttle_msi(VMM, FunctionId(0), true),
        refused,
        "off"
    );
    let mut rig = live(0x0080);
    assert_eq!(
        rig.functions.throttle_msi(VMM, FunctionId(1), true),
        refused
    );
    assert_eq!(
        rig.functions
            .throttle_msi(Caller(VMM.0 + 1), FunctionId(0), true),
        refused
    );
    assert_eq!(rig.device(CONTROL, Word), 0x0081);
    // Off and on again by the guest ends it.
    assert_eq!(rig.functions.throttle_msi(VMM, FunctionId(0), true), Ok(()));
    rig.write(CONTROL, Word, 0);
    rig.write(CONTROL, Word, 1);
    assert_eq!(rig.device(CONTROL, Word), 0x0081);
    let mut rig = live(0x0180);
    assert_eq!(rig.functions.throttle_msi(VMM, FunctionId(0), true), Ok(()));
    rig.write(CONTROL, Word, 0);
    rig.write(CONTROL, Word, 1);
    rig.write(MSI + 16, Dword, 1);
    assert_eq!(rig.device(MSI + 16, Dword), 1);
}

#[test]
fn m23_the_next_pci_config_lets_a_throttled_function_send() {
    // Of the last the guest may use both messages that it has.
    for (control, guest, on) in [
        (0x0080, 0x01, 0x0081),
        (0x0180, 0x01, 0x0181),
        (0x0082, 0x11, 0x0093),
    ] {
        let mut world = world();
        world.put(MSI + 1, 1, MSIX.into());
        world.put(CONTROL, 2, control);
        let fake = Fake(Rc::new(RefCell::new(world)));
        let kept = Kept::<{ kept_words(1) }>::new();
        let start = || {
            let functions = [(info(false), VMM, fake.clone())];
            let mut all = Functions::<'_, _, _, 1>::new(msix(&fake), router(&fake));
            all.take_over(functions, &kept);
            all
        };
        let mut functions = start();
        let mut write = |at, width, value| functions.write(VMM, bdf(), at, width, value);
        let _ = write(ADDRESS, Dword, APIC);
        let _ = write(MSI + 12, Word, 0x41);
        let _ = write(CONTROL, Word, guest);
        assert_eq!(functions.throttle_msi(VMM, FunctionId(0), true), Ok(()));
        drop(functions);
        start();
        let mut hardware = fake.clone();
        let mut device = |at, width| Hardware::read(&mut hardware, at, width);
        assert_eq!(device(CONTROL, Word), on);
        if control & 0x100 != 0 {
            assert_eq!(device(MSI + 16, Dword), 0);
        }
    }
}
