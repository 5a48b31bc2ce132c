//! `Timer`: one deadline for each client.

interface! {
    /// One-shot deadlines. The client's notification is signalled once, at or
    /// after the deadline.
    pub trait Timer {
        /// Replaces the caller's deadline; `tsc` is a time stamp counter value,
        /// one in the past fires at once. A caller that did this too often within
        /// a millisecond gets [`Error::TooOften`](crate::Error::TooOften): its
        /// deadline counts, but fires when that is over at the earliest.
        1 => #[idempotent] fn arm(tsc: u64) -> ();
        /// Drops the caller's deadline. A signal on its way may still come.
        2 => #[idempotent] fn cancel() -> ();
    }
}
