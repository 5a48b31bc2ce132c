//! The engine on the fake device.

extern crate std;

use std::vec::Vec;

use super::fake::{FROM_NVM, Fake};
use super::*;

/// Where the engine's memory is.
const OWN: u64 = 0x7_0000_0000;

fn engine() -> (Engine<Fake, Fake>, Fake) {
    let fake = Fake::new(OWN);
    let mut engine = Engine::new(fake.clone(), fake.clone(), OWN).unwrap();
    engine.set_up();
    (engine, fake)
}

#[test]
fn bytes_go_where_they_are_sent_and_no_further() {
    let (mut engine, fake) = engine();
    for length in [SHORTEST, 61, LONGEST] {
        let bytes: Vec<u8> = (0..length).map(|n| n as u8 | 1).collect();
        let to = 0x10_0000;
        assert_eq!(engine.write(to, &bytes), Ok(()));
        let device = fake.device();
        assert_eq!(device.load(to, length as u64), bytes);
        assert_eq!(device.load(to - 1, 1), [0]);
        assert_eq!(device.load(to + length as u64, 4), [0; 4]);
    }
}

#[test]
fn bytes_come_from_where_they_are_read() {
    let (mut engine, fake) = engine();
    let there: Vec<u8> = (0..100).collect();
    fake.device().store(0xfe00_0123, &there);
    let mut bytes = [0; 100];
    assert_eq!(engine.read(0xfe00_0123, &mut bytes), Ok(()));
    assert_eq!(bytes[..], there);
}

#[test]
fn a_frame_that_does_not_come_back_ends_the_wait_and_nothing_else() {
    let (mut engine, fake) = engine();
    let others = OWN + MEMORY_SIZE as u64..u64::MAX;
    fake.device().unreadable.push(others);
    let mut bytes = [0x55; 64];
    let beyond = OWN + MEMORY_SIZE as u64;
    assert_eq!(engine.read(beyond, &mut bytes), Err(Stuck::Receive));
    assert_eq!(bytes, [0x55; 64]);
    assert!(fake.device().reads < 3 * FRAME_READS);
    // The receiver is off: nothing more can land there.
    assert_eq!(fake.device().register(RCTL), 0);
    assert_eq!(engine.write(0x1000, &[7; 64]), Ok(()));
    assert_eq!(fake.device().load(0x1000, 64), [7; 64]);
}

#[test]
fn a_frame_from_the_network_is_not_taken_for_ours() {
    let (mut engine, fake) = engine();
    fake.device().strangers = std::vec![342, 90];
    assert_eq!(engine.write(0x1000, &[7; 64]), Ok(()));
    assert_eq!(fake.device().load(0x1000, 64), [7; 64]);
}

#[test]
fn a_network_that_sent_since_power_on_is_worn_out() {
    let (mut engine, fake) = engine();
    fake.device().strangers = std::vec![SHORTEST as u16; 1_000];
    assert_eq!(engine.write(0x1000, &[7; 64]), Ok(()));
    assert_eq!(fake.device().load(0x1000, 64), [7; 64]);
    // One that never rests is given up within a bound.
    fake.device().strangers = std::vec![90; TRIES as usize];
    assert_eq!(engine.write(0x1000, &[7; 64]), Err(Stuck::Receive));
    assert!(fake.device().strangers.is_empty());
}

#[test]
fn a_forged_interrupt_is_one_dword_in_the_range() {
    let (mut engine, fake) = engine();
    assert_eq!(engine.forge_interrupt(0xfee0_0000, 0x1234_5678), Ok(()));
    let device = fake.device();
    assert_eq!(device.load(0xfee0_0000, 4), [0x78, 0x56, 0x34, 0x12]);
    assert!(!device.was_written(0xfee0_0004));
    assert_eq!(device.load(0xfedf_ffc0, 64), [0; 64]);
    assert!(!device.was_written(0xfedf_ffbf));
}

#[test]
fn a_forged_interrupt_is_not_lost_to_a_frame_from_the_network() {
    let (mut engine, fake) = engine();
    fake.device().strangers = std::vec![SHORTEST as u16];
    assert_eq!(engine.forge_interrupt(0xfee0_0000, 0x1234_5678), Ok(()));
    let message = fake.device().load(0xfee0_0000, 4);
    assert_eq!(message, [0x78, 0x56, 0x34, 0x12]);
}

#[test]
fn lengths_that_are_no_frames_are_refused() {
    let (mut engine, _) = engine();
    assert_eq!(engine.write(0, &[0; SHORTEST - 1]), Err(Stuck::Length));
    assert_eq!(engine.write(0, &[0; LONGEST + 1]), Err(Stuck::Length));
    assert_eq!(engine.read(0, &mut []), Err(Stuck::Length));
}

#[test]
fn a_reset_that_does_not_end_is_given_up() {
    let fake = Fake::new(OWN);
    fake.device().good_resets = Some(0);
    let stuck = Engine::new(fake.clone(), fake.clone(), OWN).err();
    assert_eq!(stuck, Some(Stuck::Reset));
    assert!(fake.device().reads <= 2 + RESET_READS);
    fake.device().good_resets = None;
    fake.device().nvm = u32::MAX;
    let stuck = Engine::new(fake.clone(), fake.clone(), OWN).err();
    assert_eq!(stuck, Some(Stuck::Reset));
}

/// The reset comes when nothing is under way, and the set-up when the NVM, which
/// would write over it, was read.
#[test]
fn a_reset_waits_for_the_bus_and_for_the_nvm() {
    let fake = Fake::new(OWN);
    fake.device().drains = 700;
    fake.device().nvm = 2_000;
    let mut engine = Engine::new(fake.clone(), fake.clone(), OWN).unwrap();
    assert_eq!(fake.device().drains, 0);
    for register in [RDBAL, TDBAL, RDLEN, TDLEN, RCTL, TCTL] {
        assert_eq!(fake.device().register(register), 0, "{register:#x}");
    }
    engine.set_up();
    let control = FROM_NVM | CTRL_SLU | CTRL_FD;
    assert_eq!(fake.device().register(CTRL), control);
    assert_eq!(engine.write(0x1000, &[7; 64]), Ok(()));
    assert_eq!(fake.device().load(0x1000, 64), [7; 64]);
    // A bus request that never ends does not prevent the reset.
    fake.device().drains = u32::MAX;
    assert_eq!(engine.quiesce(), Ok(()));
}

#[test]
fn quiesce_leaves_no_ring_and_no_interrupt() {
    let (mut engine, fake) = engine();
    engine.write(0x1000, &[7; 64]).unwrap();
    engine.quiesce().unwrap();
    let device = fake.device();
    for register in [RCTL, TCTL, RDBAL, TDBAL, RDLEN, TDLEN] {
        assert_eq!(device.register(register), 0, "{register:#x}");
    }
    assert_eq!(device.register(IMC), u32::MAX);
    drop(device);
    engine.start().unwrap();
    assert_eq!(engine.write(0x2000, &[7; 64]), Ok(()));
    assert_eq!(fake.device().load(0x2000, 64), [7; 64]);
}
