//! What the compiler expects of an environment: panic handler, memory functions, personality.

use core::arch::global_asm;
use core::panic::PanicInfo;

use crate::{EXIT_FAILURE, exit, println};

global_asm!(include_str!("memory.s"));

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    println!("{info}");
    exit(EXIT_FAILURE)
}

/// Named by the unwind tables of the prebuilt core library; never called,
/// because every profile aborts on panic.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
