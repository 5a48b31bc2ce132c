//! What takes a function back to start (M24), with a function-level reset or
//! without (C8).

use super::*;

#[test]
fn c8_function_level_reset_resets_everything() {
    let mut rig = rig();
    rig.write(MSIX + 2, Word, 0x8000);
    rig.write(0x3c, Byte, 0x77);
    rig.write(0x04, Word, 0x0000);
    rig.write(0x10, Dword, 0xd000_0000);
    rig.log();
    let effect = rig.write(PCIE + 8, Word, 0x8000);
    assert_eq!(
        effect,
        Effect::DECODE.and(Effect::ROUTES).and(Effect::RESET)
    );
    let log = rig.log();
    assert_eq!(log.last(), Some(&Write(PCIE + 8, Word, 0xa810)));
    assert!(log.contains(&Event::MsixReset), "{log:?}");
    rig.pass(RESET_MS);
    assert_eq!(rig.read(0x00, Dword), 0x10d3_8086);
    assert_eq!(rig.device(PCIE + 8, Word), 0x2810);
    assert_eq!(rig.device(0x10, Dword), 0xfe80_0000);
    assert_eq!(rig.device(0x14, Dword), 0xfe90_0000);
    assert_eq!(rig.device(0x18, Dword), 1);
    assert_eq!(rig.device(0x1c, Dword), 0xc000);
    assert_eq!(rig.device(0x04, Word), 0x0402);
    assert_eq!(rig.read(0x04, Word), 0x0002);
    assert_eq!(rig.read(0x3c, Byte), 20);
    assert_eq!(rig.bar(0), 0xfe80_0000);
    assert_eq!(rig.read(MSIX + 2, Word), 4);
    assert_eq!(rig.functions.counters.resets, 1);
    assert_eq!(rig.functions.counters.dropped, 0);
}

#[test]
fn c8_a_function_that_is_reset_answers_nothing_and_holds_nobody_up() {
    let fakes = [0, 1].map(|_| Fake(Rc::new(RefCell::new(world()))));
    let (msix, router) = (msix(&fakes[0]), router(&fakes[0]));
    let other = Caller(6);
    let [a, b] = fakes.clone();
    let list = [(info(false), VMM, a), (info(false), other, b)];
    let kept = Kept::<{ kept_words(2) }>::new();
    let mut functions: Functions<'_, _, _, 2> = Functions::new(list, msix, router, &kept);
    // The clock stands still, so that nobody can wait for it.
    let reset = functions.write(VMM, bdf(), PCIE + 8, Word, 0x8000);
    assert!(reset.is_ok_and(|effect| effect.contains(Effect::RESET)));
    fakes[0].0.borrow_mut().now += RESET_MS - 1;
    assert_eq!(functions.read(VMM, bdf(), 0x00, Dword), Ok(u32::MAX));
    assert_eq!(functions.read(VMM, bdf(), 0x06, Byte), Ok(0xff));
    let write = functions.write(VMM, bdf(), 0x04, Word, 0x0406);
    assert_eq!(write, Ok(Effect::NONE));
    assert_eq!(functions.counters.dropped, 3);
    assert_eq!(functions.bar(VMM, 0, 0), Ok(0xfe80_0000));
    assert_eq!(functions.read(other, bdf(), 0x00, Dword), Ok(0x10d3_8086));
    fakes[0].0.borrow_mut().now += 1;
    assert_eq!(functions.read(VMM, bdf(), 0x04, Word), Ok(0x0002));
    assert_eq!(functions.counters.dropped, 3);
}

#[test]
fn c8_a_bar_is_there_when_the_vmm_asks_after_the_reset() {
    let mut rig = rig();
    assert_eq!(rig.functions.reset(VMM, 0), Ok(RESET_MS));
    rig.pass(RESET_MS);
    assert_eq!(rig.device(0x10, Dword), 0);
    assert_eq!(rig.bar(0), 0xfe80_0000);
    assert_eq!(rig.device(0x10, Dword), 0xfe80_0000);
    assert_eq!(rig.device(0x04, Word), 0x0402);
}

#[test]
fn c8_a_guest_that_ends_while_its_function_is_reset() {
    let mut rig = rig();
    rig.write(PCIE + 8, Word, 0x8000);
    rig.log();
    rig.pass(30);
    assert_eq!(rig.functions.reset(VMM, 0), Ok(RESET_MS - 30));
    // What msix and irq-router hold is void, and the device is left alone.
    assert_eq!(rig.log(), [Event::MsixReset, Event::Unbind]);
    rig.functions.release(0);
    assert_eq!(rig.log(), [Event::MsixReset, Event::Unbind]);
    rig.pass(RESET_MS - 30);
    assert_eq!(rig.read(0x04, Word), 0x0002);
    assert_eq!(rig.device(0x10, Dword), 0xfe80_0000);
    assert_eq!(rig.functions.reset(VMM, 0), Ok(RESET_MS));
}

#[test]
fn c8_a_crash_in_a_reset_waits_for_its_end() {
    let fake = Fake(Rc::new(RefCell::new(world())));
    let kept = Kept::<{ kept_words(1) }>::new();
    let start = || {
        let functions = [(info(false), VMM, fake.clone())];
        Functions::<'_, _, _, 1>::new(functions, msix(&fake), router(&fake), &kept)
    };
    let reset = start().write(VMM, bdf(), PCIE + 8, Word, 0x8000);
    assert!(reset.is_ok_and(|effect| effect.contains(Effect::RESET)));
    fake.0.borrow_mut().tick = 1;
    let mut functions = start();
    fake.0.borrow_mut().tick = 0;
    assert_eq!(functions.read(VMM, bdf(), 0x34, Byte), Ok(PM.into()));
    let mut device = fake.clone();
    assert_eq!(Hardware::read(&mut device, 0x10, Dword), 0xfe80_0000);
    assert_eq!(functions.reset(VMM, 0), Ok(RESET_MS));
}

#[test]
fn c8_without_the_capability_the_bit_does_nothing() {
    let mut world = world();
    world.put(PCIE + 4, 4, 0x0000_8cc1);
    let mut rig = rig_of(world, info(false));
    rig.log();
    assert_eq!(rig.write(PCIE + 8, Word, 0x8000), Effect::NONE);
    assert_eq!(rig.log(), [Write(PCIE + 8, Word, 0)]);
    assert_eq!(rig.functions.counters.resets, 0);
}

#[test]
fn m24_start_and_reset_quiesce_in_order() {
    let mut world = world();
    world.put(0x04, 2, 0x0005);
    let mut rig = rig_of(world, info(false));
    let msi_off = Write(MSI + 2, Word, 0x0080);
    let quiesced = [
        Write(0x04, Word, 0x0007),
        msi_off,
        Write(MSIX + 2, Word, 0x0004),
        Event::MsixReset,
        Event::Unbind,
        Write(0x04, Word, 0x0407),
        Write(0x04, Word, 0x0402),
    ];
    assert_eq!(rig.log(), quiesced);
    assert_eq!(rig.read(0x04, Word), 0, "the firmware had not decoded it");
    rig.write(0x04, Word, 0x0406);
    rig.write(MSIX + 2, Word, 0x8000);
    rig.write(0x3c, Byte, 0x77);
    rig.log();
    assert_eq!(rig.functions.reset(VMM, 0), Ok(RESET_MS));
    let again = [
        Write(0x04, Word, 0x0406),
        msi_off,
        Write(MSIX + 2, Word, 0x0004),
        Event::MsixReset,
        Event::Unbind,
        Write(0x04, Word, 0x0406),
        Write(0x04, Word, 0x0402),
    ];
    let log = rig.log();
    assert_eq!(log[..again.len()], again);
    // The device can do a function-level reset, and does it then (C8).
    let reset = Write(PCIE + 8, Word, 0xa810);
    assert!(log[again.len()..].contains(&reset), "{log:?}");
    rig.pass(RESET_MS);
    assert_eq!(rig.read(0x04, Word), 0);
    assert_eq!(rig.read(0x3c, Byte), 20);
}

#[test]
fn m24_a_guest_that_is_gone_leaves_a_silent_function() {
    let mut world = world();
    world.put(PCIE + 4, 4, 0x0000_8cc1);
    let mut rig = rig_of(world, info(false));
    rig.write(0x04, Word, 0x0406);
    rig.write(MSIX + 2, Word, 0x8000);
    rig.log();
    rig.functions.release(0);
    let log = rig.log();
    let off = log.iter().position(|e| *e == Write(MSIX + 2, Word, 0x0004));
    let masked = log.iter().position(|e| *e == Event::MsixReset);
    let silent = log.iter().position(|e| *e == Write(0x04, Word, 0x0402));
    assert!(off.is_some() && off < masked && masked < silent, "{log:?}");
    // Without the capability there is no reset; another function is nobody's.
    let device_control = |e: &Event| matches!(e, Write(offset, ..) if *offset == PCIE + 8);
    assert!(!log.iter().any(device_control), "{log:?}");
    rig.functions.release(1);
    assert_eq!(rig.log(), []);
}
