//! See `fuzz_targets::replay`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::replay(data));
