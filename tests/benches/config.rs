//! pci-config: reads and writes of registers.

use channel::irq_router::msi;
use channel::msix::control::{Client, MsixControl, dispatch};
use channel::pci_config::PciConfig;
use channel::{Caller, Error, Local, Message};
use divan::{Bencher, black_box};
use pci::{BarInfo, BarKind, Bdf, FunctionInfo, Width};
use pci_config::{Functions, Hardware, kept_words};
use shm::Kept;
use spec::FunctionId;

const VMM: Caller = Caller(5);
/// Where the guest sees the function.
const GUEST: Bdf = Bdf::from_requester_id(0x18);
const MSIX: u16 = 0xa0;
const PM: u16 = 0xc8;

/// Configuration space of a device.
struct Memory([u8; 256]);

impl Hardware for Memory {
    fn read(&mut self, offset: u16, width: Width) -> u32 {
        let at = usize::from(offset) & !3;
        let bytes = [self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]];
        u32::from_le_bytes(bytes) >> (8 * (offset & 3)) & width.all_ones() as u32
    }
    fn write(&mut self, offset: u16, width: Width, value: u32) {
        let at = usize::from(offset);
        let bytes = width.bytes() as usize;
        self.0[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
    }
    fn has_extended_space(&self) -> bool {
        false
    }
    fn now_ms(&mut self) -> u64 {
        0
    }
}

struct Msix;

impl MsixControl for Msix {
    fn read_control(&mut self, _: Caller, _: FunctionId) -> Result<u16, Error> {
        Ok(black_box(4))
    }
    fn write_control(&mut self, _: Caller, _: FunctionId, _: u16) -> Result<Option<u16>, Error> {
        Ok(None)
    }
    fn reset(&mut self, _: Caller, _: FunctionId) -> Result<(), Error> {
        Ok(())
    }
}

fn call(request: Message) -> Message {
    dispatch(&mut Msix, Caller(1), request)
}

fn no_router(_: Message) -> Message {
    Message::error(Error::Failed)
}

type Words = Kept<{ kept_words(1) }>;
type Config<'a> = Functions<'a, Memory, Local<fn(Message) -> Message>, 1>;

/// Returns a function laid out like an 82574.
fn function(kept: &Words) -> Config<'_> {
    let mut config = [0; 256];
    for (offset, value) in [
        (0x00, 0x10d3_8086),
        (0x04, 0x0010_0007),
        (0x08, 0x0200_0001),
        (0x2c, 0x0000_8086),
        (0x34, u32::from(PM)),
        (usize::from(MSIX), 0x0004_0011),
        (usize::from(PM), 0xc822_e001),
        (0xe0, 0x0001_a010),
        (0xe4, 0x1000_8cc1),
    ] {
        let value: u32 = value;
        config[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    }
    let mut info = FunctionInfo {
        guest_bdf: GUEST.requester_id(),
        ..FunctionInfo::default()
    };
    info.bars[0] = BarInfo {
        kind: BarKind::Memory32,
        address: 0xfe80_0000,
        guest: 0xfe80_0000,
        size: 0x2_0000,
        ..BarInfo::default()
    };
    info.msix.entries = 5;
    info.msix.capability = MSIX.into();
    let client = Client(Local(call as fn(Message) -> Message));
    // The function has no plain MSI: the router is never called.
    let router = msi::Client(Local(no_router as fn(Message) -> Message));
    let mut functions = Functions::new(client, router);
    functions.take_over([(info, VMM, Memory(config))], kept);
    functions
}

/// A register of the device, one that pci-config keeps itself, and one that it
/// asks msix for.
#[divan::bench(sample_size = 1000, args = ["plain", "command", "bar", "msix_control"])]
fn read(bencher: Bencher, register: &str) {
    let kept = Words::new();
    let mut functions = function(&kept);
    let (offset, width) = match register {
        "plain" => (0x2c, Width::Dword),
        "command" => (0x04, Width::Word),
        "bar" => (0x10, Width::Dword),
        _ => (MSIX + 2, Width::Word),
    };
    bencher.bench_local(|| functions.read(VMM, GUEST, black_box(offset), black_box(width)));
}

/// Three registers in one access: id, link, and one of msix's.
#[divan::bench(sample_size = 1000)]
fn read_split(bencher: Bencher) {
    let kept = Words::new();
    let mut functions = function(&kept);
    bencher.bench_local(|| functions.read(VMM, GUEST, black_box(MSIX), black_box(Width::Dword)));
}

/// The command register, with the value that it has.
#[divan::bench(sample_size = 1000)]
fn write_command_same(bencher: Bencher) {
    let kept = Words::new();
    let mut functions = function(&kept);
    bencher.bench_local(|| functions.write(VMM, GUEST, black_box(4), black_box(Width::Word), 2));
}
