//! From the first instruction to the component's main, and its end by panic.

use core::panic::PanicInfo;

use spec::names;

use crate::resources::Context;

/// Declares a component's main: a function that takes a
/// [`Context`] and never returns.
///
/// Makes the program's entry point and panic handler in the crate that calls
/// it, so that this crate can be linked into other programs too.
#[macro_export]
macro_rules! component {
    ($main:path) => {
        // init starts a component with its stack pointer at the stack's end,
        // which is aligned to 16 as the ABI wants it before a call; rbp 0 ends
        // backtraces.
        core::arch::global_asm!(
            ".global _start",
            "_start:",
            "xor ebp, ebp",
            "call {start}",
            "ud2",
            start = sym vectis_start,
        );

        extern "C" fn vectis_start(generation: u64) -> ! {
            $main($crate::start(generation))
        }

        #[panic_handler]
        fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
            $crate::panicked(info)
        }
    };
}

/// Sets up IPC buffer, resources and log; called once, by
/// [`component!`](crate::component). `generation` counts the component's
/// restarts.
#[must_use]
pub fn start(generation: u64) -> Context {
    // SAFETY: init mapped the IPC buffer there for this thread, the only one.
    unsafe { sel4::set_ipc_buffer(spec::IPC_BUFFER_ADDRESS as usize) };
    if generation > 0 {
        // The client that was being served when the component died still waits: the
        // reply capability outlives the crash.
        crate::ipc::reply_gone(generation);
    }
    let context = Context::new(generation);
    crate::log::start(
        context.shared(names::LOG),
        context.capability(names::DOORBELL),
    );
    if generation > 0 {
        defmt::warn!("started again, generation {=u64}", generation);
    }
    context
}

/// Logs the panic and ends the thread with a fault that the monitor reports.
pub fn panicked(info: &PanicInfo<'_>) -> ! {
    defmt::error!("{}", defmt::Display2Format(info));
    // SAFETY: an invalid instruction stops the thread with a fault; nothing
    // follows.
    unsafe { core::arch::asm!("ud2", options(noreturn)) }
}
