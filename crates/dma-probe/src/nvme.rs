//! An NVMe controller: its admin queue's first command identifies it, and writes 4 KiB at any
//! page.
//!
//! Few commands after each start, so that no completion is ever taken: the controller is
//! disabled instead. What it reads: the command. A message is written by a feature that gives
//! back 8 bytes as they were set, the timestamp: the first four of them go to where nothing is.
//! Sections are those of NVMe 1.4.

use crate::{BEFORE, FIRST_CPU, Memory, Probe, Registers, Stuck, WATCHED, within};

/// PCI class code of NVMe controllers, 24 bits.
pub const CLASS: u32 = 0x01_08_02;
/// BAR of the registers.
pub const REGISTER_BAR: usize = 0;
/// Pages of registers: the controller's, and that of the first doorbell.
pub const REGISTER_PAGES: u64 = 2;

/// Capabilities (3.1.1): low and high half.
const CAP: u32 = 0x00;
const CAP_HIGH: u32 = 0x04;
/// Interrupt mask set.
const INTMS: u32 = 0x0c;
/// Controller configuration (3.1.5) and status (3.1.6).
const CC: u32 = 0x14;
const CSTS: u32 = 0x1c;
/// Admin queues: sizes, submission and completion queue.
const AQA: u32 = 0x24;
const ASQ: u32 = 0x28;
const ACQ: u32 = 0x30;
/// Tail of the admin submission queue (3.1.24).
const TAIL: u32 = 0x1000;

/// Enabled; entries of 64 and 16 bytes; pages of 4 KiB; the NVM command set.
const CC_ENABLED: u32 = 1 | 6 << 16 | 4 << 20;
const CSTS_READY: u32 = 1 << 0;
/// A fatal error, such as a command that cannot be read.
const CSTS_FATAL: u32 = 1 << 1;
/// Four entries in each queue (3.1.8), counted from 0.
const AQA_ENTRIES: u32 = 3 | 3 << 16;
/// CAP, high half: smallest page, as a power of two above 4 KiB.
const CAP_MPSMIN: u32 = 0xf << 16;

/// Bound on the reads in each unit of CAP.TO, of 500 ms, where a read takes a microsecond.
const HALF_SECOND_READS: u32 = 500_000;
/// Bound on the reads that wait for a command: a tenth of a second, a thousand times what one
/// takes.
const COMMAND_READS: u32 = 100_000;

/// Identify (5.15) the controller.
const IDENTIFY: u32 = 0x06;
const CONTROLLER: u32 = 1;
/// Set and get (5.21, 5.9) the timestamp (5.21.1.14): ms in 48 bits, then how they came about.
const SET_FEATURES: u32 = 0x09;
const GET_FEATURES: u32 = 0x0a;
const TIMESTAMP: u32 = 0x0e;

/// Places in [`Memory`], a page each: both queues, and where a command of its own writes to.
const COMMANDS: usize = 0x0000;
const COMPLETIONS: usize = 0x1000;
const DATA: usize = 0x2000;

/// Bytes of a command, and of a completion, whose last half word is status and phase; the phase
/// is 1 in the first round.
const COMMAND: usize = 64;
const COMPLETION: usize = 16;
const STATUS: usize = 14;
const PHASE: u16 = 1;

/// A controller under the probe's control.
#[derive(Debug)]
pub struct Nvme<R, M> {
    registers: R,
    memory: M,
    bus_address: u64,
}

impl<R: Registers, M: Memory> Nvme<R, M> {
    /// Returns a controller that holds what an earlier owner told it: its
    /// [`quiesce`](Probe::quiesce) comes next. `memory` is at `bus_address` for it.
    pub const fn new(registers: R, memory: M, bus_address: u64) -> Self {
        Self {
            registers,
            memory,
            bus_address,
        }
    }

    /// Returns a command for 4 KiB at most at `data`, which goes on at `more`.
    fn command(operation: u32, what: u32, data: u64, more: u64) -> [u8; COMMAND] {
        let mut command = [0; COMMAND];
        let mut set = |at: usize, value: u32| {
            command[at..at + 4].copy_from_slice(&value.to_le_bytes());
        };
        for (at, address) in [(24, data), (32, more)] {
            set(at, address as u32);
            set(at + 4, (address >> 32) as u32);
        }
        set(0, operation);
        set(40, what);
        command
    }

    /// Returns the command that has the controller identify itself to `to`.
    fn identify(to: u64) -> [u8; COMMAND] {
        Self::command(IDENTIFY, CONTROLLER, to, 0)
    }

    /// Waits until the controller is as ready as `wanted`, as long as it says that it may take.
    fn wait_ready(&mut self, wanted: bool) -> Result<(), Stuck> {
        let registers = &mut self.registers;
        let units = registers.read(CAP) >> 24 & 0xff;
        let mut status = 0;
        let done = within((units + 1) * HALF_SECOND_READS, || {
            status = registers.read(CSTS);
            status == u32::MAX || (status & CSTS_READY != 0) == wanted
        });
        match (done, wanted) {
            _ if status == u32::MAX => Err(Stuck::Absent),
            (true, true) if status & CSTS_FATAL != 0 => Err(Stuck::Start),
            (true, _) => Ok(()),
            (false, true) => Err(Stuck::Start),
            (false, false) => Err(Stuck::Reset),
        }
    }

    /// Starts the controller with its commands at this address, and rings for the first.
    fn start(&mut self, commands: u64) -> Result<(), Stuck> {
        self.quiesce()?;
        if self.registers.read(CAP_HIGH) & CAP_MPSMIN != 0 {
            return Err(Stuck::Unsupported);
        }
        self.memory.write(COMPLETIONS, &[0; 2 * COMPLETION]);
        let completions = self.own(COMPLETIONS);
        for (register, value) in [
            (INTMS, u32::MAX),
            (AQA, AQA_ENTRIES),
            (ASQ, commands as u32),
            (ASQ + 4, (commands >> 32) as u32),
            (ACQ, completions as u32),
            (ACQ + 4, (completions >> 32) as u32),
            (CC, CC_ENABLED),
        ] {
            self.registers.write(register, value);
        }
        self.wait_ready(true)?;
        self.registers.write(TAIL, 1);
        Ok(())
    }

    /// Waits for the completion of a command since the start. Returns whether it succeeded.
    fn completed(&mut self, number: usize) -> Result<bool, Stuck> {
        let (registers, memory) = (&mut self.registers, &mut self.memory);
        let mut status = 0;
        within(COMMAND_READS, || {
            let fatal = registers.read(CSTS) & CSTS_FATAL != 0;
            let mut bytes = [0; 2];
            memory.read(COMPLETIONS + number * COMPLETION + STATUS, &mut bytes);
            status = u16::from_le_bytes(bytes);
            fatal || status & PHASE != 0
        });
        match status & PHASE {
            0 => Err(Stuck::Order),
            _ => Ok(status == PHASE),
        }
    }

    fn own(&self, place: usize) -> u64 {
        self.bus_address + place as u64
    }
}

impl<R: Registers, M: Memory> Probe for Nvme<R, M> {
    const MEMORY: usize = 0x3000;

    fn quiesce(&mut self) -> Result<(), Stuck> {
        self.registers.write(INTMS, u32::MAX);
        let configuration = self.registers.read(CC);
        self.registers.write(CC, configuration & !1);
        self.wait_ready(false)?;
        for register in [AQA, ASQ, ASQ + 4, ACQ, ACQ + 4, CC] {
            self.registers.write(register, 0);
        }
        Ok(())
    }

    fn bait(&self) -> [u8; WATCHED] {
        let mut bait = [0; WATCHED];
        bait[..COMMAND].copy_from_slice(&Self::identify(self.own(DATA)));
        bait
    }

    fn write(&mut self, to: u64) -> Result<(), Stuck> {
        self.memory.write(COMMANDS, &Self::identify(to));
        self.start(self.own(COMMANDS))?;
        self.completed(0).map(|_| ())
    }

    fn reads(&mut self, from: u64) -> Result<bool, Stuck> {
        self.memory.write(DATA, &[BEFORE; WATCHED]);
        self.start(from)?;
        // A command that is none may be completed as well: only the bait tells where to.
        let _ = self.completed(0);
        let mut data = [0; WATCHED];
        self.memory.read(DATA, &mut data);
        Ok(data != [BEFORE; WATCHED])
    }

    fn forge(&mut self, data: u32) -> Result<(), Stuck> {
        // The message is the timestamp's upper half, and has 16 bits that count.
        let timestamp = u64::from(data as u16) << 32;
        self.memory.write(DATA, &timestamp.to_le_bytes());
        let set = Self::command(SET_FEATURES, TIMESTAMP, self.own(DATA), 0);
        let get = Self::command(GET_FEATURES, TIMESTAMP, FIRST_CPU - 4, FIRST_CPU);
        self.memory.write(COMMANDS, &set);
        self.memory.write(COMMANDS + COMMAND, &get);
        self.start(self.own(COMMANDS))?;
        if !self.completed(0)? {
            return Err(Stuck::Unsupported);
        }
        self.registers.write(TAIL, 2);
        // One that is blocked may be completed with an error, or not at all.
        let _ = self.completed(1);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
