//! What the compiler expects of an environment: a panic handler, and what `freestanding` brings.

use core::panic::PanicInfo;

use freestanding as _;

use crate::{EXIT_FAILURE, exit, println};

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    println!("{info}");
    exit(EXIT_FAILURE)
}
