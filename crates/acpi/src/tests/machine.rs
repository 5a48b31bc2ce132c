//! What the tables say about a board's devices.

use super::*;

fn window(base: u64, segment: u16, first: u8, last: u8) -> Vec<u8> {
    let mut bytes = Vec::from(base.to_le_bytes());
    bytes.extend(segment.to_le_bytes());
    bytes.extend([first, last, 0, 0, 0, 0]);
    bytes
}

fn mcfg(windows: &[Vec<u8>]) -> Vec<u8> {
    table(b"MCFG", &[Vec::from([0; 8]), windows.concat()].concat())
}

/// A generic address behind 4 bytes, as HPET and SPCR begin.
fn at(first: u8, space: u8, address: u64) -> Vec<u8> {
    let mut bytes = Vec::from([first, 0, 0, 0, space, 64, 0, 0]);
    bytes.extend(address.to_le_bytes());
    bytes
}

fn madt(entries: &[u8]) -> Vec<u8> {
    table(b"APIC", &[&[0; 8], entries].concat())
}

/// A processor's entry, and an I/O APIC's whose interrupts begin at a number.
fn io_apic(first: u8) -> Vec<u8> {
    let mut bytes = Vec::from([0, 8, 0, 0, 1, 0, 0, 0, 1, 12, 0, 0]);
    bytes.extend(0xfec0_0000u32.to_le_bytes());
    bytes.extend([first, 0, 0, 0]);
    bytes
}

fn said(of_interest: Vec<u8>) -> Description {
    let mut machine = machine(2, of_interest);
    // The table before it is none of these.
    machine.0[3].1 = table(b"FACP", &[1, 2, 3]);
    let said = describe(&mut machine, None, &mut [0; 256]);
    said.unwrap().unwrap()
}

#[test]
fn the_window_is_that_of_segment_0_and_its_first_bus() {
    let whole = Window {
        base: 0xb000_0000,
        first: 0,
        last: 255,
    };
    let one = said(mcfg(&[window(0xb000_0000, 0, 0, 255)]));
    assert_eq!(one.window, Some(whole));
    assert_eq!(
        one,
        Description {
            window: Some(whole),
            ..Description::default()
        }
    );
    let several = mcfg(&[
        window(0xc000_0000, 1, 0, 255),
        window(0xd000_0000, 0, 0x80, 255),
        window(0xb000_0000, 0, 0, 255),
    ]);
    assert_eq!(said(several).window, Some(whole));
    assert_eq!(said(mcfg(&[window(1, 1, 0, 255)])).window, None);
    // Cut short.
    assert_eq!(said(table(b"MCFG", &[0; 20])).window, None);
    assert_eq!(said(table(b"MCFG", &[])).window, None);
}

#[test]
fn hpet_and_console_are_where_they_can_be_used() {
    assert_eq!(
        said(table(b"HPET", &at(1, 0, 0xfed0_0000))).hpet,
        Some(0xfed0_0000)
    );
    // By ports no HPET is reached; a table cut short has none.
    assert_eq!(said(table(b"HPET", &at(1, 1, 0xfed0_0000))).hpet, None);
    assert_eq!(said(table(b"HPET", &[0; 9])).hpet, None);
    for (kind, space, port, console) in [
        (0, 1, 0x3f8, Some(0x3f8)),
        (1, 1, 0x2f8, Some(0x2f8)),
        (0, 0, 0x3f8, None),
        // A PL011.
        (3, 1, 0x3f8, None),
        // Switched off.
        (0, 1, 0, None),
    ] {
        let table = table(b"SPCR", &at(kind, space, port));
        assert_eq!(said(table).console, console);
    }
}

#[test]
fn the_first_io_apic_is_found_behind_processors() {
    assert_eq!(said(madt(&io_apic(0))).interrupts, Some(0));
    let two = [io_apic(24), io_apic(0)].concat();
    assert_eq!(said(madt(&two)).interrupts, Some(24));
    assert_eq!(said(madt(&[])).interrupts, None);
    // A length that cannot be, and an entry cut short.
    assert_eq!(said(madt(&[0, 0, 1, 12])).interrupts, None);
    assert_eq!(said(madt(&io_apic(0)[..16])).interrupts, None);
    assert_eq!(said(madt(&[1, 4, 0, 0])).interrupts, None);
}

#[test]
fn the_8254_s_interrupt_is_isa_s_or_the_one_in_its_place() {
    let instead = |bus, source, interrupt| [2, 10, bus, source, interrupt, 0, 0, 0, 0, 0];
    let pit = |entries: &[u8]| said(madt(entries)).pit;
    let apic = io_apic(0);
    assert_eq!(pit(&apic), Some(0));
    // The real-time clock's, and another bus's, are others.
    let others = [&apic[..], &instead(0, 8, 9), &instead(1, 0, 7)].concat();
    assert_eq!(pit(&others), Some(0));
    let ours = [&others[..], &instead(0, 0, 2), &instead(0, 0, 5)].concat();
    assert_eq!(pit(&ours), Some(2));
    // Cut short, in the table and in itself.
    assert_eq!(pit(&ours[..others.len() + 6]), Some(0));
    assert_eq!(pit(&[2, 6, 0, 0, 2, 0]), Some(0));
    assert_eq!(said(mcfg(&[])).pit, None);
}

#[test]
fn broken_roots_and_tables_are_errors() {
    let look = |mut machine: Machine| describe(&mut machine, None, &mut [0; 256]);
    assert_eq!(look(Machine::default()), Ok(None));
    let mut broken = mcfg(&[window(0xb000_0000, 0, 0, 255)]);
    broken[40] ^= 1;
    assert_eq!(look(machine(2, broken)), Err(Unusable::Checksum));
    let long = table(b"MCFG", &[0; 300]);
    assert_eq!(look(machine(2, long)), Err(Unusable::TooLarge));
    let mut pointed = machine(2, mcfg(&[window(1, 0, 0, 9)]));
    let pointer = pointed.0.remove(0).1;
    let said = describe(&mut pointed, Some(&pointer), &mut [0; 256]);
    assert!(said.unwrap().unwrap().window.is_some());
    let said = describe(&mut pointed, Some(&pointer[..9]), &mut [0; 256]);
    assert_eq!(said, Err(Unusable::Checksum));
}
