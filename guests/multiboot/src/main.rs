//! Checks what Multiboot tells, and the devices of a PC, and powers the machine off.
//!
//! Responsible for: a machine as kernels for PCs of old use it: 8259s, 8254, clock, ACPI.
//! It prints TAP. Must never: use the local APIC; it is what such kernels do without. May
//! call: kit, multiboot. Invariants: it judges time by the time stamp counter only.
//!
//! Words of its command line, which must be all of it: `check` checks, `reset` resets the
//! machine instead, `bad` runs an instruction in 32-bit code that is not interpreted,
//! `outside` jumps to where no memory is.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering};

use kit::{console, cpu, println};
use multiboot::Memory;
use multiboot::acpi::{self, Power};
use multiboot::info::{COMMAND_LINE, Info, MAP, MEMORY, MODULES};

kit::entry!(main);
global_asm!(include_str!("boot.s"));

/// EAX of a Multiboot entry.
const MAGIC: u32 = 0x2bad_b002;
/// Input clock of the 8254 in Hz.
const CLOCK: u64 = 1_193_182;
/// Clocks of 10 ms.
const TEN_MS: u16 = (CLOCK / 100) as u16;
/// Frequency of the power management timer in Hz.
const PM_CLOCK: u64 = spec::acpi::PM_TIMER_HZ as u64;
/// Clocks of the ACPI timer in which the 8254's count wraps.
const PIT_WRAP: u64 = 3 << 16;
/// Vector of the first 8259's input 0.
const FIRST_VECTOR: u8 = 0x40;
/// Interrupts of the timer that are waited for.
const TICKS: u64 = 20;
/// Selector of 64-bit code in boot.s.
const CODE: u64 = 0x10;

unsafe extern "C" {
    static multiboot_magic: u32;
    static multiboot_information: u32;
}

global_asm!(
    ".section .text.multiboot_timer, \"ax\"",
    ".global multiboot_timer",
    "multiboot_timer:",
    "push rax",
    "inc qword ptr [rip + multiboot_ticks]",
    "mov al, 0x20", // the non-specific end of interrupt
    "out 0x20, al",
    "pop rax",
    "iretq",
);

unsafe extern "C" {
    static multiboot_timer: u8;
}

/// Interrupts of the timer, counted by the handler.
#[unsafe(no_mangle)]
static multiboot_ticks: AtomicU64 = AtomicU64::new(0);

fn ticks() -> u64 {
    multiboot_ticks.load(Ordering::Relaxed)
}

/// All of the guest's memory.
struct Ram;

impl Memory for Ram {
    fn byte(&self, address: u64) -> Option<u8> {
        // The page at 0 is no memory to look at; all of RAM is below 4 GiB.
        if !(0x1000..1 << 32).contains(&address) {
            return None;
        }
        // SAFETY: the page tables map it, and a read of what is not there has no effect.
        Some(unsafe { (address as *const u8).read_volatile() })
    }
}

/// Test results as TAP.
struct Report {
    count: u32,
    failed: u32,
}

impl Report {
    fn check(&mut self, what: &str, holds: bool) {
        self.count += 1;
        let word = if holds { "ok" } else { "not ok" };
        self.failed += u32::from(!holds);
        println!("{word} {} {what}", self.count);
    }
}

fn main(_boot: kit::boot::Boot) -> ! {
    console::init();
    // SAFETY: boot.s wrote both before, and nothing since.
    let (magic, address) = unsafe { (multiboot_magic, multiboot_information) };
    let info = Info::new(&Ram, address.into());
    let line = info.command_line();
    if Ram.is_text(line, "multiboot reset") {
        println!("# multiboot: resets the machine");
        cpu::out8(0x64, 0xfe);
    }
    let mut report = Report {
        count: 0,
        failed: 0,
    };
    report.check("the loader's magic number is in EAX", magic == MAGIC);
    let flags = MEMORY | COMMAND_LINE | MODULES | MAP;
    report.check(
        "memory, command line, modules and a map are told",
        info.has(flags),
    );
    report.check(
        "the command line is the guest's own",
        Ram.is_text(line, "multiboot check"),
    );
    let usable = info.usable() >> 20;
    report.check("the map has the memory", (8..64).contains(&usable));
    module(&info, &mut report);
    interrupt_flag(&mut report);
    bases(&mut report);
    let found = acpi::find(&Ram);
    report.check(
        "ACPI's tables are there",
        found.as_ref().is_some_and(Power::is_documented),
    );
    let Some(power) = found else { finish(&report) };
    let rate = timer(&power, &mut report);
    interrupts(rate, &mut report);
    clock(&mut report);
    println!("1..{}", report.count);
    if report.failed > 0 {
        finish(&report);
    }
    println!("# multiboot: pass, powers off");
    cpu::out16(power.control, u16::from(power.sleep_type) << 10 | 1 << 13);
    println!("not ok: it goes on after it powered off");
    kit::exit(kit::EXIT_FAILURE)
}

fn finish(report: &Report) -> ! {
    println!("# multiboot: fail, {} of {}", report.failed, report.count);
    kit::exit(kit::EXIT_FAILURE)
}

/// Checks the one module: this program's own manifest.
fn module(info: &Info<'_, Ram>, report: &mut Report) {
    let module = info.module(0);
    let contents = include_bytes!("../Cargo.toml");
    let same = module.is_some_and(|(start, end, name)| {
        let bytes = (start..end).map(|at| Ram.byte(at));
        end - start == contents.len() as u64
            && bytes.eq(contents.iter().map(|&byte| Some(byte)))
            && Ram.is_text(name, "Cargo.toml")
    });
    report.check("the module has its name and its bytes", same);
    report.check("there is one module", info.module(1).is_none());
}

/// Ticks of the time stamp counter in 10 ms, between these.
#[derive(Clone, Copy)]
struct Rate {
    least: u64,
    most: u64,
}

/// Saves and restores the interrupt flag, twice nested, as kernels do.
fn interrupt_flag(report: &mut Report) {
    const IF: u64 = 1 << 9;
    let (open, closed, restored): (u64, u64, u64);
    // SAFETY: no interrupt can come: nothing that raises one is programmed yet. The stack
    // is as it was at the end.
    unsafe {
        asm!(
            "pushfq",
            "sti",
            "pushfq",
            "mov {open}, [rsp]",
            "cli",
            "pushfq",
            "pop {closed}",
            "popfq",
            "pushfq",
            "pop {restored}",
            "popfq",
            open = out(reg) open,
            closed = out(reg) closed,
            restored = out(reg) restored,
        );
    }
    let seen = [open, closed, restored].map(|flags| flags & IF != 0);
    report.check(
        "the interrupt flag is saved and restored",
        seen == [true, false, true],
    );
}

/// Uses the bases of FS and GS by their registers, and exchanges GS's.
fn bases(report: &mut Report) {
    const FS_BASE: u32 = 0xc000_0100;
    const GS_BASE: u32 = 0xc000_0101;
    const KERNEL_GS_BASE: u32 = 0xc000_0102;
    static WORDS: [u64; 3] = [0x1111, 0x2222, 0x3333];
    let write = |register: u32, value: &u64| {
        let address = core::ptr::from_ref(value) as u64;
        // SAFETY: this program does not use the bases otherwise.
        unsafe {
            asm!("wrmsr", in("ecx") register, in("eax") address as u32,
                 in("edx") (address >> 32) as u32);
        }
    };
    write(FS_BASE, &WORDS[0]);
    write(GS_BASE, &WORDS[1]);
    write(KERNEL_GS_BASE, &WORDS[2]);
    let (fs, gs, other): (u64, u64, u64);
    // SAFETY: both bases are addresses of words.
    unsafe {
        asm!(
            "mov {fs}, fs:[0]",
            "mov {gs}, gs:[0]",
            "swapgs",
            "mov {other}, gs:[0]",
            fs = out(reg) fs,
            gs = out(reg) gs,
            other = out(reg) other,
        );
    }
    report.check("FS and GS have their bases", [fs, gs, other] == WORDS);
}

/// What two timers and the time stamp counter read at about one time.
struct Sample {
    before: u64,
    count: u16,
    pm: u32,
    after: u64,
}

impl Sample {
    fn take(power: &Power) -> Self {
        let before = cpu::tsc();
        cpu::out8(0x43, 0x80); // latches the count of channel 2
        let count = u16::from_le_bytes([cpu::in8(0x42), cpu::in8(0x42)]);
        let pm = cpu::in32(power.timer);
        let after = cpu::tsc();
        Self {
            before,
            count,
            pm,
            after,
        }
    }
}

/// Measures the time stamp counter by channel 2 of the 8254, as kernels do, and by the ACPI
/// timer.
fn timer(power: &Power, report: &mut Report) -> Rate {
    cpu::out8(0x61, cpu::in8(0x61) & !3);
    cpu::out8(0x43, 0xb0); // channel 2, both bytes, mode 0
    let [low, high] = TEN_MS.to_le_bytes();
    cpu::out8(0x42, low);
    cpu::out8(0x42, high);
    let early = cpu::in8(0x61) & 0x20 != 0;
    cpu::out8(0x61, cpu::in8(0x61) & !2 | 1);
    let first = Sample::take(power);
    while cpu::in8(0x61) & 0x20 == 0 {}
    let last = Sample::take(power);
    report.check("the output is low before the count ends", !early);
    // The time between two readings of a timer lies between these, in ticks.
    let shortest = last.before - first.after;
    let longest = last.after - first.before;
    let pm = u64::from(last.pm.wrapping_sub(first.pm) & 0xff_ffff);
    // The count goes on below 0. The ACPI timer is three times as fast.
    let pit = u64::from(first.count.wrapping_sub(last.count));
    let apart = (pm + PIT_WRAP - 3 * pit % PIT_WRAP) % PIT_WRAP;
    let apart = apart.min(PIT_WRAP - apart);
    let bound = pm * (longest - shortest) / shortest + 8;
    println!("# {pm} clocks of the ACPI timer, {pit} of the 8254: {apart} of {bound} apart");
    report.check(
        "8254 and ACPI timer agree",
        apart <= bound && pm >= PM_CLOCK / 100 - bound,
    );
    let rate = |ticks| ticks * PM_CLOCK / pm.max(1) / 100;
    Rate {
        least: rate(shortest),
        most: rate(longest),
    }
}

/// Counts interrupts of channel 0 through the 8259s.
fn interrupts(rate: Rate, report: &mut Report) {
    load_table();
    for (port, words) in [
        (0x20, [0x11, FIRST_VECTOR, 4, 1]),
        (0xa0, [0x11, FIRST_VECTOR + 8, 2, 1]),
    ] {
        cpu::out8(port, words[0]);
        for word in &words[1..] {
            cpu::out8(port + 1, *word);
        }
    }
    cpu::out8(0x21, 0xff);
    cpu::out8(0xa1, 0xff);
    cpu::out8(0x43, 0x34); // channel 0, both bytes, mode 2
    let [low, high] = TEN_MS.to_le_bytes();
    cpu::out8(0x40, low);
    cpu::out8(0x40, high);
    let start = cpu::tsc();
    while cpu::tsc() - start < 2 * rate.most {}
    cpu::out8(0x20, 0x0a); // reads what waits
    report.check(
        "a masked interrupt waits",
        cpu::in8(0x20) & 1 == 1 && ticks() == 0,
    );
    cpu::out8(0x21, 0xfe);
    let start = cpu::tsc();
    while ticks() < TICKS {
        // SAFETY: the handler of the only interrupt that can come saves what it uses; the
        // red zone is below the frame that is pushed (this machine keeps it), and on a
        // bare one nothing lives there across this statement.
        unsafe { asm!("sti", "hlt", "cli") };
    }
    let passed = (cpu::tsc() - start) / rate.least;
    println!("# {TICKS} interrupts in {passed} periods");
    // The first has waited; each of the others took a period at least.
    report.check("no interrupt comes early", passed + 2 >= TICKS);
    cpu::out8(0x21, 0xff);
    let before = ticks();
    let start = cpu::tsc();
    while cpu::tsc() - start < 2 * rate.most {
        // SAFETY: as above.
        unsafe { asm!("sti", "nop", "cli") };
    }
    report.check("the mask holds it back again", ticks() == before);
}

/// Loads an interrupt table with one gate.
fn load_table() {
    static mut TABLE: [[u64; 2]; 256] = [[0; 2]; 256];
    #[repr(C, packed)]
    struct Pointer(u16, u64);
    let handler = &raw const multiboot_timer as u64;
    let table = &raw mut TABLE;
    let pointer = Pointer(256 * 16 - 1, table as u64);
    // SAFETY: nothing reads the table before it is loaded, and it is never changed again.
    unsafe {
        (*table)[usize::from(FIRST_VECTOR)] = [
            handler & 0xffff | CODE << 16 | 0x8e00 << 32 | (handler >> 16 & 0xffff) << 48,
            handler >> 32,
        ];
        asm!("lidt [{}]", in(reg) &raw const pointer, options(nostack));
    }
}

/// Reads the clock.
fn clock(report: &mut Report) {
    let read = |index| {
        cpu::out8(0x70, index);
        cpu::in8(0x71)
    };
    let decimal = |byte: u8| u32::from(byte >> 4) * 10 + u32::from(byte & 0xf);
    report.check("the clock's memory is valid", read(0x0d) & 0x80 != 0);
    report.check("it is not being updated", read(0x0a) & 0x80 == 0);
    let [century, year, month, day] = [0x32, 0x09, 0x08, 0x07].map(|index| decimal(read(index)));
    println!("# the clock says {century:02}{year:02}-{month:02}-{day:02}");
    let known =
        100 * century + year >= 2024 && (1..=12).contains(&month) && (1..=31).contains(&day);
    report.check("it knows the date", known);
}
