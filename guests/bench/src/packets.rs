//! Packets: echoes one by one and in batches, and frames that are only sent.

use bench::frames::{self, ECHO};
use bench::samples::Samples;
use kit::{EXIT_FAILURE, cpu, println};

use crate::{Bench, tell};

/// Echoes of each way of waiting.
const PINGS: usize = 100;
/// Rest between two echoes, in microseconds: the device leaves 128 between two of its
/// interrupts (QEMU's model).
const REST: u64 = 200;
/// Batches of echoes, and of frames that nobody answers.
const BATCHES: u64 = 20;
/// Frames of a batch that are only sent.
const SENT: u64 = 16;

/// How an answer is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// Halted.
    Halted,
    /// Looking for it all the time.
    Looking,
}

/// Measures all of it.
pub fn measure(bench: &mut Bench) {
    bench.begin();
    let ours = bench.nic.address();
    let gateway = resolve(bench);
    for (name, rest, wait) in [
        ("ping", REST, Wait::Halted),
        ("ping-back-to-back", 0, Wait::Halted),
        ("ping-looking", REST, Wait::Looking),
    ] {
        pings(bench, name, rest, wait, gateway);
    }
    for (name, size) in [("echo-16", 16), ("echo-32", 32)] {
        let all = BATCHES * size;
        let mut ticks = 0;
        for _ in 0..BATCHES {
            bench.spin(REST);
            let start = cpu::tsc();
            for sequence in 0..size {
                send(bench, &frames::echo_request(ours, gateway, sequence as u16));
            }
            bench.nic.flush();
            bench.wait();
            for sequence in 0..size {
                await_echo(bench, sequence as u16);
            }
            ticks += cpu::tsc() - start;
        }
        tell(name, (ticks + all / 2) / all);
    }
    sent::<60>(bench, "send-60", gateway);
    sent::<1514>(bench, "send-1514", gateway);
}

/// Measures the same echo with interrupts posted, where the monitor does that.
pub fn posted(bench: &mut Bench) {
    bench.begin();
    let gateway = resolve(bench);
    pings(bench, "ping-posted", REST, Wait::Halted, gateway);
}

/// Prints the ticks of a frame of `LENGTH` bytes that nobody answers.
fn sent<const LENGTH: usize>(bench: &mut Bench, name: &str, gateway: [u8; 6]) {
    let frame = frames::unanswered::<LENGTH>(bench.nic.address(), gateway);
    let all = BATCHES * SENT;
    let start = cpu::tsc();
    for _ in 0..BATCHES {
        for _ in 0..SENT {
            send(bench, &frame);
        }
        bench.nic.flush();
    }
    tell(name, (cpu::tsc() - start + all / 2) / all);
    bench.interrupts.window();
}

/// Returns the gateway's hardware address.
fn resolve(bench: &mut Bench) -> [u8; 6] {
    send(bench, &frames::arp_request(bench.nic.address()));
    bench.nic.flush();
    loop {
        while let Some(length) = bench.nic.receive(&mut bench.frame) {
            if let Some(address) = frames::arp_reply(&bench.frame[..length]) {
                bench.nic.flush();
                return address;
            }
        }
        bench.nic.flush();
        bench.wait();
    }
}

/// Puts a frame into the ring, which has room for a batch.
fn send(bench: &mut Bench, frame: &[u8]) {
    if let Err(error) = bench.nic.transmit(frame) {
        println!("# bench: a frame cannot be sent: {error:?}");
        kit::exit(EXIT_FAILURE)
    }
}

/// Takes frames until the answer to this request came.
fn await_echo(bench: &mut Bench, sequence: u16) {
    loop {
        while let Some(length) = bench.nic.receive(&mut bench.frame) {
            if frames::echo_reply(&bench.frame[..length]) == Some(sequence) {
                return;
            }
        }
        bench.nic.flush();
        bench.wait();
    }
}

/// Measures echoes one by one, from just before the device is told of the request until
/// the answer is seen.
fn pings(bench: &mut Bench, name: &str, rest: u64, wait: Wait, gateway: [u8; 6]) {
    let ours = bench.nic.address();
    let mut samples = Samples::<PINGS>::new();
    for sequence in 0..PINGS as u16 {
        let request: [u8; ECHO] = frames::echo_request(ours, gateway, sequence);
        send(bench, &request);
        bench.spin(rest);
        let start = cpu::tsc();
        bench.nic.flush();
        // The answer may be there already: who waits by halting takes its interrupt.
        if wait == Wait::Halted {
            bench.wait();
        }
        while !bench.nic.can_receive() {
            if wait == Wait::Halted {
                bench.wait();
            }
        }
        samples.push(cpu::tsc() - start);
        await_echo(bench, sequence);
        bench.nic.flush();
        if wait == Wait::Looking {
            bench.interrupts.window();
        }
    }
    let Some(summary) = samples.summary() else {
        return;
    };
    tell(name, summary.median);
    for (part, value) in [("mean", summary.mean), ("max", summary.max)] {
        println!("# bench: {name}-{part} {value}");
    }
}
