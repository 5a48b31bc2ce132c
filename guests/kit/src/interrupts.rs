//! Interrupt descriptor table, interrupt counts, and the two places where interrupts are open.
//!
//! Compiled code keeps live data below the stack pointer (the System V red
//! zone), where an interrupt frame would overwrite it. So interrupts are open
//! only within two assembly sequences that are declared to use the stack.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use spec::posted::{DEADLINE, PORT, SIZE, VECTOR_WORDS};

use crate::command_line::CommandLine;
use crate::{EXIT_FAILURE, boot, cpu, exit, println};

global_asm!(include_str!("interrupts.s"));

/// Interrupts taken, by vector; counted by the stubs.
#[unsafe(no_mangle)]
static interrupt_counts: [AtomicU64; 256] = [const { AtomicU64::new(0) }; 256];

/// Where the stubs write the end of interrupt; 0 selects the x2APIC register.
#[unsafe(no_mangle)]
static lapic_eoi_address: AtomicU64 = AtomicU64::new(0);

pub(crate) fn set_eoi_address(address: u64) {
    lapic_eoi_address.store(address, Ordering::Relaxed);
}

/// What the monitor sees of a guest whose interrupts are posted.
#[repr(C, align(64))]
struct Block {
    vectors: [AtomicU64; VECTOR_WORDS],
    deadline: AtomicU64,
    rest: [u64; 3],
}

const _: () = assert!(
    size_of::<Block>() as u64 == SIZE && core::mem::offset_of!(Block, deadline) as u64 == DEADLINE
);

static BLOCK: Block = Block {
    vectors: [const { AtomicU64::new(0) }; VECTOR_WORDS],
    deadline: AtomicU64::new(0),
    rest: [0; 3],
};
/// Interrupts are posted.
static POSTED: AtomicBool = AtomicBool::new(false);

/// Sets the time stamp at which the timer interrupts. Returns `false` where interrupts are not
/// posted.
pub(crate) fn set_deadline(tsc: u64) -> bool {
    let posted = POSTED.load(Ordering::Relaxed);
    if posted {
        BLOCK.deadline.store(tsc.max(1), Ordering::Relaxed);
    }
    posted
}

/// Counts the interrupts that were posted. Returns whether there were some.
fn take_posted() -> bool {
    let mut any = false;
    for (index, word) in BLOCK.vectors.iter().enumerate() {
        // An exchange costs more than a look.
        if word.load(Ordering::Relaxed) == 0 {
            continue;
        }
        let mut bits = word.swap(0, Ordering::Acquire);
        while bits != 0 {
            let vector = 64 * index + bits.trailing_zeros() as usize;
            interrupt_counts[vector].fetch_add(1, Ordering::Relaxed);
            bits &= bits - 1;
            any = true;
        }
    }
    any
}

unsafe extern "C" {
    static interrupt_stubs: [[u8; STUB_SIZE]; 256];
}

/// Distance of the stubs in bytes.
const STUB_SIZE: usize = 16;

/// Code selector of the Linux boot protocol (`__BOOT_CS`), which both entries promise.
const CODE_SELECTOR: u64 = 0x10;

/// Gates of 16 bytes (Intel SDM vol. 3, 6.14.1).
static mut TABLE: [[u64; 2]; 256] = [[0; 2]; 256];

#[repr(C, packed)]
struct TablePointer {
    limit: u16,
    base: u64,
}

/// Vectors that are exceptions.
pub const EXCEPTIONS: usize = 32;

/// Returns the interrupt gate (type 0xE, interrupts stay off), present, IST 0.
const fn gate(stub: u64) -> [u64; 2] {
    [
        stub & 0xffff | CODE_SELECTOR << 16 | 0x8e00 << 32 | (stub >> 16 & 0xffff) << 48,
        stub >> 32,
    ]
}

/// Returns the same gate on stack IST 1, which works with a broken stack pointer.
const fn on_fault_stack(gate: [u64; 2]) -> [u64; 2] {
    [gate[0] | 1 << 32, gate[1]]
}

/// Exceptions that a stack which is not there ends in: #DF and #PF.
const STACK_FAULTS: [usize; 2] = [8, PAGE_FAULT];
const PAGE_FAULT: usize = 14;

/// Proof that the interrupt table is loaded.
pub struct Interrupts {
    halts: u64,
}

impl Interrupts {
    /// Loads the interrupt table. Interrupts stay off.
    pub fn install() -> Self {
        // The 8259s may have been left open by firmware; every interrupt that
        // a guest takes comes from the local APIC.
        cpu::out8(0x21, 0xff);
        cpu::out8(0xa1, 0xff);
        let stubs = &raw const interrupt_stubs as u64;
        let table = &raw mut TABLE;
        // SAFETY: the CPU reads the table from the `lidt` below on; until then
        // this is the only reference to it.
        for (entry, stub) in unsafe { &mut *table }
            .iter_mut()
            .zip((stubs..).step_by(STUB_SIZE))
        {
            *entry = gate(stub);
        }
        if boot::has_fault_stack() {
            for vector in STACK_FAULTS {
                // SAFETY: as above.
                let entry = unsafe { &mut (*table)[vector] };
                *entry = on_fault_stack(*entry);
            }
        }
        let pointer = TablePointer {
            limit: 256 * 16 - 1,
            base: table as u64,
        };
        // SAFETY: the table lives forever and every gate leads to a stub.
        unsafe { asm!("lidt [{}]", in(reg) &raw const pointer, options(nostack)) };
        Self { halts: 0 }
    }

    /// Installs these stubs for the exceptions, by vector, instead of ending the
    /// guest.
    ///
    /// # Safety
    /// Each is code that may be entered as a handler of its exception.
    pub unsafe fn handle_exceptions(&mut self, stubs: [u64; EXCEPTIONS]) {
        let table = &raw mut TABLE;
        // SAFETY: one CPU, and `self` owns the table; no gate is used while it is
        // written, since nothing here raises an exception.
        for (entry, stub) in unsafe { &mut *table }.iter_mut().zip(stubs) {
            *entry = gate(stub);
        }
    }

    /// Has interrupts posted from now on, where the monitor offers that (`posted=1` on the
    /// command line): then [`wait`](Self::wait) and [`window`](Self::window) count them
    /// without a trap, but for the halt itself.
    pub fn post(&mut self, command_line: &CommandLine) {
        if command_line.value("posted") != Some("1") {
            return;
        }
        cpu::out32(PORT, &raw const BLOCK as u32);
        POSTED.store(true, Ordering::Relaxed);
        // A CPU that halts with interrupts off is one that has stopped.
        // SAFETY: no interrupt is delivered any more.
        unsafe { asm!("sti", options(nostack)) };
    }

    /// Returns the interrupts taken on `vector` so far.
    pub fn count(&self, vector: u8) -> u64 {
        interrupt_counts[usize::from(vector)].load(Ordering::Relaxed)
    }

    /// Returns how often the CPU was halted by [`wait`](Self::wait).
    pub fn halts(&self) -> u64 {
        self.halts
    }

    /// Halts until an interrupt was taken. One that is already pending, or
    /// comes between the caller's last look for work and the halt, ends it too.
    pub fn wait(&mut self) {
        self.halts += 1;
        if POSTED.load(Ordering::Relaxed) {
            if !take_posted() {
                // SAFETY: halts until the monitor has posted something; one that it posts
                // before ends it too.
                unsafe { asm!("hlt", options(nostack, preserves_flags)) };
                take_posted();
            }
            return;
        }
        // SAFETY: uses the stack and the flags only, the stubs preserve every
        // register; no `nostack`, so the red zone is empty here.
        unsafe { asm!("call interrupt_wait") };
    }

    /// Takes an interrupt that is pending, without waiting.
    pub fn window(&mut self) {
        if POSTED.load(Ordering::Relaxed) {
            take_posted();
            return;
        }
        // SAFETY: as for `wait`.
        unsafe { asm!("call interrupt_window") };
    }
}

/// Stack frame that the stubs leave.
#[repr(C)]
struct Frame {
    vector: u64,
    error_code: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// Reports an exception and ends the guest: nothing here expects one.
#[unsafe(no_mangle)]
extern "C" fn guest_exception(frame: &Frame) -> ! {
    let address: u64;
    // SAFETY: reading CR2 has no side effect.
    unsafe { asm!("mov {}, cr2", out(reg) address, options(nomem, nostack, preserves_flags)) };
    if frame.vector == PAGE_FAULT as u64 && boot::is_below_stack(address) {
        println!("stack overflow at rip {:#x}", frame.rip);
    }
    println!(
        "exception {} code {:#x} rip {:#x} rsp {:#x} rflags {:#x} cs {:#x} ss {:#x} cr2 {:#x}",
        frame.vector,
        frame.error_code,
        frame.rip,
        frame.rsp,
        frame.rflags,
        frame.cs,
        frame.ss,
        address
    );
    exit(EXIT_FAILURE)
}
