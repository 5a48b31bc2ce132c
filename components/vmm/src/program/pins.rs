//! The handlers of the guest's INTx pins (C9).

use channel::irq_router::{Source, SourceKind};
use channel::routes::RoutePage;
use heapless::Vec;
use pci::GUEST_FUNCTIONS;
use runtime::Context;
use sel4::cap::{CNode, IrqHandler};
use sel4::{Cap, CapRights};
use spec::{SLOTS, names};

struct Pin {
    pin: u8,
    /// Own slot for the copy of its handler.
    slot: u64,
    copied: bool,
}

/// irq-router puts handlers into the slot CNode, which is not part of our
/// CSpace: a capability must lie in our own CNode to be invoked, so each pin's
/// is copied once. A pin is never unbound.
pub struct Pins {
    pins: Vec<Pin, GUEST_FUNCTIONS>,
    own: CNode,
    own_depth: usize,
    slots: CNode,
    slots_depth: usize,
}

impl Pins {
    /// Takes the pins from the component's resources.
    pub fn new(context: &Context) -> Self {
        let (own, slots) = (context.get(names::CNODE), context.get(names::SLOTS));
        Self {
            pins: context
                .resources
                .each(names::INTX_HANDLER)
                .take(GUEST_FUNCTIONS)
                .map(|(_, handler)| Pin {
                    pin: handler.pin as u8,
                    slot: handler.slot,
                    copied: false,
                })
                .collect(),
            own: Cap::from_bits(own.slot),
            own_depth: own.bits as usize,
            slots: Cap::from_bits(slots.slot),
            slots_depth: slots.bits as usize,
        }
    }

    /// Acknowledges the handler of `pin`; `false` if irq-router has not bound
    /// it, or the kernel refuses.
    pub fn acknowledge(&mut self, pin: u8, routes: &RoutePage) -> bool {
        let Some(found) = self.pins.iter_mut().find(|found| found.pin == pin) else {
            return false;
        };
        if !found.copied {
            let is_pin =
                |source: Source| source.kind == SourceKind::Pin && source.entry == u16::from(pin);
            let bound =
                (0..SLOTS).find(|&slot| routes.get(slot).is_some_and(|route| is_pin(route.source)));
            let Some(bound) = bound else {
                return false;
            };
            let there = self
                .slots
                .absolute_cptr_from_bits_with_depth(bound as u64, self.slots_depth);
            let here = self
                .own
                .absolute_cptr_from_bits_with_depth(found.slot, self.own_depth);
            if let Err(error) = here.copy(&there, CapRights::all()) {
                defmt::warn!("handler of pin {=u8}: error {=u64}", pin, error as u64);
                return false;
            }
            found.copied = true;
        }
        let handler: IrqHandler = Cap::from_bits(found.slot);
        handler.irq_handler_ack().is_ok()
    }
}
