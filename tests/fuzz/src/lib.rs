//! Everything that hostile input reaches, as functions of bytes.
//!
//! Responsible for: one function for each kind of input, which a fuzzer and
//! the stable driver in `tests/` both call.
//! Must never: panic, or loop longer than its input is long, whatever the
//! bytes; what does is a bug in the component behind it.
//! May call: the components' logic, on the host.
//! Invariants: a target's result depends on its bytes only.

#![forbid(unsafe_code)]

mod guest;
mod input;
mod machine;

pub use guest::{guest, image};
pub use machine::{config, table};

/// A target: its name, which is its corpus folder's too, and the function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 5] = [
    ("config", config),
    ("guest", guest),
    ("image", image),
    ("replay", replay),
    ("table", table),
];

/// Operations after which a target stops.
const MAX_OPERATIONS: usize = 1000;

/// Replays text as a trace, as `vectis replay` does.
pub fn replay(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(trace) = replay::parse(&text)
        && trace.len() <= MAX_OPERATIONS
    {
        let report = replay::run(&trace);
        assert!(report.outcomes.len() <= trace.len());
    }
}
