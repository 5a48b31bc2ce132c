//! The command buffer (section 2.4): invalidations.

use tock_registers::fields::FieldValue;

use super::registers::{self, Command, Control, Status};
use super::{COMMANDS, STATUS};
use crate::hardware::{PAGE, Region, Registers, Stuck, Tables, poll};

/// Bytes of a command.
const COMMAND: usize = 16;

/// Why commands are not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The unit does nothing.
    Stuck(Stuck),
    /// It stopped at a command, which its event log names.
    Stopped,
}

/// Looks until `done`, but not for ever, nor at a buffer that stopped.
fn poll_queue<R: Registers>(
    registers: &mut R,
    what: &'static str,
    mut done: impl FnMut(&mut R) -> bool,
) -> Result<(), Failure> {
    let mut stopped = false;
    poll(what, || {
        done(registers) || {
            stopped = !Status::COMMAND_RUN.is_set(registers.read64(registers::STATUS));
            stopped
        }
    })
    .map_err(Failure::Stuck)?;
    match stopped {
        false => Ok(()),
        true => Err(Failure::Stopped),
    }
}

/// Our side of the command buffer.
#[derive(Debug)]
pub struct Queue {
    /// Where the unit's own tables begin.
    own: usize,
    /// Where the next command goes: a byte offset.
    tail: usize,
    /// Value that the last COMPLETION_WAIT stores.
    sequence: u64,
}

impl Queue {
    /// Creates an empty queue, of the unit whose own tables begin there.
    pub const fn new(own: usize) -> Self {
        Self {
            own,
            tail: 0,
            sequence: 0,
        }
    }

    /// Takes over the queue that the unit works on. The last command may not be
    /// complete yet: it would store one more than it has.
    pub fn adopt<R: Registers, T: Tables>(&mut self, registers: &mut R, region: &Region<T>) {
        let tail = registers.read64(registers::COMMAND_TAIL) as usize;
        self.tail = tail % PAGE / COMMAND * COMMAND;
        self.sequence = region.read(self.own + STATUS).wrapping_add(1);
    }

    fn submit<R: Registers, T: Tables>(
        &mut self,
        registers: &mut R,
        region: &mut Region<T>,
        words: [u64; 2],
    ) -> Result<(), Failure> {
        let next = (self.tail + COMMAND) % PAGE;
        poll_queue(registers, "its command buffer stays full", |registers| {
            registers.read64(registers::COMMAND_HEAD) != next as u64
        })?;
        region.write(self.own + COMMANDS + self.tail, words[0]);
        region.write(self.own + COMMANDS + self.tail + 8, words[1]);
        self.tail = next;
        registers.write64(registers::COMMAND_TAIL, next as u64);
        Ok(())
    }

    fn send<R: Registers, T: Tables>(
        &mut self,
        registers: &mut R,
        region: &mut Region<T>,
        first: FieldValue<u64, Command::Register>,
        second: u64,
    ) -> Result<(), Failure> {
        self.submit(registers, region, [first.value, second])
    }

    /// Forgets a device's entry.
    pub fn device<R: Registers, T: Tables>(
        &mut self,
        registers: &mut R,
        region: &mut Region<T>,
        device: u16,
    ) -> Result<(), Failure> {
        let command = Command::CODE::Device + Command::DEVICE.val(device.into());
        self.send(registers, region, command, 0)
    }

    /// Forgets a device's interrupt table.
    pub fn interrupts<R: Registers, T: Tables>(
        &mut self,
        registers: &mut R,
        region: &mut Region<T>,
        device: u16,
    ) -> Result<(), Failure> {
        let command = Command::CODE::Interrupts + Command::DEVICE.val(device.into());
        self.send(registers, region, command, 0)
    }

    /// Forgets every translation of a domain.
    pub fn pages<R: Registers, T: Tables>(
        &mut self,
        registers: &mut R,
        region: &mut Region<T>,
        domain: u16,
    ) -> Result<(), Failure> {
        let command = Command::CODE::Pages + Command::DOMAIN.val(domain.into());
        self.send(registers, region, command, registers::ALL_PAGES)
    }

    /// Forgets everything.
    pub fn all<R: Registers, T: Tables>(
        &mut self,
        registers: &mut R,
        region: &mut Region<T>,
    ) -> Result<(), Failure> {
        self.send(registers, region, Command::CODE::All, 0)
    }

    /// Waits until everything before is done.
    pub fn wait<R: Registers, T: Tables>(
        &mut self,
        registers: &mut R,
        region: &mut Region<T>,
    ) -> Result<(), Failure> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        let status = self.own + STATUS;
        let command = Command::CODE::Wait
            + Command::STORE::SET
            + Command::ADDRESS.val(region.address(status) >> 3);
        self.send(registers, region, command, sequence)?;
        poll_queue(registers, "its commands are not completed", |_| {
            region.read(status) == sequence
        })
    }

    /// Begins an empty buffer after the unit stopped at a command (section 2.4.1): it stays
    /// where it is until the buffer was off. What was asked for is to be asked for again.
    pub fn recover<R: Registers>(&mut self, registers: &mut R) {
        let control = registers.read64(registers::CONTROL);
        let commands = Control::COMMANDS::SET.value;
        registers.write64(registers::CONTROL, control & !commands);
        registers.write64(registers::COMMAND_HEAD, 0);
        registers.write64(registers::COMMAND_TAIL, 0);
        self.tail = 0;
        registers.write64(registers::CONTROL, control | commands);
    }
}
