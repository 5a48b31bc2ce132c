//! Checks of MSI-X control, table and PBA: rules M1 to M15.

use crate::check::{Verdict, expect};
use crate::machine::Machine;
use crate::target::{
    ADDRESS, ADDRESS_HIGH, CONTROL, Check, DATA, ENABLE, FUNCTION_MASK, Msix, Target,
};

/// A message that can be bound: to APIC 0 and a vector that nothing raises
/// here (Intel SDM vol. 3, 10.11).
const MESSAGE_ADDRESS: u64 = 0xfee0_0000;
const MESSAGE_DATA: u64 = 0x51;

/// Values that no entry has of itself. The low one has bits 1:0 clear, which
/// are reserved in a message address.
const LOW: u64 = 0x1234_5678;
const HIGH: u64 = 0x9abc_def0;
const NUMBER: u64 = 0x0f1e_2d3c;

/// Bytes of an entry.
const ENTRY: u64 = 16;

/// Returns the check of message control at start.
pub fn check_control_at_start<M: Machine>() -> Check<M> {
    Check {
        name: "m1_control_at_start",
        emulated_only: false,
        run: control_at_start,
    }
}

/// Returns the check of the table at start.
pub fn check_entries_at_start<M: Machine>() -> Check<M> {
    Check {
        name: "m9_entries_masked_and_empty_at_start",
        emulated_only: false,
        run: at_start,
    }
}

/// Returns the other checks, in their order.
pub fn checks<M: Machine>() -> [Check<M>; 16] {
    let both = |name, run| Check {
        name,
        emulated_only: false,
        run,
    };
    let emulated = |name, run| Check {
        name,
        emulated_only: true,
        run,
    };
    [
        both("m2_control_bits", control_bits),
        both("m2_control_by_bytes", control_by_bytes),
        both("m2_table_and_pba_registers_are_read_only", places_read_only),
        both("m4_state_survives_enable_and_disable", survives_enable),
        both("m7_fields_by_dwords", fields_by_dwords),
        both("m7_fields_by_qwords", fields_by_qwords),
        both("m7_entries_are_apart", entries_are_apart),
        emulated("m9_vector_control_has_one_bit", one_bit),
        emulated("m12_bad_reads_give_ones", bad_reads),
        emulated("m12_bad_writes_are_dropped", bad_writes),
        both("m13_state_survives_decode_off", survives_decode_off),
        both(
            "m13_control_acts_while_not_decoded",
            control_while_not_decoded,
        ),
        both("m14_past_the_last_entry", past_the_last_entry),
        both("m15_pba_is_read_only", pba_read_only),
        emulated("m15_pba_bad_widths", pba_bad_widths),
        both("m19_bound_entries_read_as_written", bound_entries),
    ]
}

/// Switches decode on, for a function that has MSI-X.
fn ready<M: Machine>(t: &mut Target<M>) -> Verdict<Msix> {
    let msix = t.msix()?;
    t.decode(true);
    Ok(msix)
}

/// Writes a message into entry 0, which is masked.
fn fill<M: Machine>(t: &mut Target<M>) -> Verdict {
    for (field, value) in [(ADDRESS, LOW), (ADDRESS_HIGH, HIGH), (DATA, NUMBER)] {
        t.set_entry(0, field, 4, value)?;
    }
    Ok(())
}

/// Compares entry 0 with the values of [`fill`].
fn is_filled<M: Machine>(t: &mut Target<M>, masked: bool) -> Verdict {
    let fields = [
        (ADDRESS, LOW),
        (ADDRESS_HIGH, HIGH),
        (DATA, NUMBER),
        (CONTROL, masked.into()),
    ];
    for (field, value) in fields {
        expect("field of entry 0", field, value, t.entry(0, field, 4)?)?;
    }
    Ok(())
}

fn at_start<M: Machine>(t: &mut Target<M>) -> Verdict {
    for entry in 0..ready(t)?.entries {
        for (field, value) in [(ADDRESS, 0u8), (ADDRESS_HIGH, 0), (DATA, 0), (CONTROL, 1)] {
            expect("field of entry", entry, value, t.entry(entry, field, 4)?)?;
        }
    }
    Ok(())
}

fn control_at_start<M: Machine>(t: &mut Target<M>) -> Verdict {
    let entries = t.msix()?.entries;
    expect("message control", 0u8, entries - 1, t.control()?)
}

fn control_bits<M: Machine>(t: &mut Target<M>) -> Verdict {
    let size = t.msix()?.entries as u16 - 1;
    for bits in [
        FUNCTION_MASK,
        FUNCTION_MASK | ENABLE,
        ENABLE,
        0,
        u16::MAX,
        !(ENABLE | FUNCTION_MASK),
    ] {
        t.set_control(bits)?;
        let kept = size | bits & (ENABLE | FUNCTION_MASK);
        expect("message control", bits, kept, t.control()?)?;
    }
    Ok(())
}

fn control_by_bytes<M: Machine>(t: &mut Target<M>) -> Verdict {
    let Msix {
        capability,
        entries,
        ..
    } = t.msix()?;
    let size = entries as u16 - 1;
    t.set_config(capability + 3, 1, 0xc0);
    expect("upper byte", 3u8, size | 0xc000, t.control()?)?;
    t.set_config(capability + 2, 1, 0);
    expect("lower byte", 2u8, size | 0xc000, t.control()?)?;
    t.set_config(capability + 3, 1, 0x40);
    expect("upper byte", 3u8, size | 0x4000, t.control()?)?;
    // As a dword, with identifier and link, which do not change.
    let head = u32::from(t.word(capability));
    t.set_dword(capability, 0x8000_0000);
    let whole = head | u32::from(size | 0x8000) << 16;
    expect("dword", 0u8, whole, t.dword(capability))
}

fn places_read_only<M: Machine>(t: &mut Target<M>) -> Verdict {
    let capability = t.msix()?.capability;
    for offset in [capability + 4, capability + 8] {
        let before = t.dword(offset);
        t.set_dword(offset, !before);
        expect("register", offset, before, t.dword(offset))?;
    }
    Ok(())
}

fn survives_enable<M: Machine>(t: &mut Target<M>) -> Verdict {
    ready(t)?;
    fill(t)?;
    for bits in [ENABLE, ENABLE | FUNCTION_MASK, FUNCTION_MASK, ENABLE, 0] {
        t.set_control(bits)?;
        is_filled(t, true)?;
    }
    // Unmasked while the function is off.
    t.set_entry(0, CONTROL, 4, 0)?;
    is_filled(t, false)
}

fn fields_by_dwords<M: Machine>(t: &mut Target<M>) -> Verdict {
    ready(t)?;
    fill(t)?;
    is_filled(t, true)?;
    // One field changes, the others stay.
    for field in [ADDRESS, ADDRESS_HIGH, DATA, CONTROL] {
        t.set_entry(0, field, 4, 0)?;
        for other in [ADDRESS, ADDRESS_HIGH, DATA, CONTROL] {
            let kept = match other {
                _ if other == field => 0,
                ADDRESS => LOW,
                ADDRESS_HIGH => HIGH,
                DATA => NUMBER,
                _ => 1,
            };
            expect("field of entry 0", other, kept, t.entry(0, other, 4)?)?;
        }
        t.set_entry(0, CONTROL, 4, 1)?;
        fill(t)?;
    }
    Ok(())
}

fn fields_by_qwords<M: Machine>(t: &mut Target<M>) -> Verdict {
    ready(t)?;
    t.set_entry(0, ADDRESS, 8, LOW | HIGH << 32)?;
    expect("masked still", CONTROL, 1u8, t.entry(0, CONTROL, 4)?)?;
    t.set_entry(0, DATA, 8, NUMBER)?;
    is_filled(t, false)?;
    t.set_entry(0, DATA, 8, NUMBER | 1 << 32)?;
    is_filled(t, true)?;
    expect(
        "address",
        ADDRESS,
        LOW | HIGH << 32,
        t.entry(0, ADDRESS, 8)?,
    )?;
    expect("data", DATA, NUMBER | 1 << 32, t.entry(0, DATA, 8)?)
}

fn entries_are_apart<M: Machine>(t: &mut Target<M>) -> Verdict {
    let entries = ready(t)?.entries;
    for entry in 0..entries {
        t.set_entry(entry, ADDRESS, 4, LOW + 4 * u64::from(entry))?;
        t.set_entry(entry, DATA, 4, NUMBER + u64::from(entry))?;
        t.set_entry(entry, CONTROL, 4, u64::from(entry & 1))?;
    }
    for entry in 0..entries {
        let number = u64::from(entry);
        expect(
            "address",
            entry,
            LOW + 4 * number,
            t.entry(entry, ADDRESS, 4)?,
        )?;
        expect("data", entry, NUMBER + number, t.entry(entry, DATA, 4)?)?;
        expect("mask", entry, number & 1, t.entry(entry, CONTROL, 4)?)?;
    }
    Ok(())
}

fn one_bit<M: Machine>(t: &mut Target<M>) -> Verdict {
    ready(t)?;
    for value in [u32::MAX, u32::MAX - 1, 0x8000_0001, 2] {
        t.set_entry(0, CONTROL, 4, value.into())?;
        expect("vector control", value, value & 1, t.entry(0, CONTROL, 4)?)?;
    }
    Ok(())
}

/// Accesses that M12 refuses: byte of the entry and width.
const BAD: [(u64, u8); 10] = [
    (0, 1),
    (3, 1),
    (0, 2),
    (6, 2),
    (1, 4),
    (2, 4),
    (7, 4),
    (4, 8),
    (12, 8),
    (9, 8),
];

fn bad_reads<M: Machine>(t: &mut Target<M>) -> Verdict {
    ready(t)?;
    fill(t)?;
    for (field, bytes) in BAD {
        let ones = u64::MAX >> (64 - 8 * u32::from(bytes));
        expect("read", field, ones, t.entry(0, field, bytes)?)?;
    }
    Ok(())
}

fn bad_writes<M: Machine>(t: &mut Target<M>) -> Verdict {
    ready(t)?;
    fill(t)?;
    for (field, bytes) in BAD {
        t.set_entry(0, field, bytes, 0)?;
        is_filled(t, true)?;
    }
    Ok(())
}

fn survives_decode_off<M: Machine>(t: &mut Target<M>) -> Verdict {
    ready(t)?;
    fill(t)?;
    t.decode(false);
    t.decode(true);
    is_filled(t, true)
}

fn control_while_not_decoded<M: Machine>(t: &mut Target<M>) -> Verdict {
    let size = t.msix()?.entries as u16 - 1;
    t.decode(false);
    t.set_control(ENABLE | FUNCTION_MASK)?;
    let on = size | ENABLE | FUNCTION_MASK;
    expect("message control", 0u8, on, t.control()?)?;
    t.decode(true);
    expect("message control", 1u8, on, t.control()?)?;
    t.set_control(0)?;
    expect("message control", 2u8, size, t.control()?)
}

fn past_the_last_entry<M: Machine>(t: &mut Target<M>) -> Verdict {
    let Msix {
        entries,
        table,
        pba,
        ..
    } = ready(t)?;
    let end = t.table()? + ENTRY * u64::from(entries);
    let before = t.load(end, 4)?;
    // Registers that lie there are the device's: they are only read.
    let last = entries - 1;
    t.set_entry(last, ADDRESS, 4, LOW)?;
    t.set_entry(last, DATA, 4, NUMBER)?;
    expect("register behind the table", end, before, t.load(end, 4)?)?;
    if (table.0, table.1 + 16 * entries) == pba {
        expect("pending bits", end, 0u8, before)?;
    }
    expect("address", last, LOW, t.entry(last, ADDRESS, 4)?)?;
    expect("data", last, NUMBER, t.entry(last, DATA, 4)?)
}

fn pba_read_only<M: Machine>(t: &mut Target<M>) -> Verdict {
    let entries = ready(t)?.entries;
    let pba = t.pba()?;
    for at in (0..u64::from(entries.div_ceil(64))).map(|word| pba + 8 * word) {
        expect("pending bits", at, 0u8, t.load(at, 8)?)?;
        t.store(at, 8, u64::MAX)?;
        t.store(at, 4, u64::MAX)?;
        expect("pending bits, written", at, 0u8, t.load(at, 8)?)?;
        expect("upper half", at, 0u8, t.load(at + 4, 4)?)?;
    }
    Ok(())
}

fn pba_bad_widths<M: Machine>(t: &mut Target<M>) -> Verdict {
    ready(t)?;
    let pba = t.pba()?;
    for (offset, bytes) in [(0, 1), (2, 2), (1, 4), (4, 8)] {
        let ones = u64::MAX >> (64 - 8 * u32::from(bytes));
        expect("read", offset, ones, t.load(pba + offset, bytes)?)?;
    }
    Ok(())
}

/// Binds every entry, as many as there are vectors (M22), and frees them again.
fn bound_entries<M: Machine>(t: &mut Target<M>) -> Verdict {
    let entries = ready(t)?.entries;
    for entry in 0..entries {
        t.set_entry(entry, ADDRESS, 4, MESSAGE_ADDRESS)?;
        t.set_entry(entry, DATA, 8, MESSAGE_DATA)?;
    }
    for bits in [ENABLE, ENABLE | FUNCTION_MASK, ENABLE, 0] {
        t.set_control(bits)?;
        expect(
            "message control",
            bits,
            (entries as u16 - 1) | bits,
            t.control()?,
        )?;
        for entry in 0..entries {
            expect(
                "address",
                entry,
                MESSAGE_ADDRESS,
                t.entry(entry, ADDRESS, 8)?,
            )?;
            expect("data", entry, MESSAGE_DATA, t.entry(entry, DATA, 8)?)?;
        }
    }
    Ok(())
}
