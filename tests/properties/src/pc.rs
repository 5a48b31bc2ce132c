//! The devices of a PC under random port accesses at random times: whatever a guest does
//! there, they ask for no more than one interrupt at a time and never for one in the past
//! that they have already raised.

use pci::Width;
use proptest::prelude::*;
use vmm::Pc;

#[derive(Clone, Copy, Debug)]
enum Op {
    Read(u16, Width),
    Write(u16, Width, u32),
    /// So many ticks of the time stamp counter pass.
    Pass(u64),
    Tick,
    Acknowledge,
}

/// Ports of the devices, and a few others.
fn port() -> impl Strategy<Value = u16> {
    prop_oneof![
        4 => prop::sample::select(vec![0x20u16, 0x21, 0xa0, 0xa1]),
        6 => 0x40..0x44u16,
        2 => prop::sample::select(vec![0x60u16, 0x61, 0x64, 0x70, 0x71, 0x80, 0x92, 0xcf9]),
        2 => 0x5fe..0x60eu16,
        1 => any::<u16>(),
    ]
}

fn width() -> impl Strategy<Value = Width> {
    prop_oneof![8 => Just(Width::Byte), 1 => Just(Width::Word), 1 => Just(Width::Dword)]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (port(), width()).prop_map(|(port, width)| Op::Read(port, width)),
        8 => (port(), width(), any::<u32>()).prop_map(|(p, w, value)| Op::Write(p, w, value)),
        3 => (0..5000u64).prop_map(Op::Pass),
        1 => any::<u64>().prop_map(Op::Pass),
        3 => Just(Op::Tick),
        3 => Just(Op::Acknowledge),
    ]
}

proptest! {
    #![proptest_config(crate::config(512))]

    #[test]
    fn any_accesses_at_any_time(
        tsc_khz in prop_oneof![1..4_000_000u64, Just(0), any::<u64>()],
        start in any::<u64>(),
        ops in prop::collection::vec(op(), 1..200),
    ) {
        let mut pc = Pc::new(tsc_khz, start);
        let mut now = 0u64;
        for op in ops {
            match op {
                Op::Read(port, width) => {
                    if let Some(value) = pc.read(port, width, now) {
                        prop_assert!(u64::from(value) <= width.all_ones());
                    }
                }
                Op::Write(port, width, value) => {
                    pc.write(port, width, value, now);
                }
                // A deadline past the end of the counter cannot be told from its end.
                Op::Pass(ticks) => now = now.saturating_add(ticks).min(u64::MAX / 2),
                Op::Tick => {
                    let due = pc.deadline().is_some_and(|deadline| deadline <= now);
                    prop_assert_eq!(pc.tick(now), due);
                    let next = pc.deadline();
                    prop_assert!(next.is_none_or(|next| next > now));
                }
                Op::Acknowledge => {
                    pc.acknowledge();
                }
            }
        }
    }
}
