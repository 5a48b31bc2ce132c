//! One function: its state, and what takes it back to start (M24, C8).

use channel::{Caller, Error, Transport};
use pci::regs::{self, COMMAND_BUS_MASTER, COMMAND_INTX_DISABLE, COMMAND_IO, COMMAND_MEMORY};
use pci::{CapabilityList, ConfigSpace, FUNCTION_BARS, FunctionInfo, Width};

use crate::Hardware;
use crate::bar::Bar;
use crate::kept::Record;
use crate::layout::{self, Policy};
use crate::msi::Msi;
use crate::peers::Peers;
use crate::registers::RegisterTable;

/// How often a reset looks whether the device's own requests are done. The
/// bound keeps a broken device from holding us; the reset then cuts them off.
const PENDING_POLLS: usize = 1000;
/// How long a function-level reset may take, in ms (PCIe 6.0 section 6.6.2).
/// Nothing touches the function before.
pub const RESET_MS: u64 = 100;

/// A function and the guest's view of it.
pub struct Function<'a, H> {
    pub hardware: H,
    /// Its position among all assigned functions.
    pub index: u8,
    /// The vmm whose guest owns it.
    pub owner: Caller,
    pub info: FunctionInfo,
    pub table: RegisterTable,
    pub bars: [Bar; FUNCTION_BARS],
    /// The guest's command register.
    pub command: u16,
    /// What the guest wrote into the interrupt line register.
    pub interrupt_line: u8,
    /// The MSI-X capability that msix plays.
    pub msix: Option<u16>,
    /// The guest has not touched command or messages since start or reset: the
    /// device's command register is as a reset leaves it.
    pub quiet: bool,
    /// MSI-X is on in the device.
    pub msix_enabled: bool,
    /// The first MSI capability.
    pub msi: Option<Msi>,
    /// The PCI Express capability, if the function has function-level reset.
    pub flr: Option<u16>,
    /// When the function-level reset that is under way is over, in ms.
    reset_over: Option<u64>,
    list: CapabilityList,
    /// What the next pci-config finds if this one dies.
    pub record: Record<'a>,
    /// The guest's command register and interrupt line at start.
    start: (u16, u8),
}

struct Space<'a, H>(&'a mut H);

impl<H: Hardware> ConfigSpace for Space<'_, H> {
    fn read32(&mut self, offset: u16) -> u32 {
        self.0.read(offset, Width::Dword)
    }
    fn write32(&mut self, offset: u16, value: u32) {
        self.0.write(offset, Width::Dword, value);
    }
    fn write16(&mut self, offset: u16, value: u16) {
        self.0.write(offset, Width::Word, value.into());
    }
}

impl<'a, H: Hardware> Function<'a, H> {
    /// Latches the capability list, takes the function over as the last
    /// pci-config left it or, if there was none, quiesces it (M24), and lays out
    /// its registers. If msix does not take it, it has no MSI-X (M16); if
    /// irq-router does not, no MSI.
    pub fn new<T: Transport>(
        mut hardware: H,
        index: u8,
        owner: Caller,
        info: FunctionInfo,
        multi_function: bool,
        record: Record<'a>,
        peers: &mut Peers<T>,
    ) -> Self {
        if record.reset_under_way().is_some() {
            // The last pci-config died meanwhile. It is not known when the reset
            // began, and nothing can be read before its end.
            let over = hardware.now_ms() + RESET_MS;
            while hardware.now_ms() < over {}
        }
        let list = CapabilityList::read(&mut Space(&mut hardware));
        let command = record
            .start_command(|| hardware.read(regs::COMMAND, Width::Word) as u16 & COMMAND_MEMORY);
        // The guest's I/O APIC has its pin where the machine's has it (C9).
        let interrupt_line = match info.intx {
            0 => hardware.read(regs::INTERRUPT_LINE, Width::Byte) as u8,
            pin => pin as u8,
        };
        let msi = list
            .find(regs::CAP_MSI)
            .map(|at| Msi::latch(&mut hardware, at));
        let has_msix = info.msix.entries != 0;
        let flr = list.find(regs::CAP_PCIE).filter(|&at| {
            // The control register must lie inside the space.
            at + regs::PCIE_DEVICE_STATUS < layout::CONVENTIONAL
                && hardware.read(at + regs::PCIE_DEVICE_CAPABILITIES, Width::Dword)
                    & regs::PCIE_DEVICE_CAPABILITIES_FLR
                    != 0
        });
        let mut function = Self {
            hardware,
            index,
            owner,
            info,
            table: RegisterTable::default(),
            bars: info.bars.map(Bar::new),
            command,
            interrupt_line,
            msix: has_msix.then_some(info.msix.capability as u16),
            quiet: true,
            msix_enabled: false,
            msi,
            flr,
            reset_over: None,
            list,
            record,
            start: (command, interrupt_line),
        };
        if function.recall() {
            function.adopt(peers);
        } else {
            let (msix, msi) = function.quiesce(peers);
            if msix.is_err() {
                function.msix = None;
            }
            if msi.is_err() {
                function.msi = None;
            }
        }
        function.keep();
        let policy = Policy {
            permissive: info.permissive != 0,
            msix: function.msix,
            msi: function.msi,
            multi_function,
        };
        function.table = layout::build(&mut function.hardware, &info, &function.list, &policy);
        function
    }

    /// Takes function and virtual state back to start (M24). Errors of msix and
    /// of irq-router are reported after everything else is done.
    pub fn quiesce<T: Transport>(
        &mut self,
        peers: &mut Peers<T>,
    ) -> (Result<(), Error>, Result<(), Error>) {
        let mut command = self.hardware.read(regs::COMMAND, Width::Word) as u16;
        command |= COMMAND_MEMORY;
        self.set_host_command(command);
        self.record.doubt_msi();
        self.switch_messages_off();
        let messages = self.reset_messages(peers);
        command |= COMMAND_INTX_DISABLE;
        self.set_host_command(command);
        command &= !(COMMAND_BUS_MASTER | COMMAND_IO);
        self.set_host_command(command);
        self.bars = self.info.bars.map(Bar::new);
        (self.command, self.interrupt_line) = self.start;
        self.msix_enabled = false;
        self.quiet = true;
        messages
    }

    /// Has msix and irq-router take what is theirs back to start.
    fn reset_messages<T: Transport>(
        &mut self,
        peers: &mut Peers<T>,
    ) -> (Result<(), Error>, Result<(), Error>) {
        let msix = match self.msix {
            Some(_) => peers.msix.reset(self.index),
            None => Ok(()),
        };
        let msi = match &mut self.msi {
            Some(msi) => msi.reset(self.index, &mut peers.router),
            None => Ok(()),
        };
        (msix, msi)
    }

    /// Makes device, msix and irq-router agree with what was recalled. A call
    /// that fails is the guest's to try again, by its next write; a reset is
    /// completed by its next access.
    fn adopt<T: Transport>(&mut self, peers: &mut Peers<T>) {
        if let Some(at) = self.msix
            && let Ok(control) = peers.msix.read_control(self.index)
        {
            self.follow_msix(at + regs::MSIX_CONTROL, control);
        }
        if !self.quiet {
            self.write_host_command();
        }
        let _ = self.adopt_msi(&mut peers.router);
    }

    /// Writes message control as msix has it, INTx off before it is enabled and
    /// back after it is disabled (M6).
    pub fn follow_msix(&mut self, at: u16, control: u16) {
        let enabled = control & regs::MSIX_CONTROL_ENABLE != 0;
        let was_enabled = self.msix_enabled;
        self.msix_enabled |= enabled;
        if enabled {
            self.write_host_command();
        }
        self.hardware.write(at, Width::Word, control.into());
        self.msix_enabled = enabled;
        if was_enabled && !enabled {
            self.write_host_command();
        }
    }

    /// Whether the function can be accessed. A function-level reset that is over
    /// is completed first.
    pub fn is_ready(&mut self) -> bool {
        match (self.reset_left(), self.record.reset_under_way(), self.flr) {
            (0, Some(control), Some(capability)) => {
                self.finish_reset(capability, control);
                true
            }
            (left, ..) => left == 0,
        }
    }

    /// Milliseconds until the function-level reset that is under way is over.
    pub fn reset_left(&mut self) -> u64 {
        let now = self.hardware.now_ms();
        self.reset_over.map_or(0, |over| over.saturating_sub(now))
    }

    /// Takes the function back to start (M24), with a function-level reset if the
    /// device has one (C8). One that is under way already is as good: no access
    /// has reached the device since.
    pub fn take_back<T: Transport>(&mut self, peers: &mut Peers<T>) -> Result<(), Error> {
        if !self.is_ready() {
            let (msix, msi) = self.reset_messages(peers);
            return msix.and(msi);
        }
        let Some(capability) = self.flr else {
            let (msix, msi) = self.quiesce(peers);
            self.keep();
            return msix.and(msi);
        };
        self.reset_device(capability, peers)
    }

    /// Function-level reset (C8): quiesces the function and begins the reset.
    /// Nobody waits for its end: until then the function answers no access, and
    /// the first one after it finds what the firmware had set up.
    pub fn reset_device<T: Transport>(
        &mut self,
        capability: u16,
        peers: &mut Peers<T>,
    ) -> Result<(), Error> {
        let (msix, msi) = self.quiesce(peers);
        self.keep();
        let control_at = capability + regs::PCIE_DEVICE_CONTROL;
        let control = self.hardware.read(control_at, Width::Word) as u16;
        for _ in 0..PENDING_POLLS {
            let status_at = capability + regs::PCIE_DEVICE_STATUS;
            let status = self.hardware.read(status_at, Width::Word) as u16;
            if status & regs::PCIE_DEVICE_STATUS_PENDING == 0 {
                break;
            }
        }
        self.record.set_reset(Some(control));
        let reset = control | regs::PCIE_DEVICE_CONTROL_FLR;
        self.hardware.write(control_at, Width::Word, reset.into());
        self.reset_over = Some(self.hardware.now_ms() + RESET_MS);
        msix.and(msi)
    }

    /// A function-level reset is over: gives the device back what it forgot.
    fn finish_reset(&mut self, capability: u16, control: u16) {
        let control_at = capability + regs::PCIE_DEVICE_CONTROL;
        self.hardware.write(control_at, Width::Word, control.into());
        for index in 0..FUNCTION_BARS {
            let bar = &self.info.bars[index];
            let at = regs::BAR0 + 4 * index as u16;
            let address = bar.address;
            match bar.kind() {
                pci::BarKind::None => continue,
                pci::BarKind::Memory64 => {
                    self.hardware.write(at, Width::Dword, address as u32);
                    let high = (address >> 32) as u32;
                    self.hardware.write(at + 4, Width::Dword, high);
                }
                _ => self.hardware.write(at, Width::Dword, address as u32),
            }
        }
        self.set_host_command(COMMAND_MEMORY | COMMAND_INTX_DISABLE);
        self.record.set_reset(None);
        self.reset_over = None;
    }

    /// Writes the device's command register from the guest's (C5): memory
    /// decode stays on, I/O decode off, INTx off while MSI-X or MSI is on, or
    /// if the guest is not offered it (C9).
    pub fn write_host_command(&mut self) {
        let mut command = self.command & !COMMAND_IO | COMMAND_MEMORY;
        if self.msix_enabled || self.msi_enabled() || self.info.intx == 0 {
            command |= COMMAND_INTX_DISABLE;
        }
        self.quiet = false;
        self.set_host_command(command);
    }

    /// The guest's address of a BAR, if the guest has it decoded.
    pub fn decoded(&self, index: usize) -> Option<u64> {
        let bar = &self.bars[index];
        let decoding = self.command & COMMAND_MEMORY != 0;
        (decoding && bar.info().is_memory()).then_some(bar.address())
    }

    fn set_host_command(&mut self, command: u16) {
        self.hardware
            .write(regs::COMMAND, Width::Word, command.into());
    }

    /// Switches MSI-X and MSI off in the device, those that are hidden too.
    fn switch_messages_off(&mut self) {
        for capability in self.list.as_slice() {
            let at = capability.offset + regs::MSI_CONTROL;
            let off = match capability.id {
                regs::CAP_MSIX => regs::MSIX_CONTROL_ENABLE | regs::MSIX_CONTROL_FUNCTION_MASK,
                regs::CAP_MSI => regs::MSI_CONTROL_ENABLE,
                _ => continue,
            };
            let control = self.hardware.read(at, Width::Word) as u16;
            self.hardware
                .write(at, Width::Word, (control & !off).into());
        }
    }
}
