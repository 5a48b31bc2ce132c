//! An xHCI controller: a command that does nothing, whose completion it writes into its event
//! ring.
//!
//! To have it write somewhere, the event ring lies there; to have it read, the command ring
//! does. No port is touched and no device on the bus is spoken to. Sections are those of
//! xHCI 1.2.
//!
//! Messages are not tried: an event is four dwords in a row, and more than one of them would
//! be a message.

use crate::{Memory, Probe, Registers, Stuck, WATCHED, within};

/// PCI class code of xHCI controllers, 24 bits.
pub const CLASS: u32 = 0x0c_03_30;
/// BAR of the registers.
pub const REGISTER_BAR: usize = 0;
/// Most pages of registers that are used; those beyond the BAR are not there.
pub const REGISTER_PAGES: u64 = 16;
const REGISTER_BYTES: u32 = (REGISTER_PAGES as u32) << 12;

/// Capability registers (5.3): how long they are, structural and capability parameters, where
/// doorbells and runtime registers begin.
const CAPLENGTH: u32 = 0x00;
const HCSPARAMS2: u32 = 0x08;
const HCCPARAMS1: u32 = 0x10;
const DBOFF: u32 = 0x14;
const RTSOFF: u32 = 0x18;
/// HCCPARAMS1: addresses have 64 bits.
const AC64: u32 = 1 << 0;

/// Operational registers (5.4), behind those.
const USBCMD: u32 = 0x00;
const USBSTS: u32 = 0x04;
const PAGESIZE: u32 = 0x08;
const CRCR: u32 = 0x18;
const DCBAAP: u32 = 0x30;
const CONFIG: u32 = 0x38;
/// USBCMD: run, reset.
const RUN: u32 = 1 << 0;
const RESET: u32 = 1 << 1;
/// USBSTS: halted, an error of the bus, an event, not ready, an error of its own.
const HALTED: u32 = 1 << 0;
const HOST_ERROR: u32 = 1 << 2;
const EVENT: u32 = 1 << 3;
const NOT_READY: u32 = 1 << 11;
const OWN_ERROR: u32 = 1 << 12;
/// PAGESIZE: 4 KiB.
const PAGES_OF_4K: u32 = 1;
/// CRCR: the cycle state that its first command has.
const CYCLE: u32 = 1;

/// Registers of the first interrupter (5.5.2), from the start of the runtime registers: the
/// segment table's size and address, and how far events were taken.
const ERSTSZ: u32 = 0x28;
const ERSTBA: u32 = 0x30;
const ERDP: u32 = 0x38;
const RUNTIME_BYTES: u32 = 0x40;

/// The extended capability by which firmware hands the controller over (7.1), and its two
/// owners.
const LEGACY: u32 = 1;
const FIRMWARE_OWNS: u32 = 1 << 16;
const SYSTEM_OWNS: u32 = 1 << 24;
/// Its second register (7.1.2): what raises an SMI, and what did, cleared by ones.
const SMI_ENABLES: u32 = 1 << 0 | 1 << 4 | 7 << 13;
const SMI_EVENTS: u32 = 7 << 29;
/// Bound on extended capabilities: there are a dozen kinds, and a few of one of them.
const CAPABILITIES: u32 = 64;

/// Bound on the reads that wait for firmware: a second, where a read takes a microsecond.
const FIRMWARE_READS: u32 = 1_000_000;
/// Bound on the reads that wait for a halt, for which it has 16 ms (5.4.1.1).
const HALT_READS: u32 = 100_000;
/// Bound on the reads that wait for the end of a reset, and until it is ready: a second.
const RESET_READS: u32 = 1_000_000;
/// Bound on the reads that wait for an event: a hundredth of a second, a thousand times what
/// a command takes that does nothing.
const EVENT_READS: u32 = 10_000;

/// Bytes of a command and an event; their last dword has the type and the cycle bit.
const BLOCK: usize = 16;
/// Types (6.4.6): the command that does nothing, a completed command.
const NO_OP: u32 = 23;
const COMPLETED: u32 = 33;
/// Completion code (6.4.5).
const SUCCESS: u32 = 1;
/// Events in a ring of one page.
const EVENTS: usize = PAGE / BLOCK;

const PAGE: usize = 0x1000;
/// Places in [`Memory`], a page each; from the last one on are the pages that the controller
/// keeps for itself, as many as it asks for.
const COMMANDS: usize = 0;
const RING: usize = PAGE;
const SEGMENTS: usize = 2 * PAGE;
const CONTEXTS: usize = 3 * PAGE;
const SCRATCHPADS: usize = 4 * PAGE;
const SCRATCHPAD: usize = 5 * PAGE;
/// Most pages that it may ask for. Those in PCs ask for 34 at most.
const MOST_SCRATCHPADS: usize = 64;

/// Where the registers of one controller are.
#[derive(Clone, Copy, Debug)]
struct Places {
    operational: u32,
    runtime: u32,
    doorbells: u32,
}

/// A controller under the probe's control.
#[derive(Debug)]
pub struct Xhci<R, M, P> {
    registers: R,
    memory: M,
    bus_address: u64,
    pause: P,
}

impl<R: Registers, M: Memory, P: FnMut()> Xhci<R, M, P> {
    /// Returns a controller that holds what an earlier owner told it: its
    /// [`quiesce`](Probe::quiesce) comes next. `memory` is at `bus_address` for it. `pause`
    /// takes a millisecond: some, Intel's among them, are not to be looked at for that long
    /// once they are reset.
    pub const fn new(registers: R, memory: M, bus_address: u64, pause: P) -> Self {
        Self {
            registers,
            memory,
            bus_address,
            pause,
        }
    }

    /// Returns where its registers are.
    fn places(&mut self) -> Result<Places, Stuck> {
        let first = self.registers.read(CAPLENGTH);
        if first == u32::MAX {
            return Err(Stuck::Absent);
        }
        let places = Places {
            operational: first & 0xfc,
            runtime: self.registers.read(RTSOFF) & !0x1f,
            doorbells: self.registers.read(DBOFF) & !3,
        };
        let inside = places.runtime <= REGISTER_BYTES - RUNTIME_BYTES
            && places.doorbells <= REGISTER_BYTES - 4;
        match inside {
            true => Ok(places),
            false => Err(Stuck::Unsupported),
        }
    }

    /// Has firmware let go of it, which may be serving a keyboard on it.
    fn take_over(&mut self) -> Result<(), Stuck> {
        let registers = &mut self.registers;
        let mut at = (registers.read(HCCPARAMS1) >> 16) << 2;
        for _ in 0..CAPABILITIES {
            // All of Intel's lie in the pages that are used.
            if at == 0 || at > REGISTER_BYTES - 8 {
                break;
            }
            let header = registers.read(at);
            if header & 0xff == LEGACY {
                if header & FIRMWARE_OWNS != 0 {
                    registers.write(at, header | SYSTEM_OWNS);
                    if !within(FIRMWARE_READS, || registers.read(at) & FIRMWARE_OWNS == 0) {
                        return Err(Stuck::Firmware);
                    }
                }
                let control = registers.read(at + 4);
                registers.write(at + 4, control & !SMI_ENABLES | SMI_EVENTS);
                break;
            }
            match header >> 8 & 0xff {
                0 => break,
                next => at += next << 2,
            }
        }
        Ok(())
    }

    /// Waits until these bits of an operational register are clear.
    fn wait_clear(&mut self, register: u32, bits: u32, reads: u32) -> Result<(), Stuck> {
        let registers = &mut self.registers;
        let mut value = 0;
        let clear = within(reads, || {
            value = registers.read(register);
            value == u32::MAX || value & bits == 0
        });
        match clear {
            _ if value == u32::MAX => Err(Stuck::Absent),
            true => Ok(()),
            false => Err(Stuck::Reset),
        }
    }

    fn halted(&mut self, places: Places) -> bool {
        let registers = &mut self.registers;
        within(HALT_READS, || {
            registers.read(places.operational + USBSTS) & HALTED != 0
        })
    }

    /// Returns how many pages it wants for itself.
    fn scratchpads(&mut self) -> usize {
        let parameters = self.registers.read(HCSPARAMS2);
        ((parameters >> 21 & 0x1f) << 5 | parameters >> 27) as usize
    }

    /// Lays out the pages that it keeps for itself, and its table of contexts, which names
    /// them and is otherwise empty.
    fn lay_out(&mut self) -> Result<(), Stuck> {
        let count = self.scratchpads();
        if count > MOST_SCRATCHPADS {
            return Err(Stuck::Scratchpads);
        }
        let list = match count {
            0 => 0,
            _ => self.own(SCRATCHPADS),
        };
        self.memory.write(CONTEXTS, &[0; 2 * 8]);
        self.memory.write(CONTEXTS, &list.to_le_bytes());
        for index in 0..count {
            let place = SCRATCHPAD + index * PAGE;
            self.memory.write(place, &[0; PAGE]);
            let address = self.own(place).to_le_bytes();
            self.memory.write(SCRATCHPADS + index * 8, &address);
        }
        Ok(())
    }

    /// Starts the controller with its rings at these addresses, and rings for the first
    /// command.
    fn start(&mut self, commands: u64, events: u64) -> Result<Places, Stuck> {
        self.quiesce()?;
        let places = self.places()?;
        let registers = &mut self.registers;
        // One of 32 bits would take another address than it is told.
        if registers.read(HCCPARAMS1) & AC64 == 0
            || registers.read(places.operational + PAGESIZE) & 0xffff != PAGES_OF_4K
        {
            return Err(Stuck::Unsupported);
        }
        self.lay_out()?;
        let mut segment = [0; BLOCK];
        segment[..8].copy_from_slice(&events.to_le_bytes());
        segment[8..12].copy_from_slice(&(EVENTS as u32).to_le_bytes());
        self.memory.write(SEGMENTS, &segment);
        let operational = places.operational;
        for (register, value) in [
            (operational + DCBAAP, self.own(CONTEXTS)),
            (operational + CRCR, commands | u64::from(CYCLE)),
            (places.runtime + ERDP, events),
        ] {
            self.set(register, value);
        }
        self.registers.write(operational + CONFIG, 1);
        self.registers.write(places.runtime + ERSTSZ, 1);
        // The last, for it has the table read.
        self.set(places.runtime + ERSTBA, self.own(SEGMENTS));
        self.registers.write(operational + USBCMD, RUN);
        let registers = &mut self.registers;
        if !within(HALT_READS, || {
            registers.read(operational + USBSTS) & HALTED == 0
        }) {
            return Err(Stuck::Start);
        }
        registers.write(places.doorbells, 0);
        Ok(places)
    }

    /// Sets a register of 64 bits, the upper half of which takes effect.
    fn set(&mut self, register: u32, value: u64) {
        self.registers.write(register, value as u32);
        self.registers.write(register + 4, (value >> 32) as u32);
    }

    /// Returns whether a command at `from` succeeds, by the events in the ring of its own.
    fn completed(&mut self, places: Places, from: u64) -> bool {
        let (registers, memory) = (&mut self.registers, &mut self.memory);
        let mut next = 0;
        let mut found = false;
        within(EVENT_READS, || {
            let status = registers.read(places.operational + USBSTS);
            let mut event = [0; BLOCK];
            memory.read(RING + next * BLOCK, &mut event);
            let dword = |at: usize| {
                let bytes = [event[at], event[at + 1], event[at + 2], event[at + 3]];
                u32::from_le_bytes(bytes)
            };
            let (code, control) = (dword(8) >> 24, dword(12));
            if control & CYCLE == 0 {
                return status & (HOST_ERROR | OWN_ERROR) != 0;
            }
            let command = u64::from(dword(4)) << 32 | u64::from(dword(0));
            if control >> 10 & 0x3f == COMPLETED && command == from {
                found = code == SUCCESS;
                return true;
            }
            // Those of ports that find a device may come before.
            next += 1;
            next == EVENTS
        });
        found
    }

    fn own(&self, place: usize) -> u64 {
        self.bus_address + place as u64
    }
}

impl<R: Registers, M: Memory, P: FnMut()> Probe for Xhci<R, M, P> {
    const MEMORY: usize = SCRATCHPAD + MOST_SCRATCHPADS * PAGE;

    fn quiesce(&mut self) -> Result<(), Stuck> {
        let places = self.places()?;
        self.take_over()?;
        let (command, status) = (places.operational + USBCMD, places.operational + USBSTS);
        self.wait_clear(status, NOT_READY, RESET_READS)?;
        self.registers.write(command, 0);
        if !self.halted(places) {
            return Err(Stuck::Reset);
        }
        self.registers.write(command, RESET);
        (self.pause)();
        self.wait_clear(command, RESET, RESET_READS)?;
        self.wait_clear(status, NOT_READY, RESET_READS)
    }

    fn bait(&self) -> [u8; WATCHED] {
        let mut bait = [0; WATCHED];
        bait[BLOCK - 4..BLOCK].copy_from_slice(&(NO_OP << 10 | CYCLE).to_le_bytes());
        bait
    }

    fn write(&mut self, to: u64) -> Result<(), Stuck> {
        let bait = self.bait();
        self.memory.write(COMMANDS, &bait);
        let places = self.start(self.own(COMMANDS), to)?;
        let registers = &mut self.registers;
        let mut status = 0;
        within(EVENT_READS, || {
            status = registers.read(places.operational + USBSTS);
            status & (EVENT | HOST_ERROR | OWN_ERROR) != 0
        });
        match status & EVENT {
            0 => Err(Stuck::Order),
            _ => Ok(()),
        }
    }

    fn reads(&mut self, from: u64) -> Result<bool, Stuck> {
        self.memory.write(RING, &[0; PAGE]);
        let places = self.start(from, self.own(RING))?;
        Ok(self.completed(places, from))
    }

    fn forge(&mut self, _data: u32) -> Result<(), Stuck> {
        Err(Stuck::Unsupported)
    }
}

#[cfg(test)]
mod tests;
