//! pci-config against a map of which bits a guest may change (C1 to C8, M24).

mod device;

use channel::msix::control::{Client, dispatch};
use channel::pci_config::{Effect, PciConfig};
use channel::{Caller, Local, Message};
use pci::{BarKind, Bdf, FUNCTION_BARS, Width};
use pci_config::Functions;
use proptest::prelude::*;
use shm::Kept;

use device::{BARS, MSI, MSIX, PCIE, PM, Plan, Shared, VENDOR, plans};
use spec::FunctionId;

const VMM: Caller = Caller(5);
/// Command bits: decode of ports and of memory.
const PORTS: u8 = 1;
const MEMORY: u8 = 2;
const DECODE: u8 = PORTS | MEMORY;
/// Bytes that are compared: all that can be anything but 0, and some more.
const VIEW: u16 = 0x108;

#[derive(Clone, Copy, Debug)]
enum Op {
    Write(u16, Width, u32),
    Reset,
}

fn ops() -> impl Strategy<Value = Op> {
    let register = prop::sample::select(vec![
        4,
        4,
        6,
        0x0c,
        0x10,
        0x14,
        0x18,
        0x1c,
        0x24,
        0x30,
        0x34,
        0x3c,
        PM,
        PM + 4,
        MSI,
        MSI + 4,
        PCIE,
        PCIE + 8,
        PCIE + 10,
        MSIX,
        MSIX + 2,
        MSIX + 4,
        VENDOR,
        VENDOR + 4,
        0xf0,
        0x100,
    ]);
    let offset = prop_oneof![
        8 => (register, 0..4u16).prop_map(|(at, byte)| at + byte),
        1 => 0..0x1004u16,
    ];
    let value = prop_oneof![
        2 => Just(u32::MAX),
        1 => Just(0),
        2 => (0..=DECODE).prop_map(u32::from),
        2 => (0..4u32).prop_map(|bits| bits << 14 | bits << 30),
        4 => any::<u32>(),
    ];
    let width = prop::sample::select(vec![Width::Byte, Width::Word, Width::Dword, Width::Qword]);
    prop_oneof![
        30 => (offset, width, value).prop_map(|(at, width, value)| {
            // Mostly aligned: what is not is dropped.
            let aligned = at & !(width.bytes() as u16 - 1);
            Op::Write(if value % 8 == 7 { at } else { aligned }, width, value)
        }),
        1 => Just(Op::Reset),
    ]
}

/// What a guest's write does to a byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bits {
    /// There is a register; else it is a gap.
    known: bool,
    writable: u8,
    /// Cleared by writing 1.
    clear: u8,
}

/// Returns the first 256 bytes, by the rules.
fn map(plan: &Plan) -> Vec<Bits> {
    let mut map = vec![Bits::default(); 256];
    let mut know = |bytes: std::ops::Range<u16>| {
        for byte in bytes {
            map[usize::from(byte)].known = true;
        }
    };
    know(0..0x35);
    know(0x3c..0x3e);
    let hidden = plan.permissive;
    if plan.has(PM) {
        know(PM..PM + 8);
    }
    if plan.has(MSI) && hidden {
        let control = plan.word(MSI + 2);
        know(MSI..MSI + 12 + 8 * (control >> 8 & 1) + 4 * (control >> 7 & 1));
    }
    if plan.has(PCIE) {
        know(PCIE..PCIE + 0x14);
        if plan.word(PCIE + 2) & 15 >= 2 {
            know(PCIE + 0x24..PCIE + 0x34);
        }
    }
    if plan.has(MSIX) && (plan.played || hidden) {
        know(MSIX..MSIX + 12);
    }
    if plan.has(VENDOR) && plan.permissive {
        know(VENDOR..VENDOR + 2);
    }
    if plan.permissive {
        for bits in map.iter_mut().filter(|bits| !bits.known) {
            bits.writable = 0xff;
        }
    }
    let command: [u8; 2] = if plan.permissive { [0xff, 7] } else { [7, 4] };
    map[4].writable = command[0];
    map[5].writable = command[1];
    map[7].clear = 0xf9;
    map[0x0c].writable = 0xff;
    map[0x3c].writable = 0xff;
    for (index, kind, _, size) in BARS {
        let bytes = match kind {
            BarKind::Io | BarKind::Memory32 => 4,
            BarKind::Memory64 => 8,
            _ => 0,
        };
        let mask = (!(size - 1)).to_le_bytes();
        for (byte, mask) in mask.into_iter().enumerate().take(bytes) {
            map[0x10 + 4 * index + byte].writable = mask;
        }
    }
    if plan.has(PCIE) {
        let at = usize::from(PCIE);
        map[at + 8].writable = 0x10;
        map[at + 9].writable = 0x78;
        map[at + 10].clear = 0x0f;
        // Active state power management, as far as the firmware had it on.
        map[at + 0x10].writable = plan.config[at + 0x10] & 3;
    }
    if plan.plays_msix() {
        map[usize::from(MSIX) + 3].writable = 0xc0;
    }
    map
}

type Link = Local<Box<dyn FnMut(Message) -> Message>>;

/// A BAR by C4: what its register holds, and where it is.
#[derive(Clone, Copy)]
struct NaiveBar {
    index: usize,
    /// Its bit of the command register.
    decode: u8,
    wide: bool,
    size: u64,
    register: u64,
    at: u64,
}

impl NaiveBar {
    fn all() -> Vec<Self> {
        let bars = BARS.iter();
        bars.map(|&(index, kind, at, size)| Self {
            index,
            decode: if kind == BarKind::Io { PORTS } else { MEMORY },
            wide: kind == BarKind::Memory64,
            size,
            register: at,
            at,
        })
        .collect()
    }

    /// Returns the bytes of configuration space that it takes.
    fn bytes(&self) -> std::ops::Range<usize> {
        let first = 0x10 + 4 * self.index;
        first..first + if self.wide { 8 } else { 4 }
    }

    /// Returns its value for reads: a decoded BAR stays where it is if 0 is written.
    fn shown(&self) -> u64 {
        if self.register == 0 {
            self.at
        } else {
            self.register
        }
    }

    /// Writes some of its bytes. Returns whether it moved.
    fn write(&mut self, written: impl Fn(usize) -> Option<u8>, decoding: bool) -> bool {
        let mut bytes = self.register.to_le_bytes();
        let range = self.bytes();
        for at in range.clone() {
            if let Some(byte) = written(at) {
                bytes[at - range.start] = byte;
            }
        }
        let before = self.at;
        self.register = u64::from_le_bytes(bytes) / self.size * self.size;
        let mask = u64::MAX / self.size * self.size;
        let low_is_mask = self.register as u32 == mask as u32;
        let high_is_mask = self.wide && self.register >> 32 == 0xffff_ffff;
        if !decoding || self.register != 0 && !low_is_mask && !high_is_mask {
            self.at = self.register;
        }
        decoding && self.at != before
    }
}

struct Pair {
    bars: Vec<NaiveBar>,
    plan: Plan,
    map: Vec<Bits>,
    functions: Functions<'static, Shared, Link, 1>,
    device: Shared,
    /// The guest's view and the device, as they were after start.
    start: (Vec<u8>, Vec<u8>),
}

impl Pair {
    fn new(plan: Plan) -> Self {
        let device = Shared::new(&plan);
        let mut server = device.clone();
        let link: Link = Local(Box::new(move |request| {
            dispatch(&mut server, Caller(1), request)
        }));
        let info = plan.info();
        // No function of these plans has plain MSI.
        let messages: Link = Local(Box::new(|_| Message::error(channel::Error::Failed)));
        let messages = channel::irq_router::msi::Client(messages);
        let kept: &Kept<{ pci_config::kept_words(1) }> = Box::leak(Box::default());
        let mut functions = Functions::new(Client(link), messages);
        functions.take_over([(info, VMM, device.clone())], kept);
        let mut pair = Self {
            bars: NaiveBar::all(),
            map: map(&plan),
            plan,
            functions,
            device,
            start: Default::default(),
        };
        pair.start = (pair.view(), pair.hardware());
        pair.check_start();
        pair
    }

    fn read(&mut self, offset: u16, width: Width) -> u32 {
        let bdf = self.plan.info().guest();
        let value = self.functions.read(VMM, bdf, offset, width);
        value.expect("reads always answer")
    }

    fn view(&mut self) -> Vec<u8> {
        (0..VIEW)
            .map(|at| self.read(at, Width::Byte) as u8)
            .collect()
    }

    fn hardware(&self) -> Vec<u8> {
        self.device.0.borrow().config.clone()
    }

    /// Checks M24 and C6: quiet, and shown as the rules say.
    fn check_start(&mut self) {
        let (view, hardware) = self.start.clone();
        assert_eq!(hardware[4] & 7, DECODE, "decode on, bus mastering off");
        assert_eq!(hardware[5] & 4, 4, "INTx off");
        if self.plan.has(MSIX) {
            let at = usize::from(MSIX) + 3;
            assert_eq!(hardware[at] & 0xc0, 0, "MSI-X off");
        }
        if self.plan.has(MSI) {
            assert_eq!(hardware[usize::from(MSI) + 2] & 1, 0, "MSI off");
        }
        for (at, bits) in self.map.iter().enumerate() {
            if !bits.known {
                let gap = if self.plan.permissive {
                    hardware[at]
                } else {
                    0
                };
                assert_eq!(view[at], gap, "gap at {at:#x}");
            }
        }
        let shown: Vec<u16> = self
            .plan
            .list
            .iter()
            .copied()
            .filter(|&c| self.shown(c))
            .collect();
        let mut listed = Vec::new();
        let mut at = view[0x34];
        while at != 0 && listed.len() < 48 {
            listed.push(u16::from(at));
            at = view[usize::from(at) + 1];
        }
        assert_eq!(listed, shown, "capability list");
        assert_eq!(view[6] >> 4 & 1, u8::from(!shown.is_empty()));
        let extended = self.hardware().len() > 256;
        let beyond = if extended { 0 } else { 0xff };
        assert!(view[0x100..].iter().all(|&byte| byte == beyond), "C7");
    }

    fn shown(&self, capability: u16) -> bool {
        match capability {
            PM | PCIE => true,
            MSIX => self.plan.played,
            MSI => false,
            _ => self.plan.permissive,
        }
    }

    fn play(&mut self, op: Op) {
        match op {
            Op::Reset => {
                // The time that a reset takes goes by with each look at the clock.
                let end = std::iter::repeat_with(|| self.functions.reset(VMM, FunctionId(0)))
                    .take(100)
                    .find(|end| !matches!(end, Ok(1..)));
                let refused = Err(channel::Error::Refused);
                assert!(end == Some(Ok(0)) || end == Some(refused), "{end:?}");
                let has_flr = self.plan.has(PCIE) && self.plan.word(PCIE + 6) >> 12 & 1 == 1;
                assert!(!has_flr || end == Some(Ok(0)), "M24");
                self.check_reset();
            }
            Op::Write(offset, width, value) => self.write(offset, width, value),
        }
        self.check();
    }

    fn write(&mut self, offset: u16, width: Width, value: u32) {
        let before = self.view();
        let hardware = self.hardware();
        let bdf = self.plan.info().guest();
        let effect = self.functions.write(VMM, bdf, offset, width, value);
        let effect = effect.expect("writes always answer");
        let after = self.view();
        let shape = width != Width::Qword && width.is_aligned(offset.into());
        let written = |at: usize| {
            let byte = at.wrapping_sub(offset.into());
            (shape && byte < width.bytes() as usize).then(|| (value >> (8 * byte)) as u8)
        };
        let flr_at = usize::from(PCIE) + 9;
        let has_flr = self.plan.has(PCIE) && self.plan.word(PCIE + 6) >> 12 & 1 == 1;
        if has_flr && written(flr_at).is_some_and(|byte| byte & 0x80 != 0) {
            assert_eq!(effect, Effect::DECODE.and(Effect::RESET));
            self.check_reset();
            return;
        }
        for (at, bits) in self.map.iter().enumerate() {
            if (0x10..0x28).contains(&at) {
                // BARs are more than their bytes.
                continue;
            }
            let Some(byte) = written(at) else {
                assert_eq!(after[at], before[at], "not written: {at:#x}");
                continue;
            };
            let mut expected = before[at] & !bits.writable | byte & bits.writable;
            expected &= !(byte & bits.clear);
            assert_eq!(after[at], expected, "byte {at:#x}, {bits:?}");
        }
        let mut moved = false;
        for bar in &mut self.bars {
            moved |= bar.write(written, before[4] & bar.decode != 0);
            if (before[4] ^ after[4]) & bar.decode != 0 {
                bar.at = bar.shown();
                bar.register = bar.at;
            }
        }
        self.check_bars(&after);
        let mut expected = if moved { Effect::DECODE } else { Effect::NONE };
        if (before[4] ^ after[4]) & DECODE != 0 {
            expected = expected.and(Effect::DECODE);
        }
        assert_eq!(effect, expected);
        self.check_hardware(&hardware);
    }

    /// Checks C4: each register reads what it should.
    fn check_bars(&self, view: &[u8]) {
        for bar in &self.bars {
            let range = bar.bytes();
            let mut bytes = bar.shown().to_le_bytes();
            bytes[0] |= self.start.0[range.start] & 15;
            let length = range.len();
            assert_eq!(&view[range], &bytes[..length], "BAR {}", bar.index);
        }
    }

    /// Checks that only registers that a guest may reach have changed in the device.
    fn check_hardware(&self, before: &[u8]) {
        let after = self.hardware();
        for (at, (before, after)) in before.iter().zip(&after).enumerate() {
            let bits = self.map.get(at).copied().unwrap_or_default();
            let reachable = match at {
                4 | 5 => 0xff,
                // The guest's own: the device never sees them.
                0x10..0x28 | 0x3c => 0,
                _ => bits.writable | bits.clear,
            };
            assert_eq!((before ^ after) & !reachable, 0, "device byte {at:#x}");
        }
    }

    /// Checks M24 and C8: the guest's view is as it was at start.
    fn check_reset(&mut self) {
        self.bars = NaiveBar::all();
        let view = self.view();
        let start = &self.start.0;
        for at in [4, 5, 0x3c].into_iter().chain(0x10..0x28) {
            assert_eq!(view[at], start[at], "byte {at:#x} after a reset");
        }
        assert_eq!(self.device.0.borrow().control, 4);
        let hardware = self.hardware();
        assert_eq!(hardware[4] & 7, DECODE);
        assert_eq!(hardware[5] & 4, 4);
    }

    /// Checks the invariants after every step.
    fn check(&mut self) {
        let view = self.view();
        let world = self.device.0.borrow();
        let command = world.word(4);
        assert_eq!(command & 3, 3, "C4: decode on");
        assert_eq!(command as u8 & 4, view[4] & 4, "bus mastering");
        let enabled = world.control & 0x8000 != 0;
        assert!(
            !enabled || command & 0x400 != 0,
            "C5: INTx while MSI-X is on"
        );
        if self.plan.plays_msix() {
            assert_eq!(world.word(MSIX + 2) & 0xc000, world.control & 0xc000, "M6");
        }
        assert_eq!(&world.config[0x10..0x28], &self.start.1[0x10..0x28], "C4");
        drop(world);
        for index in 0..FUNCTION_BARS {
            let bar = self.bars.iter().find(|bar| bar.index == index);
            let decoded = bar.filter(|bar| view[4] & bar.decode != 0);
            let address = decoded.map_or(u64::MAX, |bar| bar.at);
            assert_eq!(
                self.functions.bar(VMM, FunctionId(0), index as u8),
                Ok(address)
            );
        }
        assert!(
            self.functions
                .bar(VMM, FunctionId(0), FUNCTION_BARS as u8)
                .is_err()
        );
        self.check_widths(&view);
    }

    /// Checks C1: every width sees the same bytes.
    fn check_widths(&mut self, view: &[u8]) {
        for at in (0..VIEW).step_by(2) {
            let word = u32::from(view[usize::from(at)]) | u32::from(view[usize::from(at) + 1]) << 8;
            assert_eq!(self.read(at, Width::Word), word, "word {at:#x}");
            if at % 4 == 0 {
                let high = self.read(at + 2, Width::Word);
                assert_eq!(self.read(at, Width::Dword), word | high << 16);
            }
            assert_eq!(self.read(at + 1, Width::Word), 0xffff);
        }
        let nobody = Bdf::from_requester_id(0x20);
        assert_eq!(self.functions.read(VMM, nobody, 0, Width::Word), Ok(0xffff));
    }
}

proptest! {
    #![proptest_config(crate::config(300))]

    #[test]
    fn c1_to_c8_hold_for_any_sequence(
        plan in plans(),
        ops in prop::collection::vec(ops(), 1..40),
    ) {
        let mut pair = Pair::new(plan);
        for &op in &ops {
            pair.play(op);
        }
    }
}
