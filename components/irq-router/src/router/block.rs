//! Plain MSI: the messages of a function, bound and changed together (P1, P2).

use channel::irq_router::msi::{MAX_LOG2, MsiRouter};
use channel::irq_router::{Block, Source, SourceKind};
use channel::{Caller, Error, GuestMessage};
use spec::FunctionId;

use super::{Binding, IrqControl, Router};

/// Returns the message `number` of `count`: the device replaces the low bits of
/// the data (PCIe 6.0 section 7.7.1.5).
fn message(address: u64, data: u32, count: u8, number: u16) -> Option<GuestMessage> {
    let low = u32::from(count) - 1;
    GuestMessage::parse(address, data & !low | u32::from(number))
}

impl<C: IrqControl, const GUESTS: usize, const FUNCTIONS: usize> Router<'_, C, GUESTS, FUNCTIONS> {
    /// Returns the slots that the function's messages have.
    fn messages(&self, guest: usize, function: FunctionId) -> impl Iterator<Item = usize> {
        (0..self.counts[guest])
            .filter(move |&index| self.holds(guest, index, function, SourceKind::Msi))
    }

    /// Changes each bound message of the function, and its route.
    fn change(&mut self, guest: usize, function: FunctionId, change: impl Fn(u16, &mut Binding)) {
        for index in 0..self.counts[guest] {
            if self.holds(guest, index, function, SourceKind::Msi)
                && let slot = &mut self.slots[guest][index]
                && let (Some((source, _)), Some(binding)) = (slot.owner, &mut slot.binding)
            {
                change(source.entry, binding);
                self.publish(guest, index);
            }
        }
    }

    /// Returns the vector that message 0 had before.
    fn last_vector(&self, guest: usize, function: FunctionId) -> Option<u8> {
        self.slots_of(guest)
            .iter()
            .filter_map(|slot| slot.owner)
            .find(|&(owner, _)| owner == Source::msi(function, 0))
            .map(|(_, vector)| vector)
    }
}

impl<C: IrqControl, const GUESTS: usize, const FUNCTIONS: usize> MsiRouter
    for Router<'_, C, GUESTS, FUNCTIONS>
{
    fn bind_block(
        &mut self,
        _caller: Caller,
        block: Block,
        address: u64,
        data: u32,
        mask: u32,
    ) -> Result<(u64, u32), Error> {
        let Block { function, log2 } = block;
        let guest = self.guest_of(Source::msi(function, 0))?;
        if log2 > MAX_LOG2 || self.messages(guest, function).next().is_some() {
            self.counters.refused += 1;
            return Err(Error::Refused);
        }
        let count = 1 << log2;
        let wanted = self.last_vector(guest, function);
        let Some(first) = self.vectors.take(wanted, count) else {
            self.counters.exhausted += 1;
            return Err(Error::Exhausted);
        };
        for number in 0..count {
            let source = Source::msi(function, number.into());
            let binding = Binding {
                message: message(address, data, count, number.into()),
                masked: mask >> number & 1 == 1,
            };
            let vector = first + number;
            let placed = match self.choose_slot(guest, source) {
                Some(index) => self.occupy((guest, index), (source, vector), binding),
                None => {
                    self.counters.exhausted += 1;
                    Err(Error::Exhausted)
                }
            };
            if let Err(error) = placed {
                // Those that have no slot yet; the others go with their slots.
                (vector..first + count).for_each(|vector| self.vectors.give_back(vector));
                self.free_all(guest, function, SourceKind::Msi)?;
                return Err(error);
            }
        }
        let message = self.control.allow(function, first, log2);
        message.map_err(|_| {
            self.counters.failed += 1;
            // If that fails too, the slots stay bound, and the next bind says so.
            let _ = self.free_all(guest, function, SourceKind::Msi);
            Error::Failed
        })
    }

    fn set_message(
        &mut self,
        _caller: Caller,
        function: FunctionId,
        address: u64,
        data: u32,
    ) -> Result<(), Error> {
        let guest = self.guest_of(Source::msi(function, 0))?;
        let count = self.messages(guest, function).count() as u8;
        if count == 0 {
            self.counters.not_found += 1;
            return Err(Error::NotFound);
        }
        self.change(guest, function, |number, binding| {
            binding.message = message(address, data, count, number);
        });
        Ok(())
    }

    fn set_mask(&mut self, _caller: Caller, function: FunctionId, mask: u32) -> Result<(), Error> {
        let guest = self.guest_of(Source::msi(function, 0))?;
        self.change(guest, function, |number, binding| {
            binding.masked = mask >> number & 1 == 1;
        });
        Ok(())
    }

    fn unbind_block(&mut self, _caller: Caller, function: FunctionId) -> Result<(), Error> {
        let guest = self.guest_of(Source::msi(function, 0))?;
        self.free_all(guest, function, SourceKind::Msi)
    }
}
