//! Hypercalls: from an argument's address to its answer.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::abi::{AGAIN, Block, EINVAL, EUNSPEC, Halt, Net, OK, Poll, Puts, WallTime, call};
use crate::manifest::{Entry, Kind};
use crate::ram::Ram;

/// Exit status of an image that ends abnormally (`SOLO5_EXIT_ABORT`).
pub const ABORT: i32 = 255;

/// What the hypercalls need of the machine. A handle is the position of an entry in the
/// manifest; only those of the right kind are passed on.
pub trait Machine {
    /// Returns the nanoseconds since the start of 1970.
    fn wall_clock(&mut self) -> u64;
    /// Writes text to the console.
    fn print(&mut self, text: &[u8]);
    /// Waits until a network has a frame, `timeout_nsecs` at most. Returns a bit for each
    /// handle that has.
    fn poll(&mut self, timeout_nsecs: u64) -> u64;
    /// Sends a frame. Returns `false` if it is none that can be sent.
    fn send(&mut self, handle: usize, frame: &[u8]) -> bool;
    /// Copies the next received frame out, as much of it as there is room for. Returns its
    /// bytes.
    fn receive(&mut self, handle: usize, frame: &mut [u8]) -> Option<usize>;
    /// Reads whole blocks. Returns `false` if that failed.
    fn read(&mut self, handle: usize, block: u64, data: &mut [u8]) -> bool;
    /// Writes whole blocks. Returns `false` if that failed.
    fn write(&mut self, handle: usize, block: u64, data: &[u8]) -> bool;
    /// Reports a call whose argument at `address` is not the image's memory, so that it has
    /// no answer; or that there is no such call.
    fn refused(&mut self, call: u32, address: u64);
}

/// What follows a hypercall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The image goes on.
    Resume,
    /// It is over, with this exit status.
    End(i32),
}

/// Serves hypercall `number` with its argument at `address`. `devices` is the manifest.
pub fn serve(
    number: u32,
    address: u64,
    ram: &mut Ram<'_>,
    devices: &[Entry],
    machine: &mut impl Machine,
) -> Next {
    let done = match number {
        call::WALLTIME => {
            let nsecs = machine.wall_clock();
            ram.write(address, &WallTime { nsecs })
        }
        call::PUTS => puts(ram, address, machine),
        call::POLL => answer(ram, address, |argument: &mut Poll, _| {
            argument.ready_set = machine.poll(argument.timeout_nsecs);
            argument.ret = argument.ready_set.count_ones() as i32;
        }),
        call::BLOCK_WRITE => answer(ram, address, |argument: &mut Block, ram| {
            argument.ret = transfer(argument, devices, |handle, block, argument| {
                let data = ram.get(argument.data, argument.length)?;
                Some(machine.write(handle, block, data))
            });
        }),
        call::BLOCK_READ => answer(ram, address, |argument: &mut Block, ram| {
            argument.ret = transfer(argument, devices, |handle, block, argument| {
                let data = ram.get_mut(argument.data, argument.length)?;
                Some(machine.read(handle, block, data))
            });
        }),
        call::NET_WRITE => answer(ram, address, |argument: &mut Net, ram| {
            let sent = network(devices, argument.handle).and_then(|handle| {
                let frame = ram.get(argument.data, argument.length)?;
                machine.send(handle, frame).then_some(OK)
            });
            argument.ret = sent.unwrap_or(EINVAL);
        }),
        call::NET_READ => answer(ram, address, |argument: &mut Net, ram| {
            let received = network(devices, argument.handle).and_then(|handle| {
                let frame = ram.get_mut(argument.data, argument.length)?;
                Some(machine.receive(handle, frame))
            });
            argument.ret = match received {
                Some(Some(length)) => {
                    argument.length = (length as u64).min(argument.length);
                    OK
                }
                Some(None) => AGAIN,
                None => EINVAL,
            };
        }),
        call::HALT => {
            let status = ram.read::<Halt>(address).map(|halt| halt.exit_status);
            return Next::End(status.unwrap_or(ABORT));
        }
        _ => None,
    };
    if done.is_none() {
        machine.refused(number, address);
    }
    Next::Resume
}

/// Reads an argument, has it changed to its answer, and writes it back.
fn answer<T: FromBytes + IntoBytes + Immutable>(
    ram: &mut Ram<'_>,
    address: u64,
    serve: impl FnOnce(&mut T, &mut Ram<'_>),
) -> Option<()> {
    let mut argument = ram.read(address)?;
    serve(&mut argument, ram);
    ram.write(address, &argument)
}

fn puts(ram: &Ram<'_>, address: u64, machine: &mut impl Machine) -> Option<()> {
    let Puts { data, length } = ram.read(address)?;
    machine.print(ram.get(data, length)?);
    Some(())
}

/// Returns the position of a handle that is of this kind.
fn of_kind(devices: &[Entry], handle: u64, kind: Kind) -> Option<(usize, &Entry)> {
    let handle = usize::try_from(handle).ok()?;
    let entry = devices.get(handle)?;
    (entry.kind() == Some(kind)).then_some((handle, entry))
}

fn network(devices: &[Entry], handle: u64) -> Option<usize> {
    of_kind(devices, handle, Kind::Net).map(|(handle, _)| handle)
}

/// Checks a request for blocks and has it done. Returns its result.
fn transfer(
    argument: &Block,
    devices: &[Entry],
    run: impl FnOnce(usize, u64, &Block) -> Option<bool>,
) -> i32 {
    let Some((handle, entry)) = of_kind(devices, argument.handle, Kind::Block) else {
        return EINVAL;
    };
    let (capacity, size) = entry.disk();
    let size = u64::from(size.max(1));
    let end = argument.offset.checked_add(argument.length);
    let whole = argument.offset.is_multiple_of(size) && argument.length.is_multiple_of(size);
    if !whole || argument.offset >= capacity || end.is_none_or(|end| end > capacity) {
        return EINVAL;
    }
    match run(handle, argument.offset / size, argument) {
        Some(true) => OK,
        Some(false) => EUNSPEC,
        None => EINVAL,
    }
}

#[cfg(test)]
mod tests;
