//! Resets a function between two lives of its guest (M24, C8): by what, in which
//! order, and how it is known that it happened.
//!
//! No component waits. A reset goes on with each look at it, and until it is
//! over the function answers no access. A device's word that it resets is not
//! taken for a reset: registers that lose their value with it must have lost it
//! (PCIe 6.0 section 6.6.2, PCI Power Management 1.2 section 5.4.1), else the next
//! way is tried.

use channel::{Error, Transport};
use pci::regs::{self, COMMAND_INTX_DISABLE, COMMAND_MEMORY};
use pci::{BarKind, FUNCTION_BARS, Width};

use crate::Hardware;
use crate::function::Function;
use crate::peers::Peers;
use crate::quirk;
use crate::state::{Method, Progress, Reset, Saved, Step, Trouble};
use crate::virtio;

/// How long a function-level reset takes at least, in ms (PCIe 6.0 section 6.6.2,
/// Advanced Capabilities for Conventional PCI ECN section 3.2).
pub const RESET_MS: u64 = 100;
/// How long nothing touches a function after each change between D0 and D3hot, in
/// ms (PCIe 6.0 section 5.9).
pub const POWER_MS: u64 = 10;
/// How long a function may go on not answering after that, in ms: as long as Linux
/// waits for one (PCIe 6.0 section 2.3.1 leaves it to software).
pub const PATIENCE_MS: u64 = 60_000;
/// How long the function's own requests are waited for before a reset cuts them
/// off, in ms.
const PENDING_MS: u64 = 100;

/// Device control 2, from the start of the PCI Express capability; there from
/// version 2 on.
const DEVICE_CONTROL_2: u16 = 0x28;
const CACHE_LINE: u16 = 0x0c;

impl<H: Hardware> Function<'_, H> {
    /// Returns whether the function can be accessed. A reset that is under way
    /// goes on as far as it can, and one that is over is completed.
    pub fn is_ready<T: Transport>(&mut self, peers: &mut Peers<T>) -> bool {
        // Each round ends a step; there are not more than a few.
        while let Reset::UnderWay(progress) = self.reset {
            if !self.advance(progress, peers) {
                return false;
            }
        }
        self.reset != Reset::Gone
    }

    /// Records that the guest is about to use the function.
    pub fn touch(&mut self) {
        if matches!(self.reset, Reset::Clean | Reset::Unclean) {
            self.reset = Reset::Used;
        }
    }

    /// Takes the function back to start (M24) and resets it. Returns in how many ms to
    /// ask again; 0 once it is back. A function that nothing resets, or that did
    /// not come back, is an error.
    ///
    /// With `at_once` its messages are off and it masters the bus no more when this
    /// returns; else a model that has to be stopped before gets the time for it.
    pub fn take_back<T: Transport>(
        &mut self,
        at_once: bool,
        peers: &mut Peers<T>,
    ) -> Result<u64, Error> {
        self.is_ready(peers);
        if core::mem::take(&mut self.not_quiet) {
            return Err(Error::Failed);
        }
        if matches!(self.reset, Reset::UnderWay(_)) {
            // What msix and irq-router hold is void, and the device is left alone.
            let (msix, msi) = self.reset_messages(peers);
            msix.and(msi)?;
        } else if self.reset == Reset::Used {
            if self.has_model_reset() && !at_once {
                quirk::stop(&mut self.hardware);
                self.step(Step::Stopping);
            } else {
                self.begin_reset(peers)?;
            }
        }
        self.is_ready(peers);
        match self.reset {
            Reset::Clean => Ok(0),
            Reset::Unclean if self.info.reset_optional != 0 => Ok(0),
            Reset::UnderWay(_) => Ok(self.reset_left().max(1)),
            Reset::Used | Reset::Unclean => Err(Error::Refused),
            Reset::Gone => Err(Error::Failed),
        }
    }

    /// Quiesces the function and begins its reset, without waiting for its end. Until
    /// then the function answers no access, and the first one after it finds what
    /// the firmware had set up.
    pub fn begin_reset<T: Transport>(&mut self, peers: &mut Peers<T>) -> Result<(), Error> {
        if self.reset == Reset::Gone {
            return Ok(());
        }
        let (msix, msi) = self.quiesce(peers);
        self.keep();
        self.saved = self.save();
        self.record.set_saved(&self.saved);
        self.attempt(0);
        msix.and(msi)
    }

    /// Returns the milliseconds until it is worth looking at a reset that is
    /// under way.
    pub fn reset_left(&mut self) -> u64 {
        let Reset::UnderWay(Progress { step, since }) = self.reset else {
            return 0;
        };
        let now = self.hardware.now_ms();
        let passed = now.saturating_sub(since);
        let wait = match step {
            Step::Stopping => quirk::STOP_MS,
            Step::Drain(_) => 1,
            Step::Asleep(_) => POWER_MS,
            Step::Settle(_, wait) => wait,
            Step::Unknown => RESET_MS,
        };
        // One that needs longer is looked at less and less often.
        wait.checked_sub(passed)
            .unwrap_or_else(|| (passed / 8).clamp(1, 1000))
    }

    fn step(&mut self, step: Step) {
        let since = self.hardware.now_ms();
        self.reset = Reset::UnderWay(Progress { step, since });
    }

    /// Takes a step, if it is time; false if it is not.
    #[cold]
    fn advance<T: Transport>(&mut self, progress: Progress, peers: &mut Peers<T>) -> bool {
        let passed = self.hardware.now_ms().saturating_sub(progress.since);
        match progress.step {
            Step::Stopping => {
                if passed < quirk::STOP_MS {
                    return false;
                }
                self.not_quiet = self.begin_reset(peers).is_err();
            }
            Step::Drain(method) => {
                if passed < PENDING_MS && self.is_pending(method) {
                    return false;
                }
                self.start(method);
            }
            Step::Asleep(at) => {
                if passed < POWER_MS {
                    return false;
                }
                self.set_power_state(at, 0);
                self.step(Step::Settle(Method::Power(at), POWER_MS));
            }
            Step::Settle(method, wait) => {
                if passed < wait {
                    return false;
                }
                let answers = match method {
                    Method::Model => quirk::is_over(&mut self.hardware),
                    Method::Status(at) => virtio::is_over(&mut self.hardware, at),
                    _ => self.responds(),
                };
                if !answers {
                    return match method {
                        // Its configuration space answers all the while.
                        Method::Status(_) => self.refused(method, passed),
                        _ => self.lost(passed - wait),
                    };
                }
                let was_reset = match method {
                    Method::Model => quirk::was_reset(&mut self.hardware),
                    Method::Status(at) => virtio::was_reset(&mut self.hardware, at),
                    _ => self.forgot(),
                };
                if was_reset {
                    self.finish(Reset::Clean);
                } else {
                    self.restore();
                    self.attempt(method.position() + 1);
                }
            }
            Step::Unknown => {
                if passed < RESET_MS {
                    return false;
                }
                if !self.responds() {
                    return self.lost(passed - RESET_MS);
                }
                let forgot = self.forgot();
                self.latch(peers);
                if forgot {
                    self.finish(Reset::Clean);
                } else {
                    // It did not come to the reset, or was restored in part, or is
                    // of a model whose reset leaves these registers alone.
                    self.restore();
                    self.attempt(0);
                }
            }
        }
        true
    }

    /// Abandons a function that has not answered for a while: `for_ms` after it
    /// should have. Returns whether it was given up.
    fn lost(&mut self, for_ms: u64) -> bool {
        if for_ms < PATIENCE_MS {
            return false;
        }
        self.record.set_gone();
        self.reset = Reset::Gone;
        self.trouble = Some(Trouble::Gone);
        true
    }

    /// Goes on to the next way once this one has been waited for, `for_ms`, long enough. Returns
    /// whether it did.
    fn refused(&mut self, method: Method, for_ms: u64) -> bool {
        let is_time = for_ms >= virtio::PATIENCE_MS;
        if is_time {
            self.attempt(method.position() + 1);
        }
        is_time
    }

    /// Returns the ways to reset this function, in the order in which they are tried.
    pub fn methods(&mut self) -> [Option<Method>; 4] {
        let flr = self.flr.map(Method::Flr);
        let advanced = self
            .list
            .find(regs::CAP_AF)
            .filter(|&at| {
                let both = regs::AF_TRANSACTIONS_PENDING | regs::AF_FLR;
                at + regs::AF_STATUS < crate::layout::CONVENTIONAL
                    && self.hardware.read(at + regs::AF_CAPABILITIES, Width::Byte) as u8 & both
                        == both
            })
            .map(Method::AdvancedFeatures);
        let power = self
            .list
            .find(regs::CAP_PM)
            .filter(|&at| {
                at + regs::PM_CONTROL + 2 <= crate::layout::CONVENTIONAL
                    && self.hardware.read(at + regs::PM_CONTROL, Width::Word) as u16
                        & regs::PM_CONTROL_NO_SOFT_RESET
                        == 0
            })
            .map(Method::Power);
        let model = self.has_model_reset().then_some(Method::Model);
        let status = self
            .info
            .common_offset()
            .filter(|_| self.hardware.has_registers())
            .map(|at| Method::Status(at as u32));
        [flr, advanced, power, model.or(status)]
    }

    /// Returns whether this function is of a model that has a reset of its own.
    pub fn has_model_reset(&self) -> bool {
        self.info.has_model_reset() && self.hardware.has_registers()
    }

    /// Begins the first way from the `first` on that this function has.
    fn attempt(&mut self, first: usize) {
        let methods = self.methods();
        let Some(method) = methods.into_iter().skip(first).flatten().next() else {
            self.finish(Reset::Unclean);
            return;
        };
        // From here on a new pci-config finds a function that may not answer.
        self.record.set_reset(true);
        self.step(Step::Drain(method));
        if !self.is_pending(method) {
            self.start(method);
        }
    }

    /// Returns whether requests of the function's own are on their way.
    fn is_pending(&mut self, method: Method) -> bool {
        match method {
            Method::AdvancedFeatures(at) => {
                let status = self.hardware.read(at + regs::AF_STATUS, Width::Byte) as u8;
                status & regs::AF_STATUS_PENDING != 0
            }
            _ => self.express.is_some_and(|at| {
                let at = at + regs::PCIE_DEVICE_STATUS;
                let status = self.hardware.read(at, Width::Word) as u16;
                status & regs::PCIE_DEVICE_STATUS_PENDING != 0
            }),
        }
    }

    fn start(&mut self, method: Method) {
        match method {
            Method::Flr(at) => {
                let at = at + regs::PCIE_DEVICE_CONTROL;
                let reset = self.saved.device_control | regs::PCIE_DEVICE_CONTROL_FLR;
                self.hardware.write(at, Width::Word, reset.into());
                self.step(Step::Settle(method, RESET_MS));
            }
            Method::AdvancedFeatures(at) => {
                let at = at + regs::AF_CONTROL;
                self.hardware
                    .write(at, Width::Byte, regs::AF_CONTROL_FLR.into());
                self.step(Step::Settle(method, RESET_MS));
            }
            Method::Power(at) => {
                self.set_power_state(at, regs::PM_CONTROL_D3HOT);
                self.step(Step::Asleep(at));
            }
            Method::Model => {
                quirk::start(&mut self.hardware);
                self.step(Step::Settle(method, quirk::RESET_MS));
            }
            Method::Status(at) => {
                virtio::start(&mut self.hardware, at);
                self.step(Step::Settle(method, virtio::RESET_MS));
            }
        }
    }

    /// Changes the power state and no other bit; a write of 0 leaves an event that
    /// is pending as it is.
    fn set_power_state(&mut self, at: u16, state: u16) {
        let at = at + regs::PM_CONTROL;
        let control = self.hardware.read(at, Width::Word) as u16;
        let kept = control & !(regs::PM_CONTROL_STATE | regs::PM_CONTROL_EVENT);
        self.hardware.write(at, Width::Word, (kept | state).into());
    }

    /// Returns whether the function answers. One that does not yet makes the
    /// root port answer for it: all ones, or vendor 1 where software asked to
    /// see retries (PCIe 6.0 section 2.3.2).
    fn responds(&mut self) -> bool {
        let vendor = self.hardware.read(regs::VENDOR, Width::Dword) as u16;
        vendor != 0xffff && vendor != 1
    }

    /// Returns whether the function lost the state that a reset clears: the
    /// command register and every BAR.
    fn forgot(&mut self) -> bool {
        let command = self.hardware.read(regs::COMMAND, Width::Word) as u16;
        if command & (COMMAND_MEMORY | COMMAND_INTX_DISABLE) != 0 {
            return false;
        }
        (0..FUNCTION_BARS).all(|index| {
            let bar = &self.info.bars[index];
            let at = regs::BAR0 + 4 * index as u16;
            // The low bits are the BAR's type.
            let low = self.hardware.read(at, Width::Dword) & !15;
            match bar.kind {
                BarKind::None => true,
                BarKind::Memory64 => low == 0 && self.hardware.read(at + 4, Width::Dword) == 0,
                BarKind::Io | BarKind::Memory32 => low == 0,
            }
        })
    }

    fn finish(&mut self, reset: Reset) {
        if reset == Reset::Unclean {
            self.trouble = Some(Trouble::Unclean);
        } else {
            self.restore();
        }
        self.record.set_reset(false);
        self.reset = reset;
    }

    /// Returns the registers that must survive the reset.
    fn save(&mut self) -> Saved {
        let hardware = &mut self.hardware;
        let mut saved = Saved {
            cache_line: hardware.read(CACHE_LINE, Width::Byte) as u8,
            interrupt_line: hardware.read(regs::INTERRUPT_LINE, Width::Byte) as u8,
            ..Saved::default()
        };
        if let Some(at) = self.express {
            let mut word = |offset| hardware.read(at + offset, Width::Word) as u16;
            saved.device_control = word(regs::PCIE_DEVICE_CONTROL);
            if self.has_link {
                saved.link_control = word(regs::PCIE_LINK_CONTROL);
            }
            if self.has_second {
                saved.device_control_2 = word(DEVICE_CONTROL_2);
            }
        }
        saved
    }

    /// Restores the registers that the device lost, the command register last: with it the
    /// BARs are decoded.
    fn restore(&mut self) {
        let saved = self.saved;
        let hardware = &mut self.hardware;
        if let Some(at) = self.express {
            let mut word = |offset, value: u16| {
                hardware.write(at + offset, Width::Word, value.into());
            };
            word(regs::PCIE_DEVICE_CONTROL, saved.device_control);
            if self.has_link {
                word(regs::PCIE_LINK_CONTROL, saved.link_control);
            }
            if self.has_second {
                word(DEVICE_CONTROL_2, saved.device_control_2);
            }
        }
        for (at, value) in [
            (CACHE_LINE, saved.cache_line),
            (regs::INTERRUPT_LINE, saved.interrupt_line),
        ] {
            hardware.write(at, Width::Byte, value.into());
        }
        for index in 0..FUNCTION_BARS {
            let bar = &self.info.bars[index];
            let at = regs::BAR0 + 4 * index as u16;
            let address = bar.address;
            match bar.kind {
                BarKind::None => continue,
                BarKind::Memory64 => {
                    hardware.write(at, Width::Dword, address as u32);
                    hardware.write(at + 4, Width::Dword, (address >> 32) as u32);
                }
                BarKind::Io | BarKind::Memory32 => {
                    hardware.write(at, Width::Dword, address as u32);
                }
            }
        }
        self.set_host_command(self.decode_bits() | COMMAND_INTX_DISABLE);
    }

    /// Resumes a reset that the last pci-config had begun.
    pub fn resume_reset(&mut self) {
        self.saved = self.record.saved();
        if self.record.is_gone() {
            self.reset = Reset::Gone;
        } else {
            self.step(Step::Unknown);
        }
    }
}
