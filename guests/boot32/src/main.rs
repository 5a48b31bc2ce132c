//! Enters the image beside it, whose first code is 32-bit code.
//!
//! Responsible for: the image's memory as the interpreter reaches it, and the last step
//! into 64-bit code, which is done by real instructions. Must never: let the image write
//! over this program before that. May call: boot32, kit. Invariants: what the image was
//! told stays in memory that its map calls reserved.
#![no_std]
#![no_main]

use core::arch::asm;
use core::ops::Range;

use boot32::information::Facts;
use boot32::{Cpu, Interpreter, Machine, Width};
use kit::interrupts::Interrupts;
use kit::{EXIT_FAILURE, console, cpu, println};

kit::entry!(main);

/// Bytes for the information of the boot protocol.
const ROOM: usize = 16 << 10;
/// Instructions between two lines that say how far it is.
const PROGRESS: u64 = 4 << 20;
/// Instructions after which an image is thought to be lost.
const LIMIT: u64 = 64 << 20;

const EFER: u32 = 0xc000_0080;

/// What the image finds by its entry's registers.
static mut INFORMATION: [u8; ROOM] = [0; ROOM];

/// The image's memory, and the machine.
struct Surroundings {
    ram: Range<u64>,
    /// Memory of this program that the image may read.
    information: Range<u64>,
}

impl Surroundings {
    fn holds(range: &Range<u64>, address: u32, width: Width) -> bool {
        let start = u64::from(address);
        range.start <= start && start + u64::from(width.bytes()) <= range.end
    }
}

impl Machine for Surroundings {
    fn read(&mut self, address: u32, width: Width) -> Option<u32> {
        if !Self::holds(&self.ram, address, width)
            && !Self::holds(&self.information, address, width)
        {
            return None;
        }
        let at = address as usize;
        // SAFETY: it is RAM of this guest, and no reference to it is held here.
        Some(unsafe {
            match width {
                Width::Byte => (at as *const u8).read_volatile().into(),
                Width::Word => (at as *const u16).read_unaligned().into(),
                Width::Dword => (at as *const u32).read_unaligned(),
            }
        })
    }

    fn write(&mut self, address: u32, width: Width, value: u32) -> Option<()> {
        if !Self::holds(&self.ram, address, width) {
            return None;
        }
        let at = address as usize;
        // SAFETY: it is RAM of the image, which nothing of this program lies in.
        unsafe {
            match width {
                Width::Byte => (at as *mut u8).write_volatile(value as u8),
                Width::Word => (at as *mut u16).write_unaligned(value as u16),
                Width::Dword => (at as *mut u32).write_unaligned(value),
            }
        }
        Some(())
    }

    fn port_read(&mut self, port: u16, width: Width) -> u32 {
        match width {
            Width::Byte => cpu::in8(port).into(),
            Width::Word => cpu::in16(port).into(),
            Width::Dword => cpu::in32(port),
        }
    }

    fn port_write(&mut self, port: u16, width: Width, value: u32) {
        match width {
            Width::Byte => cpu::out8(port, value as u8),
            Width::Word => cpu::out16(port, value as u16),
            Width::Dword => cpu::out32(port, value),
        }
    }

    fn cpuid(&mut self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let result = core::arch::x86_64::__cpuid_count(leaf, subleaf);
        [result.eax, result.ebx, result.ecx, result.edx]
    }

    fn tsc(&mut self) -> u64 {
        cpu::tsc()
    }
}

/// Ends the guest, with the reason on its console.
fn give_up(reason: impl core::fmt::Display) -> ! {
    println!("boot32: {reason}");
    kit::exit(EXIT_FAILURE)
}

fn main(_boot: kit::boot::Boot) -> ! {
    console::init();
    // An exception in the image, before it has a table of its own, is named.
    let _interrupts = Interrupts::install();
    let Some(facts) = Facts::parse(kit::boot::handoff()) else {
        give_up("there is no image beside it");
    };
    let information = &raw mut INFORMATION;
    // SAFETY: the only reference, and it ends before the image runs.
    let room = unsafe { &mut *information };
    let Some((eax, ebx)) = facts.write(room, information as u32) else {
        give_up("command line and modules' names are too long");
    };
    let information = information as u64;
    let mut machine = Surroundings {
        ram: facts.head.ram_start..facts.head.ram_end,
        information: information..information + ROOM as u64,
    };
    let cpu = Cpu::new(facts.head.entry as u32, eax, ebx);
    let rewritten = facts.boot.rewritten != 0;
    let mut interpreter = Interpreter::new(cpu, rewritten, &mut machine);
    let mut steps = 0;
    loop {
        match interpreter.run(PROGRESS) {
            Ok(true) => enter(&interpreter.cpu),
            Ok(false) => {}
            Err(trouble) => give_up(trouble),
        }
        steps += PROGRESS;
        let eip = interpreter.cpu.eip;
        println!("boot32: {steps} instructions of 32-bit code so far, now at {eip:#x}");
        if steps >= LIMIT {
            give_up("the image does not reach long mode");
        }
    }
}

/// General registers and the frame by which IRETQ loads the others.
#[repr(C)]
struct Frame {
    gpr: [u64; 8],
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// A descriptor table's register in memory.
#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

/// Enters 64-bit code with the registers that the image has made.
fn enter(cpu: &Cpu) -> ! {
    let pointer = |table: boot32::Table| Pointer {
        limit: table.limit,
        base: table.base.into(),
    };
    let frame = Frame {
        gpr: cpu.gpr.map(u64::from),
        rip: cpu.eip.into(),
        cs: cpu.selectors[1].into(),
        rflags: cpu.eflags.into(),
        rsp: cpu.gpr[4].into(),
        ss: cpu.selectors[2].into(),
    };
    let (gdt, idt) = (pointer(cpu.gdt), pointer(cpu.idt));
    // SAFETY: nothing of this program runs or is read after it. The image's page tables
    // map what they map: it has written them for itself.
    unsafe {
        asm!("lgdt [{}]", in(reg) &raw const gdt, options(nostack, preserves_flags));
        if cpu.idt.limit != 0 {
            asm!("lidt [{}]", in(reg) &raw const idt, options(nostack, preserves_flags));
        }
        asm!(
            "wrmsr",
            "mov cr4, {cr4}",
            "mov cr3, {cr3}",
            "mov cr0, {cr0}",
            "lea rsp, [{frame} + 64]",
            "mov rax, {frame}",
            "mov rcx, [rax + 8]",
            "mov rdx, [rax + 16]",
            "mov rbx, [rax + 24]",
            "mov rbp, [rax + 40]",
            "mov rsi, [rax + 48]",
            "mov rdi, [rax + 56]",
            "mov rax, [rax]",
            "iretq",
            cr4 = in(reg) u64::from(cpu.cr4),
            cr3 = in(reg) u64::from(cpu.cr3),
            cr0 = in(reg) u64::from(cpu.cr0),
            frame = in(reg) &raw const frame,
            in("ecx") EFER,
            in("eax") cpu.efer as u32,
            in("edx") (cpu.efer >> 32) as u32,
            options(noreturn),
        )
    }
}
