//! Ports, and how the devices behind them are connected.

use super::*;

/// One tick of the time stamp counter is a microsecond.
fn pc() -> Pc {
    Pc::new(1000, 0)
}

fn write(pc: &mut Pc, port: u16, value: u32, now: u64) {
    assert_eq!(
        pc.write(port, Width::Byte, value, now),
        Some(None),
        "{port:#x}"
    );
}

fn read(pc: &mut Pc, port: u16, now: u64) -> u32 {
    pc.read(port, Width::Byte, now).expect("a device")
}

/// Both controllers as a PC's kernel sets them up; only IRQ 0 is not masked.
fn set_up_pic(pc: &mut Pc) {
    for (port, value) in [
        (0x20, 0x11),
        (0x21, 0x20),
        (0x21, 4),
        (0x21, 1),
        (0x21, 0xfe),
        (0xa0, 0x11),
        (0xa1, 0x28),
        (0xa1, 2),
        (0xa1, 1),
        (0xa1, 0xff),
    ] {
        write(pc, port, value, 0);
    }
}

#[test]
fn each_port_reaches_its_device() {
    let mut pc = pc();
    for (port, value, shown) in [
        (0x21, 0x5a, 0x5a),
        (0xa1, 0xa5, 0xa5),
        (0x70, 0x8e, 0x0e),
        (0x71, 0x77, 0x77),
        (0x60, 0x12, 0),
        (0x64, 0x20, 0),
        (0x80, 0x33, 0),
        (0x92, 0x02, 2),
        (0x4d0, 0xff, 0),
        (0x4d1, 0xff, 0),
        (0xcf9, 0x02, 0),
    ] {
        write(&mut pc, port, value, 0);
        assert_eq!(read(&mut pc, port, 0), shown, "{port:#x}");
    }
}

#[test]
fn nothing_is_there_at_other_ports_and_widths() {
    let mut pc = pc();
    for port in [0x22, 0x44, 0x62, 0x72, 0x3f8, 0x4d2, 0x60c, 0xcf8] {
        assert_eq!(pc.read(port, Width::Byte, 0), None, "{port:#x}");
        assert_eq!(pc.write(port, Width::Byte, 0, 0), None, "{port:#x}");
    }
    for port in [0x20, 0x40, 0x61, 0x70, 0x71] {
        assert_eq!(pc.read(port, Width::Word, 0), None, "{port:#x}");
        assert_eq!(pc.write(port, Width::Dword, 0, 0), None, "{port:#x}");
    }
}

#[test]
fn the_timer_interrupts_through_the_first_input() {
    let mut pc = pc();
    set_up_pic(&mut pc);
    assert_eq!(pc.deadline(), None);
    write(&mut pc, 0x43, 0x34, 100);
    write(&mut pc, 0x40, 0x9c, 100);
    write(&mut pc, 0x40, 0x2e, 100);
    // 11,932 clocks are 10,000.15 us.
    assert_eq!(pc.deadline(), Some(10_101));
    assert!(!pc.tick(10_100));
    assert!(!pc.interrupts());
    assert!(pc.tick(10_101));
    assert!(pc.interrupts());
    assert_eq!(pc.acknowledge(), 0x20);
    assert!(!pc.interrupts());
    assert_eq!(pc.deadline(), Some(20_101));
    assert!(pc.tick(20_101));
    assert!(!pc.interrupts(), "the first is not ended");
    write(&mut pc, 0x20, 0x20, 20_200);
    assert!(pc.interrupts());
}

#[test]
fn port_61_has_channel_2() {
    let mut pc = pc();
    write(&mut pc, 0x61, 0, 0);
    write(&mut pc, 0x43, 0xb0, 0);
    write(&mut pc, 0x42, 0xa9, 0);
    write(&mut pc, 0x42, 0x04, 0);
    assert_eq!(read(&mut pc, 0x61, 5000) & 0x21, 0, "the gate is closed");
    write(&mut pc, 0x61, 2, 5000);
    assert_eq!(
        read(&mut pc, 0x61, 9999) & 0x23,
        2,
        "the speaker is no gate"
    );
    write(&mut pc, 0x61, 1, 5000);
    assert_eq!(read(&mut pc, 0x61, 5999) & 0x23, 1);
    // 1193 clocks are 999.8 us.
    assert_eq!(read(&mut pc, 0x61, 6001) & 0x23, 0x21);
    let refreshes = (0..1000).filter(|&us| read(&mut pc, 0x61, us) & 0x10 != 0);
    assert!((490..510).contains(&refreshes.count()));
}

#[test]
fn a_clock_without_a_frequency_divides_by_nothing_else() {
    for khz in [0, u64::MAX] {
        let mut pc = Pc::new(khz, u64::MAX);
        for port in 0..=0xffff {
            for width in [Width::Byte, Width::Word, Width::Dword] {
                pc.read(port, width, u64::MAX);
            }
        }
    }
}
