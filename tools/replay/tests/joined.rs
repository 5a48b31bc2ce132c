//! pci-config, msix and irq-router joined as on the machine: what a guest
//! writes at one end is a route at the other.

use std::cell::RefCell;
use std::rc::Rc;

use channel::msix::FunctionBar;
use channel::msix::table::MsixTable;
use channel::pci_config::{Effect, PciConfig};
use channel::routes::{Route, RoutePage};
use channel::{Caller, Local, Message, irq_router as router_channel, msix as msix_channel};
use irq_router::Router;
use models::{Device, Kernel, Registers};
use msix::Msix;
use pci::{BarInfo, BarKind, FunctionInfo, MsixInfo, MsixPage, Width};
use pci_config::Functions;
use shm::Kept;
use spec::FunctionId;

const VMM: Caller = Caller(1);
const CAPABILITY: u16 = 0x50;
const ENTRIES: u32 = 40;
/// Slots of the guest, less than that: as on the bundled kernel.
const SLOTS: usize = spec::slots(28);

fn info() -> FunctionInfo {
    let mut info = FunctionInfo {
        msix: MsixInfo {
            entries: ENTRIES,
            capability: CAPABILITY.into(),
            pba_offset: 0x800,
            page_count: 1,
            ..MsixInfo::default()
        },
        ..FunctionInfo::default()
    };
    info.msix.pages[0] = MsixPage { bar: 0, page: 0 };
    info.bars[0] = BarInfo {
        kind: BarKind::Memory32,
        address: 0xfe80_0000,
        guest: 0xfe80_0000,
        size: 0x1000,
        ..BarInfo::default()
    };
    info
}

type Link = Local<Box<dyn FnMut(Message) -> Message>>;

struct Machine {
    config: Functions<'static, Device, Link, 1>,
    msix: Rc<RefCell<Msix<'static, Device, Link, 1>>>,
    page: &'static RoutePage,
    device: Device,
}

fn machine() -> Machine {
    let page: &'static RoutePage = Box::leak(Box::default());
    let mut registers = Registers::new(vec![0; 256]);
    registers.put(0x00, 4, 0x1000_1af4);
    registers.put(0x04, 4, 0x0010_0002);
    registers.put(0x34, 1, CAPABILITY.into());
    registers.put(CAPABILITY, 4, 0x0027_0011);
    let device = Device::new(registers);
    let kept: &Kept<{ irq_router::kept_words(1) }> = Box::leak(Box::default());
    let router = Rc::new(RefCell::new(Router::new(
        Kernel::default(),
        [page],
        [0],
        [SLOTS],
        0,
        kept,
    )));
    let messages = router.clone();
    let to_messages: Link = Local(Box::new(move |request| {
        router_channel::msi::dispatch(&mut *messages.borrow_mut(), Caller(2), request)
    }));
    let to_router: Link = Local(Box::new(move |request| {
        router_channel::dispatch(&mut *router.borrow_mut(), Caller(3), request)
    }));
    let info = info();
    let kept: &Kept<{ msix::kept_words(1, ENTRIES as usize) }> = Box::leak(Box::default());
    let mut msix = Msix::new(device.clone(), router_channel::Client(to_router), kept);
    msix.take_over(ENTRIES as usize, [(info, VMM)]);
    let msix = Rc::new(RefCell::new(msix));
    let server = msix.clone();
    let to_msix: Link = Local(Box::new(move |request| {
        msix_channel::control::dispatch(&mut *server.borrow_mut(), Caller(2), request)
    }));
    let client = msix_channel::control::Client(to_msix);
    let messages = router_channel::msi::Client(to_messages);
    let kept: &Kept<{ pci_config::kept_words(1) }> = Box::leak(Box::default());
    let mut config = Functions::new(client, messages);
    config.take_over([(info, VMM, device.clone())], kept);
    Machine {
        config,
        msix,
        page,
        device,
    }
}

impl Machine {
    fn control(&mut self, value: u32) {
        let bdf = info().guest();
        let effect = self
            .config
            .write(VMM, bdf, CAPABILITY + 2, Width::Word, value);
        assert_eq!(effect, Ok(Effect::NONE));
    }

    fn table(&mut self, entry: u32, field: u32, value: u64) {
        let place = FunctionBar {
            function: FunctionId(0),
            bar: 0,
        };
        let mut msix = self.msix.borrow_mut();
        let written = msix.write(VMM, place, 16 * entry + field, Width::Dword, value);
        written.expect("claimed");
    }

    fn program(&mut self, entry: u32, vector: u64) {
        self.table(entry, 0, 0xfee0_0000);
        self.table(entry, 8, vector);
        self.table(entry, 12, 0);
    }

    fn routes(&self) -> Vec<Route> {
        (0..SLOTS).filter_map(|slot| self.page.get(slot)).collect()
    }

    fn device_control(&self) -> u32 {
        let registers = &self.device.state().registers;
        registers.read(CAPABILITY + 2, Width::Word)
    }

    fn device_entry(&self, entry: u32) -> (u64, u64) {
        let dword = |field| {
            let pages = &self.device.state().pages;
            pages.read(0, 16 * entry + field, Width::Dword)
        };
        (dword(8), dword(12))
    }
}

#[test]
fn m19_a_programmed_entry_is_a_route_and_a_message_of_ours() {
    let mut machine = machine();
    machine.program(7, 0x61);
    assert_eq!(machine.routes(), []);
    machine.control(0x8000);
    let routes = machine.routes();
    assert_eq!(routes.len(), 1);
    assert_eq!(
        (routes[0].message.vector, routes[0].source.entry),
        (0x61, 7)
    );
    assert_eq!(machine.device_entry(7), (0x30, 0));
    assert_eq!(machine.device_control(), 0x8027);
}

#[test]
fn m21_a_rebound_entry_keeps_its_slot() {
    let mut machine = machine();
    machine.control(0x8000);
    for entry in 0..3 {
        machine.program(entry, 0x60 + u64::from(entry));
    }
    machine.table(1, 12, 1);
    machine.table(1, 8, 0x91);
    machine.table(1, 12, 0);
    let route = machine.page.get(1).expect("bound");
    assert_eq!((route.message.vector, route.source.entry), (0x91, 1));
    assert_eq!(machine.device_entry(1), (0x31, 0));
}

#[test]
fn m20_masks_reach_the_routing_page() {
    let mut machine = machine();
    machine.control(0x8000);
    machine.program(0, 0x60);
    let masked = |machine: &Machine| machine.routes()[0].masked;
    machine.table(0, 12, 1);
    assert!(masked(&machine));
    machine.table(0, 12, 0);
    assert!(!masked(&machine));
    machine.control(0xc000);
    assert!(masked(&machine));
    machine.control(0x8000);
    assert!(!masked(&machine));
}

#[test]
fn m22_entries_past_the_slots_wait_for_one() {
    let mut machine = machine();
    for entry in 0..ENTRIES {
        machine.program(entry, 0x60);
    }
    machine.control(0x8000);
    assert_eq!(machine.routes().len(), SLOTS);
    let failures = machine.msix.borrow().counters.bind_failures.get();
    assert_eq!(failures, u64::from(ENTRIES) - SLOTS as u64);
    assert_eq!(machine.device_entry(SLOTS as u32), (0, 1));
    machine.control(0);
    assert_eq!(machine.routes(), []);
    machine.table(0, 12, 1);
    machine.control(0x8000);
    let entries: Vec<u16> = machine.routes().iter().map(|r| r.source.entry).collect();
    assert!(!entries.contains(&0) && entries.contains(&(SLOTS as u16)));
}

#[test]
fn m24_a_reset_function_has_no_route_and_every_entry_masked() {
    let mut machine = machine();
    machine.control(0xc000);
    machine.control(0x8000);
    machine.program(3, 0x60);
    // Nothing resets it, which is said when the rest is done.
    assert_eq!(
        machine.config.reset(VMM, FunctionId(0)),
        Err(channel::Error::Refused)
    );
    assert_eq!(machine.routes(), []);
    for entry in 0..ENTRIES {
        assert_eq!(machine.device_entry(entry).1, 1);
    }
    assert_eq!(machine.device_control(), 0x27);
    machine.control(0x8000);
    machine.program(3, 0x60);
    assert_eq!(machine.routes().len(), 1);
}
