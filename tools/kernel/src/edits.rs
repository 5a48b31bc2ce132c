//! The edits to the kernel's sources: each one declared, explained and checked.

use crate::Error;

/// A replacement of one piece of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The file, from the kernel's root.
    pub file: &'static str,
    /// The text that must be there exactly once.
    pub expect: &'static str,
    /// What it becomes.
    pub becomes: &'static str,
    /// Why the kernel cannot be used as it is.
    pub why: &'static str,
}

/// Every edit made before compiling.
pub const EDITS: &[Edit] = &[
    Edit {
        file: "include/arch/x86/arch/64/mode/kernel/stack.h",
        expect: "#define KERNEL_STACK_ALIGNMENT 16\n",
        becomes: "#define KERNEL_STACK_ALIGNMENT 4096\n",
        why: "with an interrupt pending at kernel exit the stack pointer is set to the end of \
              the aligned 4 KiB block around the stack; unless the stack is such a block, the \
              kernel then runs over what lies next to it, its IDT among others",
    },
    Edit {
        file: "src/arch/x86/kernel/vspace.c",
        expect: "    uint32_t addr;\n    uint32_t fault;\n\n    addr = getFaultAddr();\n",
        becomes: "    word_t addr;\n    uint32_t fault;\n\n    addr = getFaultAddr();\n",
        why: "the address in a fault message would be cut to 32 bits",
    },
];

impl Edit {
    /// Applies the edit to `text`, the content of its file.
    ///
    /// # Errors
    /// If the expected text is not there exactly once.
    pub fn apply(&self, text: &str) -> Result<String, Error> {
        match text.matches(self.expect).count() {
            1 => Ok(text.replacen(self.expect, self.becomes, 1)),
            found => Err(Error::new(
                format!("cannot edit the kernel's {}", self.file),
                format!(
                    "expected this text once, found it {found} times:\n{}",
                    self.expect
                ),
                "the kernel's sources are not those this edit was written for; check the pinned \
                 version and whether the edit is still needed",
            )),
        }
    }
}

/// The content of `file` (from the kernel's root) with its edits applied.
pub(crate) fn edited(file: &str, text: String) -> Result<String, Error> {
    EDITS
        .iter()
        .filter(|e| e.file == file)
        .try_fold(text, |text, edit| edit.apply(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDIT: Edit = Edit {
        file: "f",
        expect: "one\n",
        becomes: "two\n",
        why: "test",
    };

    #[test]
    fn replaces_the_one_place() {
        assert_eq!(EDIT.apply("a\none\nb\n").unwrap(), "a\ntwo\nb\n");
    }

    #[test]
    fn refuses_missing_and_repeated_text() {
        assert!(
            EDIT.apply("a\nb\n")
                .unwrap_err()
                .cause
                .contains("found it 0 times")
        );
        assert!(
            EDIT.apply("one\none\n")
                .unwrap_err()
                .cause
                .contains("found it 2 times")
        );
    }
}
