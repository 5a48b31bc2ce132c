//! From the first instruction to the component's main.

use core::arch::global_asm;
use core::panic::PanicInfo;

use crate::resources::Context;

// init starts a component with its stack pointer at the stack's end, which is
// aligned to 16 as the ABI wants it before a call; rbp 0 ends backtraces.
global_asm!(
    ".weak _start",
    "_start:",
    "xor ebp, ebp",
    "call {start}",
    "ud2",
    start = sym start,
);

unsafe extern "Rust" {
    /// Defined by [`component!`](crate::component).
    safe fn vectis_component_main(context: Context) -> !;
}

/// Declares a component's main: a function that takes a
/// [`Context`](crate::Context) and never returns.
#[macro_export]
macro_rules! component {
    ($main:path) => {
        #[unsafe(no_mangle)]
        extern "Rust" fn vectis_component_main(context: $crate::Context) -> ! {
            $main(context)
        }
    };
}

extern "C" fn start() -> ! {
    // SAFETY: init mapped the IPC buffer there for this thread, the only one.
    unsafe { sel4::set_ipc_buffer(spec::IPC_BUFFER_ADDRESS as usize) };
    let context = Context::new();
    crate::log::start(context.shared("log"), context.capability("doorbell"));
    vectis_component_main(context)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    defmt::error!("{}", defmt::Display2Format(info));
    // SAFETY: an invalid instruction stops the thread with a fault, which the
    // monitor reports; nothing follows.
    unsafe { core::arch::asm!("ud2", options(noreturn)) }
}
