//! The driver against a fake controller.

use super::*;

extern crate std;
use std::boxed::Box;
use std::vec;
use std::vec::Vec;

/// Blocks of the fake's namespace, of 1024 bytes.
const BLOCKS: u64 = 10;

/// A controller that executes a command as its doorbell is rung.
struct Fake {
    memory: &'static NvmeMemory,
    capabilities: [u32; 2],
    configuration: u32,
    queues: (u32, u64, u64),
    completed: [usize; 2],
    head: u32,
    status: u64,
    model: &'static [u8],
    stuck: bool,
    fatal: bool,
    /// The second format, which is in use: metadata and block sizes.
    format: u32,
    /// No read or write completes.
    silent: bool,
    disk: Vec<u8>,
    /// Admin commands but identify, as they came.
    setup: Vec<[u64; 3]>,
}

impl Fake {
    /// Runs the command before `tail` of a pair of queues.
    fn execute(&mut self, pair: usize, tail: usize) {
        let memory = self.memory;
        let command = memory.pairs[pair].submission((tail + QUEUE - 1) % QUEUE);
        let block = command[5] as usize * 1024;
        let blocks = block..block + (command[6] as usize + 1) * 1024;
        match (pair, command[0] as u16, command[0] >> 32) {
            (0, 0x06, 0) => {
                assert_eq!((command[3], command[5]), (memory.data(), 1));
                let mut page = [b' '; 64];
                page[24..24 + self.model.len()].copy_from_slice(self.model);
                memory.fill_data(&page);
            }
            (0, 0x06, 1) => {
                assert_eq!((command[3], command[5]), (memory.data(), 0));
                let mut page = [0; 256];
                page[..8].copy_from_slice(&BLOCKS.to_le_bytes());
                // Bit 4 says where metadata would be.
                page[26] = 0x11;
                page[128..132].copy_from_slice(&0x0009_0000_u32.to_le_bytes());
                page[132..136].copy_from_slice(&self.format.to_le_bytes());
                memory.fill_data(&page);
            }
            (0, opcode, 0) => self.setup.push([opcode.into(), command[3], command[5]]),
            (1, 0x02, 1) => memory.fill_data(&self.disk[blocks]),
            (1, 0x01, 1) => memory.copy_data(0, &mut self.disk[blocks]),
            other => panic!("{other:?}"),
        }
        if pair == 1 && self.silent {
            return;
        }
        let identifier = command[0] >> 16 & 0xffff;
        let completed = &mut self.completed[pair];
        let phase = u64::from((*completed / QUEUE).is_multiple_of(2));
        let word = identifier << 32 | phase << 48 | self.status << 49;
        memory.pairs[pair].complete_as_controller(*completed % QUEUE, word);
        *completed += 1;
    }
}

impl Registers for Fake {
    fn read(&self, offset: u32) -> u32 {
        match offset {
            0x00 => self.capabilities[0],
            0x04 => self.capabilities[1],
            0x1c if self.stuck => !self.configuration & 1,
            0x1c => self.configuration & 1 | u32::from(self.fatal) << 1,
            _ => 0,
        }
    }

    fn write(&mut self, offset: u32, value: u32) {
        match offset {
            0x14 => self.configuration = value,
            0x24 => self.queues.0 = value,
            0x28 => self.queues.1 |= u64::from(value),
            0x2c => self.queues.1 |= u64::from(value) << 32,
            0x30 => self.queues.2 |= u64::from(value),
            0x34 => self.queues.2 |= u64::from(value) << 32,
            // DSTRD is 1.
            0x1000 => self.execute(0, value as usize),
            0x1008 => self.head = value,
            0x1010 => self.execute(1, value as usize),
            0x1018 => {}
            _ => panic!("write to {offset:#x}"),
        }
    }
}

fn fake() -> Fake {
    Fake {
        memory: Box::leak(Box::new(NvmeMemory::new())),
        capabilities: [0x0100_07ff, 0x0000_0021],
        configuration: 0,
        queues: (0, 0, 0),
        completed: [0; 2],
        head: 0,
        status: 0,
        model: b"fake disk                               ",
        stuck: false,
        fatal: false,
        format: 0x000a_0000,
        silent: false,
        disk: vec![0; BLOCKS as usize * 1024],
        setup: Vec::new(),
    }
}

fn driver(fake: Fake) -> Result<Nvme<'static, Fake>, InitError> {
    let memory = fake.memory;
    Stopped::reset(fake)?.start(memory)
}

#[test]
fn start_programs_the_admin_queues() {
    let driver = driver(fake()).unwrap();
    let fake = &driver.registers;
    assert_eq!(fake.configuration, 0x0046_0001);
    let memory = driver.memory;
    let admin = &memory.pairs[ADMIN];
    assert_eq!(
        fake.queues,
        (0x0003_0003, admin.submissions(), admin.completions())
    );
    for address in [admin.submissions(), admin.completions(), memory.data()] {
        assert_eq!(address % 4096, 0);
    }
}

#[test]
fn a_broken_controller_is_an_error() {
    let stuck = Fake {
        stuck: true,
        ..fake()
    };
    assert_eq!(driver(stuck).err(), Some(InitError::Stuck));
    let fatal = Fake {
        fatal: true,
        ..fake()
    };
    assert_eq!(driver(fatal).err(), Some(InitError::Fatal));
    for capabilities in [[2, 0x21], [0x7ff, 0x01], [0x7ff, 0x1_0021]] {
        let other = Fake {
            capabilities,
            ..fake()
        };
        assert_eq!(driver(other).err(), Some(InitError::Unsupported));
    }
}

#[test]
fn identify_completes_over_several_rounds_of_the_queue() {
    let mut driver = driver(fake()).unwrap();
    assert_eq!(driver.collect(), None);
    for round in 1..=3 * QUEUE {
        assert!(driver.identify());
        assert!(!driver.identify(), "one at a time");
        let model = driver.collect().unwrap().unwrap();
        assert_eq!(model.as_str(), Some("fake disk"));
        assert_eq!(driver.registers.head as usize, round % QUEUE);
        assert_eq!(driver.collect(), None, "taken once");
    }
}

#[test]
fn errors_and_bad_text_are_told() {
    let mut driver = driver(Fake {
        status: 0x0102,
        ..fake()
    })
    .unwrap();
    driver.identify();
    assert_eq!(driver.collect(), Some(Err(CommandError::Status(0x102))));
    driver.registers.status = 0;
    driver.registers.model = b"\x1b[2J";
    driver.identify();
    assert_eq!(driver.collect().unwrap().unwrap().as_str(), None);
    driver.identify();
    driver.pairs[ADMIN].identifier += 1;
    assert_eq!(driver.collect(), Some(Err(CommandError::Identifier(3))));
}

fn disk(fake: Fake) -> Result<Disk<'static, Fake>, DiskError> {
    Disk::open(driver(fake).unwrap(), &mut || true)
}

#[test]
fn a_disk_has_queues_of_its_own_and_the_format_in_use() {
    let disk = disk(fake()).unwrap();
    assert_eq!((disk.blocks(), disk.block_size()), (BLOCKS, 1024));
    let pair = &disk.nvme.memory.pairs[IO];
    assert_eq!(
        disk.nvme.registers.setup,
        [
            [0x09, 0, 0x07],
            [0x05, pair.completions(), 0x3_0003_0001],
            [0x01, pair.submissions(), 0x1_0001_0003_0001],
        ]
    );
}

#[test]
fn blocks_are_written_and_read_back() {
    let mut disk = disk(fake()).unwrap();
    let data: Vec<u8> = (0..6 * 1024_u32).map(|at| (at / 7) as u8).collect();
    for round in 0..2 * QUEUE {
        // More than a page: several commands.
        disk.write(3, &data[round..][..5 * 1024], &mut || true)
            .unwrap();
        let mut read = vec![0; 5 * 1024];
        disk.read(3, &mut read, &mut || true).unwrap();
        assert_eq!(read, data[round..][..5 * 1024]);
    }
    let stored = &disk.nvme.registers.disk;
    assert!(stored[..3 * 1024].iter().all(|&byte| byte == 0));
    assert!(stored[8 * 1024..].iter().all(|&byte| byte == 0));
}

#[test]
fn requests_out_of_the_disk_are_refused() {
    let mut disk = disk(fake()).unwrap();
    let mut page = [0; 2048];
    assert_eq!(disk.read(8, &mut page, &mut || true), Ok(()));
    for (first, length) in [(9, 2048), (10, 1024), (u64::MAX, 1024), (0, 512), (0, 1025)] {
        let range = Err(DiskError::Range);
        assert_eq!(disk.read(first, &mut page[..length], &mut || true), range);
        assert_eq!(disk.write(first, &page[..length], &mut || true), range);
    }
    assert_eq!(disk.read(10, &mut [], &mut || true), Ok(()));
}

#[test]
fn formats_that_are_not_taken_are_errors() {
    for format in [0x0008_0000, 0x000d_0000, 0x0009_0008] {
        let other = Fake { format, ..fake() };
        assert_eq!(disk(other).err(), Some(DiskError::Format), "{format:#x}");
    }
}

#[test]
fn a_command_that_is_late_is_the_last() {
    let mut disk = disk(Fake {
        silent: true,
        ..fake()
    })
    .unwrap();
    let mut waits = 0;
    let mut wait = || {
        waits += 1;
        waits < 5
    };
    let mut page = [0; 1024];
    assert_eq!(disk.read(0, &mut page, &mut wait), Err(DiskError::Late));
    assert_eq!(waits, 5);
    disk.nvme.registers.silent = false;
    assert_eq!(disk.read(0, &mut page, &mut || true), Err(DiskError::Late));
}

#[test]
fn a_refused_command_is_told() {
    let mut disk = disk(fake()).unwrap();
    disk.nvme.registers.status = 0x80;
    let refused = Err(DiskError::Command(CommandError::Status(0x80)));
    assert_eq!(disk.write(0, &[0; 1024], &mut || true), refused);
    disk.nvme.registers.status = 0;
    assert_eq!(disk.write(0, &[0; 1024], &mut || true), Ok(()));
}
