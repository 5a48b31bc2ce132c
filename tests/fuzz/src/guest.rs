//! Targets `guest`, whose instructions, faults and interrupts are the input,
//! and `image`, a file that claims to be a guest.

use channel::events::SlotEvents;
use channel::irq_router::Source;
use channel::msix::FunctionBar;
use channel::pci_config::Effect;
use channel::routes::Route;
use models::Ram;
use pci::{BarInfo, BarKind, Bdf, FunctionInfo, MsixInfo, MsixPage, Width};
use spec::{BADGE_TIMER, FunctionId, bit};
use vmm::{
    Budget, Fault, GuestMemory, Host, Interrupts, Outcome, PciFunctions, Registers, Share, Trapped,
    Unclaimed, Vmm,
};

use crate::MAX_OPERATIONS;
use crate::input::Input;

const RAM: u64 = 0x1000_0000;
const RAM_SIZE: u64 = 0x2_0000;
/// Where the input's instructions are put.
const CODE: u64 = RAM + 0x1_0000;
const BAR: u64 = 0xfebf_0000;
const BAR_SIZE: u64 = 0x4000;
/// An interrupt table with a handler for every vector.
const IDT: u64 = RAM + 0x5000;
/// Its gates (SDM vol. 3 section 7.14.1): present, interrupt gate, selector 8,
/// handler at RAM + 0x9000.
const GATE: u128 = ((RAM as u128 + 0x9000) >> 16) << 48 | 0x8e00_0008_9000;
/// Longest instruction, SDM vol. 2 section 2.3.11.
const INSTRUCTION: usize = 15;

/// Small enough that a case meets it (M23).
const BUDGET: Budget = Budget {
    events: 3,
    interval: 1 << 30,
    timer: 1 << 10,
};
/// Turns that a case meets.
const SHARE: Share = Share::new(1 << 16, 1 << 14, 1 << 14);

/// Calls that one fault may cost.
const MAX_CALLS: usize = 10_000;

/// Surroundings that answer with bytes of the input.
struct Surroundings {
    ram: Ram,
    /// Returns the next answer.
    state: u64,
    now: u64,
    bar: u64,
    calls: usize,
}

impl Surroundings {
    fn new() -> Self {
        Self {
            ram: Ram::new(RAM, RAM_SIZE as usize),
            state: 0,
            now: 0,
            bar: BAR,
            calls: 0,
        }
    }

    fn count(&mut self) {
        self.calls += 1;
        assert!(self.calls <= MAX_CALLS, "a fault does not end");
    }
}

impl GuestMemory for Surroundings {
    fn read_ram(&mut self, address: u64, bytes: &mut [u8]) -> bool {
        self.count();
        self.ram.read_ram(address, bytes)
    }
    fn write_ram(&mut self, address: u64, bytes: &[u8]) -> bool {
        self.count();
        self.ram.write_ram(address, bytes)
    }
}

impl PciFunctions for Surroundings {
    fn config_read(&mut self, _: Bdf, _: u16, width: Width) -> u32 {
        assert!(width != Width::Qword);
        self.count();
        self.state as u32 & width.all_ones() as u32
    }
    fn config_write(&mut self, _: Bdf, _: u16, width: Width, _: u32) -> Effect {
        assert!(width != Width::Qword);
        self.count();
        let reset = Effect::DECODE.and(Effect::RESET);
        [Effect::NONE, Effect::DECODE, Effect::RESET, reset][self.state as usize % 4]
    }
    fn bar(&mut self, _: FunctionId, _: usize) -> Option<u64> {
        self.count();
        (self.bar != u64::MAX).then_some(self.bar)
    }
    fn map_bar(&mut self, _: FunctionId, _: usize, address: Option<u64>, _: bool) {
        self.count();
        if let Some(address) = address {
            let last = address + (BAR_SIZE - 1);
            assert!(pci::BAR_WINDOW.contains(&address) && pci::BAR_WINDOW.contains(&last));
        }
    }
    fn ports_read(&mut self, _: FunctionBar, _: u16, width: Width) -> u32 {
        self.count();
        self.state as u32 & width.all_ones() as u32
    }
    fn ports_write(&mut self, _: FunctionBar, _: u16, _: Width, _: u32) {
        self.count();
    }
    fn table_read(&mut self, _: FunctionBar, offset: u32, width: Width) -> u64 {
        self.count();
        assert!(on_one_msix_page(offset, width));
        self.state & width.all_ones()
    }
    fn table_write(&mut self, _: FunctionBar, offset: u32, width: Width, _: u64) {
        self.count();
        assert!(on_one_msix_page(offset, width));
    }
}

impl Interrupts for Surroundings {
    fn route(&mut self, slot: usize) -> Option<Route> {
        self.count();
        Route::from_word(self.state.rotate_left(slot as u32))
    }
    fn set_throttled(&mut self, _: Source, _: bool) -> bool {
        self.count();
        self.state >> 1 & 1 == 1
    }
    fn acknowledge_pin(&mut self, _: u8) -> bool {
        false
    }
    fn report_storm(&mut self, _: Source) {
        self.count();
    }
    fn publish_events(&mut self, _: usize, _: Source, _: &SlotEvents) {
        self.count();
    }
}

impl Host for Surroundings {
    fn now(&mut self) -> u64 {
        self.count();
        self.now = self.now.wrapping_add(self.state >> 40);
        self.now
    }
    fn set_deadline(&mut self, _: Option<u64>) -> bool {
        self.count();
        self.state & 1 == 1
    }
    fn set_foreground(&mut self, _: bool) {
        self.count();
    }
    fn report_unclaimed(&mut self, _: Unclaimed) {
        self.count();
    }
    fn console_write(&mut self, _: u8) {
        self.count();
    }
}

/// Checks M13: only claimed accesses arrive here.
fn on_one_msix_page(offset: u32, width: Width) -> bool {
    let offset = u64::from(offset);
    [0, 0x2000]
        .iter()
        .any(|&page| offset >= page && offset + width.bytes() <= page + 0x1000)
}

fn function() -> FunctionInfo {
    let mut info = FunctionInfo::default();
    info.bars[3] = BarInfo {
        kind: BarKind::Memory32,
        size: BAR_SIZE,
        address: BAR,
        guest: BAR,
        ..BarInfo::default()
    };
    info.msix = MsixInfo {
        entries: 5,
        table_bar: 3,
        pba_bar: 3,
        pba_offset: 0x2000,
        page_count: 2,
        ..MsixInfo::default()
    };
    info.msix.pages[0] = MsixPage { bar: 3, page: 0 };
    info.msix.pages[1] = MsixPage { bar: 3, page: 2 };
    info
}

/// Does one thing to the guest; none when the input or the guest is at its
/// end.
fn step(
    vmm: &mut Vmm,
    regs: &mut Registers,
    host: &mut Surroundings,
    input: &mut Input,
) -> Option<()> {
    host.calls = 0;
    let kind = input.byte()?;
    let fault = match kind % 8 {
        0..=2 => {
            let code = input.take_padded::<INSTRUCTION>();
            regs.rip = CODE;
            host.write_ram(CODE, &code);
            match kind % 8 {
                // #GP, or #UD.
                0 | 1 => Fault::Exception {
                    vector: if kind & 8 == 0 { 13 } else { 6 },
                    code: 0,
                },
                _ => Fault::Page {
                    address: BAR,
                    fetch: kind & 8 != 0,
                    code: 6,
                },
            }
        }
        3 => {
            let register = usize::from(input.byte()? % 18);
            let value = input.qword()?;
            match register {
                16 => regs.rip = value,
                17 => regs.rflags = value,
                _ => regs.gpr[register] = value,
            }
            return Some(());
        }
        4 => {
            // A bit for each slot, and the timer's as the last.
            let word = u64::from(input.dword()?);
            let timer = bit(word >> 31 == 1, BADGE_TIMER);
            vmm.events(word << 2 | timer, host);
            let mut trapped = Trapped::new(regs, &[]);
            let outcome = vmm.inject(&mut trapped, host);
            *regs = trapped.all();
            return resumed(outcome);
        }
        5 => {
            let (vector, code) = (input.byte()?, input.dword()?);
            match vector {
                255 => Fault::Syscall,
                _ => Fault::Exception {
                    vector,
                    code: code.into(),
                },
            }
        }
        6 => Fault::Page {
            address: input.qword()?,
            fetch: kind & 8 != 0,
            code: 4,
        },
        _ => {
            host.state = input.qword()?;
            if kind & 8 != 0 {
                host.bar = input.qword()?;
            }
            return Some(());
        }
    };
    let mut trapped = Trapped::new(regs, &[]);
    let outcome = vmm.fault(fault, &mut trapped, host);
    *regs = trapped.all();
    for base in [regs.fs_base, regs.gs_base] {
        assert_eq!(base.cast_signed() << 16 >> 16, base.cast_signed());
    }
    resumed(outcome)
}

/// Returns `None` if the guest is over.
fn resumed(outcome: Outcome) -> Option<()> {
    (!matches!(outcome, Outcome::Stop(_))).then_some(())
}

/// Runs a guest of these instructions, registers, faults and interrupts.
pub fn guest(data: &[u8]) {
    let functions = [function()];
    let mut vmm = Vmm::new(&functions, BUDGET, SHARE).rewritten(true);
    let mut host = Surroundings::new();
    let mut regs = Registers::default();
    regs.gpr[4] = RAM + 0x8000;
    let mut input = Input(data);
    // What lidt may load from RAM + 0x4000 is the input's; at RAM + 0x5000
    // there is a good table.
    let pointer = input.take_padded::<64>();
    host.write_ram(RAM + 0x4000, &pointer);
    for vector in 0..256 {
        host.write_ram(IDT + 16 * vector, &GATE.to_le_bytes());
    }
    vmm.start(&mut host);
    for _ in 0..MAX_OPERATIONS {
        // A guest that ended starts again: what follows is still input.
        if step(&mut vmm, &mut regs, &mut host, &mut input).is_none() {
            if input.0.is_empty() {
                break;
            }
            vmm = Vmm::new(&functions, BUDGET, SHARE).rewritten(true);
            vmm.start(&mut host);
        }
    }
}

/// Loads a file that claims to be a guest.
pub fn image(data: &[u8]) {
    let mut host = Surroundings::new();
    let (line, file) = data.split_at(data.len().min(8));
    if let Ok((entry, params)) = vmm::load(file, line, RAM..RAM + RAM_SIZE, &mut host) {
        assert!((RAM..RAM + RAM_SIZE).contains(&entry));
        assert_eq!(params, RAM + vmm::BOOT_PARAMS_OFFSET);
    }
}
