//! The drivers against a device that works on the same queues.

extern crate std;
use std::boxed::Box;
use std::vec;
use std::vec::Vec;

use virtio_drivers::device::common::Feature;

use super::InitError;
use super::disk::{Disk, DiskError, DiskMemory};
use super::fake::{Fake, State};
use super::net::{NetMemory, Network};
use super::transport::{Entries, Messages};
use crate::network::{BUFFER, Driver, TransmitError};

const ENTRIES: Entries = Entries {
    config: 2,
    queues: &[0, 1],
};
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
/// Buffers of each queue.
const RING: usize = 64;
/// Bytes in front of a frame.
const HEADER: usize = 12;

fn fake(change: impl FnOnce(&mut State)) -> Fake {
    let fake = Fake::default();
    {
        let mut state = fake.0.borrow_mut();
        state.offered = (Feature::VERSION_1 | Feature::RING_EVENT_IDX).bits();
        state.table = 3;
        state.config = vec![2, 0, 0, 0, 0, 7, 1, 0, 1, 0, 0xdc, 5];
        change(&mut state);
    }
    fake
}

type Messaged = Messages<Fake, Fake>;

fn network_of(fake: &Fake, memory: &'static NetMemory) -> Result<Network<Messaged>, InitError> {
    let transport = Messages::new(fake.clone(), fake.clone(), ENTRIES);
    Network::start(transport, memory, None)
}

fn network() -> (Network<Messaged>, Fake) {
    let fake = fake(|_| {});
    let memory = Box::leak(Box::new(NetMemory::new()));
    let network = network_of(&fake, memory).expect("it starts");
    (network, fake)
}

/// Delivers a frame of `length` bytes, all `first`.
fn deliver(fake: &Fake, first: u8, length: usize) {
    let request = fake.take(RECEIVE).expect("a buffer");
    let mut bytes = vec![0; HEADER];
    bytes.resize(HEADER + length, first);
    Fake::fill(request.write[0], &bytes);
    fake.complete(RECEIVE, request.head, bytes.len() as u32);
}

#[test]
fn queues_have_their_entries_before_they_are_set_up() {
    let (network, fake) = network();
    let state = fake.0.borrow();
    assert_eq!((state.config_entry, state.entries), (2, [0, 1]));
    assert_eq!(state.order, ["entry", "entry", "queue", "queue"]);
    assert_eq!(network.address(), [2, 0, 0, 0, 0, 7]);
}

#[test]
fn a_function_that_refuses_gets_no_queue() {
    for change in [
        (|state: &mut State| state.refuses = true) as fn(&mut State),
        |state| state.table = 2,
        |state| state.table = 1,
        |state| state.offered = 0,
    ] {
        let fake = fake(change);
        let memory = Box::leak(Box::new(NetMemory::new()));
        let refused = network_of(&fake, memory).err();
        assert_eq!(refused, Some(InitError::Refused));
        assert!(!fake.0.borrow().order.contains(&"queue"));
    }
}

#[test]
fn features_are_the_platforms_addresses_and_no_event_indexes() {
    let platform = Feature::ACCESS_PLATFORM.bits();
    for offered in [0, platform] {
        let fake = fake(|state| state.offered |= offered);
        let memory = Box::leak(Box::new(NetMemory::new()));
        network_of(&fake, memory).expect("it starts");
        let written = fake.0.borrow().written;
        assert_eq!(written, Feature::VERSION_1.bits() | offered);
    }
}

#[test]
fn memory_has_one_driver() {
    let memory = Box::leak(Box::new(NetMemory::new()));
    let first = network_of(&fake(|_| {}), memory);
    assert!(first.is_ok());
    let second = network_of(&fake(|_| {}), memory);
    assert_eq!(second.err(), Some(InitError::MemoryInUse));
}

#[test]
fn who_is_awake_is_not_interrupted_and_who_sleeps_is() {
    let (mut network, fake) = network();
    let listens = || [RECEIVE, TRANSMIT].map(|queue| fake.listens(queue));
    assert_eq!(listens(), [true, true]);
    network.quiet();
    assert_eq!(listens(), [false, false]);
    deliver(&fake, 1, 60);
    assert!(!network.listen(), "a frame is there");
    assert_eq!(listens(), [false, false]);
    assert_eq!(network.receive(&mut [0; BUFFER]), Some(60));
    assert!(network.listen());
    assert_eq!(listens(), [true, true]);
}

#[test]
fn frames_are_received_in_order_across_the_wrap() {
    let (mut network, fake) = network();
    let mut frame = [0; BUFFER];
    assert!(!network.can_receive());
    assert_eq!(network.receive(&mut frame), None);
    for round in 0..5 {
        for number in 0..RING as u8 {
            deliver(&fake, number.wrapping_add(round), 60 + usize::from(number));
        }
        assert!(fake.take(RECEIVE).is_none(), "every buffer is in use");
        for number in 0..RING as u8 {
            assert!(network.can_receive());
            let length = network.receive(&mut frame);
            assert_eq!(length, Some(60 + usize::from(number)));
            let expected = number.wrapping_add(round);
            assert!(frame[..60].iter().all(|byte| *byte == expected));
        }
        assert_eq!(network.receive(&mut frame), None);
    }
    assert_eq!(network.statistics().received_packets, 5 * RING as u64);
}

#[test]
fn bad_frames_are_skipped_and_counted() {
    let (mut network, fake) = network();
    let mut frame = [0; BUFFER];
    deliver(&fake, 1, 13);
    deliver(&fake, 2, 1519);
    // Less than its header, and more than the buffer.
    let short = fake.take(RECEIVE).expect("a buffer");
    fake.complete(RECEIVE, short.head, HEADER as u32 - 1);
    let long = fake.take(RECEIVE).expect("a buffer");
    fake.complete(RECEIVE, long.head, u32::MAX);
    deliver(&fake, 3, 1518);
    assert_eq!(network.receive(&mut frame), Some(1518));
    assert_eq!(frame[0], 3);
    let statistics = network.statistics();
    assert_eq!(
        (statistics.received_packets, statistics.receive_errors),
        (1, 4)
    );
    // Their buffers are the function's again.
    let buffers = core::iter::from_fn(|| fake.take(RECEIVE)).count();
    assert_eq!(buffers, RING);
}

#[test]
fn a_device_that_completes_what_it_does_not_have_gets_nothing() {
    let (mut network, fake) = network();
    let mut frame = [0; BUFFER];
    fake.complete(RECEIVE, 64, 100);
    assert_eq!(network.receive(&mut frame), None);
    fake.complete(TRANSMIT, 0xffff, 0);
    assert!(network.can_transmit());
}

#[test]
fn frames_are_sent_behind_a_header_of_zeros() {
    let (mut network, fake) = network();
    for round in 0..3 {
        for number in 0..RING as u8 {
            assert!(network.can_transmit());
            assert_eq!(network.transmit(&[number; 60]), Ok(()));
        }
        assert!(!network.can_transmit());
        assert_eq!(network.transmit(&[9; 60]), Err(TransmitError::Full));
        for number in 0..RING as u8 {
            let request = fake.take(TRANSMIT).expect("a frame");
            let mut expected = vec![0; HEADER];
            expected.resize(HEADER + 60, number);
            assert_eq!(request.read, expected, "{round}");
            fake.complete(TRANSMIT, request.head, 0);
        }
        assert!(fake.take(TRANSMIT).is_none());
    }
    for length in [13, 1519] {
        let frame = vec![0; length];
        assert_eq!(network.transmit(&frame), Err(TransmitError::Length));
    }
    let statistics = network.statistics();
    assert_eq!((statistics.sent_packets, statistics.send_drops), (192, 5));
}

#[test]
fn answers_have_room_of_their_own() {
    let (mut network, fake) = network();
    let mut begun = 0;
    while network.can_begin() {
        network.transmit(&[1; 60]).expect("there is room");
        begun += 1;
    }
    assert_eq!(begun, 48);
    assert!(network.can_transmit());
    let request = fake.take(TRANSMIT).expect("a frame");
    fake.complete(TRANSMIT, request.head, 0);
    assert!(network.can_begin());
}

const BLOCKS: usize = 20;

fn disk_of(memory: &'static DiskMemory) -> Result<(Disk<Messaged>, Fake), InitError> {
    let fake = fake(|state| {
        state.config = vec![0; 64];
        state.config[0] = BLOCKS as u8;
    });
    let entries = Entries {
        queues: &[0],
        ..ENTRIES
    };
    let transport = Messages::new(fake.clone(), fake.clone(), entries);
    Ok((Disk::start(transport, memory)?, fake))
}

fn disk() -> (Disk<Messaged>, Fake) {
    disk_of(Box::leak(Box::new(DiskMemory::new()))).expect("it starts")
}

/// Serves the next request as a disk does; `status` is 0 for success.
fn serve(fake: &Fake, disk: &mut [u8], status: u8) -> bool {
    let Some(request) = fake.take(0) else {
        return false;
    };
    let word = |at: usize| u32::from_le_bytes(request.read[at..at + 4].try_into().expect("four"));
    let at = 512 * word(8) as usize;
    let (&last, data) = request.write.split_last().expect("a status");
    match word(0) {
        0 => data
            .iter()
            .for_each(|place| Fake::fill(*place, &disk[at..])),
        1 => disk[at..at + request.read.len() - 16].copy_from_slice(&request.read[16..]),
        other => panic!("request {other}"),
    }
    Fake::fill(last, &[status]);
    fake.complete(0, request.head, 1);
    true
}

#[test]
fn blocks_are_written_and_read_back() {
    let (mut disk, fake) = disk();
    assert_eq!((disk.blocks(), disk.block_size()), (BLOCKS as u64, 512));
    let mut blocks = vec![0; 512 * BLOCKS];
    // More than one request moves.
    let data: Vec<u8> = (0..512 * 17).map(|at| (at / 7) as u8).collect();
    let mut wait = || serve(&fake, &mut blocks, 0);
    assert_eq!(disk.write(3, &data, &mut wait), Ok(()));
    let mut back = vec![0; data.len()];
    assert_eq!(disk.read(3, &mut back, &mut wait), Ok(()));
    assert!(back == data);
    assert!(blocks[..3 * 512].iter().all(|byte| *byte == 0));
    assert!(blocks[3 * 512..] == data);
}

#[test]
fn requests_past_the_end_and_failures_are_errors() {
    let (mut disk, fake) = disk();
    let mut blocks = vec![0; 512 * BLOCKS];
    let mut data = [0; 1024];
    for (first, length) in [(19, 1024), (20, 512), (u64::MAX, 512), (0, 511)] {
        let refused = disk.read(first, &mut data[..length], &mut || panic!("it is asked"));
        assert_eq!(refused, Err(DiskError::Range), "{first}");
        let refused = disk.write(first, &data[..length], &mut || panic!("it is asked"));
        assert_eq!(refused, Err(DiskError::Range), "{first}");
    }
    let failed = disk.read(18, &mut data, &mut || serve(&fake, &mut blocks, 1));
    assert_eq!(failed, Err(DiskError::Refused));
    let good = disk.read(18, &mut data, &mut || serve(&fake, &mut blocks, 0));
    assert_eq!(good, Ok(()));
}

#[test]
fn after_a_late_request_nothing_more_is_asked() {
    let (mut disk, fake) = disk();
    let mut data = [0; 512];
    assert_eq!(disk.read(0, &mut data, &mut || false), Err(DiskError::Late));
    assert!(fake.take(0).is_some());
    assert_eq!(disk.write(0, &data, &mut || false), Err(DiskError::Late));
    assert_eq!(disk.read(0, &mut data, &mut || false), Err(DiskError::Late));
    assert!(fake.take(0).is_none());
}

#[test]
fn a_disks_memory_has_one_driver() {
    let memory = Box::leak(Box::new(DiskMemory::new()));
    let first = disk_of(memory);
    assert!(first.is_ok());
    let second = disk_of(memory);
    assert_eq!(second.err(), Some(InitError::MemoryInUse));
}
