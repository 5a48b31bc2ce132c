//! One function: its state, and what quiesces it (M24).

use channel::{Caller, Error, Transport};
use pci::regs::{self, COMMAND_BUS_MASTER, COMMAND_INTX_DISABLE, COMMAND_IO, COMMAND_MEMORY};
use pci::{CapabilityList, ConfigSpace, FunctionInfo, Width};
use spec::FunctionId;

use crate::Hardware;
use crate::bar::Bar;
use crate::kept::Record;
use crate::layout::{self, Policy};
use crate::msi::Msi;
use crate::peers::Peers;
use crate::quirk;
use crate::registers::RegisterTable;
use crate::state::{Reset, Saved, Trouble, View};

/// A function and the guest's view of it.
pub struct Function<'a, H> {
    pub hardware: H,
    /// Its position among all assigned functions.
    pub index: FunctionId,
    /// The vmm whose guest owns it.
    pub owner: Caller,
    pub info: FunctionInfo,
    pub table: RegisterTable,
    pub view: View,
    /// The PCI Express capability, if its device registers lie inside the space.
    pub express: Option<u16>,
    /// It has link control.
    pub has_link: bool,
    /// It has the second device and link registers.
    pub has_second: bool,
    /// Active state power management as the firmware set the link up: a guest may
    /// switch it off, and on again.
    pub aspm: u16,
    /// The PCI Express capability, if the function has function-level reset.
    pub flr: Option<u16>,
    /// How far the function is from its state at start.
    pub reset: Reset,
    /// What its device forgets in a reset.
    pub saved: Saved,
    /// Trouble that is to be logged; taken when it is.
    pub trouble: Option<Trouble>,
    /// msix or irq-router failed while it was quiesced.
    pub not_quiet: bool,
    pub list: CapabilityList,
    /// The guest has another function at the same device number.
    multi_function: bool,
    /// The state for the next pci-config if this one dies.
    pub record: Record<'a>,
    /// The guest's command register and interrupt line at start.
    start: (u16, u8),
}

/// The function's configuration space as `pci` reads it.
pub struct Space<'a, H>(pub &'a mut H);

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
    /// Creates a function that is still to be taken over.
    pub fn new(
        hardware: H,
        index: FunctionId,
        owner: Caller,
        info: FunctionInfo,
        record: Record<'a>,
    ) -> Self {
        Self {
            hardware,
            index,
            owner,
            info,
            table: RegisterTable::default(),
            view: View {
                bars: info.bars.map(Bar::new),
                command: 0,
                interrupt_line: 0,
                msix: (info.msix.entries != 0).then_some(info.msix.capability as u16),
                quiet: true,
                msix_enabled: false,
                msi: None,
            },
            express: None,
            has_link: false,
            has_second: false,
            aspm: 0,
            flr: None,
            reset: Reset::Used,
            saved: Saved::default(),
            trouble: None,
            not_quiet: false,
            list: CapabilityList::EMPTY,
            multi_function: false,
            record,
            start: (0, 0),
        }
    }

    /// Takes the function over: as the last pci-config left it or, if there was
    /// none, quiesced (M24). One whose reset the last pci-config had begun is left
    /// alone, and latched when it answers. `multi_function`: the guest has another at the
    /// same device number.
    pub fn take_over<T: Transport>(&mut self, multi_function: bool, peers: &mut Peers<T>) {
        self.multi_function = multi_function;
        if self.record.reset_under_way() {
            self.record.load(&mut self.view);
            self.resume_reset();
        } else {
            self.latch(peers);
        }
    }

    /// Latches the capability list, makes device and virtual state agree, and lays
    /// out the registers. If msix does not take the function, it has no MSI-X
    /// (M16); if irq-router does not, no MSI.
    pub fn latch<T: Transport>(&mut self, peers: &mut Peers<T>) {
        self.list = CapabilityList::read(&mut Space(&mut self.hardware));
        let decode = self.decode_bits();
        let hardware = &mut self.hardware;
        let command = self
            .record
            .start_command(|| hardware.read(regs::COMMAND, Width::Word) as u16 & decode);
        // The guest's I/O APIC has its pin where the machine's has it (C9).
        let interrupt_line = match self.info.intx {
            0 => hardware.read(regs::INTERRUPT_LINE, Width::Byte) as u8,
            pin => pin as u8,
        };
        self.start = (command, interrupt_line);
        (self.view.command, self.view.interrupt_line) = self.start;
        self.view.msi = self
            .list
            .find(regs::CAP_MSI)
            .map(|at| Msi::latch(hardware, at));
        self.latch_express();
        if self.record.load(&mut self.view) {
            self.adopt(peers);
        } else {
            let (msix, msi) = self.quiesce(peers);
            if msix.is_err() {
                self.view.msix = None;
            }
            if msi.is_err() {
                self.view.msi = None;
            }
        }
        self.keep();
        let policy = Policy {
            permissive: self.info.permissive != 0,
            msix: self.view.msix,
            msi: self.view.msi,
            multi_function: self.multi_function,
            aspm: self.aspm,
        };
        self.table = layout::build(&mut self.hardware, &self.info, &self.list, &policy);
    }

    /// Records which registers of the PCI Express capability exist.
    fn latch_express(&mut self) {
        let hardware = &mut self.hardware;
        // The control register must lie inside the space.
        self.express = self
            .list
            .find(regs::CAP_PCIE)
            .filter(|&at| at + regs::PCIE_DEVICE_STATUS < layout::CONVENTIONAL);
        let Some(at) = self.express else {
            return;
        };
        let inside = |offset| at + offset + 2 <= layout::CONVENTIONAL;
        let version = hardware.read(at + 2, Width::Word) & 15;
        self.has_link = inside(regs::PCIE_LINK_CONTROL);
        self.has_second = version >= 2 && inside(0x32);
        let capabilities = hardware.read(at + regs::PCIE_DEVICE_CAPABILITIES, Width::Dword);
        self.flr = self
            .express
            .filter(|_| capabilities & regs::PCIE_DEVICE_CAPABILITIES_FLR != 0);
        if self.has_link {
            let link = at + regs::PCIE_LINK_CONTROL;
            self.aspm = self.record.start_aspm(|| {
                hardware.read(link, Width::Word) as u16 & regs::PCIE_LINK_CONTROL_ASPM
            });
        }
    }

    /// Takes function and virtual state back to start (M24). Errors of msix and
    /// of irq-router are reported after everything else is done.
    pub fn quiesce<T: Transport>(
        &mut self,
        peers: &mut Peers<T>,
    ) -> (Result<(), Error>, Result<(), Error>) {
        let mut command = self.hardware.read(regs::COMMAND, Width::Word) as u16;
        command |= self.decode_bits();
        self.set_host_command(command);
        if self.has_model_reset() {
            quirk::stop(&mut self.hardware);
        }
        self.record.doubt_msi();
        self.switch_messages_off();
        let messages = self.reset_messages(peers);
        command |= COMMAND_INTX_DISABLE;
        self.set_host_command(command);
        command = command & !(COMMAND_BUS_MASTER | COMMAND_IO) | self.decode_bits();
        self.set_host_command(command);
        self.restore_aspm();
        self.view.bars = self.info.bars.map(Bar::new);
        (self.view.command, self.view.interrupt_line) = self.start;
        self.view.msix_enabled = false;
        self.view.quiet = true;
        messages
    }

    /// Restores the link's power management to its state at start.
    fn restore_aspm(&mut self) {
        if self.aspm == 0 {
            return;
        }
        if let Some(at) = self.express {
            let at = at + regs::PCIE_LINK_CONTROL;
            let control = self.hardware.read(at, Width::Word) as u16;
            if control & regs::PCIE_LINK_CONTROL_ASPM != self.aspm {
                let restored = control & !regs::PCIE_LINK_CONTROL_ASPM | self.aspm;
                self.hardware.write(at, Width::Word, restored.into());
            }
        }
    }

    /// Resets MSI-X in msix and MSI in irq-router.
    pub fn reset_messages<T: Transport>(
        &mut self,
        peers: &mut Peers<T>,
    ) -> (Result<(), Error>, Result<(), Error>) {
        let msix = match self.view.msix {
            Some(_) => peers.msix.reset(self.index),
            None => Ok(()),
        };
        let msi = match &mut self.view.msi {
            Some(msi) => msi.reset(self.index, peers),
            None => Ok(()),
        };
        (msix, msi)
    }

    /// Keeps the guest's view: the commit point of an access. If pci-config dies
    /// before it, the repeated access still finds something to do.
    pub fn keep(&self) {
        self.record.store(&self.view);
    }

    /// Makes device, msix and irq-router agree with the recalled state. A call
    /// that fails is the guest's to try again, by its next write; a reset is
    /// completed by its next access.
    fn adopt<T: Transport>(&mut self, peers: &mut Peers<T>) {
        if let Some(at) = self.view.msix
            && let Ok(control) = peers.msix.read_control(self.index)
        {
            self.follow_msix(at + regs::MSIX_CONTROL, control);
        }
        if !self.view.quiet {
            self.write_host_command();
        }
        let _ = self.adopt_msi(peers);
    }

    /// Writes message control as msix has it, INTx off before it is enabled and
    /// back after it is disabled (M6).
    pub fn follow_msix(&mut self, at: u16, control: u16) {
        let enabled = control & regs::MSIX_CONTROL_ENABLE != 0;
        let was_enabled = self.view.msix_enabled;
        self.view.msix_enabled |= enabled;
        if enabled && !was_enabled {
            self.write_host_command();
        }
        self.hardware.write(at, Width::Word, control.into());
        self.view.msix_enabled = enabled;
        if was_enabled && !enabled {
            self.write_host_command();
        }
    }

    /// Returns the decode bits that stay on in the device while it is assigned: memory's,
    /// and that of ports if it has some.
    pub fn decode_bits(&self) -> u16 {
        let bars = self.view.bars.iter();
        bars.fold(COMMAND_MEMORY, |all, bar| all | bar.decode_bit())
    }

    /// Writes the device's command register from the guest's (C5): decode stays on,
    /// INTx off while MSI-X or MSI is on, or if the guest is not offered it (C9).
    pub fn write_host_command(&mut self) {
        let mut command = self.view.command | self.decode_bits();
        if self.view.msix_enabled || self.msi_enabled() || self.info.intx == 0 {
            command |= COMMAND_INTX_DISABLE;
        }
        self.view.quiet = false;
        self.set_host_command(command);
    }

    /// Returns the guest's address of a BAR, if the guest has it decoded.
    pub fn decoded(&self, index: usize) -> Option<u64> {
        let bar = &self.view.bars[index];
        let decoding = self.view.command & bar.decode_bit() != 0 && self.reset != Reset::Gone;
        decoding.then_some(bar.address())
    }

    pub fn set_host_command(&mut self, command: u16) {
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
