//! What happened so far, in numbers.

shm::counters! {
    /// What happened so far.
    pub struct Counters {
        /// Reads asked for.
        reads,
        /// Writes asked for.
        writes,
        /// Parts of writes that were dropped, accesses of a bad shape, and those to a
        /// function that is being reset.
        dropped,
        /// Accesses to functions that are not there or not the caller's.
        not_found,
        /// BAR moves while the BAR was decoded (C4).
        bar_moves,
        /// Calls to msix and irq-router that failed.
        failures,
        /// Functions taken back to start.
        resets,
    }
}
