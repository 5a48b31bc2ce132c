//! The image beside the shim: its memory, its registers, and the way into it.

use core::arch::global_asm;

use kit::cpu;
use solo5::abi::BOOT_INFO;
use solo5::ram::Ram;
use spec::shim::{CALL_PORTS, Handoff, RED_ZONE, REGISTER_PORT};

global_asm!(include_str!("image.s"));

unsafe extern "C" {
    fn image_run() -> u64;
    static image_call: u8;
    static mut image_registers: [u64; 16];
}

/// Positions in `image_registers`.
const RSP: usize = 4;
const RDI: usize = 7;

/// Ends the guest: the image made a call while one of its calls was served.
#[unsafe(no_mangle)]
extern "C" fn image_called_again() -> ! {
    kit::println!("solo5: the image made a hypercall within another, by its handler of exceptions");
    kit::exit(kit::EXIT_FAILURE)
}

/// The image. There is one, and it runs only inside [`Image::run`].
pub struct Image {
    ram_end: u64,
}

/// A hypercall of the image.
pub struct Call {
    /// Its number, from 1.
    pub number: u32,
    /// Address of its argument.
    pub argument: u64,
}

impl Image {
    /// Takes the image that was handed over, and registers for its calls.
    pub fn new(handoff: &Handoff) -> Self {
        cpu::out32(REGISTER_PORT, (&raw const image_call).addr() as u32);
        Self {
            ram_end: handoff.ram_end,
        }
    }

    /// Returns the image's memory, from the boot information on.
    pub fn ram(&mut self) -> Ram<'_> {
        let length = self.ram_end.saturating_sub(BOOT_INFO) as usize;
        // SAFETY: the tool gives the image the RAM up to the shim's own, none of which is in
        // this range; `self` is borrowed, so that the image does not run meanwhile and there
        // is no second slice.
        let bytes = unsafe { core::slice::from_raw_parts_mut(BOOT_INFO as *mut u8, length) };
        Ram::new(BOOT_INFO, bytes)
    }

    /// Has the first [`run`](Self::run) enter the image as Solo5's monitor does: with
    /// the address of the boot information, on a stack at the end of its memory.
    pub fn enter_at(&mut self, entry: u64) {
        // As behind a call: the stack is 8 bytes off a multiple of 16.
        let stack = self.ram_end - 8;
        let place = stack - RED_ZONE - 8;
        let registers = &raw mut image_registers;
        // SAFETY: no code but that of `image_run` uses them, and it does not run.
        unsafe {
            (*registers)[RSP] = place;
            (*registers)[RDI] = BOOT_INFO;
        }
        // It is the image's memory, by the tool's check of its size.
        let _ = self.ram().write(place, &entry);
    }

    /// Lets the image run until its next call.
    pub fn run(&mut self) -> Call {
        // SAFETY: the image has its own registers, stack and memory; an image that writes
        // over the shim harms only itself.
        let call = unsafe { image_run() };
        let port = (call >> 32) as u16;
        Call {
            number: u32::from(port.wrapping_sub(*CALL_PORTS.start())) + 1,
            argument: call & 0xffff_ffff,
        }
    }
}
