//! What the bench guest measures with: frames to send, and statistics of samples.
//!
//! Responsible for: everything of the bench guest that runs on a host as well.
//! Must never: touch hardware, or allocate.
//! May call: smoltcp's packet formats.
//! Invariants: equal samples give equal figures.
#![no_std]
#![forbid(unsafe_code)]

pub mod frames;
pub mod samples;
