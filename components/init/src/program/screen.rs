//! The screen, where there is one that shows text: all that init says is on it as well.

use core::sync::atomic::{AtomicBool, Ordering};

use init::{
    COLUMNS_LESS_ONE, CRT_PORTS, GRAPHICS_PORTS, MISCELLANEOUS, TEXT_MEMORY, Text, shows_text,
};
use pci::{PAGE_SIZE, Width};
use runtime::Mmio;
use sel4::cap::{Granule, IoPort};
use sel4::init_thread::slot;
use sel4::{CapRights, VmAttributes};

use super::builder::Builder;
use super::memory::SCRATCH;
use super::ports;

/// Where its memory is mapped, for good: apart from what is mapped for a moment.
const MEMORY: usize = SCRATCH + (1 << 20);

static TEXT: Text = Text::new();
/// Its memory is mapped.
static THERE: AtomicBool = AtomicBool::new(false);

/// Looks for a screen, and clears it. Its ports go with the rest of init's authority.
pub fn start(builder: &mut Builder<'_>) {
    let slot = builder.slot();
    let vga = IoPort::from_bits(slot as u64);
    if ports::issue(&(GRAPHICS_PORTS.0..=CRT_PORTS.1), slot).is_err() {
        return;
    }
    let register = |(index, data), number| {
        vga.ioport_out8(index, number).ok()?;
        vga.ioport_in8(data).ok()
    };
    let miscellaneous = register(GRAPHICS_PORTS, MISCELLANEOUS);
    let text = miscellaneous.zip(register(CRT_PORTS, COLUMNS_LESS_ONE));
    let text = text.is_some_and(|(miscellaneous, columns)| shows_text(miscellaneous, columns));
    defmt::info!("a screen that shows text: {=bool}", text);
    if !text {
        return;
    }
    let Some(slot) = builder.try_device_page(TEXT_MEMORY) else {
        return;
    };
    builder.kept.add(slot);
    builder.map(
        Granule::from_bits(slot as u64),
        slot::VSPACE.cap(),
        MEMORY,
        CapRights::read_write(),
        VmAttributes::UNCACHEABLE,
        "the screen",
    );
    THERE.store(true, Ordering::Relaxed);
    TEXT.draw(show);
}

/// Writes text on the screen, if there is one.
pub fn write(text: &str) {
    if THERE.load(Ordering::Relaxed) {
        TEXT.write(text, show);
    }
}

fn show(cell: usize, value: u16) {
    // SAFETY: `start` mapped the page for good, and this is init's only thread.
    let mut memory = unsafe { Mmio::new(MEMORY, PAGE_SIZE as usize) };
    memory.write(2 * cell, Width::Word, value.into());
}
