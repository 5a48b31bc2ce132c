//! See `fuzz_targets::guest`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::guest(data));
