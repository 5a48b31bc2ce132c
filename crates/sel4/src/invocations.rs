//! Interrupts, I/O ports, ASIDs and domains.

use crate::cap::{
    AsidControl, AsidPool, DomainSet, IoPort, IoPortControl, IrqControl, IrqHandler, Notification,
    Tcb, Untyped, VSpace,
};
use crate::ipc_buffer::invoke;
use crate::{AbsoluteCPtr, Result, Word};

impl IrqControl {
    /// Makes the capability for a pin of an I/O APIC at `dst`. `level` is 1
    /// for level-triggered, `polarity` 1 for active low; `vector` is 0 to 107.
    /// Each interrupt must be acknowledged before the next is delivered.
    ///
    /// # Errors
    /// [`RangeError`](crate::Error::RangeError) for a bad pin or vector,
    /// [`RevokeFirst`](crate::Error::RevokeFirst) if the vector is taken,
    /// [`DeleteFirst`](crate::Error::DeleteFirst) if `dst` is. Kernels differ in what
    /// they look at first.
    #[allow(
        clippy::useless_conversion,
        reason = "the depth is a byte or a word, by the kernel"
    )]
    pub fn irq_control_get_ioapic(
        self,
        ioapic: Word,
        pin: Word,
        level: Word,
        polarity: Word,
        vector: Word,
        dst: &AbsoluteCPtr,
    ) -> Result<()> {
        invoke(|ipc| {
            sel4_sys::irq_control_get_ioapic(
                ipc,
                self.bits(),
                dst.root().bits(),
                dst.path().bits(),
                dst.path().depth_u8().into(),
                ioapic,
                pin,
                level,
                polarity,
                vector,
            )
        })
    }

    /// Makes the capability for a message-signalled interrupt at `dst`.
    /// `vector` is 0 to 107; the CPU's vector, and so the message's data, is
    /// 0x30 more. The kernel makes no use of the other numbers; a kernel may refuse a bus
    /// above 255, a device above 31 and a function above 7.
    /// Needs no acknowledgement.
    ///
    /// # Errors
    /// As [`irq_control_get_ioapic`](Self::irq_control_get_ioapic).
    #[allow(
        clippy::useless_conversion,
        reason = "the depth is a byte or a word, by the kernel"
    )]
    pub fn irq_control_get_msi(
        self,
        pci_bus: Word,
        pci_dev: Word,
        pci_func: Word,
        handle: Word,
        vector: Word,
        dst: &AbsoluteCPtr,
    ) -> Result<()> {
        invoke(|ipc| {
            sel4_sys::irq_control_get_msi(
                ipc,
                self.bits(),
                dst.root().bits(),
                dst.path().bits(),
                dst.path().depth_u8().into(),
                pci_bus,
                pci_dev,
                pci_func,
                handle,
                vector,
            )
        })
    }
}

impl IrqHandler {
    /// Acknowledges the interrupt, so that it can come again.
    ///
    /// # Errors
    /// If this is not an IRQ handler.
    pub fn irq_handler_ack(self) -> Result<()> {
        invoke(|ipc| sel4_sys::irq_handler_ack(ipc, self.bits()))
    }

    /// Sets the notification that the interrupt signals.
    ///
    /// # Errors
    /// [`InvalidCapability`](crate::Error::InvalidCapability) if it may not be
    /// signalled.
    pub fn irq_handler_set_notification(self, notification: Notification) -> Result<()> {
        invoke(|ipc| sel4_sys::irq_handler_set_notification(ipc, self.bits(), notification.bits()))
    }

    /// Unbinds the notification that the interrupt signals.
    ///
    /// # Errors
    /// If this is not an IRQ handler.
    pub fn irq_handler_clear(self) -> Result<()> {
        invoke(|ipc| sel4_sys::irq_handler_clear(ipc, self.bits()))
    }
}

impl IoPortControl {
    /// Makes a capability to the ports `first` to `last`, both included, at `dst`. The
    /// ranges that are issued must not overlap: copy the capability to have it twice.
    /// (seL4 5.0.0 would take overlapping ones.)
    ///
    /// To be called by the root task, with its own capability.
    ///
    /// # Errors
    /// [`RevokeFirst`](crate::Error::RevokeFirst) if one of the ports is issued already,
    /// [`DeleteFirst`](crate::Error::DeleteFirst) if `dst` is taken,
    /// [`InvalidArgument`](crate::Error::InvalidArgument) if `last` is below `first`.
    #[cfg(sel4_io_port_control)]
    pub fn ioport_control_issue(self, first: u16, last: u16, dst: &AbsoluteCPtr) -> Result<()> {
        invoke(|ipc| {
            sel4_sys::x86_io_port_control_issue(
                ipc,
                self.bits(),
                first.into(),
                last.into(),
                dst.root().bits(),
                dst.path().bits(),
                dst.path().depth_u8(),
            )
        })
    }

    /// Makes a capability to the ports `first` to `last`, both included, at `dst`. The
    /// ranges that are issued must not overlap: copy the capability to have it twice.
    ///
    /// To be called by the root task, with its own capability.
    ///
    /// # Errors
    /// [`DeleteFirst`](crate::Error::DeleteFirst) if `dst` is taken.
    #[cfg(not(sel4_io_port_control))]
    pub fn ioport_control_issue(self, first: u16, last: u16, dst: &AbsoluteCPtr) -> Result<()> {
        // This kernel's capability to all ports is narrowed by its badge
        // (`io_port_capdata` in its structures.bf).
        let all = crate::init_thread::slot::CNODE
            .cap()
            .absolute_cptr(self.cptr());
        let range = u64::from(first) << 16 | u64::from(last);
        dst.mint(&all, crate::CapRights::all(), range)
    }
}

/// Each access fails with [`IllegalOperation`](crate::Error::IllegalOperation)
/// if one of its ports is not in the capability's range.
impl IoPort {
    /// Reads a byte from `port`.
    ///
    /// # Errors
    /// See above.
    pub fn ioport_in8(self, port: u16) -> Result<u8> {
        invoke(|ipc| sel4_sys::x86_io_port_in8(ipc, self.bits(), port))
    }

    /// Reads 16 bits from `port`.
    ///
    /// # Errors
    /// See above.
    pub fn ioport_in16(self, port: u16) -> Result<u16> {
        invoke(|ipc| sel4_sys::x86_io_port_in16(ipc, self.bits(), port))
    }

    /// Reads 32 bits from `port`.
    ///
    /// # Errors
    /// See above.
    pub fn ioport_in32(self, port: u16) -> Result<u32> {
        invoke(|ipc| sel4_sys::x86_io_port_in32(ipc, self.bits(), port))
    }

    /// Writes a byte to `port`.
    ///
    /// # Errors
    /// See above.
    pub fn ioport_out8(self, port: u16, value: u8) -> Result<()> {
        invoke(|ipc| sel4_sys::x86_io_port_out8(ipc, self.bits(), port.into(), value.into()))
    }

    /// Writes 16 bits to `port`.
    ///
    /// # Errors
    /// See above.
    pub fn ioport_out16(self, port: u16, value: u16) -> Result<()> {
        invoke(|ipc| sel4_sys::x86_io_port_out16(ipc, self.bits(), port.into(), value.into()))
    }

    /// Writes 32 bits to `port`.
    ///
    /// # Errors
    /// See above.
    pub fn ioport_out32(self, port: u16, value: u32) -> Result<()> {
        invoke(|ipc| sel4_sys::x86_io_port_out32(ipc, self.bits(), port.into(), value.into()))
    }

    /// Reads 1, 2 or 4 bytes from `port`, by any other number as 4.
    ///
    /// # Errors
    /// See above.
    pub fn ioport_read(self, port: u16, bytes: u64) -> Result<u32> {
        match bytes {
            1 => self.ioport_in8(port).map(u32::from),
            2 => self.ioport_in16(port).map(u32::from),
            _ => self.ioport_in32(port),
        }
    }

    /// Writes 1, 2 or 4 bytes to `port`, by any other number 4.
    ///
    /// # Errors
    /// See above.
    pub fn ioport_write(self, port: u16, bytes: u64, value: u32) -> Result<()> {
        let [low, high, ..] = value.to_le_bytes();
        match bytes {
            1 => self.ioport_out8(port, low),
            2 => self.ioport_out16(port, u16::from_le_bytes([low, high])),
            _ => self.ioport_out32(port, value),
        }
    }
}

impl AsidControl {
    /// Makes an ASID pool from a 4 KiB untyped at `dst`.
    ///
    /// # Errors
    /// If the untyped is not of that size or in use, or no pool is left.
    pub fn asid_control_make_pool(self, untyped: Untyped, dst: &AbsoluteCPtr) -> Result<()> {
        let (bits, depth) = (dst.path().bits(), dst.path().depth_u8());
        let root = dst.root().bits();
        invoke(|ipc| {
            let untyped = untyped.bits();
            sel4_sys::x86_asid_control_make_pool(ipc, self.bits(), untyped, root, bits, depth)
        })
    }
}

impl AsidPool {
    /// Assigns an identifier to a new address space, which needs one before
    /// anything can be mapped in it.
    ///
    /// # Errors
    /// [`DeleteFirst`](crate::Error::DeleteFirst) if the pool is full.
    pub fn asid_pool_assign(self, vspace: VSpace) -> Result<()> {
        invoke(|ipc| sel4_sys::x86_asid_pool_assign(ipc, self.bits(), vspace.bits()))
    }
}

impl DomainSet {
    /// Puts a thread into a domain.
    ///
    /// # Errors
    /// If there is no such domain.
    pub fn domain_set_set(self, domain: u8, tcb: Tcb) -> Result<()> {
        invoke(|ipc| sel4_sys::domain_set_set(ipc, self.bits(), domain, tcb.bits()))
    }
}
