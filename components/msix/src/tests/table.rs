//! Accesses to the table, the PBA and what lies beside them (M7 to M15, M18).

use super::*;
use crate::entry::UPDATED;

#[test]
fn m7_halves_are_independent() {
    let mut rig = rig();
    rig.write(at(0, 4), Width::Dword, 0x1234_5678);
    rig.write(at(0, 0), Width::Dword, 0xfee0_a000);
    assert_eq!(rig.read(at(0, 0), Width::Qword), 0x1234_5678_fee0_a000);
    rig.write(at(0, 4), Width::Dword, 0x9abc_def0);
    assert_eq!(rig.read(at(0, 0), Width::Dword), 0xfee0_a000);
    assert_eq!(rig.read(at(0, 4), Width::Dword), 0x9abc_def0);
    rig.write(at(0, 0), Width::Qword, 0x1_0000_0002);
    assert_eq!(rig.read(at(0, 0), Width::Qword), 0x1_0000_0002);
    assert_eq!(rig.entry(1), Entry::RESET);
}

#[test]
fn m18_fields_count_from_the_table_s_start() {
    // The table starts at 8 mod 16: the entry's data lies where an entry of a
    // table that starts at 0 has its address.
    assert_eq!(TABLE % 16, 8);
    let mut rig = rig();
    rig.write(TABLE + 8, Width::Qword, 0x1_0000_0055);
    let entry = rig.entry(0);
    assert_eq!(
        (entry.address, entry.data(), entry.masked()),
        (0, 0x55, true)
    );
    rig.write(TABLE, Width::Qword, 0xfee0_0000);
    assert_eq!(rig.entry(0).address, 0xfee0_0000);
}

#[test]
fn m8_the_same_value_makes_updated_and_binds_nothing() {
    for field in [0, 4, 8] {
        let mut rig = Rig::live(&[2]);
        let value = rig.read(at(2, field), Width::Dword);
        rig.write(at(2, field), Width::Dword, value);
        assert_eq!(rig.log(), []);
        assert!(rig.entry(2).is(UPDATED));
        rig.mask(2, true);
        rig.mask(2, false);
        assert_eq!(rig.routed(), [Mask(2, true), Unbind(2), bound(2)]);
    }
}

#[test]
fn m9_only_bit_0_counts() {
    let mut rig = Rig::live(&[2]);
    rig.write(at(2, 12), Width::Dword, 0xffff_fffe);
    assert_eq!(rig.log(), []);
    assert_eq!(rig.read(at(2, 12), Width::Dword), 0);
    rig.write(at(2, 12), Width::Dword, 0xffff_ffff);
    assert_eq!(rig.read(at(2, 12), Width::Dword), 1);
}

#[test]
fn m9_mask_and_unmask_of_an_unbound_entry_do_nothing() {
    let mut rig = Rig::live(&[]);
    rig.mask(2, false);
    rig.mask(2, true);
    assert_eq!(rig.log(), []);
}

#[test]
fn m9_a_bound_entry_is_masked_and_unmasked_in_place() {
    let mut rig = Rig::live(&[2]);
    rig.mask(2, true);
    let control = at(2, 12);
    let masked = [
        Write(control, Width::Dword, 1),
        Read(control, Width::Dword),
        Mask(2, true),
    ];
    assert_eq!(rig.log(), masked);
    rig.mask(2, false);
    assert_eq!(rig.log(), [Mask(2, false), Write(control, Width::Dword, 0)]);
}

#[test]
fn m10_an_entry_written_after_its_unmask_waits_for_a_cycle() {
    let mut rig = Rig::live(&[]);
    rig.mask(5, false);
    rig.program(5, 0xfee0_0000, 0x35);
    assert_eq!(rig.log(), []);
    rig.mask(5, true);
    rig.mask(5, false);
    assert_eq!(rig.routed(), [bound(5)]);
}

#[test]
fn m10_unmasked_under_function_mask_on_the_old_binding() {
    let mut rig = Rig::live(&[5]);
    rig.mask(5, true);
    rig.control(ENABLE | FUNCTION_MASK);
    rig.write(at(5, 8), Width::Dword, 0x99);
    rig.log();
    rig.mask(5, false);
    assert_eq!(rig.routed(), [Mask(5, false)]);
    rig.control(ENABLE);
    let expected = [FunctionMask(false), Unbind(5), Bind(5, 0xfee0_0000, 0x99)];
    assert_eq!(rig.routed(), expected);
}

#[test]
fn m10_mask_disable_enable_unmask_binds() {
    let mut rig = Rig::live(&[5]);
    rig.mask(5, true);
    rig.control(0);
    rig.control(ENABLE);
    assert_eq!(rig.routed(), [Mask(5, true), Unbind(5)]);
    rig.mask(5, false);
    assert_eq!(rig.routed(), [bound(5)]);
}

#[test]
fn m11_eight_bytes_at_data_hold_the_mask_too() {
    let mut rig = rig();
    rig.write(at(3, 8), Width::Dword, 0xabcd);
    assert_eq!(rig.read(at(3, 8), Width::Qword), 0x1_0000_abcd);
    rig.write(at(3, 8), Width::Qword, 0x5a);
    assert_eq!(rig.read(at(3, 8), Width::Qword), 0x5a);
    assert_eq!(rig.read(at(3, 12), Width::Dword), 0);
}

#[test]
fn m12_small_and_unaligned_are_dropped() {
    let mut rig = rig();
    let wrong = [
        (at(0, 0), Width::Byte),
        (at(0, 0), Width::Word),
        (at(0, 2), Width::Dword),
        (at(0, 4), Width::Qword),
        (at(69, 12), Width::Qword),
        (PBA, Width::Word),
        (PBA + 4, Width::Qword),
    ];
    for (count, (offset, width)) in wrong.into_iter().enumerate() {
        assert_eq!(rig.read(offset, width), width.all_ones());
        rig.write(offset, width, 0);
        assert_eq!(rig.msix.counters.dropped, 2 * count as u64 + 2);
    }
    assert_eq!(rig.log(), []);
    assert_eq!(rig.in_use(0), 0);
}

#[test]
fn m14_adjacent_goes_to_the_device() {
    let mut rig = rig();
    assert_eq!(at(70, 0), 0x1468);
    rig.write(0x1468, Width::Qword, 0x8877_6655_4433_2211);
    assert_eq!(
        rig.log(),
        [Write(0x1468, Width::Qword, 0x8877_6655_4433_2211)]
    );
    assert_eq!(rig.read(0x146a, Width::Word), 0x4433);
    assert_eq!(rig.log(), [Read(0x146a, Width::Word)]);
    assert_eq!(rig.read(0x1469, Width::Dword), 0x5544_3322);
    let bytes = [0x1469, 0x146a, 0x146b, 0x146c].map(|at| Read(at, Width::Byte));
    assert_eq!(rig.log(), bytes);
    rig.write(0x146b, Width::Word, 0xbeef);
    let bytes = [(0x146b, 0xef), (0x146c, 0xbe)].map(|(at, v)| Write(at, Width::Byte, v));
    assert_eq!(rig.log(), bytes);
    rig.read(0x1000, Width::Qword);
    assert_eq!(rig.log(), [Read(0x1000, Width::Qword)]);
    // The last bytes of a page whose next one is not claimed.
    rig.read_of(FunctionId(1), 0xffc, Width::Dword);
    assert_eq!(rig.log(), [Read(0xffc, Width::Dword)]);
    assert_eq!(rig.msix.counters.dropped, 0);
}

#[test]
fn m14_what_runs_into_the_table_or_off_the_page_is_dropped_whole() {
    let mut rig = rig();
    for (function, offset, width) in [
        (0, TABLE - 2, Width::Dword),
        (0, TABLE - 4, Width::Qword),
        (1, 0xffc, Width::Qword),
        (1, 0xffe, Width::Dword),
    ] {
        assert_eq!(
            rig.read_of(FunctionId(function), offset, width),
            width.all_ones()
        );
        rig.write_of(FunctionId(function), offset, width, 0);
    }
    assert_eq!(rig.log(), []);
    assert_eq!(rig.msix.counters.dropped, 8);
}

#[test]
fn m14_what_runs_into_the_pba_goes_byte_by_byte_up_to_it() {
    let mut rig = rig();
    for (offset, byte) in (PBA - 4..PBA + 8).zip(0x11..) {
        let key = ((FunctionId(0), 0), offset);
        rig.fake.0.borrow_mut().memory.insert(key, byte);
    }
    rig.log();
    assert_eq!(rig.read(PBA - 4, Width::Qword), 0xffff_ffff_1413_1211);
    let bytes = [4, 3, 2, 1].map(|before| Read(PBA - before, Width::Byte));
    assert_eq!(rig.log(), bytes);
    rig.write(PBA - 1, Width::Dword, 0xddcc_bbaa);
    assert_eq!(rig.log(), [Write(PBA - 1, Width::Byte, 0xaa)]);
    // Writes of the PBA reach a permissive function's, but not these.
    assert_eq!(rig.read_of(FunctionId(1), 0x7ff, Width::Word), 0xff00);
    rig.write_of(FunctionId(1), 0x7ff, Width::Word, 0x2211);
    let bytes = [Read(0x7ff, Width::Byte), Write(0x7ff, Width::Byte, 0x11)];
    assert_eq!(rig.log(), bytes);
    assert_eq!(rig.msix.counters.dropped, 0);
}

#[test]
fn m13_what_lies_behind_a_small_bar_on_its_page_is_refused() {
    let mut rig = rig_of(75, |functions: &mut [FunctionInfo; 3]| {
        functions[1].bars[0].size = 0x900
    });
    let read = |rig: &mut Rig, offset, width| {
        let place = FunctionBar {
            function: FunctionId(1),
            bar: 0,
        };
        rig.msix.read(VMM, place, offset, width)
    };
    assert!(read(&mut rig, 0x8f8, Width::Qword).is_ok());
    for (offset, width) in [
        (0x8fc, Width::Qword),
        (0x900, Width::Byte),
        (0xfff, Width::Byte),
    ] {
        assert_eq!(read(&mut rig, offset, width), Err(Error::Refused));
    }
}

#[test]
fn m13_other_pages_and_bars_are_refused() {
    let mut rig = rig();
    for (bar, offset) in [(0, 0), (0, 0x2000), (1, TABLE), (0, u32::MAX)] {
        let place = FunctionBar {
            function: FunctionId(0),
            bar,
        };
        let result = rig.msix.read(VMM, place, offset, Width::Dword);
        assert_eq!(result, Err(Error::Refused));
        let result = rig.msix.write(VMM, place, offset, Width::Dword, 0);
        assert_eq!(result, Err(Error::Refused));
    }
    assert_eq!(rig.log(), []);
}

#[test]
fn m15_pba_is_two_qwords_read_from_the_device() {
    let mut rig = rig();
    for (offset, width) in [(PBA, Width::Qword), (PBA + 12, Width::Dword)] {
        rig.read(offset, width);
        assert_eq!(rig.log(), [Read(offset, width)]);
        rig.write(offset, width, 1);
        assert_eq!(rig.log(), []);
    }
    assert_eq!(rig.msix.counters.dropped, 2);
    rig.write_of(FunctionId(1), 0x800, Width::Dword, 1);
    assert_eq!(rig.log(), [Write(0x800, Width::Dword, 1)]);
}

#[test]
fn m14_a_small_bar_is_reached_without_msix_too() {
    let mut rig = rig_of(75, |functions| {
        functions[2].msix.page_count = 1;
        functions[2].bars[0].size = 0x100;
    });
    let small = FunctionId(2);
    rig.write_of(small, 0, Width::Qword, 0x8877_6655_4433_2211);
    assert_eq!(rig.read_of(small, 4, Width::Dword), 0x8877_6655);
    rig.write_of(small, 0xff, Width::Byte, 0x5a);
    let expected = [
        Write(0, Width::Qword, 0x8877_6655_4433_2211),
        Read(4, Width::Dword),
        Write(0xff, Width::Byte, 0x5a),
    ];
    assert_eq!(rig.log(), expected);
    // What is behind it on its page is not the function's; nor is another vmm its guest's.
    let place = FunctionBar {
        function: small,
        bar: 0,
    };
    for offset in [0xfd, 0x100] {
        let read = rig.msix.read(VMM, place, offset, Width::Dword);
        assert_eq!(read, Err(Error::Refused));
    }
    let read = rig.msix.read(CONTROL, place, 0, Width::Dword);
    assert_eq!(read, Err(Error::NotFound));
    assert_eq!(rig.msix.read_control(CONTROL, small), Err(Error::NotFound));
    assert_eq!(rig.log(), []);
}

#[test]
fn m14_the_registers_beside_table_and_pba_are_known() {
    let mut info = FunctionInfo::default();
    info.bars[0].size = 0x1000;
    info.bars[1].size = 0x100;
    info.msix.entries = 2;
    info.msix.table_offset = 0x800;
    info.msix.pba_bar = 1;
    info.msix.pba_offset = 0x80;
    info.msix.page_count = 2;
    info.msix.pages[1].bar = 1;
    for (bar, offset, beside) in [
        (0, 0x7ff, true),
        (0, 0x800, false),
        (0, 0x81f, false),
        (0, 0x820, true),
        (0, 0x1000, false),
        (1, 0x7f, true),
        (1, 0x87, false),
        (1, 0xff, true),
        // Behind the BAR's end the page is another's.
        (1, 0x100, false),
        (2, 0, false),
        (6, 0, false),
    ] {
        assert_eq!(
            crate::is_adjacent(&info, bar, offset),
            beside,
            "{bar} {offset:#x}"
        );
    }
}
