//! What takes a function back to start (M24), with a function-level reset or
//! without (C8).

use super::*;
use crate::Method;
use pci::CommonRegisters;
use spec::FunctionId;

#[test]
fn c8_function_level_reset_resets_everything() {
    let mut rig = rig_of(world(), info_with_ports());
    rig.write(MSIX + 2, Word, 0x8000);
    rig.write(0x3c, Byte, 0x77);
    rig.write(0x04, Word, 0x0000);
    rig.write(0x10, Dword, 0xd000_0000);
    rig.log();
    let effect = rig.write(PCIE + 8, Word, 0x8000);
    assert_eq!(effect, Effect::DECODE.and(Effect::RESET));
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
    assert_eq!(rig.device(0x04, Word), 0x0403);
    assert_eq!(rig.read(0x04, Word), 0x0003);
    assert_eq!(rig.read(0x3c, Byte), 20);
    assert_eq!((rig.bar(0), rig.bar(3)), (0xfe80_0000, 0xc000));
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
    let mut functions: Functions<'_, _, _, 2> = Functions::new(msix, router);
    functions.take_over(list, &kept);
    // The clock stands still, so that waiting for it would not end.
    let reset = functions.write(VMM, bdf(), PCIE + 8, Word, 0x8000);
    assert!(reset.is_ok_and(|effect| effect.contains(Effect::RESET)));
    fakes[0].0.borrow_mut().now += RESET_MS - 1;
    assert_eq!(functions.read(VMM, bdf(), 0x00, Dword), Ok(u32::MAX));
    assert_eq!(functions.read(VMM, bdf(), 0x06, Byte), Ok(0xff));
    let write = functions.write(VMM, bdf(), 0x04, Word, 0x0406);
    assert_eq!(write, Ok(Effect::NONE));
    assert_eq!(functions.counters.dropped, 3);
    assert_eq!(functions.bar(VMM, FunctionId(0), 0), Ok(0xfe80_0000));
    assert_eq!(functions.read(other, bdf(), 0x00, Dword), Ok(0x10d3_8086));
    fakes[0].0.borrow_mut().now += 1;
    assert_eq!(functions.read(VMM, bdf(), 0x04, Word), Ok(0x0002));
    assert_eq!(functions.counters.dropped, 3);
}

#[test]
fn c8_a_bar_is_there_when_the_vmm_asks_after_the_reset() {
    let mut rig = rig();
    assert_eq!(rig.functions.reset(VMM, FunctionId(0)), Ok(RESET_MS));
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
    assert_eq!(rig.functions.reset(VMM, FunctionId(0)), Ok(RESET_MS - 30));
    // What msix and irq-router hold is void, and the device is left alone.
    assert_eq!(rig.log(), [Event::MsixReset, Event::Unbind]);
    rig.functions.release(FunctionId(0));
    assert_eq!(rig.log(), [Event::MsixReset, Event::Unbind]);
    rig.pass(RESET_MS - 30);
    assert_eq!(rig.read(0x04, Word), 0x0002);
    assert_eq!(rig.device(0x10, Dword), 0xfe80_0000);
    assert_eq!(rig.functions.reset(VMM, FunctionId(0)), Ok(RESET_MS));
}

#[test]
fn c8_a_crash_in_a_reset_waits_for_its_end() {
    let fake = Fake(Rc::new(RefCell::new(world())));
    let kept = Kept::<{ kept_words(1) }>::new();
    let start = || {
        let functions = [(info(false), VMM, fake.clone())];
        let mut all = Functions::<'_, _, _, 1>::new(msix(&fake), router(&fake));
        all.take_over(functions, &kept);
        all
    };
    let reset = start().write(VMM, bdf(), PCIE + 8, Word, 0x8000);
    assert!(reset.is_ok_and(|effect| effect.contains(Effect::RESET)));
    // It comes back later than the reset was to be over, and not while anybody
    // waits for it.
    fake.0.borrow_mut().slow = 50;
    let mut functions = start();
    assert_eq!(functions.read(VMM, bdf(), 0x34, Byte), Ok(0xff));
    fake.0.borrow_mut().now += RESET_MS;
    assert_eq!(functions.read(VMM, bdf(), 0x34, Byte), Ok(0xff));
    fake.0.borrow_mut().now += 50;
    assert_eq!(functions.read(VMM, bdf(), 0x34, Byte), Ok(PM.into()));
    assert_eq!(functions.read(VMM, bdf(), MSIX + 2, Word), Ok(4));
    let mut device = fake.clone();
    assert_eq!(Hardware::read(&mut device, 0x10, Dword), 0xfe80_0000);
    assert_eq!(Hardware::read(&mut device, PCIE + 8, Word), 0x2810);
    assert_eq!(functions.reset(VMM, FunctionId(0)), Ok(RESET_MS));
}

/// Takes the function back, and repeats that as often as requested. Returns the
/// answer, and how long it took.
fn life_ends(rig: &mut Rig) -> (Result<u64, Error>, u64) {
    let start = rig.fake.0.borrow().now;
    for _ in 0..2000 {
        match rig.functions.reset(VMM, FunctionId(0)) {
            Ok(left) if left != 0 => rig.pass(left),
            end => return (end, rig.fake.0.borrow().now - start),
        }
    }
    panic!("it takes for ever");
}

/// Returns a function in use, whose log begins with its end.
fn used(world: World, info: FunctionInfo) -> Rig {
    let mut rig = rig_of(world, info);
    rig.write(0x04, Word, 0x0006);
    rig.log();
    rig
}

fn is_back(rig: &mut Rig) {
    assert_eq!(rig.device(0x10, Dword), 0xfe80_0000);
    assert_eq!(rig.device(0x14, Dword), 0xfe90_0000);
    assert_eq!(rig.device(0x18, Dword), 1);
    assert_eq!(rig.device(0x04, Word), 0x0402);
    assert_eq!(rig.device(0x0c, Byte), 0x10);
    assert_eq!(rig.device(0x3c, Byte), 0x0b);
    assert_eq!(rig.device(PCIE + 8, Word), 0x2810);
    assert_eq!(rig.bar(0), u64::MAX, "the guest has not decoded it yet");
}

/// Returns a device without function-level reset.
fn plain() -> World {
    let mut world = world();
    world.put(PCIE + 4, 4, 0x0000_8cc1);
    world.put(0x0c, 1, 0x10);
    // The firmware had decode off, so that reading the BARs does not decode them.
    world.put(0x04, 2, 0);
    world
}

#[test]
fn c8_a_slow_function_is_polled_before_anything_is_restored() {
    // bsa-acs#194: some need longer than 100 ms, and answer ones until then.
    for slow in [0, 1, 50, 5000, PATIENCE_MS - 8000] {
        let mut world = world();
        world.put(0x0c, 1, 0x10);
        world.put(0x04, 2, 0);
        world.slow = slow;
        let mut rig = used(world, info(false));
        let (end, took) = life_ends(&mut rig);
        assert_eq!(end, Ok(0));
        assert!(took >= RESET_MS + slow, "{took}");
        is_back(&mut rig);
        assert_eq!(rig.functions.take_trouble(), None);
    }
}

#[test]
fn c8_what_never_comes_back_is_named_and_reads_ones_for_good() {
    let fake = Fake(Rc::new(RefCell::new(world())));
    let kept = Kept::<{ kept_words(1) }>::new();
    let start = || {
        let functions = [(info(false), VMM, fake.clone())];
        let mut all = Functions::<'_, _, _, 1>::new(msix(&fake), router(&fake));
        all.take_over(functions, &kept);
        all
    };
    let mut functions = start();
    fake.0.borrow_mut().slow = u64::MAX;
    assert!(functions.write(VMM, bdf(), PCIE + 8, Word, 0x8000).is_ok());
    fake.0.borrow_mut().now += RESET_MS + PATIENCE_MS - 1;
    assert_eq!(functions.read(VMM, bdf(), 0x00, Dword), Ok(u32::MAX));
    assert_eq!(functions.take_trouble(), None);
    assert!(
        functions
            .reset(VMM, FunctionId(0))
            .is_ok_and(|left| left > 0)
    );
    fake.0.borrow_mut().now += 1;
    assert_eq!(functions.read(VMM, bdf(), 0x00, Dword), Ok(u32::MAX));
    assert_eq!(
        functions.take_trouble(),
        Some((FunctionId(0), Trouble::Gone))
    );
    assert_eq!(functions.take_trouble(), None, "once");
    // It may answer later; neither this pci-config nor the next looks again.
    fake.0.borrow_mut().slow = 0;
    for mut functions in [functions, start()] {
        assert_eq!(functions.read(VMM, bdf(), 0x00, Dword), Ok(u32::MAX));
        let write = functions.write(VMM, bdf(), 0x04, Word, 6);
        assert_eq!(write, Ok(Effect::NONE));
        assert_eq!(functions.reset(VMM, FunctionId(0)), Err(Error::Failed));
        assert_eq!(functions.bar(VMM, FunctionId(0), 0), Ok(u64::MAX));
    }
}

#[test]
fn c8_requests_on_their_way_are_waited_for_but_not_for_ever() {
    let mut rig = rig();
    rig.fake.0.borrow_mut().put(PCIE + 10, 2, 0x0020);
    let begun = |rig: &Rig| {
        let log = rig.log();
        log.contains(&Write(PCIE + 8, Word, 0xa810))
    };
    assert_eq!(rig.functions.reset(VMM, FunctionId(0)), Ok(1));
    assert!(!begun(&rig));
    rig.pass(50);
    rig.fake.0.borrow_mut().put(PCIE + 10, 2, 0);
    assert_eq!(rig.functions.reset(VMM, FunctionId(0)), Ok(RESET_MS));
    assert!(begun(&rig));
    rig.pass(RESET_MS);
    assert_eq!(rig.read(0x00, Word), 0x8086);
    rig.fake.0.borrow_mut().put(PCIE + 10, 2, 0x0020);
    assert_eq!(rig.functions.reset(VMM, FunctionId(0)), Ok(1));
    rig.pass(100);
    assert_eq!(
        rig.functions.reset(VMM, FunctionId(0)),
        Ok(RESET_MS),
        "cut off"
    );
    assert!(begun(&rig));
}

#[test]
fn m24_power_management_resets_what_has_no_flr() {
    let mut world = plain();
    world.put(PM + 4, 2, 0x2000);
    world.power_resets = true;
    let mut rig = used(world, info(false));
    let (end, took) = life_ends(&mut rig);
    assert_eq!((end, took), (Ok(0), 2 * POWER_MS));
    let log = rig.log();
    let at = |event| log.iter().position(|e| *e == event).expect("happened");
    let silent = at(Write(0x04, Word, 0x0402));
    let asleep = at(Write(PM + 4, Word, 0x2003));
    assert!(silent < asleep && asleep < at(Write(PM + 4, Word, 0x2000)));
    is_back(&mut rig);
    assert_eq!(rig.functions.counters.resets, 1);
}

#[test]
fn m24_no_soft_reset_is_no_reset() {
    let mut rig = used(plain(), info(false));
    assert_eq!(life_ends(&mut rig).0, Err(Error::Refused));
    let slept = |e: &Event| matches!(e, Write(offset, ..) if *offset == PM + 4);
    assert!(!rig.log().iter().any(slept));
    assert_eq!(
        rig.functions.take_trouble(),
        Some((FunctionId(0), Trouble::Unclean))
    );
    // The same answer until somebody uses it.
    assert_eq!(rig.functions.reset(VMM, FunctionId(0)), Err(Error::Refused));
    assert_eq!(rig.log(), []);
    assert_eq!(rig.device(0x04, Word), 0x0402, "quiet all the same");
}

#[test]
fn m24_a_reset_that_is_none_is_not_believed() {
    // As QEMU 7.2's e1000e: PMCSR says so, and nothing happens. Then a broken
    // function-level reset.
    for flr in [false, true] {
        let mut world = plain();
        world.put(PM + 4, 2, 0x2000);
        world.flr_resets = false;
        if flr {
            world.put(PCIE + 4, 4, 0x1000_8cc1);
        }
        let mut rig = used(world, info(false));
        assert_eq!(life_ends(&mut rig).0, Err(Error::Refused));
        assert_eq!(
            rig.functions.take_trouble(),
            Some((FunctionId(0), Trouble::Unclean))
        );
        is_back(&mut rig);
        // The same function with a reset that works next.
        rig.write(0x04, Word, 0x0006);
        rig.fake.0.borrow_mut().power_resets = true;
        assert_eq!(life_ends(&mut rig).0, Ok(0));
    }
}

#[test]
fn m24_what_is_forgotten_in_part_was_not_reset() {
    for survives in [0x04, 0x10, 0x14, 0x18, 0x1c] {
        let mut world = plain();
        world.put(PM + 4, 2, 0x2000);
        world.put(0x1c, 4, 0xc001);
        world.power_resets = true;
        world.survives = survives;
        let mut rig = used(world, info(false));
        let (end, _) = life_ends(&mut rig);
        assert_eq!(end, Err(Error::Refused), "{survives:#x}");
    }
}

#[test]
fn m24_the_owners_word_starts_a_guest_all_the_same() {
    let mut info = info(false);
    info.reset_optional = 1;
    let mut rig = used(plain(), info);
    assert_eq!(life_ends(&mut rig).0, Ok(0));
    assert_eq!(
        rig.functions.take_trouble(),
        Some((FunctionId(0), Trouble::Unclean))
    );
}

#[test]
fn m24_advanced_features_reset_comes_before_power_management() {
    let mut world = plain();
    world.put(PM, 4, 0x0022_5001);
    world.put(PM + 4, 2, 0x2000);
    world.put(AF, 4, 0x0306_d013);
    world.put(AF + 4, 4, 0);
    let mut rig = used(world, info(false));
    assert_eq!(rig.capabilities(), [0xc8, 0xd0, 0xe0, 0xa0], "not shown");
    let (end, took) = life_ends(&mut rig);
    assert_eq!((end, took), (Ok(0), RESET_MS));
    assert!(rig.log().contains(&Write(AF + 4, Byte, 1)));
    is_back(&mut rig);
    // Requests of its own are looked for where this capability has them.
    rig.write(0x04, Word, 0x0006);
    rig.fake.0.borrow_mut().put(AF + 5, 1, 1);
    assert_eq!(rig.functions.reset(VMM, FunctionId(0)), Ok(1));
}

#[test]
fn c6_advanced_features_are_read_only_even_if_permissive() {
    let mut world = world();
    world.put(PM, 4, 0x0022_5001);
    world.put(AF, 4, 0x0306_d013);
    let mut rig = rig_of(world, info(true));
    rig.log();
    for offset in AF..AF + 6 {
        rig.write(offset, Byte, 1);
    }
    assert_eq!(rig.log(), []);
}

/// Returns an 82574L whose registers are as a driver left them.
fn armed(resets: bool) -> (World, FunctionInfo) {
    let mut world = plain();
    world.put(PM + 4, 2, 0x2000);
    world.model_resets = resets;
    let left = [
        (0x100, 0x0400_801a),
        (0x2800, 0x1000),
        (0x2818, 40),
        (0xd0, 1),
    ];
    world.registers = Some(BTreeMap::from(left));
    let mut info = info(false);
    (info.vendor, info.device) = (0x8086, 0x10d3);
    (world, info)
}

#[test]
fn m24_a_model_that_is_known_has_a_reset_of_its_own() {
    let (world, info) = armed(true);
    let mut rig = used(world, info);
    assert_eq!(life_ends(&mut rig).0, Ok(0));
    is_back(&mut rig);
    for offset in [0x100, 0x2800, 0x2818, 0xd0] {
        assert_eq!(Hardware::read_register(&mut rig.fake, offset, Dword), 0);
    }
    assert_eq!(rig.functions.take_trouble(), None);
    // The same registers of another model mean something else.
    let (world, mut info) = armed(true);
    info.device += 1;
    let mut rig = used(world, info);
    assert_eq!(life_ends(&mut rig).0, Err(Error::Refused));
    assert_eq!(Hardware::read_register(&mut rig.fake, 0x2818, Dword), 40);
}

#[test]
fn m24_a_model_that_is_known_is_stopped_before_its_messages_are_off() {
    let (world, info) = armed(true);
    let mut rig = rig_of(world, info);
    // It is stopped at the start too, whatever the firmware left.
    assert!(rig.fake.0.borrow().stopped_with_msix_on.is_some());
    rig.fake.0.borrow_mut().stopped_with_msix_on = None;
    rig.write(MSIX + 2, Word, 0x8000);
    assert_eq!(
        rig.functions.reset(VMM, FunctionId(0)),
        Ok(crate::quirk::STOP_MS),
        "its timers run out"
    );
    assert_eq!(rig.device(MSIX + 2, Word) & 0x8000, 0x8000);
    rig.pass(crate::quirk::STOP_MS - 1);
    assert_eq!(rig.functions.reset(VMM, FunctionId(0)), Ok(1));
    assert_eq!(rig.device(MSIX + 2, Word) & 0x8000, 0x8000);
    assert_eq!(life_ends(&mut rig).0, Ok(0));
    assert_eq!(rig.fake.0.borrow().stopped_with_msix_on, Some(true));
    assert_eq!(rig.device(MSIX + 2, Word) & 0x8000, 0);
}

#[test]
fn m24_what_the_guest_changed_of_the_link_is_undone() {
    // ASPM, which the firmware had on and a driver may switch off.
    for (firmware, guest) in [(0x0042, 0x0040), (0x0043, 0x0041), (0x0040, 0x0040)] {
        let mut world = plain();
        world.put(PCIE + 4, 4, 0x1000_8cc1);
        world.put(PCIE + 0x10, 2, firmware);
        let mut rig = used(world, info(false));
        rig.write(PCIE + 0x10, Word, guest);
        assert_eq!(rig.device(PCIE + 0x10, Word), guest);
        let log = rig.log();
        assert_eq!(life_ends(&mut rig).0, Ok(0));
        assert_eq!(rig.device(PCIE + 0x10, Word), firmware, "{log:?}");
    }
}

#[test]
fn m24_a_guest_that_is_gone_leaves_its_model_quiet_at_once() {
    let (world, info) = armed(true);
    let mut rig = used(world, info);
    rig.write(MSIX + 2, Word, 0x8000);
    rig.functions.release(FunctionId(0));
    let world = rig.fake.0.borrow();
    assert_eq!(world.config[usize::from(MSIX) + 3] & 0x80, 0, "MSI-X");
    assert_eq!(world.config[4] & 4, 0, "bus mastering");
}

#[test]
fn m24_a_model_whose_interrupts_stay_on_was_not_reset() {
    let (world, info) = armed(false);
    let mut rig = used(world, info);
    assert_eq!(life_ends(&mut rig).0, Err(Error::Failed), "its reset hangs");
}

#[test]
fn m24_a_model_that_keeps_anything_was_not_reset() {
    // Interrupts, receive and transmit enables, vectors, and each ring's registers.
    let rings = [0x2800, 0x2900, 0x3800, 0x3900];
    let rings = rings.map(|ring| [0x00, 0x04, 0x08, 0x10, 0x18].map(|at| ring + at));
    let others = [0xd0, 0x100, 0x400, 0xe4];
    for register in rings.into_iter().flatten().chain(others) {
        let (mut world, info) = armed(true);
        let registers = world.registers.as_mut().expect("it has them");
        registers.insert(register, 2);
        world.stuck = Some(register);
        let mut rig = used(world, info);
        let end = life_ends(&mut rig).0;
        assert_eq!(end, Err(Error::Refused), "{register:#x}");
    }
}

#[test]
fn m24_a_crash_in_any_step_of_a_reset_begins_it_anew() {
    for crash_after in 0..6 {
        let (mut world, info) = armed(true);
        world.put(0x3c, 1, 0x0b);
        let fake = Fake(Rc::new(RefCell::new(world)));
        let kept = Kept::<{ kept_words(1) }>::new();
        let start = || {
            let functions = [(info, VMM, fake.clone())];
            let mut all = Functions::<'_, _, _, 1>::new(msix(&fake), router(&fake));
            all.take_over(functions, &kept);
            all
        };
        let mut functions = start();
        assert!(functions.write(VMM, bdf(), 0x04, Word, 6).is_ok());
        let mut end = Ok(1);
        for step in 0..50 {
            if step == crash_after {
                functions = start();
            }
            end = functions.reset(VMM, FunctionId(0));
            match end {
                Ok(0) | Err(_) => break,
                Ok(left) => fake.0.borrow_mut().now += left,
            }
        }
        assert_eq!(end, Ok(0), "crash after {crash_after}");
        let mut device = fake.clone();
        assert_eq!(Hardware::read(&mut device, 0x10, Dword), 0xfe80_0000);
        assert_eq!(Hardware::read(&mut device, PCIE + 8, Word), 0x2810);
        assert_eq!(Hardware::read_register(&mut device, 0x2818, Dword), 0);
    }
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
    assert_eq!(rig.functions.reset(VMM, FunctionId(0)), Ok(RESET_MS));
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
    assert_eq!(
        rig.functions.reset(VMM, FunctionId(0)),
        Ok(0),
        "once is enough"
    );
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
    rig.functions.release(FunctionId(0));
    let log = rig.log();
    let off = log.iter().position(|e| *e == Write(MSIX + 2, Word, 0x0004));
    let masked = log.iter().position(|e| *e == Event::MsixReset);
    let silent = log.iter().position(|e| *e == Write(0x04, Word, 0x0402));
    assert!(off.is_some() && off < masked && masked < silent, "{log:?}");
    // Without the capability there is no reset; the other function has no owner.
    let device_control = |e: &Event| matches!(e, Write(offset, ..) if *offset == PCIE + 8);
    assert!(!log.iter().any(device_control), "{log:?}");
    rig.functions.release(FunctionId(1));
    assert_eq!(rig.log(), []);
}

#[test]
fn m24_the_ways_to_reset_are_told_in_their_order() {
    let ways = |world| -> Vec<Method> {
        let mut rig = rig_of(world, info(false));
        rig.functions.reset_methods(FunctionId(0)).collect()
    };
    // Power management says that D3hot forgets nothing.
    assert_eq!(ways(world()), [Method::Flr(PCIE)]);
    let mut both = world();
    both.put(PM + 4, 2, 0);
    assert_eq!(ways(both), [Method::Flr(PCIE), Method::Power(PM)]);
    let mut none = world();
    none.put(PCIE + 4, 4, 0);
    assert_eq!(ways(none), []);
    // One that is being reset is left alone.
    let mut rig = rig();
    rig.write(PCIE + 8, Word, 0x8000);
    rig.log();
    assert_eq!(rig.functions.reset_methods(FunctionId(0)).count(), 0);
    assert_eq!(rig.functions.reset_methods(FunctionId(1)).count(), 0);
}

/// Returns a virtio function that its driver left with two queues.
fn driven() -> (World, FunctionInfo) {
    let mut world = plain();
    world.virtio = Some(Common {
        status: 0xf,
        takes: 0,
        over: None,
        queues: 3,
        selected: 1,
        enabled: BTreeSet::from([0, 2]),
        stuck: None,
    });
    let mut info = info(false);
    (info.vendor, info.device) = (0x1af4, 0x1041);
    info.common = CommonRegisters {
        there: 1,
        bar: 1,
        offset: 0x2000 + u64::from(COMMON),
    };
    (world, info)
}

#[test]
fn m24_a_virtio_function_is_reset_by_its_device_status() {
    for takes in [0, 1, 300, 9_000] {
        let (mut world, info) = driven();
        world.virtio.as_mut().expect("it is virtio").takes = takes;
        let mut rig = used(world, info);
        let ways: Vec<_> = rig.functions.reset_methods(FunctionId(0)).collect();
        assert_eq!(ways, [Method::Status(COMMON)]);
        let (end, took) = life_ends(&mut rig);
        assert_eq!(end, Ok(0), "{takes}");
        assert!((takes..=takes + takes / 8 + 1).contains(&took), "{took}");
        is_back(&mut rig);
        assert_eq!(rig.functions.take_trouble(), None);
        let world = rig.fake.0.borrow();
        let common = world.virtio.as_ref().expect("it is virtio");
        assert!(common.status == 0 && common.enabled.is_empty());
    }
}

#[test]
fn m24_a_virtio_function_that_never_answers_is_one_that_nothing_resets() {
    for (status, optional) in [(0xf, 0), (0xf, 1), (0xff, 0)] {
        let (mut world, mut info) = driven();
        let common = world.virtio.as_mut().expect("it is virtio");
        (common.takes, common.status) = (u64::MAX, status);
        info.reset_optional = optional;
        let mut rig = used(world, info);
        let (end, took) = life_ends(&mut rig);
        let told = if optional == 1 {
            Ok(0)
        } else {
            Err(Error::Refused)
        };
        assert_eq!(end, told);
        let bound = crate::virtio::PATIENCE_MS;
        assert!((bound..bound + 2000).contains(&took), "{took}");
        let trouble = (FunctionId(0), Trouble::Unclean);
        assert_eq!(rig.functions.take_trouble(), Some(trouble));
        assert_eq!(rig.device(0x04, Word) & 4, 0, "bus mastering");
    }
}

#[test]
fn m24_a_virtio_function_that_keeps_a_queue_was_not_reset() {
    // However many it says that it has.
    for (queue, queues) in [(0, 3), (2, 3), (63, u16::MAX)] {
        let (mut world, info) = driven();
        let common = world.virtio.as_mut().expect("it is virtio");
        common.queues = queues;
        common.enabled.insert(queue);
        common.stuck = Some(queue);
        let mut rig = used(world, info);
        assert_eq!(life_ends(&mut rig).0, Err(Error::Refused), "{queue}");
    }
}

#[test]
fn m24_a_function_level_reset_comes_before_the_device_status() {
    let (mut world, info) = driven();
    world.put(PCIE + 4, 4, 0x1000_8cc1);
    let mut rig = used(world, info);
    assert_eq!(life_ends(&mut rig), (Ok(0), RESET_MS));
    let world = rig.fake.0.borrow();
    assert_eq!(world.virtio.as_ref().map(|common| common.status), Some(0xf));
}

#[test]
fn m24_a_crash_in_the_reset_of_a_virtio_function_begins_it_anew() {
    let (mut world, info) = driven();
    world.virtio.as_mut().expect("it is virtio").takes = 50;
    let fake = Fake(Rc::new(RefCell::new(world)));
    let kept: &Kept<{ kept_words(1) }> = Box::leak(Box::default());
    let start = || {
        let mut all = Functions::<'_, _, _, 1>::new(msix(&fake), router(&fake));
        all.take_over([(info, VMM, fake.clone())], kept);
        all
    };
    let mut first = start();
    let _ = first.write(VMM, bdf(), 0x04, Word, 0x0006);
    assert_eq!(first.reset(VMM, FunctionId(0)), Ok(1));
    drop(first);
    let mut rig = Rig {
        functions: start(),
        fake: fake.clone(),
    };
    let (end, took) = life_ends(&mut rig);
    assert_eq!(end, Ok(0));
    assert!(took >= RESET_MS, "where it was is not known: {took}");
    assert!(
        fake.0
            .borrow()
            .virtio
            .as_ref()
            .is_some_and(|it| it.enabled.is_empty())
    );
}
