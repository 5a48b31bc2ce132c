//! The last faults, and how many each function has had.

use channel::iommu::FaultRecord;
use heapless::Deque;
use spec::FUNCTIONS;

/// Faults that are kept.
pub const KEPT_FAULTS: usize = 16;
/// Faults that one poll takes from the unit: a function that makes them without
/// end does not keep the component from its clients.
pub const FAULTS_A_POLL: usize = 64;

/// The requester of a fault that no device caused.
pub const NO_DEVICE: u16 = u16::MAX;

/// Faults as they come.
#[derive(Debug)]
pub(crate) struct Faults {
    kept: Deque<FaultRecord, KEPT_FAULTS>,
    /// Of all functions and of none: the number of the next.
    pub total: u64,
    /// Of each function.
    pub of: [u64; FUNCTIONS],
}

impl Faults {
    pub const fn new() -> Self {
        Self {
            kept: Deque::new(),
            total: 0,
            of: [0; FUNCTIONS],
        }
    }

    /// Numbers a fault, counts it for its function, and keeps it.
    pub fn record(&mut self, function: Option<usize>, fault: FaultRecord) -> FaultRecord {
        let fault = FaultRecord {
            number: self.total,
            ..fault
        };
        self.total += 1;
        if let Some(count) = function.and_then(|function| self.of.get_mut(function)) {
            *count += 1;
        }
        if self.kept.is_full() {
            self.kept.pop_front();
        }
        // There is room now.
        let _ = self.kept.push_back(fault);
        fault
    }

    /// Returns the first that is kept at or after a number.
    pub fn from(&self, number: u64) -> Option<FaultRecord> {
        self.kept
            .iter()
            .find(|fault| fault.number >= number)
            .copied()
    }
}
