//! The CPU's guest: sets up the CPU as unikernels of other projects do at start, and checks
//! what it then has.
//!
//! Responsible for: a line for each thing that must hold (`ok` or `not ok`), by the crate
//! `x86_64` where that can do it.
//! Must never: rely on more than a real CPU in ring 0 does: each check holds there too.
//! May call: kit, `x86_64`.
//! Invariants: interrupts are off but in the checks of the interrupt flag, and every
//! handler has a stack of its own, so that none runs over a red zone.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};

use kit::boot::Boot;
use kit::{EXIT_FAILURE, EXIT_SUCCESS, console, println};
use x86_64::instructions::interrupts::{self, without_interrupts};
use x86_64::instructions::tables;
use x86_64::registers::control::{Cr3, Cr3Flags, Cr4, Cr4Flags};
use x86_64::registers::model_specific::{FsBase, GsBase, KernelGsBase, LStar};
use x86_64::registers::rflags::{self, RFlags};
use x86_64::registers::segmentation::{CS, DS, ES, FS, GS, SS, Segment, Segment64};
use x86_64::registers::xcontrol::{XCr0, XCr0Flags};
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::idt::InterruptDescriptorTable;
use x86_64::structures::paging::{PhysFrame, Size4KiB};
use x86_64::structures::tss::TaskStateSegment;
use x86_64::{PhysAddr, VirtAddr};

kit::entry!(main);
global_asm!(include_str!("handlers.s"));

/// Frame of the last page fault.
#[derive(Clone, Copy)]
#[repr(C)]
struct Frame {
    /// Stack pointer in the handler, after it pushed one word.
    handler_rsp: u64,
    error: u64,
    cs: u64,
    rsp: u64,
    ss: u64,
}

unsafe extern "C" {
    fn cpu_interrupt();
    fn cpu_page_fault();
    fn cpu_touch(address: u64, stack: u64);
    fn cpu_interrupt_by_flags() -> Counts;
    static mut cpu_frame: Frame;
}

/// What `cpu_interrupt_by_flags` returns: rax and rdx (System V ABI).
#[repr(C)]
struct Counts {
    before: u64,
    after: u64,
}

/// The vector that the guest sends itself.
const VECTOR: u8 = 0x40;
/// Where nothing is mapped, on a CPU with page tables for 4 GiB.
const NOWHERE: u64 = 1 << 40;

/// Bases while they are watched. The hostile guest, for `base-yields`, has the same.
const WATCHED: u64 = 0x180_0000;
/// Looks between two lines of [`watch`].
const ROUNDS: u64 = 100_000_000;
/// Ticks in which the kernel's timer comes several times.
const LINGER: u64 = 50_000_000;
/// Bits of a page table's entry: present and writable, and a page of 2 MiB or 1 GiB.
const PRESENT_WRITABLE: u64 = 3;
const LARGE: u64 = 1 << 7;

#[repr(C, align(4096))]
struct Table([u64; 512]);

#[repr(C, align(16))]
struct Stack([u8; 8192]);

static mut FAULT_STACK: Stack = Stack([0; 8192]);
static mut INTERRUPT_STACK: Stack = Stack([0; 8192]);
/// Levels 4, 3 and 2 of a page table.
static mut TABLES: [Table; 3] = [const { Table([0; 512]) }; 3];

/// What FS and GS point to.
static WORDS: [u64; 3] = [0x1111, 0x2222, 0x3333];

/// Prints what holds and what does not.
struct Report {
    passed: bool,
}

impl Report {
    fn check(&mut self, what: &str, holds: bool) {
        println!("{} {what}", if holds { "ok" } else { "not ok" });
        self.passed &= holds;
    }
}

/// Returns the end of a stack.
fn top(stack: *const Stack) -> VirtAddr {
    VirtAddr::from_ptr(stack) + size_of::<Stack>() as u64
}

fn main(boot: Boot) -> ! {
    console::init();
    let mut report = Report { passed: true };

    let mut task = TaskStateSegment::new();
    task.interrupt_stack_table[0] = top(&raw const FAULT_STACK);
    task.interrupt_stack_table[1] = top(&raw const INTERRUPT_STACK);
    let mut gdt = GlobalDescriptorTable::new();
    let code = gdt.append(Descriptor::kernel_code_segment());
    let data = gdt.append(Descriptor::kernel_data_segment());
    // SAFETY: `task` lives as long as the guest, since `main` does not return.
    let task = gdt.append(unsafe { Descriptor::tss_segment_unchecked(&raw const task) });
    let mut idt = InterruptDescriptorTable::new();
    // SAFETY: the handlers keep all registers and return by iretq; the stacks are the
    // task state segment's. The table and the GDT live as long as the guest.
    unsafe {
        gdt.load_unsafe();
        CS::set_reg(code);
        SS::set_reg(data);
        DS::set_reg(data);
        ES::set_reg(data);
        FS::set_reg(data);
        GS::set_reg(data);
        tables::load_tss(task);
        let page_fault = VirtAddr::new(cpu_page_fault as *const () as u64);
        idt.page_fault
            .set_handler_addr(page_fault)
            .set_stack_index(0);
        let interrupt = VirtAddr::new(cpu_interrupt as *const () as u64);
        idt[VECTOR].set_handler_addr(interrupt).set_stack_index(1);
        idt.load_unsafe();
    }
    report.check("far return, segments, task register", true);
    if boot.command_line.value("watch").is_some() {
        watch()
    }
    fault(&mut report, code, data);
    bases(&mut report);
    flags(&mut report);
    extended_control(&mut report);
    page_table(&mut report, boot.command_line.value("end"));
    println!("# cpu: {}", if report.passed { "pass" } else { "fail" });
    kit::exit(if report.passed {
        EXIT_SUCCESS
    } else {
        EXIT_FAILURE
    })
}

/// A page fault with a stack pointer that leads nowhere.
fn fault(report: &mut Report, code: SegmentSelector, data: SegmentSelector) {
    const BROKEN: u64 = NOWHERE + 64;
    // SAFETY: the access faults, and the handler resumes behind it; the stack pointer is
    // back by then.
    let frame = unsafe {
        cpu_touch(NOWHERE, BROKEN);
        (&raw const cpu_frame).read_volatile()
    };
    // Error code and five words, and one that the handler pushed.
    let handler_rsp = top(&raw const FAULT_STACK).as_u64() - 56;
    report.check(
        "a page fault has its own stack",
        frame.handler_rsp == handler_rsp,
    );
    report.check("its frame has the stack pointer", frame.rsp == BROKEN);
    report.check("its error code is a read's", frame.error & !4 == 0);
    let selectors = (code.0.into(), data.0.into());
    report.check(
        "its frame has the selectors",
        (frame.cs, frame.ss) == selectors,
    );
}

/// Reads the first word at FS.
fn fs_word() -> u64 {
    let word;
    // SAFETY: FS points to a word of `WORDS`.
    unsafe { asm!("mov {}, fs:[0]", out(reg) word, options(nostack, readonly)) };
    word
}

/// Reads the first word at GS.
fn gs_word() -> u64 {
    let word;
    // SAFETY: GS points to a word of `WORDS`.
    unsafe { asm!("mov {}, gs:[0]", out(reg) word, options(nostack, readonly)) };
    word
}

/// Works until the kernel's own timer has come several times.
fn linger() {
    let start = kit::cpu::tsc();
    while kit::cpu::tsc().wrapping_sub(start) < LINGER {}
}

/// Looks at the words at FS and GS without an end, and says so from time to time, or that
/// one of them is not there any more.
fn watch() -> ! {
    let word = core::ptr::with_exposed_provenance_mut::<u64>(WATCHED as usize);
    // SAFETY: RAM above the image, which nothing else uses.
    unsafe { word.write_volatile(WATCHED) };
    FsBase::write(VirtAddr::new(WATCHED));
    GsBase::write(VirtAddr::new(WATCHED));
    loop {
        let mut seen = true;
        for _ in 0..ROUNDS {
            seen &= (fs_word(), gs_word()) == (WATCHED, WATCHED);
        }
        let what = if seen {
            "its bases"
        } else {
            "not ok, another's bases"
        };
        println!("# cpu: {what}");
    }
}

/// The bases of FS and GS, by every way to set them.
fn bases(report: &mut Report) {
    let [one, two, three] = [0, 1, 2].map(|index| VirtAddr::from_ptr(&raw const WORDS[index]));
    FsBase::write(one);
    GsBase::write(two);
    report.check(
        "FS base by its MSR",
        (fs_word(), FsBase::read()) == (0x1111, one),
    );
    report.check(
        "GS base by its MSR",
        (gs_word(), GsBase::read()) == (0x2222, two),
    );
    linger();
    report.check("they last", (fs_word(), gs_word()) == (0x1111, 0x2222));
    // SAFETY: CR4.FSGSBASE allows the instructions below; kit uses neither register.
    unsafe {
        Cr4::update(|flags| flags.insert(Cr4Flags::FSGSBASE));
        FS::write_base(three);
        GS::write_base(one);
    }
    report.check(
        "FS base by wrfsbase",
        (fs_word(), FsBase::read()) == (0x3333, three),
    );
    report.check(
        "GS base by wrgsbase",
        (gs_word(), GsBase::read()) == (0x1111, one),
    );
    linger();
    report.check(
        "they last as well",
        (fs_word(), gs_word()) == (0x3333, 0x1111),
    );
    report.check(
        "rdfsbase and rdgsbase",
        (FS::read_base(), GS::read_base()) == (three, one),
    );
    KernelGsBase::write(two);
    // SAFETY: kit does not use GS.
    unsafe { GS::swap() };
    report.check("swapgs", (gs_word(), KernelGsBase::read()) == (0x2222, one));
    LStar::write(three);
    report.check("LSTAR is kept", LStar::read() == three);
}

/// The interrupt flag, as `pushfq` and `popfq` have it.
fn flags(report: &mut Report) {
    let is_on = || rflags::read().contains(RFlags::INTERRUPT_FLAG);
    interrupts::disable();
    report.check("pushfq shows that interrupts are off", !is_on());
    let inside = without_interrupts(is_on);
    report.check("without_interrupts leaves them off", !inside && !is_on());
    interrupts::enable();
    report.check("pushfq shows that they are on", is_on());
    let inside = without_interrupts(|| {
        let inner = without_interrupts(is_on);
        (inner, is_on())
    });
    report.check("without_interrupts, nested", inside == (false, false));
    report.check("popfq has them on again", is_on());
    interrupts::disable();
    // SAFETY: popfq with flags of ring 0 as they were; interrupts stay as they are.
    unsafe { rflags::write(rflags::read() | RFlags::CARRY_FLAG) };
    report.check("popfq leaves them off", !is_on());
    // The local APIC on: spurious vector register (SDM vol. 3 section 11.9).
    let spurious = core::ptr::with_exposed_provenance_mut::<u32>(0xfee0_00f0);
    // SAFETY: a register of the local APIC; the vector is sent with interrupts off, and
    // its handler is there.
    let counts = unsafe {
        spurious.write_volatile(0x1ff);
        cpu_interrupt_by_flags()
    };
    report.check("an interrupt waits while they are off", counts.before == 0);
    report.check("popfq lets it in", counts.after == 1);
}

/// XCR0.
fn extended_control(report: &mut Report) {
    // SAFETY: it is only read and set to what SSE code needs; nothing here uses XSAVE.
    let read = unsafe {
        Cr4::update(|flags| flags.insert(Cr4Flags::OSXSAVE));
        XCr0::write(XCr0Flags::X87 | XCr0Flags::SSE);
        XCr0::read()
    };
    report.check("XCR0", read == XCr0Flags::X87 | XCr0Flags::SSE);
}

/// A page table of its own: an identity map, or what `end` says.
fn page_table(report: &mut Report, end: Option<&str>) {
    let tables = &raw mut TABLES;
    // SAFETY: the only reference, before the CPU reads the tables; it never writes to
    // this part of `.bss` otherwise.
    let [level_4, level_3, level_2] = unsafe { &mut *tables };
    let entry = |table: &Table| VirtAddr::from_ptr(table).as_u64() | PRESENT_WRITABLE;
    let large = |address: u64| address | PRESENT_WRITABLE | LARGE;
    for (at, place) in (0..).step_by(2 << 20).zip(&mut level_2.0) {
        *place = large(at);
    }
    level_3.0[0] = entry(level_2);
    for gib in 1..4 {
        level_3.0[gib] = large((gib as u64) << 30);
    }
    level_4.0[0] = entry(level_3);
    match end {
        // The second half TiB is the first once more.
        Some("alias") => level_4.0[1] = entry(level_3),
        // The table is in itself.
        Some("recursive") => level_4.0[510] = entry(level_4),
        Some("no-code") => level_3.0[0] = 0,
        _ => {}
    }
    let root = match end {
        Some("outside") => 0xfee0_0000,
        _ => VirtAddr::from_ptr(level_4).as_u64(),
    };
    let root = PhysFrame::<Size4KiB>::containing_address(PhysAddr::new(root));
    for flags in [Cr3Flags::empty(), Cr3Flags::PAGE_LEVEL_CACHE_DISABLE] {
        // SAFETY: the table maps 4 GiB to themselves; where it does not the guest ends.
        unsafe { Cr3::write(root, flags) };
        report.check(
            "a page table that is an identity map",
            Cr3::read() == (root, flags),
        );
    }
}
