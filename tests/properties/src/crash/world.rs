//! What outlives every crash: the kernel, the devices, the pages, and the memory
//! that each component keeps. And the fuse that makes one of them die.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::resume_unwind;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use channel::irq_router::{Source, SourceKind};
use channel::msix::FunctionBar;
use channel::routes::RoutePage;
use irq_router::Slot;
use pci::Width;
use shm::Keep;
use spec::{FunctionId, SLOTS};

use super::device::{Device, TABLE_BAR};

pub const GUESTS: usize = 2;
pub const FUNCTIONS: usize = 2;
pub const ENTRIES: [usize; FUNCTIONS] = [5, 3];
/// Between two looks at the clock: a function-level reset is over by the next
/// access, with a crash as without.
const RESET_MS: u64 = 100;

/// Who can die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    Irq,
    Msix,
    Config,
    Iommu,
    /// It makes the calls, and never dies.
    Vmm,
}

/// The panic of a component that dies.
pub struct Killed;

/// Functions, each with a vector that it may raise.
pub type Entries = BTreeSet<(FunctionId, u8)>;

/// An IRQ handler object of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handler {
    /// Made when: a handler that was deleted and made again is another one.
    pub birth: u64,
    /// The bit that it signals.
    pub signals: Option<Slot>,
}

#[derive(Default)]
pub struct KernelState {
    /// By vector, in irq-router's own slots.
    pub handlers: BTreeMap<u8, Handler>,
    /// The vmms' copies: vector by guest and slot.
    pub copies: BTreeMap<(u8, u8), u8>,
    /// Handlers made so far.
    pub births: u64,
}

/// The memory that outlives a component; each store is a step of its owner.
pub struct Fragile {
    owner: Component,
    words: Vec<AtomicU64>,
    world: RefCell<Option<Rc<World>>>,
}

impl Fragile {
    pub fn new(owner: Component, words: usize) -> Self {
        Self {
            owner,
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
            world: RefCell::default(),
        }
    }

    /// Starts as at boot, in a world.
    pub fn start(&self, world: &Rc<World>) {
        for word in &self.words {
            word.store(0, Ordering::Relaxed);
        }
        *self.world.borrow_mut() = Some(world.clone());
    }
}

impl Keep for Fragile {
    fn words(&self) -> &[AtomicU64] {
        &self.words
    }

    fn set(&self, index: usize, value: u64) {
        if let Some(world) = &*self.world.borrow() {
            world.step(self.owner);
        }
        self.words[index].store(value, Ordering::Release);
    }
}

/// All that is there but the components.
pub struct World {
    pub pages: &'static [RoutePage; GUESTS],
    pub kernel: RefCell<KernelState>,
    pub devices: [RefCell<Device>; FUNCTIONS],
    /// The IOMMU's remapping entries.
    pub allowed: RefCell<Entries>,
    /// Births of the handlers whose vectors were taken out of them at any time.
    pub forbidden: RefCell<Vec<u64>>,
    /// Who dies next, and after how many steps each time.
    victim: Cell<Option<Component>>,
    deaths: RefCell<Vec<usize>>,
    /// Steps of each component so far.
    steps: [Cell<usize>; 5],
    /// Clients do not try again.
    pub impatient: Cell<bool>,
    /// The clock.
    now_ms: Cell<u64>,
}

impl World {
    pub fn new(pages: &'static [RoutePage; GUESTS]) -> Rc<Self> {
        for page in pages {
            (0..SLOTS).for_each(|slot| page.set(slot, None));
        }
        Rc::new(Self {
            pages,
            kernel: RefCell::default(),
            devices: std::array::from_fn(|function| RefCell::new(Device::new(ENTRIES[function]))),
            allowed: RefCell::default(),
            forbidden: RefCell::default(),
            victim: Cell::default(),
            deaths: RefCell::default(),
            steps: Default::default(),
            impatient: Cell::default(),
            now_ms: Cell::default(),
        })
    }

    /// Lets a component die after so many of its steps, and in its next lives
    /// after as many as follow.
    pub fn arm(&self, victim: Component, deaths: &[usize]) {
        self.victim.set(Some(victim));
        *self.deaths.borrow_mut() = deaths.to_vec();
    }

    /// Lets every component live. Returns whether the victim died as often as it should.
    pub fn disarm(&self) -> bool {
        self.victim.set(None);
        self.deaths.take().is_empty()
    }

    pub fn steps(&self, component: Component) -> usize {
        self.steps[component as usize].get()
    }

    /// Counts a step: a component is about to do something that others can see, or that it
    /// keeps.
    pub fn step(&self, component: Component) {
        self.check_live();
        let count = &self.steps[component as usize];
        count.set(count.get() + 1);
        if self.victim.get() != Some(component) {
            return;
        }
        let mut deaths = self.deaths.borrow_mut();
        match deaths.first_mut() {
            Some(0) => {
                deaths.remove(0);
                drop(deaths);
                resume_unwind(Box::new(Killed));
            }
            Some(left) => *left -= 1,
            None => {}
        }
    }

    /// Checks, at every moment, crash or not: what a device may send reaches the slot on
    /// whose route its own source stands, and what it is allowed to raise has a
    /// handler, its own guest's.
    fn check_live(&self) {
        for &(function, vector) in &*self.allowed.borrow() {
            let kernel = self.kernel.borrow();
            let slot = kernel.handlers.get(&vector).and_then(|h| h.signals);
            // Function and guest have one number here.
            let guest = slot.map(|slot| slot.guest);
            assert_eq!(guest, Some(function.0), "{function:?} may raise {vector}");
        }
        for (function, device) in self.devices.iter().enumerate() {
            let device = device.borrow();
            for entry in 0..ENTRIES[function] as u16 {
                if let Some(message) = device.msix_message(entry) {
                    let source = Source::msix(FunctionId(function as u8), entry);
                    self.check_delivery(source, message);
                }
            }
            for (number, message) in device.msi_messages().into_iter().enumerate() {
                let source = Source::msi(FunctionId(function as u8), number as u16);
                self.check_delivery(source, message);
            }
        }
    }

    fn check_delivery(&self, source: Source, (address, data): (u64, u32)) {
        assert_eq!(address, 0xfee0_0000, "{source:?}: not our message");
        let vector = (data - 0x30) as u8;
        let allowed = self.allowed.borrow().contains(&(source.function, vector));
        assert!(allowed, "{source:?}: vector {vector} is blocked");
        let kernel = self.kernel.borrow();
        let handler = kernel.handlers.get(&vector);
        let slot = handler.and_then(|handler| handler.signals);
        let Some(slot) = slot else {
            panic!("{source:?} raises vector {vector}: {handler:?}");
        };
        let route = self.pages[usize::from(slot.guest)].get(slot.index.into());
        // MSI messages that no local APIC takes have no route.
        if route.is_some() || source.kind == SourceKind::Msix {
            assert_eq!(route.map(|route| route.source), Some(source));
        }
    }
}

/// The pages with the tables, as msix reaches them.
#[derive(Clone)]
pub struct Tables(pub Rc<World>);

impl msix::Hardware for Tables {
    fn read(&mut self, place: FunctionBar, offset: u32, width: Width) -> u64 {
        assert_eq!(place.bar, TABLE_BAR);
        let device = self.0.devices[place.function.index()].borrow();
        device.table_read(offset, width)
    }

    fn write(&mut self, place: FunctionBar, offset: u32, width: Width, value: u64) {
        assert_eq!(place.bar, TABLE_BAR);
        self.0.step(Component::Msix);
        let mut device = self.0.devices[place.function.index()].borrow_mut();
        device.table_write(offset, width, value);
    }
}

/// A function's configuration space, as pci-config reaches it.
#[derive(Clone)]
pub struct Space(pub Rc<World>, pub usize);

impl pci_config::Hardware for Space {
    fn read(&mut self, offset: u16, width: Width) -> u32 {
        self.0.devices[self.1].borrow().config_read(offset, width)
    }

    fn write(&mut self, offset: u16, width: Width, value: u32) {
        self.0.step(Component::Config);
        let mut device = self.0.devices[self.1].borrow_mut();
        device.config_write(offset, width, value);
    }

    fn has_extended_space(&self) -> bool {
        false
    }

    fn now_ms(&mut self) -> u64 {
        self.0.now_ms.update(|now| now + RESET_MS);
        self.0.now_ms.get()
    }
}
