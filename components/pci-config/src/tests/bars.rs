//! BARs: sizing, moving, where they are while decoded (C4).

use super::*;
use spec::FunctionId;

#[test]
fn c4_bars_start_as_the_firmware_left_them() {
    let mut rig = rig();
    assert_eq!(rig.read(0x10, Dword), 0xfe80_0000);
    assert_eq!(rig.read(0x14, Dword), 0xfe90_0004);
    assert_eq!(rig.read(0x18, Dword), 1);
    assert_eq!(rig.bar(0), 0xfe80_0000);
    assert_eq!(rig.bar(1), 0x1_fe90_0000);
}

#[test]
fn c4_bars_without_ports_and_rom_are_not_offered() {
    for mut rig in [rig(), permissive()] {
        for offset in [0x1c, 0x20, 0x24, 0x30] {
            rig.write(offset, Dword, u32::MAX);
            assert_eq!(rig.read(offset, Dword), 0);
        }
        for index in [2, 3, 4, 5] {
            assert_eq!(rig.bar(index), u64::MAX);
        }
        assert_eq!(rig.log(), []);
    }
}

#[test]
fn c4_ports_are_sized_moved_and_decoded_by_a_bit_of_their_own() {
    let mut rig = rig_of(world(), info_with_ports());
    let quiet = rig.log();
    let last = quiet.iter().rfind(|event| matches!(event, Write(4, ..)));
    assert_eq!(last, Some(&Write(4, Word, 0x0403)), "decode stays on");
    assert_eq!(rig.read(0x1c, Dword), 0xc001);
    assert_eq!((rig.bar(0), rig.bar(3)), (0xfe80_0000, 0xc000));
    // Sized and moved while it is decoded.
    assert_eq!(rig.write(0x1c, Dword, u32::MAX), Effect::NONE);
    assert_eq!(rig.read(0x1c, Dword), 0xffff_ffe1);
    assert_eq!(rig.bar(3), 0xc000);
    assert_eq!(rig.write(0x1c, Dword, 0x3011), Effect::DECODE);
    assert_eq!((rig.read(0x1c, Dword), rig.bar(3)), (0x3001, 0x3000));
    assert_eq!(rig.log(), [], "the device's does not move");
    // Each decode bit is for its own BARs.
    assert_eq!(rig.write(0x04, Word, 1), Effect::DECODE);
    assert_eq!((rig.bar(0), rig.bar(3)), (u64::MAX, 0x3000));
    assert_eq!(rig.write(0x04, Word, 0), Effect::DECODE);
    assert_eq!((rig.bar(0), rig.bar(3)), (u64::MAX, u64::MAX));
    assert_eq!(rig.write(0x1c, Dword, 0x4000), Effect::NONE);
    assert_eq!(rig.write(0x04, Word, 2), Effect::DECODE);
    assert_eq!(rig.bar(3), u64::MAX);
    assert_eq!(rig.write(0x04, Word, 3), Effect::DECODE);
    assert_eq!(rig.bar(3), 0x4000);
    let writes = rig.log();
    assert!(
        writes
            .iter()
            .all(|w| matches!(w, Write(4, Word, command) if command & 3 == 3))
    );
}

#[test]
fn c4_sizing_and_moving_never_reach_the_device() {
    let mut rig = rig();
    assert_eq!(rig.write(0x04, Word, 0), Effect::DECODE);
    rig.log();
    for offset in [0x10, 0x14, 0x18] {
        rig.write(offset, Dword, u32::MAX);
    }
    assert_eq!(rig.read(0x10, Dword), 0xfffe_0000);
    assert_eq!(rig.read(0x14, Dword), 0xfff0_0004);
    assert_eq!(rig.read(0x18, Dword), u32::MAX);
    rig.write(0x10, Dword, 0xc123_4567);
    rig.write(0x12, Word, 0xc456);
    rig.write(0x14, Dword, 0xd000_0000);
    rig.write(0x18, Dword, 2);
    assert_eq!(rig.log(), []);
    assert_eq!(rig.bar(0), u64::MAX);
    assert_eq!(rig.write(0x04, Word, 2), Effect::DECODE);
    assert_eq!(rig.bar(0), 0xc456_0000);
    assert_eq!(rig.bar(1), 0x2_d000_0000);
}

#[test]
fn c4_a_decoded_bar_moves_at_once() {
    let mut rig = rig();
    assert_eq!(rig.write(0x10, Dword, 0xd000_0000), Effect::DECODE);
    assert_eq!(rig.bar(0), 0xd000_0000);
    assert_eq!(rig.write(0x10, Dword, 0xd000_0000), Effect::NONE, "no move");
    // Half by half: each half is a place, as in hardware.
    assert_eq!(rig.write(0x14, Dword, 0xd100_0000), Effect::DECODE);
    assert_eq!(rig.bar(1), 0x1_d100_0000);
    assert_eq!(rig.write(0x18, Dword, 0), Effect::DECODE);
    assert_eq!(rig.bar(1), 0xd100_0000);
    assert_eq!(rig.read(0x14, Dword), 0xd100_0004);
    assert_eq!(rig.functions.counters.bar_moves, 3);
    assert_eq!(rig.log(), [], "the host's never move");
}

#[test]
fn c4_sizing_while_decoded_answers_the_mask_and_moves_nothing() {
    // As Nanos, IncludeOS and the crate pci_types 0.10 size BARs.
    let mut rig = rig();
    assert_eq!(rig.write(0x10, Dword, u32::MAX), Effect::NONE);
    assert_eq!(rig.read(0x10, Dword), 0xfffe_0000);
    assert_eq!(rig.bar(0), 0xfe80_0000, "not at a nonsense address");
    assert_eq!(rig.write(0x10, Dword, 0xfe80_0000), Effect::NONE);
    assert_eq!(rig.read(0x10, Dword), 0xfe80_0000);
    for (offset, mask, back) in [(0x14, 0xfff0_0004, 0xfe90_0004), (0x18, u32::MAX, 1)] {
        assert_eq!(rig.write(offset, Dword, u32::MAX), Effect::NONE);
        assert_eq!(rig.read(offset, Dword), mask);
        assert_eq!(rig.write(offset, Dword, back), Effect::NONE);
        assert_eq!(rig.read(offset, Dword), back);
        assert_eq!(rig.bar(1), 0x1_fe90_0000);
    }
    // Both halves at once, and one that is sized goes elsewhere.
    rig.write(0x14, Dword, u32::MAX);
    rig.write(0x18, Dword, u32::MAX);
    assert_eq!(rig.bar(1), 0x1_fe90_0000);
    rig.write(0x14, Dword, 0xd000_0000);
    assert_eq!(rig.bar(1), 0x1_fe90_0000);
    assert_eq!(rig.write(0x18, Dword, 0), Effect::DECODE);
    assert_eq!(rig.bar(1), 0xd000_0000);
}

#[test]
fn c4_a_decoded_bar_does_not_go_to_0() {
    // 0 is no address (PCI Local Bus 3.0 section 6.2.5.1): cloud-hypervisor#6147.
    let mut rig = rig();
    assert_eq!(rig.write(0x10, Dword, 0), Effect::NONE);
    assert_eq!(rig.read(0x10, Dword), 0xfe80_0000);
    assert_eq!(rig.bar(0), 0xfe80_0000);
    // On the way elsewhere the low half of a 64-bit BAR may well be 0.
    rig.write(0x14, Dword, 0xd000_0000);
    rig.write(0x18, Dword, 0);
    assert_eq!(rig.write(0x14, Dword, 0), Effect::NONE);
    assert_eq!(rig.read(0x14, Dword), 0xd000_0004);
    assert_eq!(rig.write(0x18, Dword, 2), Effect::DECODE);
    assert_eq!(rig.bar(1), 0x2_0000_0000);
    // With decode off 0 is a value like any other.
    rig.write(0x04, Word, 0);
    rig.write(0x10, Dword, 0);
    assert_eq!(rig.read(0x10, Dword), 0);
    rig.write(0x04, Word, 2);
    assert_eq!(rig.bar(0), 0);
}

#[test]
fn c4_decode_that_goes_off_and_on_finds_what_the_register_reads() {
    let mut rig = rig();
    rig.write(0x10, Dword, u32::MAX);
    rig.write(0x04, Word, 0);
    assert_eq!(rig.read(0x10, Dword), 0xfffe_0000);
    rig.write(0x04, Word, 2);
    assert_eq!(
        rig.bar(0),
        0xfffe_0000,
        "as in hardware; no vmm maps it there"
    );
    rig.write(0x10, Dword, 0);
    rig.write(0x04, Word, 0);
    assert_eq!(rig.read(0x10, Dword), 0xfffe_0000);
}

#[test]
fn c4_bytes_and_words_move_a_decoded_bar() {
    let mut rig = rig();
    assert_eq!(rig.write(0x12, Word, 0xd002), Effect::DECODE);
    assert_eq!(rig.bar(0), 0xd002_0000);
    assert_eq!(rig.write(0x13, Byte, 0xc1), Effect::DECODE);
    assert_eq!(rig.bar(0), 0xc102_0000);
    assert_eq!(
        rig.write(0x10, Word, 0xffff),
        Effect::NONE,
        "below its size"
    );
}

#[test]
fn c4_a_sized_bar_is_found_by_the_next_pci_config() {
    let fake = Fake(Rc::new(RefCell::new(world())));
    let kept = Kept::<{ kept_words(1) }>::new();
    let start = || {
        let functions = [(info(false), VMM, fake.clone())];
        let mut all = Functions::<'_, _, _, 1>::new(msix(&fake), router(&fake));
        all.take_over(functions, &kept);
        all
    };
    let sized = start().write(VMM, bdf(), 0x10, Dword, u32::MAX);
    assert_eq!(sized, Ok(Effect::NONE));
    let mut functions = start();
    assert_eq!(functions.read(VMM, bdf(), 0x10, Dword), Ok(0xfffe_0000));
    assert_eq!(functions.bar(VMM, FunctionId(0), 0), Ok(0xfe80_0000));
}

#[test]
fn c4_a_bar_starts_where_init_placed_it() {
    let mut info = info(false);
    info.bars[1].guest = 0xc010_0000;
    let mut rig = rig_of(world(), info);
    assert_eq!(rig.read(0x14, Dword), 0xc010_0004);
    assert_eq!(rig.read(0x18, Dword), 0);
    assert_eq!(rig.bar(1), 0xc010_0000);
    assert_eq!(rig.functions.reset(VMM, FunctionId(0)), Ok(RESET_MS));
    rig.pass(RESET_MS);
    assert_eq!(rig.functions.reset(VMM, FunctionId(0)), Ok(0));
    assert_eq!(rig.device(0x18, Dword), 1, "the host's is the host's");
}
