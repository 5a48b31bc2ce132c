//! Several MSI-X entries of a function bound or unbound in one call. Vectors that follow
//! each other are allowed and forbidden in the IOMMU together, which then is waited for
//! once.

use channel::Error;
use channel::irq_router::{Answers, BATCH, Batch, ShortMessage, Source, SourceKind};
use heapless::Vec;
use spec::{FunctionId, SLOTS, bits};

use super::{IrqControl, KernelError, Router};

/// An entry of a batch that is bound. Small, since a stack has as many as a guest slots.
#[derive(Clone, Copy)]
pub(super) struct Bound {
    /// Its place in the batch, or its bit.
    place: u8,
    /// Its slot.
    index: u8,
    vector: u8,
}

/// Returns whether two vectors can be allowed or forbidden together.
fn follows(one: &Bound, next: &Bound) -> bool {
    one.vector + 1 == next.vector
}

impl<C: IrqControl, const GUESTS: usize, const FUNCTIONS: usize> Router<'_, C, GUESTS, FUNCTIONS> {
    /// Describes a bound slot.
    pub(super) fn bound(&self, place: u8, guest: usize, index: usize) -> Bound {
        let owner = self.slots[guest][index].owner;
        Bound {
            place,
            index: index as u8,
            vector: owner.map_or(0, |(_, vector)| vector),
        }
    }

    /// Binds the entries of a batch in order, each as a call of its own would.
    pub(super) fn bind_all(&mut self, batch: Batch, messages: [ShortMessage; BATCH]) -> Answers {
        let mut answers = [Err(Error::NotFound); BATCH];
        // The guest is that of the function, the same for each.
        let mut routed: Vec<(usize, Bound), BATCH> = Vec::new();
        for ((place, entry), message) in (0..).zip(batch.entries).zip(messages) {
            let Some(entry) = entry else { continue };
            let (address, data) = message.parts();
            match self.route(Source::msix(batch.function, entry), address, data) {
                Ok((guest, index)) => {
                    // There are no more of them than places.
                    let _ = routed.push((guest, self.bound(place, guest, index)));
                }
                Err(error) => answers[usize::from(place)] = Err(error),
            }
        }
        for run in routed.chunk_by(|(_, one), (_, next)| follows(one, next)) {
            let (vector, count) = (run[0].1.vector, run.len() as u8);
            let allowed = self.control.allow(batch.function, vector, count);
            for ((guest, bound), number) in run.iter().zip(0..) {
                let message =
                    allowed.map(|(address, data)| ShortMessage::new((address, data + number)));
                answers[usize::from(bound.place)] = match message {
                    Ok(Some(message)) => Ok(message),
                    Ok(None) | Err(KernelError) => {
                        self.counters.failed += 1;
                        // If that fails too, the slot stays bound; the next bind finds it.
                        let _ = self.free(*guest, bound.index.into());
                        Err(Error::Failed)
                    }
                };
            }
        }
        Answers(answers)
    }

    /// Unbinds, in ascending order and up to the first error, the entries of a function
    /// from `first` on whose bits are set. Returns the bits of those that are not bound
    /// now.
    pub(super) fn unbind_bits(
        &mut self,
        guest: usize,
        first: Source,
        entries: u64,
    ) -> Result<u64, Error> {
        if first.kind != SourceKind::Msix {
            self.counters.refused += 1;
            return Err(Error::Refused);
        }
        let mut gone = entries;
        let mut found: Vec<Bound, SLOTS> = Vec::new();
        for place in bits(entries) {
            let source = Source::msix(first.function, first.entry.wrapping_add(place));
            let Some(index) = self.slot_of(guest, source) else {
                continue;
            };
            gone &= !(1 << place);
            // A source has one slot, so that there are no more of them than slots.
            let _ = found.push(self.bound(place as u8, guest, index));
        }
        if self.forbid_each(first.function, &found).is_err() {
            self.counters.failed += 1;
            self.allow_each(first.function, &found);
            return Ok(gone);
        }
        for bound in &found {
            self.park(guest, bound.index.into());
            gone |= 1 << bound.place;
        }
        Ok(gone)
    }

    /// Takes the permission for these vectors away.
    pub(super) fn forbid_each(
        &mut self,
        function: FunctionId,
        bound: &[Bound],
    ) -> Result<(), KernelError> {
        bound.chunk_by(follows).try_for_each(|run| {
            let (vector, count) = (run[0].vector, run.len() as u8);
            self.control.forbid(function, vector, count)
        })
    }

    /// Gives it back: what was not forbidden as a whole stays bound, so that its device
    /// must be able to raise it.
    pub(super) fn allow_each(&mut self, function: FunctionId, bound: &[Bound]) {
        for run in bound.chunk_by(follows) {
            let (vector, count) = (run[0].vector, run.len() as u8);
            let _ = self.control.allow(function, vector, count);
        }
    }
}
