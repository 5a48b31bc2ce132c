//! What each part of the machine must do.

use core::arch::asm;

use solo5::abi::{AGAIN, Block, BootInfo, EINVAL, Net, OK, Poll, Puts, WallTime, call};
use solo5::manifest::{Entry, Kind};

use crate::call::{PORTS, at, make};
use crate::{DISK, NET, println};

unsafe extern "C" {
    safe fn call_with_marks(port: u16, argument: u32) -> u64;
    static image_end: u8;
}

/// Returns an error unless something holds.
fn expect(holds: bool, why: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(why) }
}

/// Checks the boot information, and the devices in it.
pub fn boot_info(info: &BootInfo, entries: &[Entry]) -> Result<(), &'static str> {
    let end = &raw const image_end as u64;
    let rsp: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) rsp, options(nomem, nostack, preserves_flags)) };
    expect(info.kernel_end == end.next_multiple_of(4096), "kernel_end")?;
    expect(
        info.mem_size > end && info.mem_size - rsp < 0x1_0000,
        "the stack",
    )?;
    expect(info.cpu_cycle_freq > 1_000_000, "cpu_cycle_freq")?;
    let names = ["", "service", "storage", "management"];
    let kinds = [None, Some(Kind::Net), Some(Kind::Block), Some(Kind::Net)];
    for ((entry, name), kind) in entries.iter().zip(names).zip(kinds) {
        expect(
            entry.name() == Some(name) && entry.kind() == kind,
            "an entry",
        )?;
    }
    let (mac, mtu) = entries[NET].network();
    // The addresses of QEMU's networks are locally administered, and no group's.
    expect(mac[0] == 0x52 && mtu == 1500, "the network's properties")?;
    expect(
        entries[3].network().0 != mac,
        "the second network's address",
    )?;
    let (capacity, size) = entries[DISK].disk();
    expect(size == 512 && capacity >= 1 << 20, "the disk's properties")
}

/// Checks that a call keeps what is the image's, and so an output that is no call.
pub fn registers() -> Result<(), &'static str> {
    let time = WallTime::default();
    let address = (&raw const time).addr() as u32;
    for port in [PORTS + call::WALLTIME as u16, PORTS, PORTS + 9] {
        let lost = call_with_marks(port, address);
        if lost > 0 {
            println!("# {lost} lost by an output to port {port:#x}");
        }
        expect(lost == 0, "registers were not kept")?;
    }
    Ok(())
}

/// Checks that the thread pointer is there, before a call and after it.
pub fn thread_pointer() -> Result<(), &'static str> {
    let read = || {
        let value: u64;
        // SAFETY: start.s has put its own address into the first word of the thread's.
        unsafe { asm!("mov {}, fs:[0]", out(reg) value, options(nostack, preserves_flags)) };
        // SAFETY: likewise.
        value != 0 && unsafe { *(value as *const u64) } == value
    };
    let before = read();
    make(call::POLL, &mut Poll::default());
    expect(before && read(), "fs:0 is not the thread's")
}

fn wall() -> u64 {
    let mut time = WallTime::default();
    make(call::WALLTIME, &mut time);
    time.nsecs
}

/// Lets time pass with nothing to do, for `vectis soak`, which compares meanwhile. Frames
/// that come end a wait early.
pub fn rest(seconds: u64) {
    println!("# soak: rests");
    let end = wall() + seconds * 1_000_000_000;
    loop {
        let now = wall();
        if now >= end {
            break;
        }
        let mut poll = Poll {
            timeout_nsecs: end - now,
            ..Poll::default()
        };
        make(call::POLL, &mut poll);
    }
    println!("# soak: works");
}

/// Returns the time stamp counter.
pub fn ticks() -> u64 {
    // SAFETY: reading the counter has no side effect.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Checks both clocks, and that a wait ends when it must.
pub fn time(hertz: u64) -> Result<(), &'static str> {
    const WAIT: u64 = 20_000_000;
    let (wall_before, before) = (wall(), ticks());
    // 2020.
    expect(wall_before > 1_577_836_800_000_000_000, "the time of day")?;
    let mut poll = Poll {
        timeout_nsecs: WAIT,
        ret: -1,
        ..Poll::default()
    };
    make(call::POLL, &mut poll);
    expect(poll.ret == 0 && poll.ready_set == 0, "a network was ready")?;
    let waited = (u128::from(ticks() - before) * 1_000_000_000 / u128::from(hertz)) as u64;
    let wall = wall() - wall_before;
    println!("# waited {waited} ns, {wall} ns by the wall clock");
    expect(waited >= WAIT && wall >= WAIT, "the wait was too short")?;
    // Both count the same.
    expect(wall.abs_diff(waited) < WAIT, "the clocks differ")?;
    poll.timeout_nsecs = 0;
    make(call::POLL, &mut poll);
    expect(poll.ret == 0, "poll without a wait")
}

/// Makes calls that do next to nothing, and says how long one takes.
pub fn calls() -> Result<(), &'static str> {
    const CALLS: u64 = 1000;
    let mut time = WallTime::default();
    make(call::WALLTIME, &mut time);
    let before = ticks();
    for _ in 0..CALLS {
        make(call::WALLTIME, &mut time);
    }
    println!("# a call takes {} ticks", (ticks() - before) / CALLS);
    expect(time.nsecs > 0, "the time of day")
}

/// A disk that requests go to.
struct Disk;

impl Disk {
    fn run(number: u32, offset: u64, data: *const u8, length: u64) -> i32 {
        let mut block = Block {
            handle: DISK as u64,
            offset,
            data: data.addr() as u64,
            length,
            ret: -1,
            ..Block::default()
        };
        make(number, &mut block);
        block.ret
    }

    fn write(offset: u64, data: &[u8]) -> i32 {
        Self::run(call::BLOCK_WRITE, offset, data.as_ptr(), data.len() as u64)
    }

    fn read(offset: u64, data: &mut [u8]) -> i32 {
        Self::run(
            call::BLOCK_READ,
            offset,
            data.as_mut_ptr(),
            data.len() as u64,
        )
    }
}

/// Writes blocks and reads them back, at both ends of the disk and over several pages.
pub fn block(entry: &Entry) -> Result<(), &'static str> {
    static mut BUFFERS: [[u8; 16 << 10]; 2] = [[0; 16 << 10]; 2];
    let buffers = &raw mut BUFFERS;
    // SAFETY: this function is the only one that names them, and it runs once.
    let [data, read] = unsafe { &mut *buffers };
    let (capacity, size) = entry.disk();
    let size = usize::from(size);
    let mut first = [0; 8];
    expect(
        Disk::read(0, &mut read[..size]) == OK,
        "the first block is not read",
    )?;
    first.copy_from_slice(&read[..8]);
    println!(
        "# disk of {capacity} bytes begins with {}",
        u64::from_le_bytes(first)
    );
    for (round, (offset, length)) in [
        (3 * size as u64, size),
        (8 * size as u64, 16 << 10),
        (capacity - size as u64, size),
    ]
    .into_iter()
    .enumerate()
    {
        for (at, byte) in data.iter_mut().enumerate() {
            *byte = (at / 3 + 17 * round) as u8;
        }
        read.fill(0);
        expect(Disk::write(offset, &data[..length]) == OK, "a write failed")?;
        expect(
            Disk::read(offset, &mut read[..length]) == OK,
            "a read failed",
        )?;
        expect(
            data[..length] == read[..length],
            "what was read is not what was written",
        )?;
    }
    // What lies between is as it was.
    expect(
        Disk::read(4 * size as u64, &mut read[..size]) == OK,
        "a read failed",
    )?;
    expect(
        read[..size].iter().all(|&byte| byte == 0),
        "another block was written",
    )?;
    expect(
        Disk::read(capacity, &mut read[..size]) == EINVAL,
        "past the end",
    )?;
    expect(Disk::read(1, &mut read[..size]) == EINVAL, "between blocks")
}

/// Makes bad calls: each is refused, and the image and the shim go on.
pub fn hostile(memory: u64) -> Result<(), &'static str> {
    let mut data = [0_u8; 512];
    let good = data.as_mut_ptr().addr() as u64;
    // The shim's memory begins at `memory`.
    let places = [
        (memory - 100, 512),
        (memory, 512),
        (memory + 0x10_0000, 512),
        (u64::MAX - 100, 512),
        (0, 512),
        (0xfee0_0000, 512),
        (good, u64::MAX),
        (good, 1 << 40),
        (1 << 32 | good, 512),
    ];
    let bad_handles = [0, 63, 64, u64::MAX, 1 << 32 | NET as u64];
    let handles = |own: usize| {
        bad_handles
            .map(|bad| (bad, good, 512))
            .into_iter()
            .chain(places.map(|(place, length)| (own as u64, place, length)))
    };
    for (handle, data, length) in handles(NET).chain([(DISK as u64, good, 60)]) {
        for number in [call::NET_READ, call::NET_WRITE] {
            let mut net = Net {
                handle,
                data,
                length,
                ret: -1,
                ..Net::default()
            };
            make(number, &mut net);
            expect(net.ret == EINVAL, "a bad network call was taken")?;
        }
    }
    for (handle, data, length) in handles(DISK).chain([(NET as u64, good, 512)]) {
        for number in [call::BLOCK_READ, call::BLOCK_WRITE] {
            let mut block = Block {
                handle,
                data,
                length,
                ret: -1,
                ..Block::default()
            };
            make(number, &mut block);
            expect(block.ret == EINVAL, "a bad disk call was taken")?;
        }
    }
    for (offset, length) in [
        (1 << 60, 512),
        (u64::MAX - 511, 512),
        (u64::MAX - 511, 1024),
    ] {
        let ret = Disk::run(call::BLOCK_WRITE, offset, data.as_ptr(), length);
        expect(ret == EINVAL, "a bad place on the disk was taken")?;
    }
    // Arguments that are not memory have no answer.
    for number in 0..9 {
        // A halt ends the guest whatever its argument is.
        if number != call::HALT {
            for address in [0, 8, memory as u32 - 4, memory as u32, u32::MAX - 3] {
                at(number, address);
            }
        }
    }
    for (data, length) in places {
        make(call::PUTS, &mut Puts { data, length });
    }
    // All is still there.
    let mut net = Net {
        handle: NET as u64,
        data: good,
        length: 512,
        ret: -1,
        ..Net::default()
    };
    make(call::NET_READ, &mut net);
    expect(net.ret == AGAIN || net.ret == OK, "the network is gone")?;
    expect(Disk::read(0, &mut data) == OK, "the disk is gone")
}
