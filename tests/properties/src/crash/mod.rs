//! pci-config, msix and irq-router, each killed at every step of everything that
//! a guest can have it do: at every store into memory that it keeps, every write
//! to a device, every operation of the kernel, every call, and when all is done
//! but no component is told; and iommu at every entry that it writes for irq-router (its
//! own tests are in components/iommu). The next life and the client's second try must end where
//! a run without a crash ends.

mod device;
mod kernel;
mod system;
mod world;

use pci::Width;
use pci::Width::{Byte, Dword, Qword, Word};

use device::{MSI, MSIX, PCIE};
use system::{Ground, Op, Settled, System};
use world::Component;

const VICTIMS: [Component; 4] = [
    Component::Irq,
    Component::Msix,
    Component::Config,
    Component::Iommu,
];
const COMMAND: u16 = 0x04;
const BAR: u16 = 0x10;
const LINE: u16 = 0x3c;
const MSIX_CONTROL: u16 = MSIX + 2;
const MSI_CONTROL: u16 = MSI + 2;
const ENABLE: u32 = 0x8000;
const FUNCTION_MASK: u32 = 0x4000;
const APIC: u32 = 0xfee0_0000;

const fn config(offset: u16, width: Width, value: u32) -> Op {
    Op::Config(0, offset, width, value)
}

const fn control(value: u32) -> Op {
    config(MSIX_CONTROL, Word, value)
}

const fn address(entry: u32, value: u64) -> Op {
    Op::Table(0, entry, 0, Qword, value)
}

const fn data(entry: u32, value: u64) -> Op {
    Op::Table(0, entry, 8, Dword, value)
}

const fn mask(entry: u32, masked: bool) -> Op {
    Op::Table(0, entry, 12, Dword, masked as u64)
}

/// The other guest's function, which is to notice nothing.
const OTHER: &[Op] = &[
    Op::Config(1, COMMAND, Word, 0x0006),
    Op::Table(1, 0, 0, Qword, APIC as u64),
    Op::Table(1, 0, 8, Qword, 0x61),
    Op::Table(1, 2, 0, Qword, APIC as u64),
    Op::Table(1, 2, 8, Qword, 0x62),
    Op::Config(1, MSIX_CONTROL, Word, ENABLE),
    Op::Table(1, 2, 12, Dword, 1),
];

/// Command, BAR, interrupt line.
const HEADER: &[Op] = &[
    config(COMMAND, Word, 0x0000),
    config(BAR, Dword, 0xd000_0000),
    config(LINE, Byte, 0x77),
    config(COMMAND, Word, 0x0406),
    config(BAR, Dword, 0xe000_0000),
    // Two registers in one write: command and status.
    config(COMMAND, Dword, 0x0000_0006),
];

/// Everything that happens to entries.
const TABLE: &[Op] = &[
    config(COMMAND, Word, 0x0006),
    address(0, APIC as u64),
    data(0, 0x31),
    mask(0, false),
    address(1, 0xfee0_1000),
    data(1, 0x32),
    address(2, APIC as u64),
    // No local APIC takes this one.
    data(2, 0x0f),
    mask(2, false),
    control(ENABLE | FUNCTION_MASK),
    control(ENABLE),
    mask(1, false),
    // Masked and unmasked in place.
    mask(1, true),
    mask(1, false),
    // Written while masked: bound anew.
    mask(0, true),
    data(0, 0x41),
    mask(0, false),
    // Written while live: nothing, until a cycle (M10).
    data(1, 0x42),
    Op::Table(0, 1, 4, Dword, 0),
    mask(1, true),
    mask(1, false),
    // Data and vector control in one.
    Op::Table(0, 0, 8, Qword, 0x1_0000_0051),
    Op::Table(0, 0, 8, Qword, 0x52),
    data(0, 0x53),
    Op::Throttle(0, 0, true),
    mask(0, true),
    mask(0, false),
    Op::Throttle(0, 0, false),
    Op::Throttle(0, 1, true),
    control(ENABLE | FUNCTION_MASK),
    data(1, 0x43),
    mask(1, true),
    mask(1, false),
    control(ENABLE),
    Op::Throttle(0, 1, false),
    // The bad message becomes a good one.
    mask(2, true),
    data(2, 0x33),
    mask(2, false),
    control(0),
    mask(1, true),
    control(ENABLE),
    mask(1, false),
    config(COMMAND, Word, 0x0002),
];

/// Plain MSI, with MSI-X beside it.
const MESSAGES: &[Op] = &[
    config(COMMAND, Word, 0x0006),
    config(MSI + 4, Dword, APIC),
    config(MSI + 8, Dword, 0),
    config(MSI + 12, Word, 0x44),
    config(MSI_CONTROL, Word, 0x0021),
    config(MSI + 12, Word, 0x48),
    config(MSI + 16, Dword, 5),
    config(MSI + 16, Dword, 1),
    // Goes nowhere, and back.
    config(MSI + 8, Dword, 1),
    config(MSI + 8, Dword, 0),
    // Fewer messages.
    config(MSI_CONTROL, Word, 0x0011),
    // MSI-X must wait (P3).
    control(ENABLE),
    // Id, link and control in one.
    config(MSI, Dword, 0),
    control(ENABLE),
    config(MSI_CONTROL, Word, 1),
    control(0),
    config(MSI_CONTROL, Word, 1),
    config(MSI_CONTROL, Word, 0x0021),
];

/// Everything back to start, from the states above.
const RESETS: &[Op] = &[
    Op::Reset(0),
    config(COMMAND, Word, 0x0006),
    address(3, APIC as u64),
    Op::Table(0, 3, 8, Qword, 0x36),
    address(0, APIC as u64),
    Op::Table(0, 0, 8, Qword, 0x1_0000_0037),
    control(ENABLE),
    config(PCIE + 8, Word, 0xa810),
    config(COMMAND, Word, 0x0006),
    config(MSI + 4, Dword, APIC),
    config(MSI + 12, Word, 0x44),
    config(MSI_CONTROL, Word, 0x0021),
    config(PCIE + 8, Word, 0xa810),
    Op::Reset(0),
];

/// Plays `before`, and then each of `ops`.
fn boot(ground: &'static Ground, before: &[Op]) -> System {
    let system = System::new(ground, |_| {});
    for &op in OTHER.iter().chain(before) {
        system.play(op);
    }
    system
}

/// Returns the state after `op`. A write of data and vector control in one that
/// is made twice marks an entry as written that was just bound: it will be
/// bound once more than it need be, without an effect.
fn settled(system: &System, op: Op) -> Settled {
    match op {
        Op::Table(_, _, 8, Qword, _) => system.settled().without_marks(),
        _ => system.settled(),
    }
}

/// Kills every victim at every step of each of `ops`, `then` in the next life at
/// each of these steps, and compares.
fn kill_everywhere(before: &[Op], ops: &[Op], then: &[&[usize]]) {
    let ground = Ground::new();
    let mut deaths = 0;
    for at in 0..ops.len() {
        // The outcome, and the number of steps, without a crash.
        let system = boot(ground, before);
        ops[..at].iter().for_each(|&op| system.play(op));
        let handlers_before = system.handlers();
        let steps = VICTIMS.map(|victim| system.world.steps(victim));
        system.world.forbidden.borrow_mut().clear();
        system.play(ops[at]);
        let forbidden = system.world.forbidden.take();
        let steps = [0, 1, 2, 3].map(|v| system.world.steps(VICTIMS[v]) - steps[v]);
        system.check();
        let expected = settled(&system, ops[at]);
        let handlers = system.handlers();
        // Those that were bound all the time.
        let untouched = handlers
            .iter()
            .filter(|pair| handlers_before.contains(pair))
            .filter(|(_, handler)| !forbidden.contains(&handler.birth));
        let untouched: Vec<_> = untouched.collect();
        ops[at + 1..].iter().for_each(|&op| system.play(op));
        system.check();
        let end = system.settled();

        for (victim, steps) in VICTIMS.into_iter().zip(steps) {
            for (step, again) in (0..steps).flat_map(|step| then.iter().map(move |a| (step, a))) {
                let system = boot(ground, before);
                ops[..at].iter().for_each(|&op| system.play(op));
                let all = [&[step], *again].concat();
                system.world.arm(victim, &all);
                system.play(ops[at]);
                let died = system.world.disarm();
                assert!(died || !again.is_empty(), "{victim:?} did not die");
                deaths += 1;
                let context = format!("{victim:?} died at {all:?} of {at}: {:x?}", ops[at]);
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    system.check();
                    settled(&system, ops[at]).assert_is(&expected);
                    // A handler that was not released is still the same.
                    let now = system.handlers();
                    for pair in &untouched {
                        assert!(now.contains(pair), "{pair:x?} was made again");
                    }
                    ops[at + 1..].iter().for_each(|&op| system.play(op));
                    system.check();
                    system.settled().assert_is(&end);
                }))
                .unwrap_or_else(|why| {
                    eprintln!("{context}");
                    std::panic::resume_unwind(why)
                });
            }
        }
    }
    assert!(deaths > ops.len(), "{deaths} deaths are hardly all");
}

#[test]
fn a_crash_in_a_write_to_the_header() {
    kill_everywhere(&[], HEADER, &[&[]]);
}

#[test]
fn a_crash_in_a_write_to_table_or_control() {
    kill_everywhere(&[], TABLE, &[&[]]);
}

#[test]
fn a_crash_in_a_write_to_messages() {
    kill_everywhere(&[], MESSAGES, &[&[]]);
}

#[test]
fn a_crash_in_a_reset() {
    kill_everywhere(&TABLE[..TABLE.len() - 1], RESETS, &[&[]]);
    kill_everywhere(MESSAGES, RESETS, &[&[]]);
}

/// The next life dies as well, soon or later in taking over.
#[test]
fn a_crash_in_taking_over_from_a_crash() {
    let then: &[&[usize]] = &[&[0], &[1], &[2, 3], &[5], &[8], &[13], &[21], &[34], &[55]];
    kill_everywhere(&[], &TABLE[..20], then);
    kill_everywhere(&[], MESSAGES, then);
    kill_everywhere(&TABLE[..16], &RESETS[..8], then);
}

/// The client does not try again: then what was kept must do by itself. (Without
/// the messages that go nowhere, which no dump shows.)
#[test]
fn a_crash_that_is_not_made_up_for() {
    let ground = Ground::new();
    for ops in [HEADER, TABLE, &MESSAGES[..8], RESETS] {
        for (at, op) in ops.iter().enumerate() {
            for victim in VICTIMS {
                for step in 0.. {
                    let system = boot(ground, &[]);
                    ops[..at].iter().for_each(|&op| system.play(op));
                    system.world.arm(victim, &[step]);
                    system.world.impatient.set(true);
                    system.play(*op);
                    if !system.world.disarm() {
                        break;
                    }
                    match (victim, op) {
                        // A server's own client cannot know what it did.
                        (Component::Irq | Component::Iommu, _)
                        | (Component::Msix, Op::Config(..) | Op::Reset(_)) => {
                            system.check_kernel(0);
                        }
                        _ => system.check(),
                    }
                }
            }
        }
    }
}

/// At boot there is nothing to take over yet, or half of it.
#[test]
fn a_crash_at_boot() {
    let ground = Ground::new();
    let system = System::new(ground, |_| {});
    let steps = VICTIMS.map(|victim| system.world.steps(victim));
    system.check();
    let expected = system.settled();
    for (victim, steps) in VICTIMS.into_iter().zip(steps) {
        for step in 0..steps {
            let system = System::new(ground, |world| world.arm(victim, &[step]));
            assert!(system.world.disarm(), "{victim:?} did not die at {step}");
            system.check();
            system.settled().assert_is(&expected);
        }
    }
}

/// A component dies although none calls it.
#[test]
fn a_crash_between_two_accesses() {
    let ground = Ground::new();
    for ops in [HEADER, TABLE, MESSAGES, RESETS] {
        let system = boot(ground, &[]);
        for &op in ops {
            system.play(op);
            let (expected, handlers) = (system.settled(), system.handlers());
            for victim in VICTIMS {
                system.crash(victim);
                system.check();
                system.settled().assert_is(&expected);
                assert_eq!(system.handlers(), handlers, "{victim:?} after {op:x?}");
            }
        }
    }
}
