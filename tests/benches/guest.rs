//! vmm: a trapped instruction, from its bytes to the resumed guest.

use channel::events::SlotEvents;
use channel::irq_router::Source;
use channel::msix::FunctionBar;
use channel::pci_config::Effect;
use channel::routes::Route;
use divan::{Bencher, black_box};
use models::Ram;
use pci::{BarInfo, BarKind, Bdf, FunctionInfo, MsixInfo, MsixPage, Width};
use spec::FunctionId;
use vmm::{
    Budget, Fault, GuestMemory, Host, Interrupts, Outcome, PciFunctions, Registers, Share,
    Source as _, Trapped, Unclaimed, Vmm,
};

const RAM: u64 = 0x1000_0000;
const BAR: u64 = 0xfebf_0000;

/// Surroundings with a little RAM, which holds the instruction.
struct Surroundings(Ram);

impl GuestMemory for Surroundings {
    fn read_ram(&mut self, address: u64, bytes: &mut [u8]) -> bool {
        self.0.read_ram(address, bytes)
    }
    fn write_ram(&mut self, _: u64, _: &[u8]) -> bool {
        false
    }
}

impl PciFunctions for Surroundings {
    fn config_read(&mut self, _: Bdf, _: u16, _: Width) -> u32 {
        black_box(0)
    }
    fn config_write(&mut self, _: Bdf, _: u16, _: Width, _: u32) -> Effect {
        Effect::NONE
    }
    fn bar(&mut self, _: FunctionId, bar: usize) -> Option<u64> {
        (bar == 3).then_some(BAR)
    }
    fn map_bar(&mut self, _: FunctionId, _: usize, _: Option<u64>, _: bool) {}
    fn ports_read(&mut self, _: FunctionBar, _: u16, width: Width) -> u32 {
        width.all_ones() as u32
    }
    fn ports_write(&mut self, _: FunctionBar, _: u16, _: Width, _: u32) {}
    fn table_read(&mut self, _: FunctionBar, _: u32, _: Width) -> u64 {
        black_box(0)
    }
    fn table_write(&mut self, _: FunctionBar, _: u32, _: Width, _: u64) {}
}

impl Interrupts for Surroundings {
    fn route(&mut self, _: usize) -> Option<Route> {
        None
    }
    fn set_throttled(&mut self, _: Source, _: bool) -> bool {
        true
    }
    fn acknowledge_pin(&mut self, _: u8) -> bool {
        false
    }
    fn report_storm(&mut self, _: Source) {}
    fn publish_events(&mut self, _: usize, _: Source, _: &SlotEvents) {}
}

impl Host for Surroundings {
    fn now(&mut self) -> u64 {
        0
    }
    fn set_deadline(&mut self, _: Option<u64>) -> bool {
        false
    }
    fn set_foreground(&mut self, _: bool) {}
    fn report_unclaimed(&mut self, _: Unclaimed) {}
    fn console_write(&mut self, _: u8) {}
}

fn function() -> FunctionInfo {
    let mut info = FunctionInfo::default();
    info.bars[3] = BarInfo {
        kind: BarKind::Memory32,
        size: 0x4000,
        address: BAR,
        guest: BAR,
        ..BarInfo::default()
    };
    info.msix = MsixInfo {
        entries: 5,
        table_bar: 3,
        pba_bar: 3,
        pba_offset: 0x2000,
        page_count: 1,
        ..MsixInfo::default()
    };
    info.msix.pages[0] = MsixPage { bar: 3, page: 0 };
    info
}

fn trap(bencher: Bencher, code: &[u8], fault: Fault) {
    let functions = [function()];
    let budget = Budget {
        events: 20_000,
        interval: 1 << 30,
        timer: 1 << 17,
    };
    let mut vmm = Vmm::new(&functions, budget, Share::WHOLE);
    let mut host = Surroundings(Ram::new(RAM, 64));
    host.0.bytes.fill(0x90);
    host.0.bytes[..code.len()].copy_from_slice(code);
    vmm.start(&mut host);
    let mut start = Registers {
        rip: RAM,
        ..Registers::default()
    };
    // rbx: vector control of entry 2; dx: configuration data.
    start.gpr[3] = BAR + 0x2c;
    start.gpr[2] = 0xcfc;
    // What the kernel's message tells.
    let mut told = [0; 3];
    start.read(&mut told);
    bencher.bench_local(|| {
        let mut regs = Trapped::new(black_box(&start), &told);
        let outcome = vmm.fault(black_box(fault), &mut regs, &mut host);
        assert_eq!(outcome, Outcome::Resume);
        assert_eq!(regs.rip(), RAM + code.len() as u64);
    });
}

const GENERAL_PROTECTION: Fault = Fault::Exception {
    vector: 13,
    code: 0,
};

/// mov [rbx], eax: a write to the MSI-X table.
#[divan::bench(sample_size = 1000)]
fn store_to_table(bencher: Bencher) {
    let fault = Fault::Page {
        address: BAR + 0x2c,
        fetch: false,
        code: 6,
    };
    trap(bencher, &[0x89, 0x03], fault);
}

/// in eax, dx: a read of configuration data.
#[divan::bench(sample_size = 1000)]
fn port_read(bencher: Bencher) {
    trap(bencher, &[0xed], GENERAL_PROTECTION);
}

/// cli: nearly nothing but the decoder.
#[divan::bench(sample_size = 1000)]
fn clear_interrupt_flag(bencher: Bencher) {
    trap(bencher, &[0xfa], GENERAL_PROTECTION);
}
