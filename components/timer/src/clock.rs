//! The one thing that a clock does for the deadlines: an interrupt after a time.

/// A counter that raises one interrupt after a number of its ticks. What time it is, the time
/// stamp counter says: a clock may be early or late, and nothing adds up.
pub trait Clock {
    /// The longest wait in ticks. Later deadlines are waited for in steps.
    const LONGEST: u32;

    /// Returns the femtoseconds of a tick, 1 to 1,000,000,000.
    fn period(&self) -> u32;

    /// Arms one interrupt in `ticks`, 1 to [`Self::LONGEST`], in place of what was armed before.
    /// Returns whether it comes: `false` if the time was over before the clock was set, so
    /// that a longer one has to be tried.
    fn arm(&mut self, ticks: u32) -> bool;

    /// Disarms the interrupt. One that comes nevertheless is a spurious one.
    fn disarm(&mut self);

    /// Ends what the clock holds on its pin since its interrupt.
    fn acknowledge(&mut self);
}
