//! The environment that the compiler expects: a panic handler, and the `freestanding` crate.

use core::panic::PanicInfo;

use freestanding as _;

use crate::{EXIT_FAILURE, exit, println};

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    println!("{info}");
    exit(EXIT_FAILURE)
}
