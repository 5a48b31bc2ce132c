//! Checks of plain MSI: rules P1 to P3.

use crate::check::{Stop, Verdict, expect};
use crate::machine::Machine;
use crate::target::{Check, ENABLE, MSI_ENABLE, Msi, Target};

/// Message control: log2 of the messages offered, bits 3:1, and allowed, 6:4
/// (PCIe 6.0 section 7.7.1.2).
const OFFERED_SHIFT: u16 = 1;
const ALLOWED_SHIFT: u16 = 4;
const LOG2: u16 = 7;

/// A message that can be bound: to APIC 0, and a vector that nothing raises
/// here (Intel SDM vol. 3, 10.11).
const ADDRESS: u32 = 0xfee0_0000;
const DATA: u16 = 0x51;

/// Returns the check of the registers at start.
pub fn check_at_start<M: Machine>() -> Check<M> {
    Check {
        name: "p1_registers_at_start",
        emulated_only: true,
        run: at_start,
    }
}

/// Returns the other checks, in their order.
pub fn checks<M: Machine>() -> [Check<M>; 4] {
    let emulated = |name, run| Check {
        name,
        emulated_only: true,
        run,
    };
    [
        emulated("p1_registers_hold_what_is_written", registers),
        emulated("p2_control_bits", control_bits),
        emulated("p2_mask_bits_of_offered_messages", mask_bits),
        emulated("p3_not_with_msix", not_with_msix),
    ]
}

fn at_start<M: Machine>(t: &mut Target<M>) -> Verdict {
    let msi = t.msi()?;
    let control = t.word(msi.capability + 2);
    let started = MSI_ENABLE | LOG2 << ALLOWED_SHIFT;
    expect("message control", msi.capability, 0u8, control & started)?;
    for offset in msi.address()..msi.end() {
        expect("register", offset, 0u8, t.config(offset, 1))?;
    }
    Ok(())
}

fn registers<M: Machine>(t: &mut Target<M>) -> Verdict {
    let msi = t.msi()?;
    t.set_dword(msi.address(), u32::MAX);
    expect("address", 0u8, u32::MAX - 3, t.dword(msi.address()))?;
    if msi.wide {
        t.set_dword(msi.address() + 4, 0x9abc_def0);
        expect("address", 1u8, 0x9abc_def0u32, t.dword(msi.address() + 4))?;
        expect("address", 2u8, u32::MAX - 3, t.dword(msi.address()))?;
    }
    // The upper half is reserved.
    t.set_dword(msi.data(), 0x1234_5678);
    expect("data", 0u8, 0x5678u16, t.dword(msi.data()))?;
    // While it is on, too.
    t.set_dword(msi.address(), ADDRESS);
    if msi.wide {
        t.set_dword(msi.address() + 4, 0);
    }
    t.set_word(msi.capability + 2, MSI_ENABLE);
    for data in [DATA, DATA + 1] {
        t.set_word(msi.data(), data);
        expect("data while on", data, data, t.word(msi.data()))?;
    }
    expect("address while on", 3u8, ADDRESS, t.dword(msi.address()))
}

fn control_bits<M: Machine>(t: &mut Target<M>) -> Verdict {
    let msi = t.msi()?;
    let at = msi.capability + 2;
    let start = t.word(at);
    let offered = start >> OFFERED_SHIFT & LOG2;
    t.set_word(at, !MSI_ENABLE);
    // No more messages than are offered.
    let most = start | offered << ALLOWED_SHIFT;
    expect("message control", 0u8, most, t.word(at))?;
    t.set_word(at, 0);
    expect("message control", 1u8, start, t.word(at))
}

fn mask_bits<M: Machine>(t: &mut Target<M>) -> Verdict {
    let msi = t.msi()?;
    if !msi.maskable {
        return Err(Stop::Skip("no mask bits"));
    }
    let messages = 1 << (t.word(msi.capability + 2) >> OFFERED_SHIFT & LOG2);
    let at = msi.data() + 4;
    t.set_dword(at, u32::MAX);
    let offered = u32::MAX >> (32 - messages);
    expect("mask", at, offered, t.dword(at))?;
    // Pending bits are the device's.
    t.set_dword(at + 4, u32::MAX);
    expect("pending", at + 4, 0u8, t.dword(at + 4))
}

fn not_with_msix<M: Machine>(t: &mut Target<M>) -> Verdict {
    let Msi { capability, .. } = t.msi()?;
    let at = capability + 2;
    let enabled = |t: &mut Target<M>, msix: u16, msi: u16| {
        expect("MSI-X enable", msi, msix, t.control()? & ENABLE)?;
        expect("MSI enable", msix, msi, t.word(at) & MSI_ENABLE)
    };
    t.set_control(ENABLE)?;
    t.set_word(at, MSI_ENABLE);
    enabled(t, ENABLE, 0)?;
    t.set_control(0)?;
    t.set_word(at, MSI_ENABLE);
    enabled(t, 0, MSI_ENABLE)?;
    t.set_control(ENABLE)?;
    enabled(t, 0, MSI_ENABLE)
}
