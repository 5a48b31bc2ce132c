//! The screen, where there is one: all that init says is on it as well. It is one of text, which
//! the VGA's own registers tell, or a framebuffer, of which `crates/boot` tells.
//!
//! As long as all is well it shows what the boot loader left: points take long to draw. What is
//! said until then is kept, and is drawn with the first words that say what is wrong.

use core::fmt::Write as _;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use ::screen::{Canvas, Framebuffer, Points, Text, vga};
use heapless::Vec;
use pci::{FunctionInfo, PAGE_SIZE, Width};
use runtime::Mmio;
use sel4::cap::{Granule, IoPort, LargePage};
use sel4::init_thread::slot;
use sel4::{CapRights, VmAttributes};

use super::builder::Builder;
use super::memory::SCRATCH;
use super::ports::{self, Serial};

/// Where the memory of text is mapped, for good: apart from what is mapped for a moment.
const MEMORY: usize = SCRATCH + (1 << 20);
/// Where a framebuffer is mapped, for good, by large pages.
const POINTS: usize = SCRATCH + LARGE as usize;
/// Bytes of a large page.
const LARGE: u64 = 2 << 20;
/// Large pages of a framebuffer: one of 8K with 32 bits has less than 64 of them.
const PAGES: usize = 64;

/// What is mapped.
static KIND: AtomicU8 = AtomicU8::new(NONE);
const NONE: u8 = 0;
const VGA: u8 = 1;
const FRAMEBUFFER: u8 = 2;

static TEXT: Text = Text::new();
/// What is said is shown from now on.
static LIVE: AtomicBool = AtomicBool::new(false);
/// The screen shows [`TEXT`].
static DRAWN: AtomicBool = AtomicBool::new(false);

/// A framebuffer's large pages: slot of each, and of its memory.
pub type Taken = Vec<(usize, usize), PAGES>;

/// Looks for a screen, and maps its memory. Its ports go with the rest of init's authority.
pub fn start(builder: &mut Builder<'_>) {
    let kind = match canvas() {
        Some(canvas) if map_points(builder, &canvas) => FRAMEBUFFER,
        Some(_) => NONE,
        None if map_text(builder) => VGA,
        None => NONE,
    };
    let name = match kind {
        VGA => "text",
        FRAMEBUFFER => "a framebuffer",
        _ => "none to write on",
    };
    defmt::info!("the screen: {=str}", name);
    KIND.store(kind, Ordering::Relaxed);
}

/// Returns the framebuffer of which the boot program told.
fn canvas() -> Option<Canvas> {
    let words: [u64; 4] = core::array::from_fn(|n| crate::VECTIS_SCREEN[n].load(Ordering::Relaxed));
    let frame: Framebuffer = zerocopy::transmute!(words);
    frame.canvas()
}

/// Maps the memory of a VGA's text, if that is what it shows.
fn map_text(builder: &mut Builder<'_>) -> bool {
    let slot = builder.slot();
    let ports = IoPort::from_bits(slot as u64);
    if ports::issue(&(vga::GRAPHICS_PORTS.0..=vga::CRT_PORTS.1), slot).is_err() {
        return false;
    }
    let register = |(index, data), number| {
        ports.ioport_out8(index, number).ok()?;
        ports.ioport_in8(data).ok()
    };
    let miscellaneous = register(vga::GRAPHICS_PORTS, vga::MISCELLANEOUS);
    let text = miscellaneous.zip(register(vga::CRT_PORTS, vga::COLUMNS_LESS_ONE));
    if !text.is_some_and(|(miscellaneous, columns)| vga::shows_text(miscellaneous, columns)) {
        return false;
    }
    let Some(slot) = builder.try_device_page(vga::TEXT_MEMORY) else {
        return false;
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
    true
}

/// Returns how many large pages the letters on a framebuffer need.
fn pages(canvas: &Canvas) -> u64 {
    canvas.size().div_ceil(LARGE)
}

/// Maps a framebuffer, as far as letters stand on it; not one that begins within a large page,
/// which something else would share.
fn map_points(builder: &mut Builder<'_>, canvas: &Canvas) -> bool {
    let pages = pages(canvas);
    if !canvas.address().is_multiple_of(LARGE) || pages > PAGES as u64 {
        return false;
    }
    for page in 0..pages {
        let Some(taken) = builder.try_large_page(canvas.address() + page * LARGE) else {
            give_back(builder, canvas);
            return false;
        };
        // There is room for as many.
        let _ = builder.screen.push(taken);
    }
    for page in 0..pages as usize {
        let (slot, _) = builder.screen[page];
        builder.kept.add(slot);
        builder.map(
            LargePage::from_bits(slot as u64),
            slot::VSPACE.cap(),
            POINTS + page * LARGE as usize,
            CapRights::read_write(),
            VmAttributes::WRITE_COMBINING,
            "the screen",
        );
    }
    true
}

fn give_back(builder: &mut Builder<'_>, canvas: &Canvas) {
    for (page, (slot, memory)) in (0..).zip(core::mem::take(&mut builder.screen)) {
        builder.give_back(slot, memory, canvas.address() + page * LARGE);
    }
}

/// Leaves the framebuffer alone from now on if a guest is given it, in a BAR of this function.
pub fn leave(builder: &mut Builder<'_>, name: &str, info: &FunctionInfo) {
    let canvas = canvas().filter(|_| KIND.load(Ordering::Relaxed) == FRAMEBUFFER);
    let Some(canvas) = canvas else {
        return;
    };
    if !init::has_memory(info, canvas.address(), pages(&canvas) * LARGE) {
        return;
    }
    // What is left on the screen is true as long as the guest leaves it there.
    show();
    let _ = write!(
        Serial,
        "init: this screen is of device {name}, which a guest has: look at COM1 from now on\r\n"
    );
    KIND.store(NONE, Ordering::Relaxed);
    give_back(builder, &canvas);
}

/// Writes text on the screen, if there is one.
pub fn write(text: &str) {
    match (KIND.load(Ordering::Relaxed), canvas()) {
        (VGA, _) => {
            // SAFETY: `start` mapped the page for good, and this is init's only thread.
            let mut memory = unsafe { Mmio::new(MEMORY, PAGE_SIZE as usize) };
            put(text, |cell, letter| {
                memory.write(2 * cell, Width::Word, vga::cell(letter).into());
            });
        }
        (FRAMEBUFFER, Some(canvas)) => {
            // SAFETY: `start` mapped that much, which `leave` has not undone, and this is init's
            // only thread.
            let mut memory = unsafe { Mmio::new(POINTS, canvas.size() as usize) };
            put(text, |cell, letter| {
                canvas.draw(cell, letter, |offset, points| {
                    let (width, value) = match points {
                        Points::Byte(value) => (Width::Byte, value.into()),
                        Points::Word(value) => (Width::Word, value.into()),
                        Points::Dword(value) => (Width::Dword, value.into()),
                    };
                    memory.write(offset as usize, width, value);
                });
            });
        }
        _ => TEXT.write(text, |_, _| {}),
    }
}

/// Shows what is said from now on, with what was said before.
pub fn show() {
    LIVE.store(true, Ordering::Relaxed);
}

/// Writes text, if it is shown, the first time with what stands before it.
fn put(text: &str, mut show: impl FnMut(usize, u8)) {
    if !LIVE.load(Ordering::Relaxed) {
        TEXT.write(text, |_, _| {});
        return;
    }
    if !DRAWN.swap(true, Ordering::Relaxed) {
        TEXT.draw(&mut show);
    }
    TEXT.write(text, show);
}
