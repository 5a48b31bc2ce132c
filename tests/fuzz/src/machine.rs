//! Targets `config` and `table`: pci-config, msix and irq-router joined as on
//! the machine, on a device and under accesses that the input makes up.
//!
//! `config` starts with flags (bit 0 permissive, bit 1 extended space), a BAR
//! size exponent for each of six BARs, and 256 bytes of configuration space;
//! `table` with flags, and the size, table and PBA registers of an MSI-X
//! capability. Then both have operations: a byte that says which, and its
//! arguments (see `Machine::step`).

use std::cell::RefCell;

use channel::msix::FunctionBar;
use channel::msix::table::MsixTable;
use channel::pci_config::PciConfig;
use channel::routes::RoutePage;
use channel::{Caller, Local, Message, irq_router as router_channel, msix as msix_channel};
use irq_router::Router;
use models::{Device, Kernel, Registers};
use msix::Msix;
use pci::{FunctionInfo, Width};
use pci_config::Functions;
use shm::Kept;
use spec::{FunctionId, SLOTS};

use crate::MAX_OPERATIONS;
use crate::input::Input;

const VMM: Caller = Caller(1);
const PCI_CONFIG: Caller = Caller(2);
const MSIX: Caller = Caller(3);

/// Accesses to the device that one operation may cost: a reset masks 2048
/// entries, and everything else touches fewer.
const MAX_CALLS: usize = 10_000;

type Link<'a> = Local<Box<dyn FnMut(Message) -> Message + 'a>>;
type Table<'a> = RefCell<Msix<'a, Device, Link<'a>, 1>>;

struct Machine<'m, 'r> {
    info: FunctionInfo,
    config: Functions<'m, Device, Link<'m>, 1>,
    msix: &'m Table<'r>,
    device: Device,
    kernel: Kernel,
}

impl Machine<'_, '_> {
    /// Does one operation; none when the input is at its end.
    fn step(&mut self, input: &mut Input) -> Option<()> {
        self.device.change().budget = MAX_CALLS;
        let bdf = self.info.guest();
        match input.byte()? % 8 {
            0 => {
                let (offset, width) = (input.word()?, input.width()?);
                let value = input.dword()?;
                let done = self.config.write(VMM, bdf, offset, width, value);
                assert!(done.is_ok());
            }
            1 => {
                let (offset, width) = (input.word()?, input.width()?);
                let value = self.config.read(VMM, bdf, offset, width);
                assert!(value.is_ok_and(|v| u64::from(v) <= width.all_ones()));
            }
            2 => {
                let (place, offset, width) = place(input)?;
                let value = input.qword()?;
                // Refused where nothing is claimed, which is as good an answer.
                let _ = self
                    .msix
                    .borrow_mut()
                    .write(VMM, place, offset, width, value);
            }
            3 => {
                let (place, offset, width) = place(input)?;
                let value = self.msix.borrow_mut().read(VMM, place, offset, width);
                assert!(value.is_err() || value.is_ok_and(|v| v <= width.all_ones()));
            }
            4 => {
                // Fails if the kernel is made to refuse.
                let _ = self.config.reset(VMM, FunctionId(input.byte()? & 1));
            }
            5 => {
                let _ = self.config.bar(VMM, FunctionId(0), input.byte()?);
            }
            6 => {
                let flags = input.byte()?;
                let mut kernel = self.kernel.0.borrow_mut();
                kernel.refuse_acquire = flags & 1 != 0;
                kernel.refuse_release = flags & 2 != 0;
            }
            _ => {
                let (entry, vector) = (input.word()?, input.byte()?);
                let place = FunctionBar {
                    function: FunctionId(0),
                    bar: self.info.msix.table_bar as u8,
                };
                let start = self.info.msix.table_offset + 16 * u32::from(entry % 2048);
                for (field, value) in [(0, 0xfee0_0000), (4, 0), (8, vector.into()), (12, 0)] {
                    let mut msix = self.msix.borrow_mut();
                    let _ = msix.write(VMM, place, start + field, Width::Dword, value);
                }
            }
        }
        Some(())
    }
}

/// Returns a place in a BAR: mostly in its first 256 KiB.
fn place(input: &mut Input) -> Option<(FunctionBar, u32, Width)> {
    let place = FunctionBar {
        function: FunctionId(0),
        bar: input.byte()? % 8,
    };
    let offset = input.dword()?;
    let near = if offset >> 31 == 0 {
        0x3_ffff
    } else {
        u32::MAX
    };
    Some((place, offset & near, input.width()?))
}

fn play(config: Vec<u8>, bar_masks: [u32; 6], permissive: bool, input: &mut Input) {
    let device = Device::new(Registers::new(config).with_bar_masks(bar_masks));
    // Some accesses meet a reset.
    device.change().step_ms = 9;
    let kernel = Kernel::default();
    let bdf = pci::Bdf::from_requester_id(0x18);
    let Ok(info) = pci::discover(&mut device.clone(), bdf, bdf, permissive) else {
        return;
    };
    let page = RoutePage::new();
    let kept = Kept::<{ irq_router::kept_words(1) }>::new();
    let routes = RefCell::new(Router::new(kernel.clone(), [&page], [0], [SLOTS], 0, &kept));
    let to_router: Link = Local(Box::new(|request| {
        router_channel::dispatch(&mut *routes.borrow_mut(), MSIX, request)
    }));
    let router = router_channel::Client(to_router);
    let functions = [(info, VMM)];
    let kept = Kept::<{ msix::kept_words(1, 2048) }>::new();
    let mut msix = Msix::new(device.clone(), router, &kept);
    msix.take_over(2048, functions);
    let msix: Table = RefCell::new(msix);
    let to_msix: Link = Local(Box::new(|request| {
        msix_channel::control::dispatch(&mut *msix.borrow_mut(), PCI_CONFIG, request)
    }));
    let client = msix_channel::control::Client(to_msix);
    let messages: Link = Local(Box::new(|request| {
        router_channel::msi::dispatch(&mut *routes.borrow_mut(), PCI_CONFIG, request)
    }));
    let messages = router_channel::msi::Client(messages);
    let kept = Kept::<{ pci_config::kept_words(1) }>::new();
    let mut config = Functions::new(client, messages);
    config.take_over([(info, VMM, device.clone())], &kept);
    let mut machine = Machine {
        info,
        config,
        msix: &msix,
        device,
        kernel,
    };
    for _ in 0..MAX_OPERATIONS {
        if machine.step(input).is_none() {
            break;
        }
    }
}

/// Makes configuration accesses to a function whose registers are the input's too.
pub fn config(data: &[u8]) {
    let mut input = Input(data);
    let Some([flags, sizes @ ..]) = input.take::<7>() else {
        return;
    };
    let mut config = input.take_padded::<256>().to_vec();
    if flags & 2 != 0 {
        config.resize(4096, 0);
    }
    let masks = sizes.map(|size| u32::MAX << (4 + size % 28));
    play(config, masks, flags & 1 != 0, &mut input);
}

/// Accesses to table, PBA and message control of an MSI-X that the input laid
/// out, sensibly or not.
pub fn table(data: &[u8]) {
    let mut input = Input(data);
    let header = (input.byte(), input.word(), input.dword(), input.dword());
    let (Some(flags), Some(size), Some(table), Some(pba)) = header else {
        return;
    };
    let mut config = vec![0; 256];
    let mut put = |at: usize, value: u32| config[at..at + 4].copy_from_slice(&value.to_le_bytes());
    put(0x00, 0x1000_1af4);
    put(0x04, 0x0010_0002);
    // BAR 0: 64 KiB; BAR 2: 256 KiB, 64 bits wide; BAR 4: 4 KiB.
    put(0x10, 0xfe80_0000);
    put(0x18, 0xfe90_0004);
    put(0x20, 0xfea0_0000);
    put(0x34, 0x50);
    put(0x50, 0x11 | u32::from(size) << 16);
    put(0x54, table);
    put(0x58, pba);
    let masks = [0xffff_0000, 0, 0xfffc_0000, u32::MAX, 0xffff_f000, 0];
    play(config, masks, flags & 1 != 0, &mut input);
}
