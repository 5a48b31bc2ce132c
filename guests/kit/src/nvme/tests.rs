//! The driver against a fake controller.

use super::*;

extern crate std;
use std::boxed::Box;

/// A controller that executes an identify command as its doorbell is rung.
struct Fake {
    memory: &'static NvmeMemory,
    capabilities: [u32; 2],
    configuration: u32,
    queues: (u32, u64, u64),
    completed: usize,
    head: u32,
    status: u64,
    model: &'static [u8],
    stuck: bool,
    fatal: bool,
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
            0x1000 => {
                let tail = value as usize;
                let command = self.memory.submission((tail + QUEUE - 1) % QUEUE);
                assert_eq!(command[0] as u16, 0x06);
                assert_eq!(command[3], self.memory.data());
                assert_eq!(command[5], 1);
                let identifier = command[0] >> 16 & 0xffff;
                let phase = u64::from((self.completed / QUEUE).is_multiple_of(2));
                let word = identifier << 32 | phase << 48 | self.status << 49;
                self.memory
                    .write_as_controller(self.completed % QUEUE, [0, word], self.model);
                self.completed += 1;
            }
            // DSTRD is 1.
            0x1008 => self.head = value,
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
        completed: 0,
        head: 0,
        status: 0,
        model: b"fake disk                               ",
        stuck: false,
        fatal: false,
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
    assert_eq!(
        fake.queues,
        (0x0003_0003, memory.submissions(), memory.completions())
    );
    for address in [memory.submissions(), memory.completions(), memory.data()] {
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
    driver.identifier += 1;
    assert_eq!(driver.collect(), Some(Err(CommandError::Identifier(3))));
}
