//! I/O ports: who has which, and init's own ways to the outside world: writing text to
//! COM1, and ending the machine.
//!
//! These are for the moments when no component can: before the console runs, and when
//! a component is dead.
//!
//! A port is issued once, since the kernel issues no ranges that overlap. Init issues
//! what it needs itself at start, and copies a capability to a range that a component
//! has too.

use core::fmt;
use core::ops::RangeInclusive;
use core::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};

use pci::regs::{CONFIG_ADDRESS, CONFIG_DATA};
use sel4::cap::IoPort;
use sel4::init_thread::slot;
use spec::{COM1, Ending};

use super::fatal::fatal;
use super::own_slot;

/// Offset of the line status register, and its bit that says there is room.
const STATUS: u16 = 5;
const EMPTY: u8 = 1 << 5;
/// Offset of the scratch register.
const SCRATCH: u16 = 7;
/// Looks for room before a byte is given up, as the console has them.
const PATIENCE: u32 = 2_000_000;
/// A byte was given up, and there was no room since: the next ones are not waited for.
static STUCK: AtomicBool = AtomicBool::new(false);

/// Slots of init's CNode that [`start`] takes.
pub const SLOTS: usize = 4;

/// A range of ports that init has.
struct Range {
    first: AtomicU16,
    last: AtomicU16,
    /// 0 while it is not issued.
    slot: AtomicUsize,
}

impl Range {
    const fn new() -> Self {
        Self {
            first: AtomicU16::new(0),
            last: AtomicU16::new(0),
            slot: AtomicUsize::new(0),
        }
    }

    fn ports(&self) -> RangeInclusive<u16> {
        self.first.load(Ordering::Relaxed)..=self.last.load(Ordering::Relaxed)
    }

    fn slot(&self) -> Option<usize> {
        let slot = self.slot.load(Ordering::Relaxed);
        (slot != 0).then_some(slot)
    }

    /// Returns the capability; one to nothing if the range is not issued.
    fn cap(&self) -> IoPort {
        IoPort::from_bits(self.slot.load(Ordering::Relaxed) as u64)
    }

    fn issue(&self, ports: RangeInclusive<u16>, slot: usize) -> sel4::Result<()> {
        issue(&ports, slot)?;
        self.first.store(*ports.start(), Ordering::Relaxed);
        self.last.store(*ports.end(), Ordering::Relaxed);
        self.slot.store(slot, Ordering::Relaxed);
        Ok(())
    }
}

static COM: Range = Range::new();
static CONFIG: Range = Range::new();
static CLOCK: Range = Range::new();
static EXIT: Range = Range::new();
/// Where the exit port goes once it is known.
static EXIT_SLOT: AtomicUsize = AtomicUsize::new(0);
const OWN: [&Range; SLOTS] = [&COM, &CONFIG, &CLOCK, &EXIT];

/// Issues ports into an empty slot of init's CNode.
///
/// # Errors
/// If somebody has one of them.
pub fn issue(ports: &RangeInclusive<u16>, slot: usize) -> sel4::Result<()> {
    slot::IO_PORT_CONTROL
        .cap()
        .ioport_control_issue(*ports.start(), *ports.end(), &own_slot(slot))
}

/// The eight registers of a serial controller.
const fn serial(first: u16) -> RangeInclusive<u16> {
    first..=first + 7
}

/// Issues the ports that init needs, but for the exit port; `first` and the following
/// [`SLOTS`] of init's CNode are empty.
pub fn start(first: usize) {
    // Without it there is nothing to tell an error to.
    let _ = COM.issue(serial(COM1), first);
    let others = [
        (&CONFIG, CONFIG_ADDRESS..=CONFIG_DATA + 3),
        (&CLOCK, init::INDEX_PORT..=init::DATA_PORT),
    ];
    for ((range, ports), slot) in others.into_iter().zip(first + 1..) {
        if let Err(error) = range.issue(ports.clone(), slot) {
            fatal!("I/O ports {ports:#x?}: {error:?}");
        }
    }
    EXIT_SLOT.store(first + 3, Ordering::Relaxed);
}

/// Takes the machine's ports from the image: COM1's first, and the one that ends
/// the machine, or 0.
pub fn set(com1: u16, exit: u16) {
    set_console(com1);
    if exit != 0
        && let Err(error) = EXIT.issue(exit..=exit, EXIT_SLOT.load(Ordering::Relaxed))
    {
        fatal!("the exit port {exit:#x}: {error:?}");
    }
}

/// Moves the text to the serial port that begins here, in place of the one before.
pub fn set_console(first: u16) {
    let ports = serial(first);
    if let Some(slot) = COM.slot()
        && COM.ports() != ports
    {
        let moved = own_slot(slot).delete();
        if let Err(error) = moved.and_then(|()| COM.issue(ports, slot)) {
            fatal!("I/O ports of the console at {first:#x}: {error:?}");
        }
        STUCK.store(false, Ordering::Relaxed);
    }
}

/// Makes a capability to some of the ports, in an empty slot of init's CNode.
pub fn make(name: &str, ports: &RangeInclusive<u16>, slot: usize) {
    let same = OWN
        .iter()
        .find(|own| own.slot().is_some() && own.ports() == *ports);
    let made = match same.and_then(|own| own.slot()) {
        Some(own) => own_slot(slot).copy(&own_slot(own), sel4::CapRights::all()),
        None => issue(ports, slot),
    };
    match made {
        Ok(()) => {}
        Err(sel4::Error::RevokeFirst) => fatal!(
            "I/O ports {ports:#x?} of {name}: some of them are init's or another device's already"
        ),
        Err(error) => fatal!("I/O ports {ports:#x?} of {name}: {error:?}"),
    }
}

/// Returns whether a serial controller answers at these ports: its scratch register keeps what
/// is written there (16550 datasheet, section 8.7). They are issued into an empty slot.
pub fn answers(first: u16, slot: usize) -> bool {
    let ports = serial(first);
    let own = COM.slot().filter(|_| COM.ports() == ports);
    let cap = match own {
        Some(own) => own,
        None if issue(&ports, slot).is_ok() => slot,
        None => return false,
    };
    let cap = IoPort::from_bits(cap as u64);
    [0x5a, 0xa5].into_iter().all(|byte| {
        let written = cap.ioport_out8(first + SCRATCH, byte);
        written.and_then(|()| cap.ioport_in8(first + SCRATCH)) == Ok(byte)
    })
}

/// Returns the slots that init keeps after boot: COM1 and the exit port.
pub fn kept() -> impl Iterator<Item = usize> {
    [&COM, &EXIT].into_iter().filter_map(Range::slot)
}

/// Returns the capability to the ports of PCI's configuration mechanism #1, until init
/// drops its authority.
pub fn config() -> IoPort {
    CONFIG.cap()
}

/// Returns the Unix time, by the machine's clock chip, if it has one. To be called
/// before init drops its authority.
pub fn unix_time() -> Option<u64> {
    let ports = CLOCK.cap();
    init::unix_time(|register| {
        let chosen = ports.ioport_out8(init::INDEX_PORT, register);
        let value = chosen.and_then(|()| ports.ioport_in8(init::DATA_PORT));
        value.unwrap_or(0xff)
    })
}

/// Text for people: on COM1, or the port to which [`set_console`] moved it, and on a screen. If the console was in the
/// middle of a line, a new one begins.
pub struct Serial;

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        super::screen::write(text);
        let (ports, data) = (COM.cap(), *COM.ports().start());
        for byte in text.bytes() {
            let stuck = STUCK.load(Ordering::Relaxed);
            let looks = if stuck { 1 } else { PATIENCE };
            let room =
                (0..looks).any(|_| ports.ioport_in8(data + STATUS).unwrap_or(0) & EMPTY != 0);
            STUCK.store(!room, Ordering::Relaxed);
            // The capability covers the port, so that this cannot fail.
            let _ = ports.ioport_out8(data, byte);
        }
        Ok(())
    }
}

/// Writes the end's number to the exit port; where there is none, waits forever.
pub fn exit(ending: Ending) -> ! {
    if EXIT.slot().is_some() {
        let _ = EXIT.cap().ioport_out8(*EXIT.ports().start(), ending as u8);
    }
    loop {
        sel4::r#yield();
    }
}
