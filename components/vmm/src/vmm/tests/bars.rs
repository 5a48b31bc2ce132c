//! BARs and the claimed pages in them, as they are mapped.

use super::*;

#[test]
fn bars_that_overlap_are_not_both_mapped() {
    let mut functions = functions();
    functions[0].bars[0] = BarInfo {
        kind: BarKind::Memory32,
        size: 0x2_0000,
        address: BAR0,
        guest: BAR0,
        ..BarInfo::default()
    };
    let mut vmm = Vmm::new(&functions, BUDGET, Share::WHOLE);
    let mut fake = Fake {
        bar0: Some(BAR0),
        bar: Some(BAR0 + 0x1_0000),
        ..Fake::default()
    };
    vmm.start(&mut fake);
    assert_eq!(fake.maps, [(0, 0, Some(BAR0))]);
    // It comes back once the other is out of its way, and not before.
    fake.maps.clear();
    fake.bar0 = Some(BAR0 + 0x1_3000);
    vmm.start(&mut fake);
    assert_eq!(fake.maps, [(0, 0, None), (0, 0, Some(BAR0 + 0x1_3000))]);
    fake.maps.clear();
    fake.bar0 = Some(BAR0 + 0x1_4000);
    vmm.start(&mut fake);
    assert_eq!(
        fake.maps,
        [
            (0, 0, None),
            (0, 0, Some(BAR0 + 0x1_4000)),
            (0, 3, Some(BAR0 + 0x1_0000))
        ]
    );
}

#[test]
fn what_maps_many_pages_lets_others_go_first() {
    // No BAR has more than 256 pages, but two have together; and so has one that
    // moves, which is unmapped and mapped.
    let cases = [(0x7_0000, 0x7_0000, 0), (0x8_0000, 0x10_0000, 2)];
    for (first, second, long_maps) in cases {
        let mut functions = functions();
        for (bar, address, size) in [(0, BAR0, first), (3, 0xe000_0000, second)] {
            functions[0].bars[bar] = BarInfo {
                kind: BarKind::Memory32,
                size,
                address,
                guest: address,
                ..BarInfo::default()
            };
        }
        let mut vmm = Vmm::new(&functions, BUDGET, Share::WHOLE);
        let mut fake = Fake {
            bar0: Some(BAR0),
            bar: Some(0xe000_0000),
            ..Fake::default()
        };
        vmm.start(&mut fake);
        assert_eq!((fake.maps.len(), fake.long_maps), (2, long_maps));
        fake.bar = Some(0xe100_0000);
        vmm.start(&mut fake);
        assert_eq!((fake.maps.len(), fake.long_maps), (4, 2 * long_maps));
    }
}

#[test]
fn c4_ports_of_a_bar_are_where_the_guest_put_them() {
    let mut functions = functions();
    functions[0].bars[0] = BarInfo {
        kind: BarKind::Io,
        size: 0x20,
        address: 0xc000,
        guest: 0xc000,
        ..BarInfo::default()
    };
    let mut m = Machine::new(&functions);
    let mut at = |port: u64, base: Option<u64>, code: &[u8]| {
        m.host.bar0 = base;
        m.vmm.start(&mut m.host);
        m.regs.gpr[RDX] = port;
        m.regs.gpr[RAX] = 0xaabb_ccdd;
        m.privileged(code);
        (m.host.port_accesses.pop(), m.regs.gpr[RAX] as u32)
    };
    let (input, word, byte, output) = ([0xed], [0x66, 0xed], [0xec], [0xef]);
    for (base, port, code, done, rax) in [
        (
            0xc000,
            0xc004,
            &input[..],
            Some((0, 4, Width::Dword, None)),
            0x1234_5678,
        ),
        (
            0x3000,
            0x301e,
            &word,
            Some((0, 0x1e, Width::Word, None)),
            0xaabb_5678,
        ),
        (
            0x3000,
            0x301f,
            &byte,
            Some((0, 0x1f, Width::Byte, None)),
            0xaabb_cc78,
        ),
        (
            0x3000,
            0x3000,
            &output,
            Some((0, 0, Width::Dword, Some(0xaabb_ccdd))),
            0xaabb_ccdd,
        ),
        // Over its end, before it, and where it was.
        (0x3000, 0x301d, &input, None, u32::MAX),
        (0x3000, 0x2fff, &input, None, u32::MAX),
        (0x3000, 0xc004, &input, None, u32::MAX),
        // No port, and over the configuration address.
        (0x1_3000, 0x3000, &input, None, u32::MAX),
        (0xce0, 0xcf8, &input, None, 0),
    ] {
        assert_eq!(
            at(port, Some(base), code),
            (done, rax),
            "{base:#x} {port:#x}"
        );
    }
    let nothing = (None, u32::MAX);
    assert_eq!(at(0x3000, None, &input), nothing, "not decoded");
}

#[test]
fn large_pages_are_counted_as_one() {
    let mut functions = functions();
    functions[0].bars[3].size = 512 << 20;
    for (pages, long_maps) in [(0, 0), (2, 1)] {
        // Of a large page with a table, the rest is mapped in small ones.
        functions[0].msix.page_count = pages;
        let mut vmm = Vmm::new(&functions, BUDGET, Share::WHOLE);
        let mut fake = Fake {
            bar: Some(0xc000_0000),
            ..Fake::default()
        };
        vmm.start(&mut fake);
        assert_eq!((fake.maps.len(), fake.long_maps), (1, long_maps));
    }
}

#[test]
fn bars_follow_decode() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    assert_eq!(m.host.maps, [(0, 3, Some(BAR3))]);
    m.host.decode_changes = true;
    m.host.bar = Some(0xe000_0000);
    let write = |m: &mut Machine<'_>| {
        m.regs.gpr[RDX] = 0xcf8;
        m.regs.gpr[RAX] = 0x8000_0000;
        m.privileged(&[0xef]);
        m.regs.gpr[RDX] = 0xcfc;
        m.privileged(&[0xef]);
    };
    write(&mut m);
    assert_eq!(m.host.maps[1..], [(0, 3, None), (0, 3, Some(0xe000_0000))]);
    // Outside the window a BAR decodes nothing, not even over RAM.
    m.host.bar = Some(RAM);
    write(&mut m);
    assert_eq!(m.host.maps[3..], [(0, 3, None)]);
    m.host.bar = Some(u64::MAX - 1);
    write(&mut m);
    assert_eq!(m.host.maps.len(), 4);
}

#[test]
fn c4_a_64_bit_bar_is_reached_above_4_gib() {
    const ABOVE: u64 = 0x12_3450_0000;
    let mut functions = functions();
    for (kind, mapped) in [(BarKind::Memory32, false), (BarKind::Memory64, true)] {
        functions[0].bars[3].kind = kind;
        let mut m = Machine::new(&functions);
        m.host.maps.clear();
        m.host.bar = Some(ABOVE);
        m.vmm.start(&mut m.host);
        let after = [(0, 3, None), (0, 3, Some(ABOVE))];
        assert_eq!(m.host.maps, after[..1 + usize::from(mapped)]);
    }
    let mut m = Machine::new(&functions);
    m.host.bar = Some(ABOVE);
    m.vmm.start(&mut m.host);
    m.regs.gpr[RCX] = ABOVE + 0x10;
    m.memory(ABOVE + 0x10, &[0x8b, 0x01]);
    assert_eq!(m.regs.gpr[RAX], 0x10);
    // Beside it there is no page.
    m.regs.gpr[RCX] = ABOVE + 0x4000;
    m.memory(ABOVE + 0x4000, &[0x8b, 0x01]);
    assert_eq!(m.vmm.cpu.cr2, ABOVE + 0x4000);
    assert_eq!(m.regs.rip, HANDLER + 14);
}

#[test]
fn the_table_is_claimed_only_while_decoded() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    m.regs.gpr[RCX] = BAR3 + 0x10;
    m.memory(BAR3 + 0x10, &[0x8b, 0x01]);
    assert_eq!(m.regs.gpr[RAX], 0x10);
    // A page of the BAR that holds neither table nor PBA is mapped, so that a
    // fault there has no owner.
    m.regs.gpr[RCX] = BAR3 + 0x1000;
    m.memory(BAR3 + 0x1000, &[0x8b, 0x01]);
    assert_eq!(m.regs.gpr[RAX], 0xffff_ffff);
    // An access over the end of a claimed page.
    m.regs.gpr[RCX] = BAR3 + 0xffc;
    m.memory(BAR3 + 0xffc, &[0x48, 0x8b, 0x01]);
    assert_eq!(m.regs.gpr[RAX], u64::MAX);
    m.host.bar = None;
    m.vmm.start(&mut m.host);
    m.regs.gpr[RCX] = BAR3 + 0x10;
    m.memory(BAR3 + 0x10, &[0x8b, 0x01]);
    assert_eq!(m.regs.gpr[RAX], 0xffff_ffff);
}

#[test]
fn the_last_bar_of_the_last_function_is_mapped_too() {
    let mut functions: [_; pci::GUEST_FUNCTIONS] = core::array::from_fn(|index| FunctionInfo {
        index: FunctionId::at(index),
        ..FunctionInfo::default()
    });
    let last = pci::GUEST_FUNCTIONS - 1;
    functions[last].bars[3] = BarInfo {
        kind: BarKind::Memory32,
        size: 0x4000,
        address: BAR3,
        guest: BAR3,
        ..BarInfo::default()
    };
    let mut vmm = Vmm::new(&functions, BUDGET, Share::WHOLE);
    let mut fake = Fake {
        bar: Some(BAR3),
        ..Fake::default()
    };
    vmm.start(&mut fake);
    assert_eq!(fake.maps, [(last, 3, Some(BAR3))]);
}
