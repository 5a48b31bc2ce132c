//! The end at boot: a line on COM1 and a status.

/// Reports a failure and ends the machine with it.
macro_rules! fatal {
    ($($argument:tt)*) => {{
        use core::fmt::Write as _;
        $crate::program::screen::show();
        let _ = write!($crate::program::ports::Serial, "\r\ninit: fatal: {}\r\n", format_args!($($argument)*));
        $crate::program::ports::exit(spec::Ending::Failure)
    }};
}

pub(crate) use fatal;

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    fatal!("{info}")
}
