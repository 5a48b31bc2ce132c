//! How many interrupt slots each guest gets.

use crate::model::{Guest, Model};

use super::image::ComposeError;

/// Returns the slots of each guest. What the file says is taken, if the kernel has so
/// many for one guest and there is a vector for each; the other guests share the vectors
/// that are left, so that none takes one that another has a slot for.
///
/// # Errors
/// If the file asks for more than there is, or leaves a guest none.
pub fn counts(model: &Model, badge_bits: u32, vectors: u64) -> Result<Vec<u64>, ComposeError> {
    let most = spec::slots(badge_bits) as u64;
    let asks = |guest: &Guest| guest.slots;
    if let Some((guest, slots)) = model
        .guests
        .iter()
        .find_map(|guest| Some((guest, asks(guest).filter(|&slots| slots > most)?)))
    {
        return Err(ComposeError(format!(
            "guest {} asks for {slots} slots ({}), and this kernel has {most} for one guest: its \
             badges have {badge_bits} bits, a bit for each slot and two for other things",
            guest.name, guest.place
        )));
    }
    let asked: u64 = model.guests.iter().filter_map(asks).sum();
    let others = model.guests.iter().filter(|g| g.slots.is_none()).count() as u64;
    if asked + others > vectors {
        return Err(ComposeError(format!(
            "the guests ask for {asked} slots together{}, and the board's devices leave {vectors} \
             interrupt vectors: each slot needs one",
            match others {
                0 => String::new(),
                _ => format!(", and {others} more of them need one at least"),
            }
        )));
    }
    if most == 0 {
        return Err(ComposeError(format!(
            "this kernel's badges have {badge_bits} bits, which leaves no slot for a guest"
        )));
    }
    let part = (vectors - asked).checked_div(others).unwrap_or_default();
    let guests = model.guests.iter();
    Ok(guests
        .map(|guest| asks(guest).unwrap_or(part.min(most)))
        .collect())
}
