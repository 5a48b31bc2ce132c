//! The three components, joined as they are in a system, each in a life that can
//! end at any of its steps.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use channel::irq_router::dump::{BoundSlot, IrqDump};
use channel::irq_router::{Source, SourceKind, msi};
use channel::msix::control::MsixControl;
use channel::msix::dump::MsixDump;
use channel::msix::{EntryState, FunctionBar, control, table};
use channel::pci_config::{self as config_channel, PciConfig};
use channel::routes::RoutePage;
use channel::{Caller, Error, Local, Message, irq_router as router_channel};
use irq_router::Router;
use msix::Msix;
use pci::{Bdf, Width};
use pci_config::Functions;
use spec::{FunctionId, SLOTS, host_message};

use super::device::{Device, MSI, MSIX, TABLE_BAR};
use super::kernel::Kernel;
use super::world::{
    Component, ENTRIES, FUNCTIONS, Fragile, GUESTS, Handler, Killed, Space, Tables, World,
};

const PCI_CONFIG: Caller = Caller(1);
const MSIX_CALLER: Caller = Caller(2);
/// A vmm for each guest; function and guest have one number here.
const VMM: [Caller; GUESTS] = [Caller(10), Caller(11)];
/// Vectors 0 to 39 are free: blocks and single ones meet.
const RESERVED: u128 = !0xff_ffff_ffff;

type Link = Local<Box<dyn FnMut(Message) -> Message>>;
type Irq = Router<'static, Kernel, GUESTS, FUNCTIONS>;
type Table = Msix<'static, Tables, Link, FUNCTIONS>;
type Config = Functions<'static, Space, Link, FUNCTIONS>;

/// The memory that lives as long as the process: one for all runs of a thread.
pub struct Ground {
    pages: [RoutePage; GUESTS],
    irq: Fragile,
    msix: Fragile,
    config: Fragile,
}

impl Ground {
    pub fn new() -> &'static Self {
        let entries = ENTRIES.iter().sum();
        Box::leak(Box::new(Self {
            pages: Default::default(),
            irq: Fragile::new(Component::Irq, irq_router::kept_words(GUESTS)),
            msix: Fragile::new(Component::Msix, msix::kept_words(FUNCTIONS, entries)),
            config: Fragile::new(Component::Config, pci_config::kept_words(FUNCTIONS)),
        }))
    }
}

/// A component and how it is started.
struct Life<S> {
    component: Component,
    world: Rc<World>,
    now: RefCell<Option<S>>,
    generation: Cell<u32>,
    start: Box<dyn Fn() -> S>,
}

impl<S> Life<S> {
    fn new(component: Component, world: &Rc<World>, start: impl Fn() -> S + 'static) -> Rc<Self> {
        let life = Rc::new(Self {
            component,
            world: world.clone(),
            now: RefCell::default(),
            generation: Cell::new(0),
            start: Box::new(start),
        });
        life.begin();
        life
    }

    /// Starts it, again and again if it dies in that.
    fn begin(&self) {
        loop {
            match catch_unwind(AssertUnwindSafe(|| (self.start)())) {
                Ok(started) => {
                    *self.now.borrow_mut() = Some(started);
                    return;
                }
                Err(why) => self.died(why),
            }
        }
    }

    fn died(&self, why: Box<dyn std::any::Any + Send>) {
        if !why.is::<Killed>() {
            resume_unwind(why);
        }
        self.generation.set(self.generation.get() + 1);
    }

    fn with<V>(&self, f: impl FnOnce(&mut S) -> V) -> V {
        f(self.now.borrow_mut().as_mut().expect("it was started"))
    }

    /// Calls as `client`. Returns the reply, or that the server is gone.
    fn call(&self, client: Component, f: impl FnOnce(&mut S) -> Message) -> Message {
        self.world.step(client);
        let reply = catch_unwind(AssertUnwindSafe(|| {
            let reply = self.with(f);
            // All is done, and no component is told.
            self.world.step(self.component);
            reply
        }));
        reply.unwrap_or_else(|why| {
            self.died(why);
            self.begin();
            Message::error(if self.world.impatient.get() {
                Error::Failed
            } else {
                Error::Gone(self.generation.get())
            })
        })
    }
}

/// What a guest does.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// Configuration write: function, offset, width, value.
    Config(usize, u16, Width, u32),
    /// Table write: function, entry, field, width, value.
    Table(usize, u32, u32, Width, u64),
    /// Its vmm throttles an entry, or stops that.
    Throttle(usize, u16, bool),
    /// Its vmm resets the function.
    Reset(usize),
}

/// What must be the same whether or not somebody died.
#[derive(Clone, Debug)]
pub struct Settled {
    config: Vec<Vec<u32>>,
    table: Vec<Vec<(u64, u64)>>,
    entries: Vec<Vec<EntryState>>,
    bars: Vec<Result<u64, Error>>,
    devices: Vec<(Vec<u8>, Vec<bool>)>,
    routes: Vec<Option<channel::routes::Route>>,
}

impl Settled {
    /// Panics, with what differs, unless both are the same.
    pub fn assert_is(&self, expected: &Self) {
        assert_eq!(self.config, expected.config);
        assert_eq!(self.table, expected.table);
        assert_eq!(self.entries, expected.entries);
        assert_eq!(self.bars, expected.bars);
        assert_eq!(self.devices, expected.devices);
        assert_eq!(self.routes, expected.routes);
    }

    /// Returns the state without the marks that bound and unmasked entries were written.
    pub fn without_marks(mut self) -> Self {
        for entry in self.entries.iter_mut().flatten() {
            entry.updated &= entry.masked || !entry.bound;
        }
        self
    }
}

pub struct System {
    pub world: Rc<World>,
    irq: Rc<Life<Irq>>,
    msix: Rc<Life<Table>>,
    config: Rc<Life<Config>>,
}

fn bdf(function: usize) -> Bdf {
    Bdf::from_requester_id(Device::info(ENTRIES[function], FunctionId(function as u8)).guest_bdf)
}

impl System {
    /// Boots; `arm` may let a component die in that.
    pub fn new(ground: &'static Ground, arm: impl FnOnce(&World)) -> Self {
        let world = World::new(&ground.pages);
        for kept in [&ground.irq, &ground.msix, &ground.config] {
            kept.start(&world);
        }
        arm(&world);
        let at = world.clone();
        let irq = Life::new(Component::Irq, &world, move || {
            let pages = at.pages.each_ref();
            let owners = [0, 1];
            let mut router = Router::new(
                Kernel(at.clone()),
                pages,
                owners,
                [SLOTS; GUESTS],
                RESERVED,
                &ground.irq,
            );
            assert_eq!(router.bind_pin(FunctionId(1), 20), Ok(()));
            router
        });
        let (at, to) = (world.clone(), irq.clone());
        let msix = Life::new(Component::Msix, &world, move || {
            let to = to.clone();
            let link: Link = Local(Box::new(move |request| {
                to.call(Component::Msix, |irq| {
                    router_channel::dispatch(irq, MSIX_CALLER, request)
                })
            }));
            let infos = [0, 1].map(|index| Device::info(ENTRIES[index], FunctionId(index as u8)));
            let router = router_channel::Client(link);
            let mut msix = Msix::new(Tables(at.clone()), router, &ground.msix);
            let functions = [(infos[0], VMM[0]), (infos[1], VMM[1])];
            msix.take_over(ENTRIES.iter().sum(), functions);
            msix
        });
        let (at, to_irq, to_msix) = (world.clone(), irq.clone(), msix.clone());
        let config = Life::new(Component::Config, &world, move || {
            let (irq, msix) = (to_irq.clone(), to_msix.clone());
            let to_msix: Link = Local(Box::new(move |request| {
                msix.call(Component::Config, |msix| {
                    control::dispatch(msix, PCI_CONFIG, request)
                })
            }));
            let to_irq: Link = Local(Box::new(move |request| {
                irq.call(Component::Config, |irq| {
                    msi::dispatch(irq, PCI_CONFIG, request)
                })
            }));
            let functions = [0, 1].map(|index| {
                let info = Device::info(ENTRIES[index], FunctionId(index as u8));
                (info, VMM[index], Space(at.clone(), index))
            });
            let (msix, irq) = (control::Client(to_msix), msi::Client(to_irq));
            let mut config = Functions::new(msix, irq);
            config.take_over(functions, &ground.config);
            config
        });
        Self {
            world,
            irq,
            msix,
            config,
        }
    }

    fn config_client(&self, guest: usize) -> config_channel::Client<Link> {
        let config = self.config.clone();
        config_channel::Client(Local(Box::new(move |request| {
            config.call(Component::Vmm, |config| {
                config_channel::dispatch(config, VMM[guest], request)
            })
        })))
    }

    fn table_client(&self, guest: usize) -> table::Client<Link> {
        let msix = self.msix.clone();
        table::Client(Local(Box::new(move |request| {
            msix.call(Component::Vmm, |msix| {
                table::dispatch(msix, VMM[guest], request)
            })
        })))
    }

    /// Does what a guest does, as its vmm does it.
    pub fn play(&self, op: Op) {
        match op {
            Op::Config(function, offset, width, value) => {
                let mut client = self.config_client(function);
                client.write_again(bdf(function), offset, width, value);
            }
            Op::Table(function, entry, field, width, value) => {
                let mut client = self.table_client(function);
                let place = FunctionBar {
                    function: FunctionId(function as u8),
                    bar: TABLE_BAR,
                };
                let done = client.write(place, 16 * entry + field, width, value);
                assert!(done.is_ok() || self.world.impatient.get());
            }
            Op::Throttle(function, entry, throttled) => {
                let mut client = self.table_client(function);
                let source = Source::msix(FunctionId(function as u8), entry);
                let done = client.set_throttled(source, throttled);
                assert!(done.is_ok() || self.world.impatient.get());
            }
            Op::Reset(function) => {
                let mut client = self.config_client(function);
                let done = client.reset(FunctionId(function as u8));
                assert!(done.is_ok() || self.world.impatient.get());
            }
        }
    }

    /// Ends a component's life while no client waits for it.
    pub fn crash(&self, victim: Component) {
        match victim {
            Component::Irq => self.irq.begin(),
            Component::Msix => self.msix.begin(),
            Component::Config => self.config.begin(),
            // Its writes outlive it, and no client asks it here.
            Component::Iommu | Component::Vmm => {}
        }
    }

    /// Returns all that a guest can see, and all that decides what reaches it.
    pub fn settled(&self) -> Settled {
        let functions = 0..FUNCTIONS;
        let config = functions.clone().map(|function| {
            let read = |offset| {
                let read = |config: &mut Config| {
                    config.read(VMM[function], bdf(function), offset, Width::Dword)
                };
                self.config.with(read).expect("reads always answer")
            };
            (0..256).step_by(4).map(read).collect()
        });
        let table = functions.clone().map(|function| {
            let entries = 0..ENTRIES[function] as u32;
            entries.map(|entry| self.entry(function, entry)).collect()
        });
        let entries = functions.clone().map(|function| {
            let entries = 0..ENTRIES[function] as u16;
            entries.map(|entry| self.state(function, entry)).collect()
        });
        let bars = functions.clone().map(|function| {
            self.config
                .with(|config| config.bar(VMM[function], FunctionId(function as u8), 0))
        });
        let devices = functions.map(|function| self.world.devices[function].borrow().settled());
        let routes = self.world.pages.iter();
        Settled {
            config: config.collect(),
            table: table.collect(),
            entries: entries.collect(),
            bars: bars.collect(),
            devices: devices.collect(),
            routes: routes
                .flat_map(|page| (0..SLOTS).map(|slot| page.get(slot)))
                .collect(),
        }
    }

    fn entry(&self, function: usize, entry: u32) -> (u64, u64) {
        let place = FunctionBar {
            function: FunctionId(function as u8),
            bar: TABLE_BAR,
        };
        let read = |offset| {
            self.msix.with(|msix| {
                table::MsixTable::read(msix, VMM[function], place, offset, Width::Qword)
            })
        };
        let (low, high) = (read(16 * entry), read(16 * entry + 8));
        (low.expect("claimed"), high.expect("claimed"))
    }

    fn state(&self, function: usize, entry: u16) -> EntryState {
        let state = self
            .msix
            .with(|msix| msix.next_entry(PCI_CONFIG, FunctionId(function as u8), entry, true));
        EntryState {
            // Why the last bind failed is only said, and not kept.
            error: None,
            ..state.expect("there")
        }
    }

    fn bound(&self) -> Vec<BoundSlot> {
        let all = (0..GUESTS as u8).flat_map(|guest| {
            (0..SLOTS as u8).filter_map(move |slot| {
                let found = self.irq.with(|irq| irq.next(PCI_CONFIG, guest, slot));
                found.ok().filter(|found| found.slot == slot)
            })
        });
        all.collect()
    }

    /// Returns the kernel objects of the sources that are bound.
    pub fn handlers(&self) -> Vec<(Source, Handler)> {
        let kernel = self.world.kernel.borrow();
        let bound = self.bound().into_iter();
        bound
            .map(|slot| (slot.route.source, kernel.handlers[&slot.vector]))
            .collect()
    }

    /// Checks that kernel, devices, msix, pci-config and router agree.
    pub fn check(&self) {
        // MSI messages without a route are not among the slots that a dump shows.
        self.check_kernel(self.unrouted());
        for slot in self.bound() {
            let source = slot.route.source;
            let device = self.world.devices[source.function.index()].borrow();
            let message = match source.kind {
                SourceKind::Msix => device.entry_message(source.entry),
                SourceKind::Msi => device.msi_messages()[usize::from(source.entry)],
                SourceKind::Pin => continue,
            };
            assert_eq!(message, host_message(slot.vector), "{source:?}");
        }
        for function in 0..FUNCTIONS {
            self.check_function(function);
        }
    }

    /// Checks that the kernel has all that the router shows, and `unrouted` more: no vector
    /// twice, and none without an owner. And a function may raise the vectors of
    /// its sources, and no others.
    pub fn check_kernel(&self, unrouted: usize) {
        let kernel = self.world.kernel.borrow();
        let bound = self.bound();
        for slot in &bound {
            let handler = kernel.handlers[&slot.vector];
            let signals = handler.signals.map(|slot| (slot.guest, slot.index));
            let place = (slot.guest, slot.slot);
            assert_eq!(signals, Some(place));
            assert_eq!(kernel.copies.get(&place), Some(&slot.vector));
        }
        let raised = bound
            .iter()
            .filter(|s| s.route.source.kind != SourceKind::Pin);
        let raised = raised.map(|slot| (slot.route.source.function, slot.vector));
        let allowed = self.world.allowed.borrow();
        let mut count = unrouted;
        for entry in raised {
            assert!(allowed.contains(&entry), "{entry:?} is bound and blocked");
            count += 1;
        }
        assert_eq!(allowed.len(), count, "an entry is stale: {allowed:?}");
        let expected = bound.len() + unrouted;
        let parked = self.irq.with(|irq| irq.counters.vectors_parked.get());
        let expected = expected + parked as usize;
        assert_eq!(kernel.copies.len(), expected, "a slot leaked");
        assert_eq!(kernel.handlers.len(), expected, "a vector leaked");
    }

    /// Returns how many MSI messages are bound and go nowhere.
    fn unrouted(&self) -> usize {
        let all = self.world.devices.iter().enumerate();
        all.map(|(function, device)| {
            let bound = self.bound().into_iter().filter(|slot| {
                let source = slot.route.source;
                (source.function.index(), source.kind) == (function, SourceKind::Msi)
            });
            device.borrow().msi_messages().len() - bound.count()
        })
        .sum()
    }

    fn check_function(&self, function: usize) {
        let device = self.world.devices[function].borrow();
        let bound = self.bound();
        for entry in 0..ENTRIES[function] as u16 {
            let state = self.state(function, entry);
            let source = Source::msix(FunctionId(function as u8), entry);
            let routed = bound.iter().find(|slot| slot.route.source == source);
            assert_eq!(state.bound, routed.is_some(), "{source:?}");
            if let Some(slot) = routed {
                let function_mask = device.config_read(MSIX + 2, Width::Word) & 0x4000 != 0;
                assert_eq!(slot.route.masked, state.masked || function_mask);
            }
            let open = state.bound && !state.masked && !state.throttled;
            let masked = device.settled().1[usize::from(entry)];
            assert_eq!(masked, !open, "{source:?} {state:?}");
        }
        let control = self
            .msix
            .with(|msix| msix.read_control(PCI_CONFIG, FunctionId(function as u8)));
        let hardware = device.config_read(MSIX + 2, Width::Word);
        assert_eq!(control.map(u32::from), Ok(hardware));
        let msi = device.config_read(MSI + 2, Width::Word) & 1 != 0;
        drop(device);
        let seen = self
            .config
            .with(|config| config.read(VMM[function], bdf(function), MSI + 2, Width::Word));
        assert_eq!(seen.map(|control| control & 1 == 1), Ok(msi));
        let device = self.world.devices[function].borrow();
        let msix = hardware & 0x8000 != 0;
        assert!(!(msi && msix), "both are on");
        assert!(!(msi || msix) || device.intx_off(), "INTx is on as well");
    }
}
