//! Attacks by DMA. Without an IOMMU they reach the kernel.

use probe::check::{Stop, Verdict, expect};
use probe::target::{BUS_MASTER, MEMORY};

use crate::attack::{Attack, Group, Hostile};
use crate::machine::{Dma, Machine, SCRATCH};

/// First address of interrupt messages.
const MESSAGES: u64 = 0xfee0_0000;
/// The byte that is written.
const PATTERN: u8 = 0xa5;
/// The buffer's contents before a read.
const BEFORE: u8 = 0x5a;

/// Returns the attacks.
pub fn attacks<M: Machine>() -> [Attack<M>; 4] {
    let attack = |name, run| Attack {
        name,
        group: Group::Dma,
        run,
    };
    [
        Attack {
            name: "dma-within",
            group: Group::Common,
            run: within,
        },
        attack("dma-reads", reads),
        attack("dma-writes", writes),
        attack("dma-interrupts", interrupts),
    ]
}

/// Returns addresses that are not the guest's: those of low memory and firmware, of the
/// kernel and what it loads, on both sides of its RAM, of the configuration window, the
/// own and others' BARs, the I/O APIC, the timer, the IOMMU.
fn places<M: Machine>(h: &mut Hostile<M>) -> [u64; 16] {
    let own = h.machine().ram();
    let table = h.target.bar_address(3);
    let random = h.random.word() & 0x1fff_ffc0;
    let all = [
        0x500,
        0x7c00,
        0xf_0000,
        0x10_0000,
        0x20_0000,
        0x100_0000,
        own.start.wrapping_sub(0x1000),
        own.start.wrapping_sub(0x100_0000),
        own.end,
        own.end + 0x10_0000,
        0xb000_0000,
        table,
        0xfec0_0000,
        0xfed0_0000,
        0xfed9_0000,
        random,
    ];
    // An access to its own RAM is not an attack: the place as far behind it is taken.
    all.map(|place| match own.contains(&place) {
        true => own.end + place,
        false => place,
    })
}

/// Reads and writes the guest's own memory. Not an attack: if this failed, the
/// other results would prove nothing.
fn within<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    start(h)?;
    let scratch = h.machine().scratch();
    for round in 0..h.times(16) {
        let place = scratch + h.random.below(SCRATCH - 256);
        let first = h.random.word() as u8;
        let bytes: [u8; 128] = core::array::from_fn(|n| first.wrapping_add(n as u8));
        let written = engine(h)?.write(place, &bytes);
        expect("write by DMA", place, true, written.is_ok())?;
        for (at, byte) in (place..).zip(bytes) {
            let found = h.reach().load(at, 1).1 & 0xff;
            expect("byte written by DMA", at, byte, found)?;
        }
        let mut back = [0; 128];
        let read = engine(h)?.read(place, &mut back);
        expect("read by DMA", place, true, read.is_ok())?;
        let same = back == bytes;
        expect("bytes read by DMA", round, true, same)?;
    }
    finish(h)
}

/// Reads foreign memory: the device must get one value all over, or no answer.
fn reads<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    start(h)?;
    for _ in 0..h.times(4) {
        for place in places(h) {
            let dma = engine(h)?;
            let mut bytes = [BEFORE; 256];
            if dma.read(place, &mut bytes).is_ok() {
                let others = bytes.iter().filter(|byte| **byte != bytes[0]).count();
                expect("foreign bytes read by DMA", place, 0u8, others as u64)?;
            }
        }
    }
    finish(h)
}

/// Writes to foreign memory. The test outside checks whether anything was damaged.
fn writes<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    start(h)?;
    for _ in 0..h.times(4) {
        for place in places(h) {
            let dma = engine(h)?;
            let _ = dma.write(place, &[PATTERN; 256]);
        }
    }
    finish(h)
}

/// Sends interrupt messages in all their forms: vectors of the kernel, of other
/// guests and of exceptions, other delivery modes, every place in the range, the
/// remappable format. None arrives here.
fn interrupts<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    start(h)?;
    let before: [u64; 256] = core::array::from_fn(|v| h.machine().taken(v as u8));
    for round in 0..h.times(400) {
        let vector = h.random.pick(&[
            0x15, 0xa0, 0x30, 0x31, 0x32, 0x40, 0x51, 0x9b, 0x9e, 0xfe, 0xff, 0x00, 0x02, 0x08,
            0x0e,
        ]);
        // Fixed, SMI, NMI, INIT, start-up, ExtINT; level.
        let mode = h
            .random
            .pick(&[0, 0, 0, 0x200, 0x400, 0x500, 0x600, 0x700, 0xc000]);
        let within = h.random.below(0x10_0000) & !3;
        let remappable = 0x10 | h.random.below(0x8000) << 5 | (h.random.below(2) << 3);
        let offset = h
            .random
            .pick(&[0, 0, within, remappable, 0xf_f000, 0xf_fffc]);
        let dma = engine(h)?;
        let _ = dma.forge(MESSAGES + offset, mode | vector);
        if round % 16 == 0 {
            h.machine().window();
        }
    }
    for vector in 0x20..=u8::MAX {
        let more = h.machine().taken(vector) - before[usize::from(vector)];
        // The timer's may be the guest's own.
        let expected = if vector == 0x40 { more } else { 0 };
        expect("forged interrupts taken", vector, expected, more)?;
    }
    finish(h)
}

fn engine<'h, M: Machine>(h: &'h mut Hostile<M>) -> Verdict<&'h mut dyn Dma> {
    h.machine().dma().ok_or(Stop::Skip("no copy engine"))
}

fn start<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    h.target.set_command(MEMORY | BUS_MASTER);
    let started = engine(h)?.start().is_ok();
    expect("reset before DMA", 0u8, true, started)
}

fn finish<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    let silent = engine(h)?.quiesce().is_ok();
    expect("reset after DMA", 0u8, true, silent)
}
