extern crate std;

use std::vec;
use std::vec::Vec;

use super::*;

const START: u64 = 0x1_0000;
const SIZE: u64 = 0x1_0000;
const END: u64 = START + SIZE;
/// Where arguments lie, and data.
const ARGUMENT: u64 = START + 0x100;
const DATA: u64 = START + 0x1000;

/// A machine with a network at handle 1 and a disk of 4 blocks at handle 2.
#[derive(Default)]
struct Fake {
    printed: Vec<u8>,
    sent: Vec<(usize, Vec<u8>)>,
    received: Option<Vec<u8>>,
    disk: Vec<u8>,
    broken: bool,
    waited: Vec<u64>,
    ready: u64,
    refused: Vec<(u32, u64)>,
}

impl Machine for Fake {
    fn wall_clock(&mut self) -> u64 {
        1_700_000_000_000_000_000
    }
    fn print(&mut self, text: &[u8]) {
        self.printed.extend(text);
    }
    fn poll(&mut self, timeout_nsecs: u64) -> u64 {
        self.waited.push(timeout_nsecs);
        self.ready
    }
    fn send(&mut self, handle: usize, frame: &[u8]) -> bool {
        self.sent.push((handle, frame.to_vec()));
        frame.len() <= 1514
    }
    fn receive(&mut self, handle: usize, frame: &mut [u8]) -> Option<usize> {
        assert_eq!(handle, 1);
        let next = self.received.take()?;
        let length = next.len().min(frame.len());
        frame[..length].copy_from_slice(&next[..length]);
        Some(next.len())
    }
    fn read(&mut self, handle: usize, block: u64, data: &mut [u8]) -> bool {
        assert_eq!(handle, 2);
        let start = block as usize * 512;
        data.copy_from_slice(&self.disk[start..start + data.len()]);
        !self.broken
    }
    fn write(&mut self, handle: usize, block: u64, data: &[u8]) -> bool {
        assert_eq!(handle, 2);
        let start = block as usize * 512;
        self.disk[start..start + data.len()].copy_from_slice(data);
        !self.broken
    }
    fn refused(&mut self, call: u32, address: u64) {
        self.refused.push((call, address));
    }
}

struct Image {
    memory: Vec<u8>,
    devices: Vec<Entry>,
    machine: Fake,
}

impl Image {
    fn new() -> Self {
        let mut disk = Entry::new("disk", Kind::Block);
        disk.attach_disk(4 * 512, 512);
        Self {
            memory: vec![0; SIZE as usize],
            devices: vec![Entry::reserved(), Entry::new("net", Kind::Net), disk],
            machine: Fake {
                disk: vec![0; 4 * 512],
                ..Fake::default()
            },
        }
    }

    fn ram(&mut self) -> Ram<'_> {
        Ram::new(START, &mut self.memory)
    }

    fn serve(&mut self, number: u32, address: u64) -> Next {
        let mut ram = Ram::new(START, &mut self.memory);
        serve(number, address, &mut ram, &self.devices, &mut self.machine)
    }

    /// Makes a call and returns its argument afterwards.
    fn call<T: FromBytes + IntoBytes + Immutable>(&mut self, number: u32, argument: T) -> T {
        self.ram().write(ARGUMENT, &argument).unwrap();
        assert_eq!(self.serve(number, ARGUMENT), Next::Resume);
        self.ram().read(ARGUMENT).unwrap()
    }

    fn net(&mut self, number: u32, handle: u64, data: u64, length: u64) -> Net {
        let argument = Net {
            handle,
            data,
            length,
            ret: -1,
            ..Net::default()
        };
        self.call(number, argument)
    }

    fn block(&mut self, number: u32, handle: u64, offset: u64, data: u64, length: u64) -> i32 {
        let argument = Block {
            handle,
            offset,
            data,
            length,
            ret: -1,
            ..Block::default()
        };
        self.call(number, argument).ret
    }
}

#[test]
fn time_text_and_end() {
    let mut image = Image::new();
    let time = image.call(call::WALLTIME, WallTime::default());
    assert_eq!(time.nsecs, 1_700_000_000_000_000_000);
    image
        .ram()
        .get_mut(DATA, 5)
        .unwrap()
        .copy_from_slice(b"hello");
    let puts = Puts {
        data: DATA,
        length: 5,
    };
    assert_eq!(image.call(call::PUTS, puts), puts);
    assert_eq!(image.machine.printed, b"hello");
    for status in [0, 1, 255, -1] {
        let halt = Halt {
            exit_status: status,
            ..Halt::default()
        };
        image.ram().write(ARGUMENT, &halt).unwrap();
        assert_eq!(image.serve(call::HALT, ARGUMENT), Next::End(status));
    }
    assert!(image.machine.refused.is_empty());
}

#[test]
fn poll_tells_who_is_ready() {
    let mut image = Image::new();
    image.machine.ready = 0b1010;
    let poll = Poll {
        timeout_nsecs: 5000,
        ..Poll::default()
    };
    let answer = image.call(call::POLL, poll);
    assert_eq!((answer.ready_set, answer.ret), (0b1010, 2));
    assert_eq!(image.machine.waited, [5000]);
}

#[test]
fn frames_come_and_go() {
    let mut image = Image::new();
    image.ram().get_mut(DATA, 60).unwrap().fill(7);
    assert_eq!(image.net(call::NET_WRITE, 1, DATA, 60).ret, OK);
    assert_eq!(image.machine.sent, [(1, vec![7; 60])]);
    assert_eq!(image.net(call::NET_READ, 1, DATA, 1514).ret, AGAIN);
    image.machine.received = Some(vec![9; 100]);
    let read = image.net(call::NET_READ, 1, DATA, 1514);
    assert_eq!((read.ret, read.length), (OK, 100));
    assert_eq!(image.ram().get(DATA, 101).unwrap()[99..], [9, 0]);
    // A frame that is longer than its room is cut.
    image.machine.received = Some(vec![8; 100]);
    let read = image.net(call::NET_READ, 1, DATA, 40);
    assert_eq!((read.ret, read.length), (OK, 40));
    assert_eq!(image.ram().get(DATA, 41).unwrap()[39..], [8, 9]);
}

#[test]
fn blocks_are_written_and_read() {
    let mut image = Image::new();
    image.ram().get_mut(DATA, 1024).unwrap().fill(3);
    assert_eq!(image.block(call::BLOCK_WRITE, 2, 1024, DATA, 1024), OK);
    let disk = &image.machine.disk;
    assert!(disk[..1024].iter().all(|&byte| byte == 0));
    assert!(disk[1024..].iter().all(|&byte| byte == 3));
    assert_eq!(image.block(call::BLOCK_READ, 2, 512, DATA + 4096, 1024), OK);
    let read = image.ram().get(DATA + 4096, 1024).unwrap().to_vec();
    assert_eq!((read[511], read[512]), (0, 3));
    image.machine.broken = true;
    assert_eq!(image.block(call::BLOCK_READ, 2, 0, DATA, 512), EUNSPEC);
}

#[test]
fn bad_requests_for_blocks_are_einval() {
    let mut image = Image::new();
    for (handle, offset, data, length) in [
        (1, 0, DATA, 512),
        (0, 0, DATA, 512),
        (3, 0, DATA, 512),
        (u64::MAX, 0, DATA, 512),
        (2, 1, DATA, 512),
        (2, 0, DATA, 511),
        (2, 2048, DATA, 512),
        (2, 2048, DATA, 0),
        (2, 1536, DATA, 1024),
        (2, u64::MAX - 511, DATA, 512),
        (2, 0, DATA, u64::MAX - 511),
        (2, 0, END - 511, 512),
        (2, 0, 0, 512),
        (2, 0, u64::MAX, 512),
        (2, 0, START - 1, 512),
    ] {
        for number in [call::BLOCK_READ, call::BLOCK_WRITE] {
            let ret = image.block(number, handle, offset, data, length);
            assert_eq!(ret, EINVAL, "{handle} {offset:#x} {data:#x} {length:#x}");
        }
    }
    assert_eq!(image.block(call::BLOCK_READ, 2, 1536, END - 512, 512), OK);
}

#[test]
fn bad_requests_for_frames_are_einval() {
    let mut image = Image::new();
    image.machine.received = Some(vec![1; 60]);
    for (handle, data, length) in [
        (0, DATA, 60),
        (2, DATA, 60),
        (3, DATA, 60),
        (1 << 32 | 1, DATA, 60),
        (1, END - 59, 60),
        (1, 0, 60),
        (1, DATA, u64::MAX),
        (1, u64::MAX, 60),
    ] {
        for number in [call::NET_READ, call::NET_WRITE] {
            let ret = image.net(number, handle, data, length).ret;
            assert_eq!(ret, EINVAL, "{handle} {data:#x} {length:#x}");
        }
    }
    assert!(image.machine.received.is_some() && image.machine.sent.is_empty());
    assert_eq!(image.net(call::NET_WRITE, 1, DATA, 1515).ret, EINVAL);
}

#[test]
fn an_argument_that_is_not_memory_is_refused() {
    let mut image = Image::new();
    for number in 0..10 {
        for address in [0, START - 1, END - 7, END, u64::from(u32::MAX)] {
            let before = image.memory.clone();
            let end = if number == call::HALT {
                Next::End(ABORT)
            } else {
                Next::Resume
            };
            assert_eq!(image.serve(number, address), end);
            assert_eq!(image.memory, before);
        }
    }
    // All but the ends; and the two numbers that are no calls.
    assert_eq!(image.machine.refused.len(), 45);
    assert_eq!(image.machine.refused[0], (0, 0));
    let puts = Puts {
        data: END,
        length: 1,
    };
    image.call(call::PUTS, puts);
    assert_eq!(image.machine.refused.len(), 46);
    assert!(image.machine.printed.is_empty());
}
