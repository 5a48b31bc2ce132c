//! Checks of configuration space: rules C1 to C8.

use kit::pci::Bdf;

use crate::check::{Stop, Verdict, expect};
use crate::machine::{self, CONFIG_ADDRESS, CONFIG_DATA, CONFIG_ENABLE, Machine};
use crate::target::{
    ADDRESS, BAR0, BUS_MASTER, CAPABILITIES, CONTROL, Check, DATA, ENABLE, INTX_DISABLE, IO,
    MEMORY, Target,
};

/// Identifiers of the capabilities that Vectis shows (C6).
const SAFE: [u8; 4] = [POWER, 0x05, EXPRESS, 0x11];
const POWER: u8 = 0x01;
const EXPRESS: u8 = 0x10;
/// Vendor specific: shown of virtio functions, if it points into a BAR.
const VENDOR_SPECIFIC: u8 = 0x09;
const VIRTIO: u16 = 0x1af4;
/// Types of such (VIRTIO 1.1 section 4.1.4): all but the window to BARs, 5.
const VIRTIO_TYPES: [u8; 5] = [1, 2, 3, 4, 8];
/// Expansion ROM register.
const ROM: u8 = 0x30;
/// Device capabilities and control in the PCI Express capability (PCIe 6.0
/// section 7.5.3), with function-level reset.
const DEVICE_CAPABILITIES: u8 = 0x04;
const HAS_RESET: u32 = 1 << 28;
const DEVICE_CONTROL: u8 = 0x08;
const RESET: u16 = 1 << 15;
/// How often to look whether a function answers after a reset: each look is a
/// trap of a few microseconds or more.
const RESET_POLLS: u32 = 1_000_000;
/// A value that no register here has of itself.
const MARKER: u64 = 0x5ee5_a554;
/// Where a BAR is moved to: the start of the PCI window, where firmware, which
/// fills it from the end, has put nothing.
const FREE: u32 = 0xc000_0000;
/// The same of ports, of which no machine here has any there.
const FREE_PORTS: u16 = 0x3000;
/// Places above 4 GiB to which a 64-bit BAR is moved: the first, how far the next is, and how
/// many. They are further apart than what one paging structure maps, and more than a vmm has
/// of those.
const ABOVE: u64 = 0x1_0000_0000;
const APART: u64 = 0x3400_0000;
const PLACES: u64 = 600;
/// Largest BAR that goes through them.
const LARGEST: u64 = 1 << 30;
/// Bit of a memory BAR whose reads and writes have no effect but memory's.
const PREFETCHABLE: u32 = 1 << 3;

/// Returns the checks, in their order.
pub fn checks<M: Machine>() -> [Check<M>; 23] {
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
        both("c1_widths_agree", widths_agree),
        both("c1_read_only_registers", read_only_registers),
        emulated("c2_gaps_read_zero", gaps),
        emulated("c3_address_port_takes_dwords", address_port),
        both("c3_disabled_address_reaches_nothing", disabled_address),
        emulated("c3_bad_data_port_accesses", bad_data_accesses),
        emulated("c3_other_functions_read_ones", other_functions),
        both("c4_bar_sizing", bar_sizing),
        emulated("c4_no_rom", no_rom),
        emulated("c4_ports_move", ports_move),
        emulated("c4_small_bar_moves", small_bar_moves),
        both("c4_decode_off_reads_ones", decode_off),
        emulated("c4_decode_off_hides_every_bar", decode_off_everywhere),
        both("c4_decoded_bar_moves", decoded_bar_moves),
        both("c4_bar_moves", bar_moves),
        emulated("c4_64_bit_bar_goes_above_4_gib", bars_above),
        emulated("c5_command_bits", command_bits),
        emulated("c5_status_has_list_bit_only_with_list", status_list_bit),
        both("c6_list_is_sound", list_is_sound),
        emulated("c6_safe_capabilities_only", safe_capabilities),
        both("c6_links_are_read_only", links_read_only),
        emulated("c6_power_state_stays_d0", power_state),
        emulated("c8_function_level_reset", function_level_reset),
    ]
}

fn widths_agree<M: Machine>(t: &mut Target<M>) -> Verdict {
    for offset in [0x00, 0x08, 0x2c, CAPABILITIES] {
        let whole = t.dword(offset);
        for byte in 0..4u8 {
            let part = t.config(offset + byte, 1);
            expect("byte", offset + byte, whole >> (8 * byte) & 0xff, part)?;
        }
        for word in [0, 2u8] {
            let part = t.config(offset + word, 2);
            expect("word", offset + word, whole >> (8 * word) & 0xffff, part)?;
        }
    }
    Ok(())
}

fn read_only_registers<M: Machine>(t: &mut Target<M>) -> Verdict {
    for offset in [0x00, 0x08, 0x2c] {
        let before = t.dword(offset);
        t.set_dword(offset, !before);
        expect("register", offset, before, t.dword(offset))?;
    }
    let before = t.config(0x0e, 1);
    t.set_config(0x0e, 1, !before & 0xff);
    expect("header type", 0x0eu8, before, t.config(0x0e, 1))
}

/// Returns the bytes that a shown capability takes; the rest of the space is
/// gaps.
fn capability_size<M: Machine>(t: &mut Target<M>, (offset, id): (u8, u8)) -> u16 {
    match id {
        POWER => 8,
        0x11 => 12,
        0x05 => t
            .msi()
            .map_or(0, |msi| u16::from(msi.end() - msi.capability)),
        // The second half of the registers came with version 2.
        EXPRESS if t.word(offset + 2) & 15 >= 2 => 0x3c,
        EXPRESS => 0x14,
        VENDOR_SPECIFIC => t.config(offset + 2, 1) as u16,
        _ => 2,
    }
}

fn gaps<M: Machine>(t: &mut Target<M>) -> Verdict {
    let mut used = [false; 256];
    for capability in t.capabilities() {
        let size = usize::from(capability_size(t, capability));
        let start = usize::from(capability.0);
        used[start..(start + size).min(256)].fill(true);
    }
    for offset in (0x40..=0xfcu8).step_by(4) {
        let at = usize::from(offset);
        if used[at..at + 4].contains(&true) {
            continue;
        }
        expect("gap", offset, 0u8, t.dword(offset))?;
        t.set_dword(offset, u32::MAX);
        expect("written gap", offset, 0u8, t.dword(offset))?;
    }
    Ok(())
}

fn address_port<M: Machine>(t: &mut Target<M>) -> Verdict {
    let address = machine::config_address(t.bdf, 0);
    let m = &mut *t.machine;
    m.port_write(CONFIG_ADDRESS, 4, address);
    m.port_write(CONFIG_ADDRESS, 1, 0);
    m.port_write(CONFIG_ADDRESS, 2, 0);
    let port = CONFIG_ADDRESS;
    expect(
        "address after narrow writes",
        port,
        address,
        m.port_read(port, 4),
    )?;
    expect("byte", port, 0xffu8, m.port_read(port, 1))?;
    expect("word", port, 0xffffu16, m.port_read(port, 2))?;
    // Bits 1:0 are ignored.
    m.port_write(port, 4, address);
    let id = m.port_read(CONFIG_DATA, 4);
    m.port_write(port, 4, address | 3);
    expect("identity", port, id, m.port_read(CONFIG_DATA, 4))
}

fn disabled_address<M: Machine>(t: &mut Target<M>) -> Verdict {
    let line = t.config(0x3c, 1);
    let address = machine::config_address(t.bdf, 0x3c) & !CONFIG_ENABLE;
    t.machine.port_write(CONFIG_ADDRESS, 4, address);
    let got = t.machine.port_read(CONFIG_DATA, 4);
    t.machine.port_write(CONFIG_DATA, 1, line ^ 0xff);
    expect("data", 0x3cu8, u32::MAX, got)?;
    expect("interrupt line", 0x3cu8, line, t.config(0x3c, 1))
}

fn bad_data_accesses<M: Machine>(t: &mut Target<M>) -> Verdict {
    let address = machine::config_address(t.bdf, 0);
    t.machine.port_write(CONFIG_ADDRESS, 4, address);
    // Misaligned, and past the last data port.
    for (port, bytes) in [(1, 2), (3, 2), (1, 4), (2, 4), (3, 4)] {
        let got = t.machine.port_read(CONFIG_DATA + port, bytes);
        let ones = if bytes == 2 { 0xffff } else { u32::MAX };
        expect("data", port, ones, got)?;
    }
    // A misaligned word over memory decode and bus mastering.
    t.set_command(0);
    let address = machine::config_address(t.bdf, 0x04);
    t.machine.port_write(CONFIG_ADDRESS, 4, address);
    t.machine.port_write(CONFIG_DATA + 1, 2, 0xffff);
    t.machine.port_write(CONFIG_DATA + 3, 4, u32::MAX);
    expect("command", 0x04u8, 0u8, t.word(0x04))
}

fn other_functions<M: Machine>(t: &mut Target<M>) -> Verdict {
    // Bus 0 has what was assigned (its functions are found by their
    // identity); the buses beyond it have nothing.
    for (bus, device, function) in [
        (1, 0, 0),
        (t.bdf.bus, 31, 7),
        (255, 31, 7),
        (1, t.bdf.device, t.bdf.function),
    ] {
        let bdf = Bdf {
            bus,
            device,
            function,
        };
        for offset in [0x00, 0x04, BAR0] {
            machine::config_write(t.machine, bdf, offset, 4, 0);
            let got = machine::config_read(t.machine, bdf, offset, 4);
            expect("absent function", offset, u32::MAX, got)?;
        }
    }
    Ok(())
}

fn bar_sizing<M: Machine>(t: &mut Target<M>) -> Verdict {
    t.decode(false);
    let mut index = 0;
    while index < 6 {
        let value = t.found_bar(index);
        let mask = t.size_mask(index);
        expect("restored BAR", index, value, t.dword(BAR0 + 4 * index))?;
        let wide = t.is_upper_half(index + 1) && index < 5;
        let high_mask = if wide {
            t.size_mask(index + 1)
        } else {
            u32::MAX
        };
        let flags = if value & 1 != 0 { 3 } else { 0xf };
        if mask != 0 {
            expect("flags", index, value & flags, mask & flags)?;
            // I/O BARs may leave the upper half 0.
            let fill = if value & 1 != 0 { 0xffff_0000 } else { 0 };
            let size_mask = u64::from(mask & !flags | fill) | u64::from(high_mask) << 32;
            let size = (!size_mask).wrapping_add(1);
            expect("one bit of size", index, 1u8, size.count_ones())?;
            expect("alignment", index, 0u8, t.bar_address(index) & (size - 1))?;
        }
        index += if wide { 2 } else { 1 };
    }
    Ok(())
}

fn no_rom<M: Machine>(t: &mut Target<M>) -> Verdict {
    t.decode(false);
    t.set_dword(ROM, u32::MAX);
    expect("ROM", ROM, 0u8, t.dword(ROM))
}

/// Moves the first I/O BAR, decoded and not. Its first four ports are those of registers
/// that keep their value, as far as devices are known here.
fn ports_move<M: Machine>(t: &mut Target<M>) -> Verdict {
    let bar = (0..6).find(|&index| is_ports(t, index));
    let bar = bar.ok_or(Stop::Skip("no I/O BAR"))?;
    let register = BAR0 + 4 * bar;
    let old = (t.found_bar(bar) & !3) as u16;
    t.set_command(IO);
    let mut id = 0;
    for (byte, at) in (0..4).zip(old..) {
        id |= t.machine.port_read(at, 1) << (8 * byte);
    }
    expect("all ones", old, false, id == u32::MAX)?;
    for at in [FREE_PORTS, FREE_PORTS + 0x400] {
        t.set_dword(register, at.into());
        let words = [at, at + 2].map(|port| t.machine.port_read(port, 2));
        expect("the ports", at, id, words[0] | words[1] << 16)?;
        expect("the old ports", old, u32::MAX, t.machine.port_read(old, 4))?;
        t.set_command(MEMORY);
        expect("not decoded", at, u32::MAX, t.machine.port_read(at, 4))?;
        t.set_command(IO);
        expect("decoded", at, id, t.machine.port_read(at, 4))?;
    }
    // Past the last port is nobody's.
    let size = (t.size_mask(bar) & !3).wrapping_neg() as u16;
    let end = FREE_PORTS + 0x400 + size;
    expect(
        "over the end",
        end,
        u32::MAX,
        t.machine.port_read(end - 1, 4),
    )?;
    expect("behind the end", end, 0xffu8, t.machine.port_read(end, 1))
}

/// Moves a memory BAR of less than a page over the pages of the guest.
fn small_bar_moves<M: Machine>(t: &mut Target<M>) -> Verdict {
    t.decode(false);
    let small = (0..6).find_map(|index| {
        let memory = t.found_bar(index) != 0 && !is_ports(t, index) && !t.is_upper_half(index);
        let size = if memory {
            (t.size_mask(index) & !15).wrapping_neg()
        } else {
            0
        };
        (1..0x1000).contains(&size).then_some((index, size))
    });
    let (bar, size) = small.ok_or(Stop::Skip("no BAR of less than a page"))?;
    t.decode(true);
    let old = t.bar_address(bar);
    let id = t.load(old, 4)?;
    expect("all ones", old, false, id == u64::from(u32::MAX))?;
    let page = u64::from(FREE);
    for at in [
        page,
        page + u64::from(size),
        page + 0x1000 - u64::from(size),
    ] {
        t.set_dword(BAR0 + 4 * bar, at as u32);
        expect("the BAR", at, id, t.load(at, 4)?)?;
        let end = at + u64::from(size);
        expect("behind it", end, 0xffu8, t.load(end, 1)?)?;
        expect("over its end", end - 2, u32::MAX, t.load(end - 2, 4)?)?;
        expect("the old place", old, u32::MAX, t.load(old, 4)?)?;
    }
    t.decode(false);
    let last = page + 0x1000 - u64::from(size);
    expect("not decoded", last, u32::MAX, t.load(last, 4)?)
}

fn is_ports<M: Machine>(t: &Target<M>, bar: u8) -> bool {
    t.found_bar(bar) & 1 != 0 && !t.is_upper_half(bar)
}

/// Returns the value that absent registers read: all ones, but 0 on a bare QEMU, whose
/// host bridge differs there from a real one.
fn nothing<M: Machine>(t: &mut Target<M>) -> Verdict<u64> {
    if t.emulated {
        Ok(u32::MAX.into())
    } else {
        t.load(FREE.into(), 4)
    }
}

fn decode_off<M: Machine>(t: &mut Target<M>) -> Verdict {
    t.msix()?;
    t.decode(true);
    expect("vector control, decoded", 0u8, 1u8, t.entry(0, CONTROL, 4)?)?;
    t.decode(false);
    let nothing = nothing(t)?;
    let got = t.entry(0, CONTROL, 4)?;
    expect("vector control, not decoded", 0u8, nothing, got)?;
    t.set_entry(0, ADDRESS, 4, MARKER)?;
    t.decode(true);
    expect("address", 0u8, 0u8, t.entry(0, ADDRESS, 4)?)
}

fn decode_off_everywhere<M: Machine>(t: &mut Target<M>) -> Verdict {
    t.decode(false);
    for index in 0..6 {
        let address = t.bar_address(index);
        // Above 4 GiB an access to a BAR that is not decoded is a page fault.
        let elsewhere = address >> 32 != 0 || is_ports(t, index);
        if address == 0 || elsewhere || t.is_upper_half(index) {
            continue;
        }
        // Its first and last dword; no BAR in reach has 4 GiB or more.
        let size = u64::from(!(t.size_mask(index) & !0xf)) + 1;
        for at in [address, address + size - 4] {
            expect("register, not decoded", at, u32::MAX, t.load(at, 4)?)?;
        }
    }
    Ok(())
}

/// Moves and sizes BARs without switching decode off, as Linux moves BARs when it looks
/// at its buses again, and as small kernels size them.
fn decoded_bar_moves<M: Machine>(t: &mut Target<M>) -> Verdict {
    let (bar, offset) = t.msix()?.table;
    let register = BAR0 + 4 * bar;
    let nothing = nothing(t)?;
    t.decode(true);
    t.set_entry(0, ADDRESS, 4, MARKER)?;
    let old = t.table()?;
    let new = u64::from(FREE) + u64::from(offset);
    t.set_dword(register, FREE);
    expect("address at the new place", bar, MARKER, t.load(new, 4)?)?;
    expect("the old place", bar, nothing, t.load(old, 4)?)?;
    t.set_dword(register, u32::MAX);
    let mask = t.dword(register) & !15;
    expect(
        "size mask",
        bar,
        mask & mask.wrapping_neg(),
        mask.wrapping_neg(),
    )?;
    t.set_dword(register, FREE);
    expect("address, after sizing", bar, MARKER, t.load(new, 4)?)?;
    t.set_dword(register, t.found_bar(bar));
    expect("address, back again", bar, MARKER, t.entry(0, ADDRESS, 4)?)
}

fn bar_moves<M: Machine>(t: &mut Target<M>) -> Verdict {
    let (bar, offset) = t.msix()?.table;
    let nothing = nothing(t)?;
    t.decode(true);
    t.set_entry(0, ADDRESS, 4, MARKER)?;
    let old = t.table()?;
    let new = u64::from(FREE) + u64::from(offset);
    t.decode(false);
    t.set_dword(BAR0 + 4 * bar, FREE);
    t.decode(true);
    expect("address at the new place", bar, MARKER, t.load(new, 4)?)?;
    expect("the old place", bar, nothing, t.load(old, 4)?)?;
    t.decode(false);
    expect("the new place, not decoded", bar, nothing, t.load(new, 4)?)?;
    t.set_dword(BAR0 + 4 * bar, t.found_bar(bar));
    t.decode(true);
    expect("address, back again", bar, MARKER, t.entry(0, ADDRESS, 4)?)
}

/// Moves each 64-bit BAR through all that is above 4 GiB.
fn bars_above<M: Machine>(t: &mut Target<M>) -> Verdict {
    let mut moved = Err(Stop::Skip("no 64-bit BAR"));
    for bar in 0..5 {
        if t.is_upper_half(bar + 1) {
            bar_above(t, bar)?;
            moved = Ok(());
        }
    }
    moved
}

fn bar_above<M: Machine>(t: &mut Target<M>, bar: u8) -> Verdict {
    let (low, high) = (BAR0 + 4 * bar, BAR0 + 4 * bar + 4);
    t.decode(false);
    let mask = u64::from(t.size_mask(bar) & !15) | u64::from(t.size_mask(bar + 1)) << 32;
    let size = mask.wrapping_neg();
    if size > LARGEST {
        return Err(Stop::Skip("its 64-bit BAR has more than 1 GiB"));
    }
    t.decode(true);
    let old = t.bar_address(bar);
    if t.found_bar(bar) & PREFETCHABLE != 0 {
        t.store(old, 4, MARKER)?;
        t.store(old + size - 4, 4, MARKER)?;
    }
    let (first, last) = (t.load(old, 4)?, t.load(old + size - 4, 4)?);
    for place in 0..PLACES {
        let at = ABOVE + (place * APART).next_multiple_of(size);
        t.decode(false);
        t.set_dword(low, at as u32);
        t.set_dword(high, (at >> 32) as u32);
        t.decode(true);
        expect("the BAR's start", at, first, t.load(at, 4)?)?;
        expect("the BAR's end", at, last, t.load(at + size - 4, 4)?)?;
    }
    if old >> 32 == 0 {
        expect("the old place", bar, u32::MAX, t.load(old, 4)?)?;
    }
    // One half while it is decoded, which moves it at once.
    t.set_dword(high, (ABOVE >> 32) as u32);
    t.set_dword(low, 0);
    expect("the BAR's start", ABOVE, first, t.load(ABOVE, 4)?)?;
    t.decode(false);
    t.set_dword(low, old as u32);
    t.set_dword(high, (old >> 32) as u32);
    Ok(())
}

fn command_bits<M: Machine>(t: &mut Target<M>) -> Verdict {
    t.set_command(0);
    expect("command", 0u8, 0u8, t.word(0x04))?;
    let ports = (0..6).any(|index| is_ports(t, index));
    let decode = if ports { MEMORY | IO } else { MEMORY };
    let known = decode | BUS_MASTER | INTX_DISABLE;
    t.set_command(!BUS_MASTER);
    expect("command", 0u8, known & !BUS_MASTER, t.word(0x04))?;
    // Byte by byte: the other one stays.
    t.set_config(0x05, 1, 0);
    expect("command", 1u8, decode, t.word(0x04))?;
    t.set_config(0x04, 1, 0);
    expect("command", 2u8, 0u8, t.word(0x04))
}

fn status_list_bit<M: Machine>(t: &mut Target<M>) -> Verdict {
    let has = t.config(CAPABILITIES, 1) != 0;
    let bit = t.word(0x06) >> 4 & 1 != 0;
    expect("list bit", 0x06u8, has, bit)
}

fn list_is_sound<M: Machine>(t: &mut Target<M>) -> Verdict {
    let mut seen = [false; 64];
    let mut at = CAPABILITIES;
    // Each step finds a place not seen before, so it ends.
    loop {
        let next = t.config(at, 1) as u8;
        if next == 0 {
            return Ok(());
        }
        expect("low bits of a pointer", at, 0u8, next & 3)?;
        expect("pointer into the header", at, false, next < 0x40)?;
        let place = usize::from(next / 4);
        expect("loop", at, false, seen[place])?;
        seen[place] = true;
        at = next + 1;
    }
}

fn safe_capabilities<M: Machine>(t: &mut Target<M>) -> Verdict {
    for (offset, id) in t.capabilities() {
        if id == VENDOR_SPECIFIC && t.word(0) == VIRTIO {
            let kind = t.config(offset + 3, 1) as u8;
            let points = VIRTIO_TYPES.contains(&kind);
            expect("points into a BAR", offset, true, points)?;
            let size = capability_size(t, (offset, id)) as u8;
            for at in (offset..offset.saturating_add(size)).step_by(4) {
                let before = t.dword(at);
                t.set_dword(at, !before);
                expect("virtio structure", at, before, t.dword(at))?;
            }
        } else if !SAFE.contains(&id) {
            expect("capability", offset, 0u8, id)?;
        }
    }
    Ok(())
}

fn links_read_only<M: Machine>(t: &mut Target<M>) -> Verdict {
    for (offset, _) in t.capabilities() {
        let before = t.word(offset);
        t.set_word(offset, !before);
        expect("identifier and link", offset, before, t.word(offset))?;
    }
    let before = t.config(CAPABILITIES, 1);
    t.set_config(CAPABILITIES, 1, !before & 0xff);
    expect(
        "list pointer",
        CAPABILITIES,
        before,
        t.config(CAPABILITIES, 1),
    )
}

fn power_state<M: Machine>(t: &mut Target<M>) -> Verdict {
    let at = t
        .capability(POWER)
        .ok_or(Stop::Skip("no power management"))?
        + 4;
    t.set_word(at, 3);
    expect("power state", at, 0u8, t.word(at) & 3)
}

fn function_level_reset<M: Machine>(t: &mut Target<M>) -> Verdict {
    let none = Stop::Skip("no function-level reset");
    let express = t.capability(EXPRESS).ok_or(none)?;
    if t.dword(express + DEVICE_CAPABILITIES) & HAS_RESET == 0 {
        return Err(none);
    }
    t.msix()?;
    t.decode(true);
    for (field, value) in [(ADDRESS, MARKER), (DATA, MARKER), (CONTROL, 0)] {
        t.set_entry(0, field, 4, value)?;
    }
    t.set_control(ENABLE)?;
    t.set_command(MEMORY | BUS_MASTER);
    let control = t.word(express + DEVICE_CONTROL);
    t.set_word(express + DEVICE_CONTROL, control | RESET);
    // It may read all ones for 100 ms (PCIe 6.0 section 6.6.2).
    let answers = (0..RESET_POLLS).any(|_| t.dword(0) != u32::MAX);
    expect("answers after a reset", 0u8, 1u8, u8::from(answers))?;
    let entries = t.msix()?.entries;
    expect("message control", 0u8, entries - 1, t.control()?)?;
    expect("bus master", 0x04u8, 0u8, t.word(0x04) & BUS_MASTER)?;
    for index in 0..6 {
        let found = t.found_bar(index);
        expect("BAR", index, found, t.dword(BAR0 + 4 * index))?;
    }
    t.decode(true);
    for (field, value) in [(ADDRESS, 0u8), (DATA, 0), (CONTROL, 1)] {
        expect("entry 0", field, value, t.entry(0, field, 4)?)?;
    }
    let control = t.word(express + DEVICE_CONTROL);
    expect("reset bit", express, 0u8, control & RESET)
}
