//! The measurement of a device behind an IOMMU that confines it, or does not.

extern crate std;

use std::ops::Range;
use std::string::ToString;

use dma_probe::fake::{Device, FROM_NVM, Fake};
use dma_probe::{Engine, MEMORY_SIZE};

use super::*;

/// The guest's memory: the engine's, and behind it the place that it copies to.
const OWN: u64 = 0x4000_0000;
const ALLOWED: u64 = OWN + MEMORY_SIZE as u64;
const GUEST: Range<u64> = OWN..OWN + 2 * MEMORY_SIZE as u64;
/// Memory that is not the guest's.
const CANARY: u64 = 0x8000_0000;
/// Not 0, so that it is seen if the measurement forgets to ask for it.
const VECTOR: u8 = 3;
/// The addresses of messages (SDM vol. 3 section 11.11.1).
const MESSAGES: Range<u64> = 0xfee0_0000..0xfef0_0000;

/// All but the guest's memory; messages are for themselves.
const OTHERS: [Range<u64>; 3] = [
    0..GUEST.start,
    GUEST.end..MESSAGES.start,
    MESSAGES.end..u64::MAX,
];

/// The CPU's side.
struct Cpu(Fake);

impl Cpu {
    fn load(&self, from: u64, bytes: &mut [u8; WATCHED]) {
        bytes.copy_from_slice(&self.0.device().load(from, WATCHED as u64));
    }
}

impl Surroundings for Cpu {
    fn let_it_master(&mut self) {
        let mut device = self.0.device();
        assert!(!device.armed, "it knows what it was told before its reset");
        device.mastering = true;
    }
    fn read_canary(&mut self, bytes: &mut [u8; WATCHED]) {
        self.load(CANARY, bytes);
    }
    fn write_canary(&mut self, bytes: &[u8; WATCHED]) {
        self.0.device().store(CANARY, bytes);
    }
    fn canary(&self) -> u64 {
        CANARY
    }
    fn allowed(&self) -> u64 {
        ALLOWED
    }
    fn read_allowed(&mut self, bytes: &mut [u8; WATCHED]) {
        self.load(ALLOWED, bytes);
    }
    fn write_allowed(&mut self, bytes: &[u8; WATCHED]) {
        self.0.device().store(ALLOWED, bytes);
    }
    fn interrupted(&mut self) -> bool {
        let mut device = self.0.device();
        let came = device.load(MESSAGES.start, 4) == message();
        device.store(MESSAGES.start, &[0; 4]);
        came
    }
    fn vector(&self) -> u8 {
        VECTOR
    }
}

/// Returns the message of user vector [`VECTOR`], which is CPU vector 0x33.
fn message() -> [u8; 4] {
    [0x33, 0, 0, 0]
}

/// Measures a device that `set_up` puts behind an IOMMU.
fn measured(set_up: impl FnOnce(&mut Device)) -> (Result<Verdict, Stuck>, Fake) {
    let fake = Fake::new(OWN);
    fake.device().mastering = false;
    fake.device().armed = true;
    set_up(&mut fake.device());
    let mut cpu = Cpu(fake.clone());
    let mut engine = Engine::unknown(fake.clone(), fake.clone(), OWN);
    (measure(&mut engine, &mut cpu), fake)
}

fn verdict(set_up: impl FnOnce(&mut Device)) -> Result<Verdict, Stuck> {
    measured(set_up).0
}

fn block_memory(device: &mut Device) {
    device.unreadable.extend(OTHERS);
    device.unwritable.extend(OTHERS);
}

fn block_messages(device: &mut Device) {
    device.unwritable.push(MESSAGES);
}

const fn found(memory: Answer, interrupts: Answer) -> Result<Verdict, Stuck> {
    Ok(Verdict { memory, interrupts })
}

use Answer::{Confined, Open};

#[test]
fn an_iommu_that_does_all_its_work() {
    let verdict = verdict(|device| {
        block_memory(device);
        block_messages(device);
    });
    assert_eq!(verdict, found(Confined, Confined));
    assert!(verdict.unwrap().confined());
}

#[test]
fn no_iommu() {
    assert_eq!(verdict(|_| {}), found(Open, Open));
}

#[test]
fn one_of_the_two_is_not_enough() {
    let memory_only = verdict(block_memory);
    assert_eq!(memory_only, found(Confined, Open));
    let messages_only = verdict(block_messages);
    assert_eq!(messages_only, found(Open, Confined));
    for half in [memory_only, messages_only] {
        assert!(!half.unwrap().confined());
    }
}

#[test]
fn reading_alone_is_reaching() {
    let verdict = verdict(|device| {
        device.unwritable.extend(OTHERS);
        block_messages(device);
    });
    assert_eq!(verdict, found(Open, Confined));
}

#[test]
fn writing_alone_is_reaching() {
    let blind = |answer| {
        verdict(|device| {
            device.unreadable.extend(OTHERS);
            device.answer = answer;
            block_messages(device);
        })
    };
    assert_eq!(blind(None), found(Open, Confined));
    assert_eq!(blind(Some(0xff)), found(Open, Confined));
}

/// One byte that gets through is as bad as all.
#[test]
fn writing_a_part_is_reaching() {
    for byte in [0, WATCHED as u64 - 1] {
        let open = CANARY + byte;
        let verdict = verdict(|device| {
            device.unreadable.extend(OTHERS);
            device.unwritable.extend([0..GUEST.start, GUEST.end..open]);
            device.unwritable.push(open + 1..u64::MAX);
        });
        assert_eq!(verdict, found(Open, Confined), "byte {byte}");
    }
}

/// A unit may answer a read that it blocks with anything, and the device sees
/// nothing of it.
#[test]
fn a_read_that_gives_something_else_is_blocked() {
    for answer in [0x00, 0xff, 0xa5] {
        let verdict = verdict(|device| {
            block_memory(device);
            block_messages(device);
            device.answer = Some(answer);
        });
        assert_eq!(verdict, found(Confined, Confined), "{answer:#x}");
    }
}

#[test]
fn an_interrupt_from_before_is_not_the_devices() {
    let verdict = verdict(|device| {
        block_memory(device);
        block_messages(device);
        device.store(MESSAGES.start, &message());
    });
    assert_eq!(verdict, found(Confined, Confined));
}

/// Without a copy that arrives where it may, one that does not arrive elsewhere
/// says nothing.
#[test]
fn a_device_that_never_copies_is_not_confined() {
    // Its rings cannot be read.
    let stuck = verdict(|device| device.unreadable.push(0..u64::MAX));
    assert_eq!(stuck, Err(Stuck::Send));
    // It cannot say that it is done.
    let stuck = verdict(|device| device.unwritable.push(0..u64::MAX));
    assert_eq!(stuck, Err(Stuck::Send));
    // It says that it is done, and nothing came.
    let stuck = verdict(|device| {
        block_memory(device);
        block_messages(device);
        device.unwritable.push(ALLOWED..GUEST.end);
    });
    assert_eq!(stuck, Err(Stuck::Order));
    // The network never rests, so that its frames are lost.
    let stuck = verdict(|device| device.strangers.resize(1 << 16, 90));
    assert_eq!(stuck, Err(Stuck::Receive));
}

#[test]
fn a_device_whose_reset_hangs_is_not_confined() {
    for good_resets in [0, 1] {
        let stuck = verdict(|device| {
            block_memory(device);
            block_messages(device);
            device.good_resets = Some(good_resets);
        });
        assert_eq!(stuck, Err(Stuck::Reset), "after {good_resets}");
    }
}

#[test]
fn the_device_is_silent_afterwards() {
    // Reset once before, and once after, however it went.
    for broken in [false, true] {
        let (result, fake) = measured(|device| {
            device.good_resets = Some(2);
            if broken {
                device.unwritable.push(ALLOWED..GUEST.end);
            }
        });
        assert_eq!(result.is_err(), broken);
        // Control, both rings' addresses: as after the reset.
        assert_eq!(fake.device().register(0x0000), FROM_NVM);
        for register in [0x0100, 0x0400, 0x2800, 0x3800] {
            assert_eq!(fake.device().register(register), 0, "{register:#x}");
        }
    }
}

#[test]
fn what_a_verdict_says() {
    let verdict = |memory, interrupts| Verdict { memory, interrupts };
    for (verdict, text) in [
        (
            verdict(Confined, Confined),
            "reaches its guest's memory only, raises its own interrupts only (measured)",
        ),
        (
            verdict(Open, Open),
            "reaches all memory, raises any interrupt (measured)",
        ),
        (
            verdict(Confined, Answer::Unknown),
            "reaches its guest's memory only (measured), may raise any interrupt (not measured)",
        ),
        (
            Verdict::UNKNOWN,
            "may reach all memory, may raise any interrupt (not measured)",
        ),
    ] {
        assert_eq!(verdict.to_string(), text);
        assert_eq!(verdict.confined(), text.contains("only, raises its own"));
    }
}

/// The wire is not silent meanwhile: most of its short frames have the least length.
#[test]
fn frames_of_the_network_change_nothing() {
    for before in [1, 2, 3] {
        let (confined, _) = measured(|device| {
            device.strangers = std::vec![60; before];
            device.unwritable = OTHERS.to_vec();
            device.unwritable.push(MESSAGES);
            device.unreadable = device.unwritable.clone();
        });
        let verdict = Verdict {
            memory: Answer::Confined,
            interrupts: Answer::Confined,
        };
        assert_eq!(confined, Ok(verdict));
        let (open, _) = measured(|device| device.strangers = std::vec![60; before]);
        let verdict = Verdict {
            memory: Answer::Open,
            interrupts: Answer::Open,
        };
        assert_eq!(open, Ok(verdict));
    }
}

#[test]
fn one_that_passes_the_iommu_by_is_told_what_to_do() {
    let text = Unmeasured::PastTheUnit.to_string();
    for words in [
        "VIRTIO_F_ACCESS_PLATFORM",
        "iommu_platform=on",
        "`iommu = \"none\"` in [board]",
    ] {
        assert!(text.contains(words), "{text}");
    }
    let stuck = Unmeasured::from(Stuck::Reset).to_string();
    assert_eq!(stuck, "its reset does not end");
}

/// A function that writes anywhere, and whose reads may show nothing.
struct Blind {
    bus: Fake,
    reads: bool,
}

impl Probe for Blind {
    const MEMORY: usize = MEMORY_SIZE;
    fn quiesce(&mut self) -> Result<(), Stuck> {
        Ok(())
    }
    fn bait(&self) -> [u8; WATCHED] {
        [1; WATCHED]
    }
    fn write(&mut self, to: u64) -> Result<(), Stuck> {
        self.bus.device().store(to, &[1]);
        Ok(())
    }
    fn reads(&mut self, _: u64) -> Result<bool, Stuck> {
        Ok(self.reads)
    }
    fn forge(&mut self, _: u32) -> Result<(), Stuck> {
        Err(Stuck::Unsupported)
    }
}

#[test]
fn what_cannot_be_tried_is_not_confined() {
    let found = |reads| {
        let bus = Fake::new(OWN);
        let mut blind = Blind {
            bus: bus.clone(),
            reads,
        };
        measure(&mut blind, &mut Cpu(bus))
    };
    // It reads nothing where it may: that it reads nothing elsewhere proves nothing.
    assert_eq!(found(false), Err(Stuck::Order));
    let verdict = found(true).unwrap();
    assert_eq!(verdict.interrupts, Answer::Unknown);
    assert!(!verdict.confined());
}
