//! The state that outlives a crash: a record for each function.
//!
//! It describes the state between two accesses. A new pci-config brings device and
//! irq-router back to it, and takes message control from msix; then the vmm repeats
//! its access. A record's words need not change together: any mixture of old and new
//! ones is a state that the guest could have made, and the repeated access writes
//! them all.

use pci::FUNCTION_BARS;
use shm::Keep;
use spec::bit;

use crate::msi;
use crate::state::{Saved, View};

/// The words of a record.
const STATE: usize = 0;
const START: usize = 1;
const RESET: usize = 2;
const MSI_ADDRESS: usize = 3;
const MSI: usize = 4;
const BARS: usize = 5;
const BAR_REGISTERS: usize = BARS + FUNCTION_BARS;
const SAVED: usize = BAR_REGISTERS + FUNCTION_BARS;
const WORDS: usize = SAVED + 1;

/// A word that was written.
const WRITTEN: u64 = 1 << 63;
const MSIX_ENABLED: u64 = 1 << 32;
const QUIET: u64 = 1 << 33;
const HAS_MSIX: u64 = 1 << 34;
const HAS_MSI: u64 = 1 << 35;

/// Of the word for the start: the command register is in bits 15:0, the link's
/// power management in 17:16.
const ASPM_WRITTEN: u64 = 1 << 62;
/// Of the word for the reset.
const UNDER_WAY: u64 = 1;
const GONE: u64 = 2;

/// Of the word for MSI: bits 15:0 are data, 47:16 the mask, 50:48 log2.
const MSI_ENABLED: u64 = 1 << 52;
const MSI_LIVE: u64 = 1 << 53;

/// Returns the words that are kept for so many functions.
#[must_use]
pub const fn kept_words(functions: usize) -> usize {
    functions * WORDS
}

/// One function's record.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    kept: &'a dyn Keep,
    first: usize,
}

impl<'a> Record<'a> {
    pub const fn new(kept: &'a dyn Keep, function: usize) -> Self {
        Self {
            kept,
            first: function * WORDS,
        }
    }

    fn get(&self, word: usize) -> u64 {
        self.kept.get(self.first + word)
    }

    fn set(&self, word: usize, value: u64) {
        if self.get(word) != value {
            self.kept.set(self.first + word, value);
        }
    }

    /// Returns the command register at start, as the first pci-config found it: it
    /// then changed the register.
    pub fn start_command(&self, found: impl FnOnce() -> u16) -> u16 {
        let kept = self.get(START);
        if kept & WRITTEN != 0 {
            return kept as u16;
        }
        let command = found();
        self.set(START, WRITTEN | u64::from(command));
        command
    }

    /// Returns the active state power management at start, as the first pci-config
    /// found it: the guest may change it.
    pub fn start_aspm(&self, found: impl FnOnce() -> u16) -> u16 {
        let kept = self.get(START);
        if kept & ASPM_WRITTEN == 0 {
            let aspm = found();
            self.set(START, kept | ASPM_WRITTEN | u64::from(aspm & 3) << 16);
            return aspm;
        }
        (kept >> 16 & 3) as u16
    }

    /// Records that a reset begins, after [`Record::set_saved`], or is over.
    pub fn set_reset(&self, under_way: bool) {
        self.set(RESET, bit(under_way, UNDER_WAY));
    }

    /// Returns whether a reset is under way: the function may not answer.
    pub fn reset_under_way(&self) -> bool {
        self.get(RESET) & UNDER_WAY != 0
    }

    /// Records that the function does not come back from its reset.
    pub fn set_gone(&self) {
        self.set(RESET, UNDER_WAY | GONE);
    }

    /// Returns whether the function does not come back from its reset.
    pub fn is_gone(&self) -> bool {
        self.get(RESET) & GONE != 0
    }

    /// Saves the registers that the device loses in the reset about to begin.
    pub fn set_saved(&self, saved: &Saved) {
        let word = u64::from(saved.device_control)
            | u64::from(saved.device_control_2) << 16
            | u64::from(saved.link_control) << 32
            | u64::from(saved.cache_line) << 48
            | u64::from(saved.interrupt_line) << 56;
        self.set(SAVED, word);
    }

    /// Returns the registers that the device lost in the reset under way.
    pub fn saved(&self) -> Saved {
        let word = self.get(SAVED);
        Saved {
            device_control: word as u16,
            device_control_2: (word >> 16) as u16,
            link_control: (word >> 32) as u16,
            cache_line: (word >> 48) as u8,
            interrupt_line: (word >> 56) as u8,
        }
    }

    /// Records that the binding of the MSI messages is uncertain from now on, and
    /// whether the device has one of ours.
    pub fn doubt_msi(&self) {
        self.set(MSI, self.get(MSI) & !MSI_LIVE);
    }

    /// Stores the guest's view.
    pub fn store(&self, view: &View) {
        let (address, msi) = view.msi.map_or((0, 0), |msi| {
            let msi::State { data, mask, .. } = msi.state;
            let word = u64::from(data)
                | u64::from(mask) << 16
                | u64::from(msi.state.log2) << 48
                | bit(msi.state.enabled, MSI_ENABLED)
                | bit(msi.live, MSI_LIVE);
            (msi.state.address, word)
        });
        self.set(MSI_ADDRESS, address);
        self.set(MSI, msi);
        for (index, bar) in view.bars.iter().enumerate() {
            self.set(BARS + index, bar.address());
            self.set(BAR_REGISTERS + index, bar.register());
        }
        self.set(
            STATE,
            WRITTEN
                | u64::from(view.command)
                | u64::from(view.interrupt_line) << 16
                | bit(view.msix_enabled, MSIX_ENABLED)
                | bit(view.quiet, QUIET)
                | bit(view.msix.is_some(), HAS_MSIX)
                | bit(view.msi.is_some(), HAS_MSI),
        );
    }

    /// Loads the last pci-config's state. Returns `false` if there is none.
    pub fn load(&self, view: &mut View) -> bool {
        let word = self.get(STATE);
        if word & WRITTEN == 0 {
            return false;
        }
        view.command = word as u16;
        view.interrupt_line = (word >> 16) as u8;
        view.msix_enabled = word & MSIX_ENABLED != 0;
        view.quiet = word & QUIET != 0;
        view.msix = view.msix.filter(|_| word & HAS_MSIX != 0);
        view.msi = view.msi.filter(|_| word & HAS_MSI != 0);
        for (index, bar) in view.bars.iter_mut().enumerate() {
            let register = self.get(BAR_REGISTERS + index);
            bar.restore(register, self.get(BARS + index));
        }
        if let Some(msi) = &mut view.msi {
            let word = self.get(MSI);
            msi.state = msi::State {
                enabled: word & MSI_ENABLED != 0,
                log2: (word >> 48 & 7) as u8,
                address: self.get(MSI_ADDRESS),
                data: word as u16,
                mask: (word >> 16) as u32,
            };
            msi.live = word & MSI_LIVE != 0;
        }
        true
    }
}
