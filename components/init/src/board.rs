//! Whether the machine is the one that the board's file describes.

use core::fmt;

use acpi_tables::Description;
use pci::Bdf;
use spec::{BY_TABLES, Clock, Configuration, Console, PIN_BY_MACHINE, Requires};

use crate::probe::HpetTimer;

/// What the board says that ACPI's tables say too; [`BY_TABLES`] where they alone say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stated {
    /// Where configuration space is, 0 for no window, and how many buses of it; of a system
    /// without functions nobody looks there.
    pub ecam: Option<(u64, u64)>,
    /// The HPET that a component has, or 0.
    pub hpet: u64,
    /// The pin that this is to raise, which may be [`PIN_BY_MACHINE`]; `None` if it sends
    /// messages.
    pub hpet_pin: Option<u16>,
    /// The pin of the 8254 that a component has, which may be [`PIN_BY_MACHINE`].
    pub pit: Option<u16>,
    /// First ports of COM1 and COM2; 0 for none.
    pub serial: [u64; 2],
    /// Whether the tables say which of them has the text for people; else COM1 has it.
    pub open_console: bool,
}

/// What a machine has not, and a system needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Tables that tell what there is.
    Tables,
    /// A configuration window with bus 0: it begins with this bus.
    Buses(u8),
    /// A clock: there is no HPET.
    Hpet,
    /// A clock: there is an HPET, and it raises no pin that can be used.
    HpetPin,
    /// The 8254's pin.
    PitPin,
}

/// The way to another clock.
const OTHER_CLOCK: &str = "and this image has no other clock. The 8254 is one where no IOMMU \
                           remaps interrupts: `devices = [\"pit\"]` of the timer; ";

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::Buses(first) => {
                return write!(
                    f,
                    "a window for configuration space from bus {first} on only (ACPI, MCFG)"
                );
            }
            Self::Tables => "no ACPI tables that can be read: nothing tells where its devices are",
            Self::Hpet => {
                return write!(
                    f,
                    "no HPET (ACPI has no table HPET), {OTHER_CLOCK}or switch the HPET on in the \
                     firmware's setup, in QEMU with `-machine hpet=on`"
                );
            }
            Self::HpetPin => {
                return write!(
                    f,
                    "an HPET that raises none of the I/O APIC's pins from 16 on which nobody else \
                     has, {OTHER_CLOCK}or let the HPET send messages"
                );
            }
            Self::PitPin => {
                "no pin of the first I/O APIC for its 8254 (ACPI, MADT), which would be the clock"
            }
        })
    }
}

/// What the machine has otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// There is no configuration window: the board's.
    NoWindow(u64),
    /// It is elsewhere: the board's and the machine's address.
    Window(u64, u64),
    /// It has other buses: how many the board says, the machine's first and last.
    Buses(u64, u8, u8),
    /// There is no HPET, which the board has here.
    NoHpet(u64),
    /// It is elsewhere: the board's and the machine's address.
    Hpet(u64, u64),
    /// The 8254 raises another pin: the board's and the machine's.
    Pit(u16, u32),
    /// The firmware's console is at none of the board's serial ports: COM1's and its port.
    Console(u64, u64),
    /// The first I/O APIC's pins are not the interrupts from 0 on, but from this number.
    Interrupts(u32),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this machine is not the board: ")?;
        match *self {
            Self::NoWindow(board) => write!(
                f,
                "it has no window for configuration space (ACPI has no table MCFG), as machines \
                 without PCI Express, such as QEMU's `pc`, and `ecam` in [board] says {board:#x}: \
                 write `ecam = \"none\"`, which reaches it by ports"
            ),
            Self::Window(board, machine) => write!(
                f,
                "its configuration space is at {machine:#x} (ACPI, MCFG), and `ecam` in [board] \
                 says {board:#x}: change it"
            ),
            Self::Buses(board, first, last) => write!(
                f,
                "its configuration space has the buses {first} to {last} (ACPI, MCFG), and \
                 `ecam` in [board] says 0 to {}: change `buses`",
                board.saturating_sub(1)
            ),
            Self::NoHpet(board) => write!(
                f,
                "the board has an HPET at {board:#x} ([device.hpet]), and it has {}",
                Lack::Hpet
            ),
            Self::Hpet(board, machine) => write!(
                f,
                "its HPET is at {machine:#x} (ACPI, HPET), and `memory` in [device.hpet] of the \
                 board says {board:#x}: change it"
            ),
            Self::Pit(board, machine) => write!(
                f,
                "its 8254 raises pin {machine} (ACPI, MADT), and `irq` in [device.pit] of the \
                 board says {board}: change it"
            ),
            Self::Console(board, machine) => write!(
                f,
                "its firmware's console is at port {machine:#x} (ACPI, SPCR), and `ports` in \
                 [device.com1] of the board says {board:#x}: change it"
            ),
            Self::Interrupts(first) => write!(
                f,
                "its first I/O APIC, the only one that seL4 uses, has the interrupts from \
                 {first} on (ACPI, MADT), and the board's `irq` counts from 0"
            ),
        }
    }
}

/// Where a machine's devices are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// The configuration window, or 0: configuration space is reached by ports.
    pub ecam: u64,
    /// The buses that are looked at.
    pub buses: u64,
    /// The HPET, or 0.
    pub hpet: u64,
    /// The timer's clock.
    pub clock: Clock,
    /// The I/O APIC's pin that this raises, if it sends no messages.
    pub clock_pin: u16,
    /// The serial port with the text for people.
    pub console: Console,
}

impl Places {
    /// Returns whether an object is made here that has this requirement.
    pub fn has(&self, requires: Requires) -> bool {
        match requires {
            Requires::Nothing => true,
            Requires::Hpet => self.clock == Clock::Hpet,
            Requires::Pit => self.clock == Clock::Pit,
            Requires::ConfigPorts => self.configuration() == Configuration::Ports,
        }
    }

    /// Returns how configuration space is reached.
    pub const fn configuration(&self) -> Configuration {
        match self.ecam {
            0 => Configuration::Ports,
            _ => Configuration::Window,
        }
    }

    /// Returns the page of a function's configuration space, if there is a window for it.
    pub fn config_page(&self, function: Bdf) -> Option<u64> {
        let offset = u64::from(function.requester_id()) << 12;
        (self.configuration() == Configuration::Window).then(|| self.ecam + offset)
    }

    /// Returns whether it takes a look at the HPET to know whether that is the clock, by a pin
    /// of its own choice.
    pub fn needs_look(&self, stated: &Stated) -> bool {
        self.hpet != 0 && stated.hpet_pin == Some(PIN_BY_MACHINE)
    }

    /// Decides which clock the timer has. `timer` is what the HPET says of itself, if that was
    /// looked at; the bits of `taken` are pins that functions raise.
    ///
    /// # Errors
    /// See [`Unfit`].
    pub fn choose_clock(
        &mut self,
        stated: &Stated,
        machine: Option<&Description>,
        timer: Option<HpetTimer>,
        taken: u32,
    ) -> Result<(), Unfit> {
        let own_pin = timer.and_then(|timer| timer.pin(taken));
        let hpet = (self.hpet != 0).then_some(stated.hpet_pin);
        let hpet_pin = match hpet {
            Some(Some(PIN_BY_MACHINE)) => own_pin,
            // Whether that can be, the component finds out.
            Some(stated) => Some(stated.unwrap_or(0)),
            None => None,
        };
        (self.clock, self.clock_pin) = match (hpet_pin, stated.pit) {
            (Some(pin), _) => (Clock::Hpet, pin),
            (None, Some(pin)) => (Clock::Pit, pit_pin(pin, machine)?),
            (None, None) if hpet.is_some() => return Err(Unfit::Lacks(Lack::HpetPin)),
            // Nobody has a clock.
            (None, None) => (Clock::Hpet, 0),
        };
        Ok(())
    }
}

/// Returns the 8254's pin, by what the board says and what the tables do.
fn pit_pin(stated: u16, machine: Option<&Description>) -> Result<u16, Unfit> {
    let said = machine.and_then(|machine| machine.pit);
    match said {
        None if stated == PIN_BY_MACHINE => Err(Unfit::Lacks(Lack::PitPin)),
        None => Ok(stated),
        Some(pin) if pin == u32::from(stated) => Ok(stated),
        Some(pin) if stated != PIN_BY_MACHINE => Err(Unfit::Differs(Difference::Pit(stated, pin))),
        Some(pin) => u16::try_from(pin)
            .ok()
            .filter(|pin| *pin < PINS)
            .ok_or(Unfit::Lacks(Lack::PitPin)),
    }
}

/// Pins of an I/O APIC that every one has.
const PINS: u16 = 24;

/// Why a system cannot run on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// The board leaves a place to the tables, and they name none.
    Lacks(Lack),
    /// The board says another place.
    Differs(Difference),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lacks(lack) => write!(f, "this machine has {lack}"),
            Self::Differs(difference) => write!(f, "{difference}"),
        }
    }
}

/// Returns where the devices are, of which the clock is still to be chosen: as the board says
/// if the tables, which may be missing, say nothing else, and as they say where it leaves that
/// to them.
///
/// # Errors
/// See [`Unfit`].
pub fn settle(stated: &Stated, machine: Option<&Description>) -> Result<Places, Unfit> {
    let tables = || machine.ok_or(Unfit::Lacks(Lack::Tables));
    let (ecam, buses) = match stated.ecam {
        None => (0, 0),
        Some((BY_TABLES, buses)) => match tables()?.window {
            None => (0, buses),
            Some(window) if window.first != 0 => {
                return Err(Unfit::Lacks(Lack::Buses(window.first)));
            }
            Some(window) => (window.base, u64::from(window.last) + 1),
        },
        Some(said) => said,
    };
    let hpet = match stated.hpet {
        // Without one there may be the other clock.
        BY_TABLES if stated.pit.is_some() => tables()?.hpet.unwrap_or(0),
        BY_TABLES => tables()?.hpet.ok_or(Unfit::Lacks(Lack::Hpet))?,
        said => said,
    };
    match machine.and_then(|machine| difference(stated, machine)) {
        Some(difference) => Err(Unfit::Differs(difference)),
        None => Ok(Places {
            ecam,
            buses,
            hpet,
            console: console(stated, machine),
            ..Places::default()
        }),
    }
}

/// Returns the serial port with the text for people: the one with the firmware's console, if
/// the board leaves that to the tables and they name one of its ports, else COM1.
fn console(stated: &Stated, machine: Option<&Description>) -> Console {
    let said = machine.and_then(|machine| machine.console);
    match said.filter(|said| stated.open_console && *said == stated.serial[1]) {
        Some(_) => Console::Com2,
        None => Console::Com1,
    }
}

/// Returns the first difference between what the board says and what the tables do. What a
/// machine need not say is no difference.
fn difference(stated: &Stated, machine: &Description) -> Option<Difference> {
    let window = stated
        .ecam
        .filter(|(base, _)| ![0, BY_TABLES].contains(base));
    if let Some((base, buses)) = window {
        let Some(window) = machine.window else {
            return Some(Difference::NoWindow(base));
        };
        if window.base != base {
            return Some(Difference::Window(base, window.base));
        }
        if window.first != 0 || u64::from(window.last) + 1 < buses {
            return Some(Difference::Buses(buses, window.first, window.last));
        }
    }
    match machine.hpet {
        _ if stated.hpet == 0 || stated.hpet == BY_TABLES => {}
        None => return Some(Difference::NoHpet(stated.hpet)),
        Some(hpet) if hpet != stated.hpet => return Some(Difference::Hpet(stated.hpet, hpet)),
        Some(_) => {}
    }
    // A board's file can name that port, for either of the two. One that leaves the console to
    // the tables is for machines that it does not know: there it stays at COM1.
    if let Some(console) = machine.console
        && !stated.open_console
        && !stated.serial.contains(&console)
    {
        return Some(Difference::Console(stated.serial[0], console));
    }
    let first = machine.interrupts.filter(|first| *first != 0);
    first.map(Difference::Interrupts)
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::string::ToString as _;

    use acpi_tables::Window;

    const BOARD: Stated = Stated {
        ecam: Some((0xb000_0000, 256)),
        hpet: 0xfed0_0000,
        hpet_pin: Some(22),
        pit: None,
        serial: [0x3f8, 0x2f8],
        open_console: false,
    };

    /// QEMU's q35, which has no SPCR.
    fn q35() -> Description {
        Description {
            window: Some(Window {
                base: 0xb000_0000,
                first: 0,
                last: 255,
            }),
            hpet: Some(0xfed0_0000),
            console: None,
            interrupts: Some(0),
            pit: Some(2),
        }
    }

    #[test]
    fn the_board_s_own_machine_has_no_difference() {
        assert_eq!(difference(&BOARD, &q35()), None);
        // The firmware's console may be either port.
        for console in [0x3f8, 0x2f8] {
            let machine = Description {
                console: Some(console),
                ..q35()
            };
            assert_eq!(difference(&BOARD, &machine), None);
        }
        // Fewer buses than there are.
        let few = Stated {
            ecam: Some((0xb000_0000, 16)),
            ..BOARD
        };
        assert_eq!(difference(&few, &q35()), None);
    }

    /// A board that leaves everything to the tables.
    const OPEN: Stated = Stated {
        ecam: Some((BY_TABLES, 256)),
        hpet: BY_TABLES,
        ..BOARD
    };

    #[test]
    fn the_console_is_the_firmware_s_where_the_board_says_so() {
        let open = Stated {
            open_console: true,
            ..BOARD
        };
        // One that is elsewhere ends no boot: no file can be changed for each machine.
        for (said, console) in [
            (None, Console::Com1),
            (Some(0x3f8), Console::Com1),
            (Some(0x2f8), Console::Com2),
            (Some(0x3e8), Console::Com1),
            (Some(u64::MAX), Console::Com1),
        ] {
            let machine = Description {
                console: said,
                ..q35()
            };
            let settled = |stated| settle(stated, Some(&machine)).map(|places| places.console);
            assert_eq!(settled(&open), Ok(console), "{said:x?}");
            if said.is_some_and(|port| BOARD.serial.contains(&port)) {
                assert_eq!(settled(&BOARD), Ok(Console::Com1), "{said:x?}");
            }
        }
        assert_eq!(
            settle(&open, None).map(|places| places.console),
            Ok(Console::Com1)
        );
    }

    #[test]
    fn what_the_board_leaves_open_the_tables_say() {
        let other = Description {
            window: Some(Window {
                base: 0xe000_0000,
                first: 0,
                last: 63,
            }),
            hpet: Some(0xfed4_0000),
            ..q35()
        };
        let places = Places {
            ecam: 0xe000_0000,
            buses: 64,
            hpet: 0xfed4_0000,
            ..Places::default()
        };
        assert_eq!(settle(&OPEN, Some(&other)), Ok(places));
        let usual = Places {
            ecam: 0xb000_0000,
            buses: 256,
            hpet: 0xfed0_0000,
            ..Places::default()
        };
        for stated in [OPEN, BOARD] {
            assert_eq!(settle(&stated, Some(&q35())), Ok(usual));
        }
        // What it says itself, it has to say rightly; without tables nobody can tell.
        assert_eq!(settle(&BOARD, None), Ok(usual));
        let wrong = Difference::Window(0xb000_0000, 0xe000_0000);
        assert_eq!(settle(&BOARD, Some(&other)), Err(Unfit::Differs(wrong)));
        let console = Description {
            console: Some(0x3e8),
            ..other
        };
        let wrong = Difference::Console(0x3f8, 0x3e8);
        assert_eq!(settle(&OPEN, Some(&console)), Err(Unfit::Differs(wrong)));
    }

    #[test]
    fn what_the_tables_do_not_say_is_missing() {
        let q35 = q35();
        let with_window = |window| Description { window, ..q35 };
        let of_bus_1 = q35.window.map(|window| Window { first: 1, ..window });
        for (machine, words) in [
            (None, "this machine has no ACPI tables"),
            (
                Some(with_window(of_bus_1)),
                "this machine has a window for configuration space from bus 1 on only",
            ),
            (
                Some(Description { hpet: None, ..q35 }),
                "this machine has no HPET",
            ),
        ] {
            let unfit = settle(&OPEN, machine.as_ref());
            let text = unfit.expect_err(words).to_string();
            assert!(text.starts_with(words), "{text}");
        }
        // A system that asks for neither.
        let nothing = Stated {
            ecam: None,
            hpet: 0,
            ..BOARD
        };
        assert_eq!(settle(&nothing, None), Ok(Places::default()));
        // Without a window there are the ports, also where the board says so of a machine
        // that has one.
        let ports = Stated {
            ecam: Some((0, 256)),
            ..BOARD
        };
        let hpet = BOARD.hpet;
        for (stated, machine) in [(OPEN, with_window(None)), (ports, q35)] {
            let places = settle(&stated, Some(&machine)).expect("it has what it takes");
            assert_eq!((places.ecam, places.buses, places.hpet), (0, 256, hpet));
            assert_eq!(places.configuration(), Configuration::Ports);
            let function = Bdf::new(1, 2, 3).expect("an address");
            assert_eq!(places.config_page(function), None);
            assert!(places.has(Requires::ConfigPorts));
        }
        let places = settle(&BOARD, Some(&q35)).expect("its own machine");
        let function = Bdf::new(1, 2, 3).expect("an address");
        assert_eq!(places.config_page(function), Some(0xb011_3000));
        assert!(!places.has(Requires::ConfigPorts));
    }

    /// A board that leaves the clock to the machine.
    const ANY_CLOCK: Stated = Stated {
        hpet_pin: Some(PIN_BY_MACHINE),
        pit: Some(PIN_BY_MACHINE),
        ..OPEN
    };
    /// Timer 0 of an HPET that raises pins 2, 8 and 16 to 23, and sends messages.
    const TIMER: HpetTimer = HpetTimer(0x00ff_0104_0000_8030);

    /// Returns the clock and its pin.
    fn clock(
        stated: &Stated,
        machine: &Description,
        timer: Option<HpetTimer>,
    ) -> Result<(Clock, u16), Unfit> {
        let mut places = settle(stated, Some(machine))?;
        places.choose_clock(stated, Some(machine), timer, 1 << 22)?;
        Ok((places.clock, places.clock_pin))
    }

    #[test]
    fn the_clock_is_the_hpet_where_it_raises_a_pin_and_else_the_8254() {
        let q35 = q35();
        let off = Description { hpet: None, ..q35 };
        // 22 is a function's.
        assert_eq!(clock(&ANY_CLOCK, &q35, Some(TIMER)), Ok((Clock::Hpet, 23)));
        assert!(
            settle(&ANY_CLOCK, Some(&q35))
                .unwrap()
                .needs_look(&ANY_CLOCK)
        );
        let only_2 = Some(HpetTimer(0x0000_0004_0000_0030));
        for (machine, timer) in [(&q35, only_2), (&q35, None), (&off, None)] {
            assert_eq!(clock(&ANY_CLOCK, machine, timer), Ok((Clock::Pit, 2)));
        }
        assert!(
            !settle(&ANY_CLOCK, Some(&off))
                .unwrap()
                .needs_look(&ANY_CLOCK)
        );
        // The pin that the board names, or a message: no look is needed.
        for (hpet_pin, pin) in [(Some(20), 20), (None, 0)] {
            let stated = Stated {
                hpet_pin,
                ..ANY_CLOCK
            };
            assert_eq!(clock(&stated, &q35, None), Ok((Clock::Hpet, pin)));
            assert!(!settle(&stated, Some(&q35)).unwrap().needs_look(&stated));
        }
    }

    #[test]
    fn a_clock_that_is_not_to_be_had_is_named() {
        let machine = Description {
            hpet: None,
            ..q35()
        };
        let pit = |stated, said| {
            let board = Stated {
                hpet: 0,
                pit: Some(stated),
                ..BOARD
            };
            clock(
                &board,
                &Description {
                    pit: said,
                    ..machine
                },
                None,
            )
        };
        assert_eq!(pit(2, Some(2)), Ok((Clock::Pit, 2)));
        assert_eq!(pit(2, None), Ok((Clock::Pit, 2)));
        assert_eq!(pit(PIN_BY_MACHINE, Some(0)), Ok((Clock::Pit, 0)));
        let differs = Difference::Pit(0, 2);
        assert_eq!(pit(0, Some(2)), Err(Unfit::Differs(differs)));
        let text = differs.to_string();
        assert!(
            text.contains("pin 2 (ACPI, MADT)") && text.contains("says 0"),
            "{text}"
        );
        for said in [None, Some(24), Some(65_536), Some(u32::MAX)] {
            let lacks = Err(Unfit::Lacks(Lack::PitPin));
            assert_eq!(pit(PIN_BY_MACHINE, said), lacks, "{said:?}");
        }
        let no_other = Stated {
            pit: None,
            ..ANY_CLOCK
        };
        let lacks = Err(Unfit::Lacks(Lack::HpetPin));
        assert_eq!(clock(&no_other, &q35(), None), lacks);
        let nobody = Stated { hpet: 0, ..BOARD };
        assert_eq!(clock(&nobody, &machine, None), Ok((Clock::Hpet, 0)));
    }

    #[test]
    fn what_nobody_uses_may_be_missing() {
        let nothing = Stated {
            ecam: None,
            hpet: 0,
            ..BOARD
        };
        assert_eq!(difference(&nothing, &Description::default()), None);
    }

    #[test]
    fn each_difference_names_both_values_and_the_key() {
        let window = |base, first, last| Description {
            window: Some(Window { base, first, last }),
            ..q35()
        };
        let cases = [
            (
                window(0xe000_0000, 0, 255),
                ["0xe0000000", "0xb0000000", "`ecam`"],
            ),
            (
                window(0xb000_0000, 0, 63),
                ["0 to 63", "0 to 255", "`buses`"],
            ),
            (
                window(0xb000_0000, 1, 255),
                ["1 to 255", "0 to 255", "`buses`"],
            ),
            (
                Description {
                    window: None,
                    ..q35()
                },
                ["MCFG", "`pc`", "`ecam = \"none\"`"],
            ),
            (
                Description {
                    hpet: None,
                    ..q35()
                },
                ["no HPET", "0xfed00000", "hpet=on"],
            ),
            (
                Description {
                    hpet: Some(0xfed8_0000),
                    ..q35()
                },
                ["0xfed80000", "0xfed00000", "`memory` in [device.hpet]"],
            ),
            (
                Description {
                    console: Some(0x3e8),
                    ..q35()
                },
                ["0x3e8", "0x3f8", "`ports` in [device.com1]"],
            ),
            (
                Description {
                    interrupts: Some(24),
                    ..q35()
                },
                ["24", "MADT", "`irq`"],
            ),
        ];
        for (machine, words) in cases {
            let text = difference(&BOARD, &machine).unwrap().to_string();
            for word in words {
                assert!(text.contains(word), "no `{word}` in: {text}");
            }
        }
    }
}
