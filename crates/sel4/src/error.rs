//! Why the kernel refused an invocation.

use core::fmt;

use sel4_sys::error;

/// The result of an invocation.
pub type Result<T> = core::result::Result<T, Error>;

/// The kernel's error numbers.
#[repr(u64)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// An argument is not valid.
    InvalidArgument = error::INVALID_ARGUMENT,
    /// A capability among the arguments is not valid.
    InvalidCapability = error::INVALID_CAPABILITY,
    /// Not permitted on this capability.
    IllegalOperation = error::ILLEGAL_OPERATION,
    /// An argument is out of range.
    RangeError = error::RANGE_ERROR,
    /// An argument is not aligned.
    AlignmentError = error::ALIGNMENT_ERROR,
    /// A capability or paging structure is missing on the way.
    FailedLookup = error::FAILED_LOOKUP,
    /// The message is too short, or lacks a capability.
    TruncatedMessage = error::TRUNCATED_MESSAGE,
    /// The destination must be deleted first.
    DeleteFirst = error::DELETE_FIRST,
    /// Something derived must be revoked first.
    RevokeFirst = error::REVOKE_FIRST,
    /// An untyped has too little memory left.
    NotEnoughMemory = error::NOT_ENOUGH_MEMORY,
    /// The reply's label is not an error number: the invoked capability is not a
    /// kernel object's (an endpoint, say, whose server replied).
    UnexpectedReply = u64::MAX,
}

impl Error {
    /// Returns the error with this number (not 0).
    pub const fn from_code(code: u64) -> Self {
        match code {
            error::INVALID_ARGUMENT => Error::InvalidArgument,
            error::INVALID_CAPABILITY => Error::InvalidCapability,
            error::ILLEGAL_OPERATION => Error::IllegalOperation,
            error::RANGE_ERROR => Error::RangeError,
            error::ALIGNMENT_ERROR => Error::AlignmentError,
            error::FAILED_LOOKUP => Error::FailedLookup,
            error::TRUNCATED_MESSAGE => Error::TruncatedMessage,
            error::DELETE_FIRST => Error::DeleteFirst,
            error::REVOKE_FIRST => Error::RevokeFirst,
            error::NOT_ENOUGH_MEMORY => Error::NotEnoughMemory,
            _ => Error::UnexpectedReply,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::InvalidArgument => "invalid argument",
            Error::InvalidCapability => "invalid capability",
            Error::IllegalOperation => "illegal operation",
            Error::RangeError => "out of range",
            Error::AlignmentError => "not aligned",
            Error::FailedLookup => "failed lookup",
            Error::TruncatedMessage => "truncated message",
            Error::DeleteFirst => "destination not empty",
            Error::RevokeFirst => "derived capabilities exist",
            Error::NotEnoughMemory => "not enough memory",
            Error::UnexpectedReply => "no kernel object",
        })
    }
}

impl core::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        for code in 1..error::COUNT {
            assert_eq!(Error::from_code(code) as u64, code);
        }
        assert_eq!(Error::from_code(error::COUNT), Error::UnexpectedReply);
    }
}
