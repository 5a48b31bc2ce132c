//! Takes the loader's information, checks the machine, starts the kernel.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::fmt::{self, Write as _};
use core::ptr::with_exposed_provenance;

use ::screen::{Canvas, Points, Text, vga};
use boot::information::{self, Told};
use boot::{Handoff, Information, Protocol, REGIONS, Region, Screen, cpu, text};
use freestanding as _;
use zerocopy::IntoBytes as _;

global_asm!(include_str!("entry.s"), main = sym main);

/// Memory that one thread uses, as this program is.
#[repr(C, align(16))]
struct Own<T>(UnsafeCell<T>);

// SAFETY: there is one thread, and nothing interrupts it.
unsafe impl<T> Sync for Own<T> {}

/// What the build tool has attached.
#[used]
#[unsafe(no_mangle)]
static VECTIS_BOOT: Own<Handoff> = Own(UnsafeCell::new(Handoff::empty()));

/// Bytes for the kernel's information: 16 pieces of memory, and texts.
const ROOM: usize = 2048;
static INFORMATION: Own<[u8; ROOM]> = Own(UnsafeCell::new([0; ROOM]));

/// What the last instructions load.
#[repr(C)]
struct Jump {
    entry: u32,
    eax: u32,
    ebx: u32,
}

unsafe extern "C" {
    static mut boot_jump: Jump;
    fn boot_halt() -> !;
}

fn out8(port: u16, value: u8) {
    // SAFETY: ports of the serial controller, which is this program's alone.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack)) }
}

fn in8(port: u16) -> u8 {
    let value;
    // SAFETY: as above.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack)) }
    value
}

/// Looks at the serial controller before a byte is given up.
const PATIENCE: u32 = 100_000;

/// What stands on the screen.
static TEXT: Text = Text::new();

/// A screen that can be written on.
#[derive(Clone, Copy)]
enum Surface {
    Text,
    Points(Canvas),
}

impl Surface {
    /// Returns the screen, if its memory is mapped.
    fn of(screen: Screen) -> Option<Self> {
        match screen {
            Screen::Text => Some(Self::Text),
            Screen::Points(points) => points
                .canvas()
                .filter(|canvas| canvas.address() + canvas.size() <= MAPPED)
                .map(Self::Points),
        }
    }

    fn show(self, cell: usize, letter: u8) {
        match self {
            Self::Text => {
                let address = vga::TEXT_MEMORY as usize + 2 * cell;
                let at = core::ptr::with_exposed_provenance_mut::<u16>(address);
                // SAFETY: the loader says that a screen of text is there, and it has this cell.
                unsafe { at.write_volatile(vga::cell(letter)) }
            }
            Self::Points(canvas) => canvas.draw(cell, letter, |offset, points| {
                let at = (canvas.address() + offset) as usize;
                let at = core::ptr::with_exposed_provenance_mut::<u8>(at);
                // SAFETY: the loader says that the framebuffer is there; it is mapped, in no
                // memory, and each write is aligned (`Information::screen`, `Canvas::draw`).
                unsafe {
                    match points {
                        Points::Byte(value) => at.write_volatile(value),
                        Points::Word(value) => at.cast::<u16>().write_volatile(value),
                        Points::Dword(value) => at.cast::<u32>().write_volatile(value),
                    }
                }
            }),
        }
    }
}

/// Text for people: to the serial port, and to a screen.
struct Console {
    com1: u16,
    screen: Option<Surface>,
}

impl Console {
    /// Sets the serial port to 115200 baud, 8 bits, no parity (16550 datasheet, section 8.4),
    /// and clears the screen.
    fn new(com1: u16, screen: Option<Screen>) -> Self {
        if com1 != 0 {
            let writes = [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 3), (2, 7), (4, 3)];
            for (register, value) in writes {
                out8(com1 + register, value);
            }
        }
        let screen = screen.and_then(Surface::of);
        if let Some(screen) = screen {
            TEXT.draw(|cell, letter| screen.show(cell, letter));
        }
        Self { com1, screen }
    }

    fn byte(&mut self, byte: u8) {
        if self.com1 != 0 {
            for _ in 0..PATIENCE {
                // Line status: room for a byte.
                if in8(self.com1 + 5) & 0x20 != 0 {
                    break;
                }
            }
            out8(self.com1, byte);
        }
    }
}

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if let Some(screen) = self.screen {
            TEXT.write(text, |cell, letter| screen.show(cell, letter));
        }
        for byte in text.bytes() {
            if byte == b'\n' {
                self.byte(b'\r');
            }
            self.byte(byte);
        }
        Ok(())
    }
}

/// Memory, all of which is mapped as it is.
struct Memory;

/// The first address that is not mapped.
const MAPPED: u64 = 1 << 32;

impl acpi_tables::PhysicalMemory for Memory {
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> bool {
        let end = address.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| end > MAPPED) {
            return false;
        }
        for (offset, byte) in bytes.iter_mut().enumerate() {
            let from = with_exposed_provenance::<u8>(address as usize + offset);
            // SAFETY: it is mapped; reading firmware's memory changes nothing.
            *byte = unsafe { from.read_volatile() };
        }
        true
    }
}

/// Copies bytes to a machine address.
///
/// # Safety
/// Nothing of this program may lie there.
unsafe fn write(address: u64, bytes: &[u8]) {
    for (offset, byte) in bytes.iter().enumerate() {
        let to = core::ptr::with_exposed_provenance_mut::<u8>(address as usize + offset);
        // SAFETY: as above; all memory is mapped.
        unsafe { to.write_volatile(*byte) }
    }
}

/// Ends: says why, and waits forever.
fn stop(console: &mut Console, why: fmt::Arguments<'_>) -> ! {
    let _ = writeln!(console, "\nboot: fatal: {why}");
    // SAFETY: it touches nothing.
    unsafe { boot_halt() }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let mut console = Console::new(handoff().com1 as u16, None);
    stop(&mut console, format_args!("{info}"))
}

fn handoff() -> Handoff {
    // SAFETY: nobody writes it. The build tool has filled it in the file, of which the
    // compiler knows nothing.
    unsafe { VECTIS_BOOT.0.get().read_volatile() }
}

fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let answer = core::arch::x86_64::__cpuid_count(leaf, subleaf);
    [answer.eax, answer.ebx, answer.ecx, answer.edx]
}

/// Bytes of the head of the loader's information: its size, and nothing.
const HEAD: usize = 8;
/// The longest information that is read: firmware's memory map is most of it.
const LONGEST: usize = 1 << 20;

/// Returns the loader's information.
fn information(at: u32) -> Information<'static> {
    let at = at as usize;
    // SAFETY: the loader says that its information is there; its first field is its length.
    let length = unsafe { with_exposed_provenance::<u32>(at).read_unaligned() } as usize;
    let length = length.clamp(HEAD, LONGEST) - HEAD;
    // SAFETY: the same; nothing writes there before the last use of it.
    Information::new(unsafe {
        core::slice::from_raw_parts(with_exposed_provenance(at + HEAD), length)
    })
}

/// Where the BIOS has the segment of its extended data area.
const DATA_AREA: u64 = 0x40e;

extern "C" fn main(magic: u32, loader: u32) {
    let handoff = handoff();
    let com1 = handoff.com1 as u16;
    if magic != boot::MAGIC {
        let mut console = Console::new(com1, None);
        stop(
            &mut console,
            format_args!("not started by Multiboot 2: GRUB's command for it is `multiboot2`"),
        );
    }
    let loader = information(loader);
    let screen = loader.screen();
    let mut console = Console::new(com1, screen);
    if handoff.entry == 0 {
        stop(
            &mut console,
            format_args!("no kernel is attached: build with `vectis build`"),
        );
    }
    let mut missing = cpu::missing(handoff.features, cpuid).peekable();
    if missing.peek().is_some() {
        let _ = writeln!(console, "\nboot: this CPU lacks what the kernel needs:");
        for feature in missing {
            let _ = writeln!(console, "boot: {}: {}", feature.name, feature.remedy);
        }
        stop(&mut console, format_args!("the kernel would not start"));
    }
    let memory = match loader.memory() {
        Ok(memory) => memory,
        Err(trouble) => stop(&mut console, format_args!("{trouble}")),
    };
    let regions: heapless::Vec<Region, REGIONS> = memory.for_kernel();
    let (start, end) = handoff.kernel();
    let module = Region {
        start: handoff.module,
        end: handoff.module + handoff.module_bytes,
    };
    let kernel = Region { start, end };
    if let Err(trouble) = boot::check(&regions, kernel, module, handoff.module_memory) {
        stop(&mut console, format_args!("{trouble}"));
    }
    let root = loader.root_pointer();
    let place = match (handoff.protocol(), root) {
        (Protocol::One, Some(pointer)) => {
            if !boot::has_rsdt(pointer) {
                stop(
                    &mut console,
                    format_args!(
                        "the firmware has no ACPI RSDT, which this kernel reads: take an \
                         installed seL4 (--sel4)"
                    ),
                );
            }
            match memory.low_page() {
                Ok(page) => boot::root_place(&mut Memory, pointer, page),
                Err(trouble) => stop(&mut console, format_args!("{trouble}")),
            }
        }
        _ => None,
    };
    if root.is_none() && acpi_tables::pointer(&mut Memory).is_none() {
        stop(
            &mut console,
            format_args!("neither the boot loader nor the firmware tells of ACPI's tables"),
        );
    }
    let told = Told {
        command_line: text(&handoff.command_line).as_bytes(),
        module,
        memory: &regions,
        root,
    };
    // SAFETY: the only reference, and it ends before the kernel runs.
    let room = unsafe { &mut *INFORMATION.0.get() };
    let at = INFORMATION.0.get() as usize as u32;
    let Some(eax) = information::write(handoff.protocol(), &told, at, room) else {
        stop(
            &mut console,
            format_args!("no room for the kernel's information"),
        );
    };
    let _ = writeln!(
        console,
        "\nboot: starting seL4 {} at {kernel}",
        text(&handoff.label)
    );
    let _ = match com1 {
        0 => writeln!(console, "boot: the board has no serial port"),
        _ => writeln!(
            console,
            "boot: all further output is on the serial port at {com1:#x}, 115200 8n1"
        ),
    };
    if let Some(place) = place {
        // SAFETY: a page of memory that firmware has given up; this program is far above it.
        unsafe {
            write(place.address, &place.bytes);
            write(DATA_AREA, &place.segment.to_le_bytes());
        }
    }
    if let Some(Screen::Points(points)) = screen
        && handoff.screen != 0
    {
        // SAFETY: the tool has put init's variable there, in a file that nothing reads yet.
        unsafe { write(handoff.screen, points.as_bytes()) }
    }
    for segment in handoff.segments() {
        let from = with_exposed_provenance(segment.from as usize);
        // SAFETY: the tool has put these bytes into this program's file.
        let bytes = unsafe { core::slice::from_raw_parts(from, segment.bytes as usize) };
        // SAFETY: the tool has checked that the kernel ends below this program, and it was
        // checked above that its memory is free.
        unsafe {
            write(segment.to, bytes);
            let rest = (segment.to + segment.bytes) as usize;
            let rest = core::ptr::with_exposed_provenance_mut::<u8>(rest);
            rest.write_bytes(0, (segment.size - segment.bytes) as usize);
        }
    }
    // SAFETY: only the entry code reads it, after this function.
    unsafe {
        boot_jump = Jump {
            entry: handoff.entry as u32,
            eax,
            ebx: at,
        };
    }
}
