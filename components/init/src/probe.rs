//! What a machine has, as a board's file; what is no key of one is a comment in it.

use core::fmt::{self, Display, Write};

use acpi_tables::{Description, Found, Unusable};
use boot::cpu;
use pci::{
    Bdf, CapabilityList, ConfigSpace, FunctionInfo, GUEST_BAR_SLOTS, NoFunction, claim_small_bars,
    place_bars, regs,
};
use spec::{CpuKind, IommuKind};

use crate::assign::{Fate, GivenBehind, Stop, Told, look_at, share_out};
use crate::board::Lack;
use crate::kinds::is_measured;

/// Where guest RAM begins at least: below are kernel, init and components.
const GUESTS: u64 = 32 << 20;
/// Its size is a multiple of this; what is left over at the end is for components.
const GUEST_UNIT: u64 = 32 << 20;
/// Firmware keeps less than this for itself at the end of a machine's memory.
const MEMORY_UNIT: u64 = 16 << 20;
const FOUR_GIB: u64 = 1 << 32;
const MIB: u64 = 1 << 20;
/// The pin of the HPET that a board's file has if it can be had.
const HPET_PIN: u16 = 22;

/// Class and subclass of an IOMMU (PCI Code and ID Assignment Specification 1.11, section 1.9).
const IOMMU: u32 = 0x0806;

/// A piece of free RAM: first address and size.
pub type Piece = (u64, u64);

/// Returns the RAM that a machine with these free pieces has about, in bytes.
pub fn memory(pieces: &[Piece]) -> u64 {
    let end_of = |below: bool| {
        let ends = pieces.iter().map(|(start, size)| start + size);
        let ends = ends.filter(|end| (*end <= FOUR_GIB) == below);
        ends.max().unwrap_or(0).next_multiple_of(MEMORY_UNIT)
    };
    end_of(true) + end_of(false).saturating_sub(FOUR_GIB)
}

/// Returns the longest run of free pieces where guests can lie; its size is 0 if there is none.
pub fn guest_memory(pieces: &[Piece]) -> Piece {
    let run = |start: u64| {
        let mut end = start;
        // Pieces are no more than the kernel's list: each turn takes one of them.
        while let Some((at, size)) = pieces
            .iter()
            .find(|&&(at, size)| at <= end && end < at + size)
        {
            end = (at + size).min(FOUR_GIB);
            if end == FOUR_GIB {
                break;
            }
        }
        (start, (end - start) / GUEST_UNIT * GUEST_UNIT)
    };
    let starts = pieces.iter().map(|&(at, _)| at.max(GUESTS));
    let runs = starts
        .filter(|start| *start < FOUR_GIB && start % (2 * MIB) == 0)
        .map(run);
    // The first of those that are as long.
    runs.fold(
        (GUESTS, 0),
        |best, run| {
            if run.1 > best.1 { run } else { best }
        },
    )
}

/// What an HPET's timer 0 says of itself (IA-PC HPET Specification 1.0a, section 2.3.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HpetTimer(pub u64);

impl HpetTimer {
    /// Returns the I/O APIC pin that it is to raise, if it can raise any that no ISA device
    /// has, and that is not `taken`.
    pub fn pin(self, taken: u32) -> Option<u16> {
        let routes = (self.0 >> 32) as u32 & 0xff_0000 & !taken;
        match routes & 1 << HPET_PIN {
            0 => routes.checked_ilog2().map(|pin| pin as u16),
            _ => Some(HPET_PIN),
        }
    }

    const fn sends_messages(self) -> bool {
        self.0 & 1 << 15 != 0
    }
}

/// What was found out about a machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// What ACPI's tables say.
    pub tables: Result<Option<Description>, Unusable>,
    /// RAM in bytes.
    pub memory: u64,
    /// Where guests can lie.
    pub guest_memory: Piece,
    /// Timer 0 of the HPET, if it answers.
    pub hpet: Option<HpetTimer>,
    /// The units of its IOMMU.
    pub iommu: Result<Found, Unusable>,
    /// Whether a serial controller answers at 0x3f8, and at 0x2f8.
    pub serial: [bool; 2],
}

impl Machine {
    fn said(&self) -> Description {
        self.tables.ok().flatten().unwrap_or_default()
    }

    /// Returns what is missing on the machine for any system with functions.
    pub fn lacks(&self) -> impl Iterator<Item = Lack> {
        let said = self.said();
        let lacks = [
            (!matches!(self.tables, Ok(Some(_)))).then_some(Lack::Tables),
            (said.hpet.is_none() && said.pit.is_none()).then_some(Lack::Hpet),
        ];
        lacks.into_iter().flatten()
    }
}

/// A comment about a serial port at which nobody answers.
const SILENT: &str = "# Nothing answers here: what is written there is lost.\n";

impl Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = self.said();
        let (guests, size) = self.guest_memory;
        f.write_str(
            "# probe: a board of this machine. Save it as a file and name that in system.toml, as\n\
             # in `board = \"./board.toml\"`.\n\
             \n[board]\nname = \"this-machine\"\n",
        )?;
        writeln!(f, "memory = \"{}M\"", self.memory / MIB)?;
        writeln!(
            f,
            "guest-memory = {{ base = {guests:#x}, size = \"{}M\" }}",
            size / MIB
        )?;
        match said.window {
            Some(window) => writeln!(
                f,
                "ecam = {{ base = {:#x}, buses = {} }}",
                window.base,
                u32::from(window.last) + 1
            )?,
            None => writeln!(f, "ecam = \"none\"")?,
        }
        let iommu = self
            .iommu
            .as_ref()
            .map_or(IommuKind::None, Found::kind)
            .name();
        if iommu == "none" || self.hpet.is_some_and(HpetTimer::sends_messages) {
            writeln!(f, "iommu = \"{iommu}\"")?;
        } else {
            writeln!(
                f,
                "# It has one (\"{iommu}\"), which would block the pins of the clocks: no HPET \
                 sends messages.\niommu = \"none\""
            )?;
        }
        // The console is COM1 here, whichever it is in the firmware.
        let swapped = said.console == Some(0x2f8);
        let mut ports = [(0x3f8, 4, self.serial[0]), (0x2f8, 3, self.serial[1])];
        if swapped {
            ports.reverse();
        }
        for (number, (first, pin, answers)) in (1..).zip(ports) {
            let silent = if answers { "" } else { SILENT };
            write!(
                f,
                "\n{silent}[device.com{number}]\n\
                 ports = {{ first = {first:#x}, count = 8 }}\n\
                 irq = {{ pin = {pin}, trigger = \"edge\" }}\n"
            )?;
        }
        match (said.hpet, self.hpet) {
            (Some(at), Some(timer)) if timer.pin(0).is_some() || timer.sends_messages() => {
                write!(
                    f,
                    "\n[device.hpet]\nmemory = {{ base = {at:#x}, size = \"4K\" }}\n"
                )?;
                match timer.pin(0) {
                    Some(pin) => {
                        writeln!(f, "irq = {{ pin = {pin}, trigger = \"level\" }}")?;
                    }
                    None => writeln!(f, "# It can raise no pin from 16 on.")?,
                }
                writeln!(f, "message = {}", timer.sends_messages())?;
            }
            (Some(at), Some(_)) => writeln!(
                f,
                "\n# The HPET at {at:#x} raises no pin from 16 on, and sends no messages: it is no \
                 clock here."
            )?,
            (Some(at), None) => writeln!(f, "\n# The HPET at {at:#x} does not answer.")?,
            (None, _) => writeln!(f, "\n# no [device.hpet]: there is none")?,
        }
        match said.pit {
            Some(pin) => write!(
                f,
                "\n[device.pit]\nports = {{ first = 0x40, count = 4 }}\n\
                 irq = {{ pin = {pin}, trigger = \"edge\" }}\n"
            ),
            None => writeln!(f, "\n# no [device.pit]: nothing tells its pin (ACPI, MADT)"),
        }
    }
}

/// A CPU's features, of those that kernels need. It is one that this kernel runs on.
pub struct Cpu<C>(pub C);

impl<C: Fn(u32, u32) -> [u32; 4] + Copy> Display for Cpu<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lacks = |feature: &cpu::Feature| {
            cpu::missing(u64::MAX, self.0).any(|missing| missing.name == feature.name)
        };
        f.write_str("# CPU:")?;
        let all = cpu::FEATURES.iter();
        for (number, feature) in all.clone().filter(|feature| !lacks(feature)).enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma} {}", feature.name)?;
        }
        f.write_char('\n')?;
        for feature in all.filter(|feature| lacks(feature)) {
            writeln!(
                f,
                "#   lacks {}, which this kernel does not need",
                feature.name
            )?;
        }
        let usual = cpu::needed(|option| BEYOND_BASELINE.contains(&option));
        if cpu::missing(usual, self.0).next().is_some() {
            writeln!(f, "\n[kernel]\ncpu = \"{}\"", CpuKind::Baseline.name())?;
        }
        Ok(())
    }
}

/// The options of the bundled kernel that the one for any CPU has not.
const BEYOND_BASELINE: [&str; 2] = ["HUGE_PAGE", "FSGSBASE_INST"];

/// Tells of one function, as the only one of a guest: whether a system with it starts, and
/// what its guest would have. Returns whether it does.
///
/// `open` opens the space of any other function; `unit` is the unit that has this one.
///
/// # Errors
/// If `out` takes no more.
pub fn function<S: ConfigSpace>(
    out: &mut impl Write,
    space: &mut impl ConfigSpace,
    bdf: Bdf,
    buses: u64,
    mut open: impl FnMut(Bdf) -> S,
    unit: Result<Found, Unusable>,
) -> Result<bool, fmt::Error> {
    let (id, class) = (
        space.read32(regs::VENDOR),
        space.read32(regs::REVISION) >> 8,
    );
    write!(
        out,
        "# {bdf} {:04x}:{:04x} class {class:06x}: ",
        id & 0xffff,
        id >> 16
    )?;
    let part = match class >> 8 {
        0x0600..=0x06ff => Some("a bridge"),
        IOMMU => Some("an IOMMU"),
        _ => None,
    };
    if let Some(part) = part {
        // Others stand behind it: its BARs are left alone.
        writeln!(out, "{part}")?;
        return Ok(false);
    }
    let guest = Bdf::from_requester_id(8);
    let (mut info, given) = match look_at(space, bdf, guest, false, buses, &mut open) {
        Ok(found) => found,
        Err(Stop::NoFunction(NoFunction::Header(1 | 2))) => {
            writeln!(out, "a bridge")?;
            return Ok(false);
        }
        Err(stop) => {
            writeln!(out, "does not start: {stop}")?;
            return Ok(false);
        }
    };
    writeln!(out, "starts")?;
    place_bars(core::slice::from_mut(&mut info));
    // Its messages are gone if it cannot.
    let _ = claim_small_bars(&mut info, |bdf, offset| open(bdf).read32(offset));
    share_out(&mut info, 1..1 + GUEST_BAR_SLOTS);
    for (index, bar) in info.bars.iter().enumerate() {
        if Fate::of(&info, index) != Fate::None {
            write!(
                out,
                "#   BAR {index} at {:#x}, {:#x} bytes: ",
                bar.address, bar.size
            )?;
            if let Some(Ok(bridge)) = given[index] {
                write!(out, "{}; ", GivenBehind(bridge))?;
            }
            writeln!(out, "{}", Told(&info, index))?;
        }
    }
    messages(out, space, &info)?;
    let trust = match is_measured(&info) {
        true => "if the measurement at boot finds that nothing confines it",
        false => "since what it reaches is not measured",
    };
    writeln!(out, "#   needs dma = \"trusted\" {trust}")?;
    match unit {
        Ok(found) => {
            for reserved in found.reserved(bdf.requester_id()) {
                writeln!(
                    out,
                    "#   needs firmware-memory = \"withhold\" or \"map\": firmware wants it to \
                     reach {reserved}"
                )?;
            }
            writeln!(out, "#   IOMMU: {found}")?;
        }
        Err(unusable) => writeln!(out, "#   IOMMU: cannot be used: {unusable}")?,
    }
    Ok(true)
}

fn messages(
    out: &mut impl Write,
    space: &mut impl ConfigSpace,
    info: &FunctionInfo,
) -> fmt::Result {
    if info.msix.entries != 0 {
        return writeln!(out, "#   MSI-X: {} entries", info.msix.entries);
    }
    let has_msi = CapabilityList::read(space).find(regs::CAP_MSI).is_some();
    let kind = if has_msi { "MSI" } else { "none" };
    writeln!(out, "#   messages: {kind}")
}

/// Writes the last words: what is missing, or how many functions can be given to guests.
///
/// # Errors
/// If `out` takes no more.
pub fn conclude(out: &mut impl Write, machine: &Machine, functions: usize) -> fmt::Result {
    match &machine.iommu {
        Ok(found) => writeln!(out, "# IOMMU: {found}")?,
        Err(unusable) => writeln!(out, "# IOMMU: cannot be used: {unusable}")?,
    }
    if let Some(first) = machine.said().interrupts.filter(|first| *first != 0) {
        writeln!(
            out,
            "# The first I/O APIC, the only one that seL4 uses, has the interrupts from {first} on: \
             no device's `irq` works"
        )?;
    }
    let mut starts = true;
    for lack in machine.lacks() {
        writeln!(out, "# This machine has {lack}")?;
        starts = false;
    }
    if starts {
        writeln!(
            out,
            "# verdict: a system runs here; {functions} functions can be given to guests"
        )
    } else {
        writeln!(out, "# verdict: a system with functions does not run here")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use acpi_tables::Window;
    use std::string::{String, ToString as _};

    /// QEMU's q35 with 512 MiB: what the kernel gives away of its RAM.
    const FREE: [Piece; 4] = [
        (0x0180_0000, 0x80_0000),
        (0x0200_0000, 0x1000_0000),
        (0x1000_0000, 0x0fe0_0000),
        (0x1fe0_0000, 0x1e_0000),
    ];

    fn q35() -> Machine {
        Machine {
            tables: Ok(Some(Description {
                window: Some(Window {
                    base: 0xb000_0000,
                    first: 0,
                    last: 255,
                }),
                hpet: Some(0xfed0_0000),
                console: None,
                interrupts: Some(0),
                pit: Some(2),
            })),
            memory: 512 * MIB,
            guest_memory: (GUESTS, 448 * MIB),
            hpet: Some(HpetTimer(0x00ff_0104_0000_8030)),
            iommu: Ok(Found::Amd(acpi_tables::Units {
                registers: heapless::Vec::from([0xfed8_0000]),
                ioapic: 0xa0,
                ..acpi_tables::Units::default()
            })),
            serial: [true, true],
        }
    }

    #[test]
    fn memory_is_what_there_is_below_and_above_4_gib() {
        assert_eq!(memory(&FREE), 512 * MIB);
        let more = [(0x0200_0000, 0x7e00_0000), (FOUR_GIB, 0x8000_0000)];
        assert_eq!(memory(&more), 4096 * MIB);
        assert_eq!(memory(&[]), 0);
    }

    #[test]
    fn guests_lie_in_the_longest_run_above_the_components() {
        assert_eq!(guest_memory(&FREE), (GUESTS, 448 * MIB));
        let mut back = FREE;
        back.reverse();
        assert_eq!(guest_memory(&back), (GUESTS, 448 * MIB));
        // A hole, and memory above 4 GiB, where guests need an IOMMU.
        let hole = [
            (0x0200_0000, 0x0200_0000),
            (0x0600_0000, 0x0a00_0000),
            (FOUR_GIB, FOUR_GIB),
        ];
        assert_eq!(guest_memory(&hole), (0x0600_0000, 160 * MIB));
        assert_eq!(
            guest_memory(&[(0xc000_0000, FOUR_GIB)]),
            (0xc000_0000, 1024 * MIB)
        );
        for none in [&[][..], &[(0, 1 << 20)], &[(FOUR_GIB + GUESTS, FOUR_GIB)]] {
            assert_eq!(guest_memory(none), (GUESTS, 0));
        }
    }

    #[test]
    fn the_board_has_the_machine_s_values() {
        let text = q35().to_string();
        for part in [
            "memory = \"512M\"\nguest-memory = { base = 0x2000000, size = \"448M\" }\n",
            "ecam = { base = 0xb0000000, buses = 256 }\niommu = \"amd\"\n",
            "[device.com1]\nports = { first = 0x3f8, count = 8 }\nirq = { pin = 4, ",
            "[device.com2]\nports = { first = 0x2f8, count = 8 }\nirq = { pin = 3, ",
            "[device.hpet]\nmemory = { base = 0xfed00000, size = \"4K\" }\n\
             irq = { pin = 22, trigger = \"level\" }\nmessage = true\n",
            "[device.pit]\nports = { first = 0x40, count = 4 }\n\
             irq = { pin = 2, trigger = \"edge\" }\n",
        ] {
            assert!(text.contains(part), "no `{part}` in\n{text}");
        }
        assert!(!text.contains(SILENT), "{text}");
    }

    #[test]
    fn another_machine_has_others() {
        let mut machine = q35();
        machine.tables = Ok(Some(Description {
            window: Some(Window {
                base: 0xe000_0000,
                first: 0,
                last: 63,
            }),
            console: Some(0x2f8),
            ..machine.said()
        }));
        machine.hpet = Some(HpetTimer(0x00f0_0000_0000_0000));
        machine.iommu = Err(Unusable::Checksum);
        machine.serial = [false, true];
        let text = machine.to_string();
        for part in [
            "ecam = { base = 0xe0000000, buses = 64 }\niommu = \"none\"\n",
            "[device.com1]\nports = { first = 0x2f8, count = 8 }\nirq = { pin = 3, ",
            "is lost.\n[device.com2]\nports = { first = 0x3f8, count = 8 }\nirq = { pin = 4, ",
            "irq = { pin = 22, trigger = \"level\" }\nmessage = false\n",
        ] {
            assert!(text.contains(part), "no `{part}` in\n{text}");
        }
        for (routes, pin) in [(0x0010_0000, Some(20)), (0x0000_ffff, None), (0, None)] {
            assert_eq!(HpetTimer(routes << 32).pin(0), pin);
        }
        // What a function has is not to be had.
        assert_eq!(HpetTimer(0x00c0_0000 << 32).pin(1 << 22), Some(23));
        // An IOMMU needs messages.
        machine.iommu = q35().iommu;
        for hpet in [machine.hpet, None] {
            machine.hpet = hpet;
            let text = machine.to_string();
            let line = "sends messages.\niommu = \"none\"\n";
            assert!(text.contains(line), "no `{line}` in {text}");
        }
        // QEMU's `pc` has one that raises pin 2 alone.
        machine.hpet = Some(HpetTimer(4 << 32));
        let text = machine.to_string();
        assert!(text.contains("it is no clock here"), "{text}");
        assert!(!text.contains("[device.hpet]"), "{text}");
        assert!(text.contains("[device.pit]"), "{text}");
    }

    fn concluded(machine: &Machine) -> String {
        let mut text = String::new();
        conclude(&mut text, machine, 3).expect("a string");
        text
    }

    #[test]
    fn what_is_missing_is_the_verdict() {
        let text = concluded(&q35());
        assert!(text.contains("a system runs here; 3 functions"), "{text}");
        for (tables, words) in [
            (Err(Unusable::Root), &["no ACPI tables"][..]),
            (Ok(None), &["no ACPI tables", "no HPET"]),
            (
                Ok(Some(Description {
                    interrupts: Some(24),
                    ..Description::default()
                })),
                &["no HPET", "has the interrupts from 24 on"],
            ),
        ] {
            let mut machine = q35();
            machine.tables = tables;
            let text = concluded(&machine);
            assert!(text.contains("does not run here"), "{text}");
            for word in words {
                assert!(text.contains(word), "no `{word}` in {text}");
            }
            // No key without its value.
            assert!(!machine.to_string().contains("0x0,"), "{machine}");
        }
    }

    /// A CPU with one leaf of each kind.
    #[test]
    fn features_are_named_whether_there_or_not() {
        let nothing = Cpu(|_, _| [0; 4]).to_string();
        assert!(
            nothing.starts_with("# CPU:\n#   lacks pages of 1 GiB"),
            "{nothing}"
        );
        let all = Cpu(|_, _| [u32::MAX; 4]).to_string();
        assert!(
            all.starts_with("# CPU: pages of 1 GiB (pdpe1gb), "),
            "{all}"
        );
        assert!(!all.contains("lacks"), "{all}");
        let takes = |edx: u32, ebx: u32| {
            let features = move |leaf: u32, _| match leaf {
                0x8000_0001 => [0, 0, 0, edx],
                7 => [0, ebx, 0, 0],
                _ => [u32::MAX; 4],
            };
            Cpu(features)
                .to_string()
                .contains("\n[kernel]\ncpu = \"baseline\"\n")
        };
        assert!(!takes(u32::MAX, 1));
        assert!(takes(u32::MAX, 0) && takes(!(1 << 26), 1));
    }

    /// A header with this class, and the first BAR of 4 KiB.
    struct Fake {
        class: u32,
        bar: u32,
    }

    impl ConfigSpace for Fake {
        fn read32(&mut self, offset: u16) -> u32 {
            match offset {
                0 => 0x10d3_8086,
                8 => self.class << 8,
                0x10 => self.bar,
                _ => 0,
            }
        }
        fn write32(&mut self, offset: u16, value: u32) {
            if offset == 0x10 {
                self.bar = value & 0xffff_f000;
            }
        }
        fn write16(&mut self, _: u16, _: u16) {}
    }

    struct Absent;

    impl ConfigSpace for Absent {
        fn read32(&mut self, _: u16) -> u32 {
            u32::MAX
        }
        fn write32(&mut self, _: u16, _: u32) {}
        fn write16(&mut self, _: u16, _: u16) {}
    }

    #[test]
    fn a_function_is_told_with_what_its_guest_would_have() {
        let with = |class, bar, found| {
            let mut text = String::new();
            let bdf = Bdf::new(0, 3, 0).expect("an address");
            let space = &mut Fake { class, bar };
            let open = |_| Absent;
            let starts = function(&mut text, space, bdf, 256, open, Ok(found));
            (starts.expect("a string"), text)
        };
        let told = |class, bar| with(class, bar, Found::None);
        let reserved = [0x18, 0x20].map(|requester| acpi_tables::Reserved {
            requester,
            unit: 0,
            start: 0x7d00_0000 + u64::from(requester),
            end: 0x7d01_0000,
            read: true,
            write: true,
        });
        let units = acpi_tables::Units {
            registers: heapless::Vec::from([0xfed9_0000]),
            reserved: reserved.into_iter().collect(),
            ..acpi_tables::Units::default()
        };
        let (_, text) = with(0x02_0000, 0xfeb0_0000, Found::Intel(units));
        let need = "#   needs firmware-memory = \"withhold\" or \"map\": firmware wants it to reach \
                    0x7d000018 to 0x7d00ffff\n#   IOMMU: VT-d unit at 0xfed90000\n";
        assert!(
            text.ends_with(need) && !text.contains("0x7d000020"),
            "{text}"
        );
        let (starts, text) = told(0x02_0000, 0xfeb0_0000);
        assert!(starts, "{text}");
        for line in [
            "# 00:03.0 8086:10d3 class 020000: starts\n",
            "#   BAR 0 at 0xfeb00000, 0x1000 bytes: the guest has it there\n",
            "#   messages: none\n",
            "#   IOMMU: the firmware tells of no IOMMU\n",
        ] {
            assert!(text.contains(line), "no `{line}` in\n{text}");
        }
        for (class, bar, end) in [
            (
                0x02_0000,
                0,
                "does not start: the firmware gave BAR 0 no address, and no bridge is above it in \
                 whose windows there is room\n",
            ),
            (0x06_0100, 0, "a bridge\n"),
            (0x08_0600, 0, "an IOMMU\n"),
        ] {
            let (starts, text) = told(class, bar);
            assert!(!starts && text.ends_with(end), "{text}");
        }
    }
}
