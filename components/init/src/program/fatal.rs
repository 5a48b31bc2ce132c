//! The end at boot: a line on COM1 and a status.

/// Reports a failure and ends the machine with it.
macro_rules! fatal {
    ($($argument:tt)*) => {{
        use core::fmt::Write as _;
        let _ = write!($crate::program::ports::Com1, "\r\ninit: fatal: {}\r\n", format_args!($($argument)*));
        $crate::program::ports::exit($crate::program::fatal::STATUS)
    }};
}

pub(crate) use fatal;

/// Status for the exit port when the system cannot start or go on.
pub const STATUS: u8 = 1;

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    fatal!("{info}")
}
