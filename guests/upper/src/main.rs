//! An image that is linked in the upper half: it runs there, takes an exception there, and
//! loads a page table that says where it is.
//!
//! Responsible for: using the second place of RAM in every way in which a kernel of the
//! upper half does.
//! Must never: refer to data but relative to the instruction pointer.
//! May call: nothing. Rust code of the model that this project is compiled by cannot be
//! linked so high, so all of it is assembly.
//! Invariants: interrupts stay off.
#![no_std]
#![no_main]

core::arch::global_asm!(include_str!("start.s"));

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
