//! What happened so far, in numbers.

shm::counters! {
    /// What happened, in numbers.
    pub struct Counters {
        /// Traps of every kind.
        traps,
        /// Accesses to memory that is emulated.
        memory_accesses,
        /// Interrupts and exceptions injected.
        injected,
        /// Interrupts posted in the guest's memory.
        posted,
        /// Events that came in over slots.
        events,
        /// Events held back, since their route was masked (M20).
        held,
        /// Events whose slot had no route, or which the local APIC did not take.
        dropped,
        /// Timer signals.
        timer_signals,
        /// Times that the guest went to sleep in HLT.
        halts,
        /// Time stamp ticks spent there.
        halted_ticks,
        /// Time stamp counter when it last woke from there.
        woken_at,
        /// Port accesses that nothing answered.
        unclaimed_ports,
        /// Memory accesses that nothing answered.
        unclaimed_memory,
        /// Exceptions reflected to the guest.
        exceptions,
        /// System calls that the guest tried.
        system_calls,
        /// Outputs of an image by which it entered its shim.
        shim_calls,
        /// Times that a source was masked for a storm (M23).
        storms,
        /// Times that events had to wait for the guest's turn.
        deferrals,
        /// Its starts after the first.
        guest_restarts,
    }
}
