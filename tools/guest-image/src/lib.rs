//! Recognises a guest's image, and makes of it the one file that the vmm loads.
//!
//! - **Responsible for:** the kinds of images that there are, what each needs, and the
//!   message for one that cannot run.
//! - **Must never:** accept a file that the vmm's loader refuses.
//! - **May call:** the vmm's loader.
//! - **Invariants:** equal files give an equal image.
#![forbid(unsafe_code)]

mod fit;
mod kind;
mod rewrite;

use std::ops::Range;

pub use kind::{Kind, Solo5Target};
pub use rewrite::{Rewritten, rewrite};

/// Why a file cannot be a guest's image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The cause.
    pub cause: String,
    /// Remedy for the user.
    pub help: String,
}

impl Error {
    fn new(cause: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            cause: cause.into(),
            help: help.into(),
        }
    }
}

/// Makes of `file` the image that the vmm loads into RAM at `ram` (guest addresses),
/// with this command line.
///
/// # Errors
/// If the file cannot run, or does not fit.
pub fn prepare(file: Vec<u8>, ram: &Range<u64>, command_line: &str) -> Result<Vec<u8>, Error> {
    match Kind::of(&file) {
        Kind::Linux64 => {}
        other => return Err(other.refusal()),
    }
    fit::check(&file, ram, command_line)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAM: Range<u64> = 0x1000_0000..0x1040_0000;

    /// Returns an ELF file with one segment without contents.
    fn file(address: u64, size: u64) -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        file.extend([2, 0, 62, 0]);
        file.extend(1u32.to_le_bytes());
        for word in [address, 64, 0] {
            file.extend(word.to_le_bytes());
        }
        file.extend([0; 4]);
        for half in [64u16, 56, 1, 0, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        file.extend(1u32.to_le_bytes());
        file.extend(4u32.to_le_bytes());
        for word in [120, address, address, 0, size, 4096] {
            file.extend(word.to_le_bytes());
        }
        file
    }

    fn refused(file: Vec<u8>) -> String {
        let error = prepare(file, &RAM, "").unwrap_err();
        format!("{} / {}", error.cause, error.help)
    }

    #[test]
    fn a_fitting_image_is_taken_as_it_is() {
        let file = file(0x1010_0000, 4096);
        assert_eq!(prepare(file.clone(), &RAM, ""), Ok(file));
    }

    #[test]
    fn each_mistake_is_named() {
        assert!(refused(b"#!/bin/sh".to_vec()).contains("ELF"));
        assert!(refused(file(0x1010_0000, 4 << 20)).contains("does not fit"));
        let low = refused(file(0x10_0000, 4096));
        assert!(low.contains("0x10000000 to 0x10400000"), "{low}");
        assert!(low.contains("`address = 0`"), "{low}");
        let high = refused(file(0xffff_8000_0010_0000, 4096));
        assert!(high.contains("physical"), "{high}");
        let text = "x".repeat(vmm::COMMAND_LINE_MAX + 1);
        let long = prepare(file(0x1010_0000, 4096), &RAM, &text).unwrap_err();
        assert!(long.cause.contains("command line"), "{long:?}");
    }
}
