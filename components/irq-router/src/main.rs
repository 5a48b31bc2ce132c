//! Binds irq-router to seL4: IRQControl, the slot CNode and notification of
//! each guest's vmm, the routing pages.

#![no_std]
#![no_main]

use channel::routes::RoutePage;
use channel::{iommu, irq_router as interface};
use heapless::Vec;
use irq_router::{
    Capabilities, Failure, IrqControl, KernelError, Router, Slot, connect, kept_words,
};
use runtime::{Channel, Context, Event, Server};
use sel4::cap::{CNode, IrqHandler, Notification};
use sel4::{AbsoluteCPtr, Cap, CapRights};
use shm::Kept;
use spec::names::{self, Vectors};
use spec::{FUNCTIONS, FunctionId, GUESTS, VECTORS, host_message, slot_badge, slots};

runtime::component!(main);

type Memory = Kept<{ kept_words(GUESTS) }>;
const _: () = assert!(Memory::is_asked_for(include_str!("../component.toml")));

struct Guest {
    slots: CNode,
    radix: usize,
    notification: Notification,
}

impl Guest {
    /// Returns a slot of its vmm.
    fn slot(&self, index: u8) -> AbsoluteCPtr {
        self.slots
            .absolute_cptr_from_bits_with_depth(index.into(), self.radix)
    }
}

/// The kernel's side of a binding. Own slots: one for each vector's handler,
/// and one behind them for a badged notification on its way.
struct Kernel {
    control: sel4::cap::IrqControl,
    own: CNode,
    radix: usize,
    first_slot: u64,
    guests: Vec<Guest, GUESTS>,
    /// What lets devices raise vectors, where there is an iommu component.
    remap: Option<iommu::remap::Client<Channel>>,
}

impl Kernel {
    fn own_slot(&self, slot: u64) -> AbsoluteCPtr {
        self.own
            .absolute_cptr_from_bits_with_depth(slot, self.radix)
    }

    fn handler_slot(&self, vector: u8) -> u64 {
        self.first_slot + u64::from(vector)
    }

    /// Returns the slot for a badged notification on its way.
    fn spare_slot(&self) -> u64 {
        self.first_slot + u64::from(VECTORS)
    }

    fn guest(&self, slot: Slot) -> Result<&Guest, Failure> {
        let guest = self.guests.get(usize::from(slot.guest));
        guest.ok_or_else(|| failure(sel4::Error::InvalidArgument))
    }

    fn connect(&mut self, slot: Slot, vector: u8, pin: Option<u8>) -> Result<(), KernelError> {
        connect(self, slot, vector, pin).map_err(|failure| {
            if let Failure::Refused(error) = failure {
                defmt::warn!("vector {=u8}: kernel error {=u64}", vector, error);
            }
            KernelError
        })
    }
}

const fn failure(error: sel4::Error) -> Failure {
    match error {
        sel4::Error::DeleteFirst => Failure::Occupied,
        error => Failure::Refused(error as u64),
    }
}

/// Returns whether there is a capability in a slot of our own: a copy to itself is
/// refused for the slot that is taken, or for the one where nothing is.
fn is_filled(slot: &AbsoluteCPtr) -> bool {
    slot.copy(slot, CapRights::all()) == Err(sel4::Error::DeleteFirst)
}

impl Capabilities for Kernel {
    fn make_handler(&mut self, vector: u8, pin: Option<u8>) -> Result<(), Failure> {
        let handler = self.own_slot(self.handler_slot(vector));
        let vector = vector.into();
        let made = match pin {
            // The kernel makes no use of bus, device, function and handle.
            None => self
                .control
                .irq_control_get_msi(0, 0, 0, 0, vector, &handler),
            // Level-triggered and active high, as init makes the board's pins.
            Some(pin) => self
                .control
                .irq_control_get_ioapic(0, pin.into(), 1, 0, vector, &handler),
        };
        match made {
            // Newer kernels look at the vector before the slot.
            Err(sel4::Error::RevokeFirst) if is_filled(&handler) => Err(Failure::Occupied),
            made => made.map_err(failure),
        }
    }

    fn delete_handler(&mut self, vector: u8) -> Result<(), Failure> {
        let handler = self.own_slot(self.handler_slot(vector));
        handler.delete().map_err(failure)
    }

    fn mint_notification(&mut self, slot: Slot) -> Result<(), Failure> {
        let source = self.own_slot(self.guest(slot)?.notification.bits());
        self.own_slot(self.spare_slot())
            .mint(&source, CapRights::write_only(), slot_badge(slot.index))
            .map_err(failure)
    }

    fn set_notification(&mut self, vector: u8) -> Result<(), Failure> {
        IrqHandler::from_bits(self.handler_slot(vector))
            .irq_handler_set_notification(Cap::from_bits(self.spare_slot()))
            .map_err(failure)
    }

    fn delete_notification(&mut self) -> Result<(), Failure> {
        let spare = self.own_slot(self.spare_slot());
        spare.delete().map_err(failure)
    }

    fn copy_to_vmm(&mut self, slot: Slot, vector: u8) -> Result<(), Failure> {
        let handler = self.own_slot(self.handler_slot(vector));
        self.guest(slot)?
            .slot(slot.index)
            .copy(&handler, CapRights::all())
            .map_err(failure)
    }
}

impl IrqControl for Kernel {
    fn acquire(&mut self, slot: Slot, vector: u8) -> Result<(), KernelError> {
        self.connect(slot, vector, None)
    }

    fn acquire_pin(&mut self, slot: Slot, vector: u8, pin: u8) -> Result<(), KernelError> {
        self.connect(slot, vector, Some(pin))
    }

    fn allow(
        &mut self,
        function: FunctionId,
        vector: u8,
        log2: u8,
    ) -> Result<(u64, u32), KernelError> {
        let Some(remap) = &mut self.remap else {
            return Ok(host_message(vector));
        };
        let vectors = iommu::Vectors {
            function,
            first: vector,
            log2,
        };
        asked(remap.allow(vectors))
    }

    fn forbid(&mut self, function: FunctionId, vector: u8) -> Result<(), KernelError> {
        let Some(remap) = &mut self.remap else {
            return Ok(());
        };
        let vectors = iommu::Vectors {
            function,
            first: vector,
            log2: 0,
        };
        asked(remap.forbid(vectors))
    }

    fn clear_slot(&mut self, slot: Slot) -> Result<(), KernelError> {
        // A guest that is not there has nothing.
        match self.guest(slot) {
            Ok(guest) => guest.slot(slot.index).delete().map_err(|_| KernelError),
            Err(_) => Ok(()),
        }
    }

    fn clear_vector(&mut self, vector: u8) -> Result<(), KernelError> {
        self.delete_handler(vector).map_err(|_| KernelError)
    }
}

/// Takes what iommu answered for the kernel's own answer.
fn asked<T>(answer: Result<T, channel::Error>) -> Result<T, KernelError> {
    answer.map_err(|error| {
        defmt::warn!("iommu: {=str}", error.reason());
        KernelError
    })
}

/// Stands in for the page of a guest that is not there.
static NO_GUEST: RoutePage = RoutePage::new();
/// The owner of a function that is not there.
const NO_OWNER: u8 = u8::MAX;

fn main(context: Context) -> ! {
    let mut guests = Vec::new();
    let mut pages = [&NO_GUEST; GUESTS];
    let mut counts = [0; GUESTS];
    let names = context.resources.each(names::ROUTES_OF);
    for ((page, count), (name, _)) in pages.iter_mut().zip(&mut counts).zip(names) {
        *page = context.shared(names::ROUTES_OF.of(name));
        // The kernel cuts a badge off at its width: what is past it is no slot, whatever
        // the image says.
        let told = context.get(names::SLOT_COUNT_OF.of(name)) as usize;
        *count = told.min(slots(sel4::BADGE_BITS));
        let slots = context.get(names::SLOTS_OF.of(name));
        let guest = Guest {
            slots: Cap::from_bits(slots.slot),
            radix: slots.bits as usize,
            notification: context.capability(names::NOTIFICATION_OF.of(name)),
        };
        // `pages` has as many places as `guests`.
        let _ = guests.push(guest);
    }
    let mut owners = [NO_OWNER; FUNCTIONS];
    let functions = context.resources.each(names::ASSIGNED);
    for (owner, (_, assigned)) in owners.iter_mut().zip(functions) {
        *owner = assigned.guest as u8;
    }
    let Vectors { first, end } = context.get(names::VECTORS);
    let free = ((1u128 << end) - 1) & !((1 << first) - 1);
    let own = context.get(names::CNODE);
    let kernel = Kernel {
        control: context.capability(names::IRQ_CONTROL),
        own: Cap::from_bits(own.slot),
        radix: own.bits as usize,
        first_slot: context.get(names::HANDLER_SLOTS).first,
        guests,
        remap: context
            .find_channel(iommu::remap::NAME)
            .map(iommu::remap::Client),
    };
    let kept: &Memory = context.shared(names::KEPT);
    let mut router: Router<'_, _, GUESTS, FUNCTIONS> =
        Router::new(kernel, pages, owners, counts, !free, kept);
    for (device, intx) in context.resources.each(names::INTX_PIN) {
        let (function, pin) = (FunctionId(intx.function as u8), intx.pin as u8);
        if let Err(error) = router.bind_pin(function, pin) {
            defmt::warn!("pin {=u8} of {=str}: {=str}", pin, device, error.reason());
        }
    }
    defmt::info!("{=u64} vectors for messages", end - first);
    let interfaces = [
        interface::interface(),
        interface::msi::interface(),
        interface::dump::interface(),
    ];
    let mut places = context.counters();
    router.counters.show(&mut places);
    let mut server = Server::new(&context, &interfaces, &mut places);
    loop {
        if let Event::Request(caller, request) = server.wait() {
            server.answer(&mut router, caller, request);
        }
    }
}
