//! A Solo5 hvt image of our own: makes every hypercall, and bad ones, and says what came
//! of it.
//!
//! Responsible for: being what the shim and the vmm see of an image of Solo5's, down to
//! its notes, its descriptors and its thread pointer.
//! Must never: use kit, which would make it another kind of guest.
//! May call: the structures of the ABI (crate `solo5`).
//! Invariants: interrupts stay off.
//!
//! The words of its command line are done one after the other: `time`, `net=N`, `block`,
//! `rest=SECONDS`, `hostile`, `registers`, `calls`, `thread`, `fault=ADDRESS`, `undefined`, `exit=N`. It ends with
//! status 0, or 1 if something was not as it must be.
#![no_std]
#![no_main]

mod call;
mod checks;
mod network;

use core::arch::{asm, global_asm};
use core::panic::PanicInfo;

use freestanding as _;
use solo5::abi::{BootInfo, COMMAND_LINE_SIZE};
use solo5::manifest::{Entry, Kind};

use call::halt;

global_asm!(include_str!("start.s"));

unsafe extern "C" {
    static exception_stubs: [[u8; 16]; 32];
}

/// The note with the ABI, "ABI1": target hvt, version 2 (elf_abi.h).
#[used]
#[unsafe(link_section = ".note.solo5.abi")]
static ABI: [u32; 9] = [
    6,
    16,
    0x3149_4241, // lengths of name and contents, type
    u32::from_le_bytes(*b"Solo"),
    b'5' as u32, // name
    1,
    solo5::abi::VERSION,
    0,
    0,
];

/// The note with the manifest, as a C compiler aligns it (mft_abi.h): at a multiple of 4,
/// and what follows the padding at a multiple of 8 from there.
#[repr(C, packed(4))]
struct ManifestNote {
    header: [u32; 3],
    name: [u8; 8],
    padding: u32,
    version: u32,
    count: u32,
    entries: [Entry; 4],
}

#[used]
#[unsafe(link_section = ".note.solo5.manifest")]
static MANIFEST: ManifestNote = ManifestNote {
    header: [6, 4 + 8 + 4 * size_of::<Entry>() as u32, solo5::abi::MFT1],
    name: *b"Solo5\0\0\0",
    padding: 0,
    version: solo5::manifest::VERSION,
    count: 4,
    entries: [
        Entry::reserved(),
        Entry::new("service", Kind::Net),
        Entry::new("storage", Kind::Block),
        Entry::new("management", Kind::Net),
    ],
};

/// Positions of the devices in [`MANIFEST`].
const NET: usize = 1;
const DISK: usize = 2;
const SECOND_NET: usize = 3;

/// Gates of 16 bytes (Intel SDM vol. 3, 6.14.1).
static mut GATES: [[u64; 2]; 32] = [[0; 2]; 32];

/// Loads a table with a gate for each exception, on the stack IST 1.
fn load_gates() {
    let stubs = &raw const exception_stubs as u64;
    let gates = &raw mut GATES;
    // SAFETY: the CPU reads the table from the `lidt` below on; there is no other reference.
    for (gate, stub) in unsafe { &mut *gates }.iter_mut().zip((stubs..).step_by(16)) {
        // Code selector 0x08, IST 1, an interrupt gate, present.
        *gate = [
            stub & 0xffff | 0x08 << 16 | 0x8e01 << 32 | (stub >> 16 & 0xffff) << 48,
            stub >> 32,
        ];
    }
    let mut pointer = [0_u8; 10];
    pointer[..2].copy_from_slice(&511_u16.to_le_bytes());
    pointer[2..].copy_from_slice(&(gates as u64).to_le_bytes());
    // SAFETY: the table lives forever, and every gate leads to a stub.
    unsafe { asm!("lidt [{}]", in(reg) &pointer, options(nostack)) };
}

#[unsafe(no_mangle)]
extern "C" fn image_main(info: &'static BootInfo) -> ! {
    load_gates();
    // SAFETY: the monitor has put a text with a zero at its end there, in that many bytes.
    let line =
        unsafe { core::slice::from_raw_parts(info.command_line as *const u8, COMMAND_LINE_SIZE) };
    let end = line.iter().position(|&byte| byte == 0).unwrap_or(0);
    let line = core::str::from_utf8(&line[..end]).unwrap_or("");
    // SAFETY: the monitor has put a copy of the manifest there, with the same entries.
    let entries = unsafe { &*((info.manifest + 8) as *const [Entry; 4]) };
    println!("hvt: {} MiB, {line:?}", info.mem_size >> 20);
    let mut good = true;
    let mut check = |name: &str, result: Result<(), &'static str>| match result {
        Ok(()) => println!("ok {name}"),
        Err(why) => {
            good = false;
            println!("not ok {name}: {why}");
        }
    };
    check("boot information", checks::boot_info(info, entries));
    for word in line.split_ascii_whitespace() {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let number = || value.parse().unwrap_or(0);
        match name {
            "registers" => check(name, checks::registers()),
            "calls" => check(name, checks::calls()),
            "thread" => check(name, checks::thread_pointer()),
            "time" => check(name, checks::time(info.cpu_cycle_freq)),
            "block" => check(name, checks::block(&entries[DISK])),
            "rest" => checks::rest(value.parse().unwrap_or(0)),
            "net" => {
                let hertz = info.cpu_cycle_freq;
                check(name, network::echoes(&entries[NET], NET, number(), hertz));
            }
            "net2" => {
                let hertz = info.cpu_cycle_freq;
                let entry = &entries[SECOND_NET];
                check(name, network::echoes(entry, SECOND_NET, number(), hertz));
            }
            "hostile" => check(name, checks::hostile(info.mem_size)),
            "fault" => {
                let address = u64::from_str_radix(value.trim_start_matches("0x"), 16);
                // SAFETY: it is not: the exception is what is asked for.
                unsafe { asm!("mov [{}], eax", in(reg) address.unwrap_or(0)) };
                check(name, Err("the write went through"));
            }
            // SAFETY: the exception is what is asked for.
            "undefined" => unsafe { asm!("ud2") },
            "exit" => halt(number() as i32),
            _ => check(word, Err("not a word that is known")),
        }
    }
    halt(if good { 0 } else { 1 })
}

/// Reports an exception and ends with the status of an abort.
#[unsafe(no_mangle)]
extern "C" fn image_exception(vector: u64, code: u64, rip: u64, stack: u64) -> ! {
    let cr2: u64;
    // SAFETY: reading CR2 has no side effect.
    unsafe { asm!("mov {}, cr2", out(reg) cr2, options(nomem, nostack, preserves_flags)) };
    println!("exception {vector} code {code:#x} rip {rip:#x} cr2 {cr2:#x} stack {stack:#x}");
    halt(solo5::calls::ABORT)
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    println!("{info}");
    halt(2)
}
