//! A network as far as it takes to ask a neighbour for echoes: ARP, IPv4 and ICMP
//! (RFC 826, 791 and 792), in Ethernet frames.

use solo5::abi::{AGAIN, Net, OK, Poll, call};
use solo5::manifest::Entry;

use crate::call::make;
use crate::checks::ticks;
use crate::println;

/// Addresses in QEMU's user network: a guest's, and that of its gateway, which answers.
const OWN: [u8; 4] = [10, 0, 2, 15];
const GATEWAY: [u8; 4] = [10, 0, 2, 2];
const ARP: [u8; 2] = [0x08, 0x06];
const IPV4: [u8; 2] = [0x08, 0x00];
const ICMP: u8 = 1;
const ECHO: u8 = 8;
const ECHO_REPLY: u8 = 0;
/// Longest wait for an answer in nanoseconds: a bound on failures, not a measurement.
const PATIENCE: u64 = 5_000_000_000;
/// Most round trips that are measured.
const SAMPLES: usize = 5000;

type Frame = [u8; 1514];

/// One of the image's networks.
struct Network {
    handle: usize,
    address: [u8; 6],
    frame: Frame,
}

impl Network {
    fn send(&mut self, length: usize) -> Result<(), &'static str> {
        let mut net = Net {
            handle: self.handle as u64,
            data: self.frame.as_ptr().addr() as u64,
            length: length as u64,
            ret: -1,
            ..Net::default()
        };
        make::<{ call::NET_WRITE }, _>(&mut net);
        if net.ret == OK {
            Ok(())
        } else {
            Err("a frame was not sent")
        }
    }

    /// Reads frames until `wanted` takes one, or time is over.
    fn receive<T>(&mut self, wanted: impl Fn(&[u8]) -> Option<T>) -> Result<T, &'static str> {
        loop {
            let mut net = Net {
                handle: self.handle as u64,
                data: self.frame.as_mut_ptr().addr() as u64,
                length: self.frame.len() as u64,
                ret: -1,
                ..Net::default()
            };
            make::<{ call::NET_READ }, _>(&mut net);
            match net.ret {
                OK => {
                    let frame = self.frame.get(..net.length as usize);
                    if let Some(found) = wanted(frame.ok_or("a frame is too long")?) {
                        return Ok(found);
                    }
                }
                AGAIN => {
                    let mut poll = Poll {
                        timeout_nsecs: PATIENCE,
                        ..Poll::default()
                    };
                    make::<{ call::POLL }, _>(&mut poll);
                    if poll.ready_set >> self.handle & 1 == 0 {
                        return Err("no answer came");
                    }
                }
                _ => return Err("a read failed"),
            }
        }
    }

    fn header(&mut self, to: [u8; 6], kind: [u8; 2]) {
        self.frame[..6].copy_from_slice(&to);
        self.frame[6..12].copy_from_slice(&self.address);
        self.frame[12..14].copy_from_slice(&kind);
    }

    /// Asks who has the gateway's address.
    fn gateway(&mut self) -> Result<[u8; 6], &'static str> {
        self.frame.fill(0);
        self.header([0xff; 6], ARP);
        // Ethernet, IPv4, lengths of their addresses, a request.
        self.frame[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
        self.frame[22..28].copy_from_slice(&self.address);
        self.frame[28..32].copy_from_slice(&OWN);
        self.frame[38..42].copy_from_slice(&GATEWAY);
        self.send(60)?;
        self.receive(|frame| {
            let answer = frame[12..14] == ARP && frame.get(21) == Some(&2);
            let from = frame.get(28..32).is_some_and(|from| from == GATEWAY);
            let mac = frame.get(22..28)?.try_into().ok()?;
            (answer && from).then_some(mac)
        })
    }

    /// Asks for an echo of `length` bytes, and waits for it.
    fn echo(&mut self, to: [u8; 6], number: u16, length: usize) -> Result<(), &'static str> {
        let whole = 14 + 20 + 8 + length;
        self.frame[..whole].fill(0);
        self.header(to, IPV4);
        let ip = &mut self.frame[14..whole];
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&((whole - 14) as u16).to_be_bytes());
        ip[8] = 64;
        ip[9] = ICMP;
        ip[12..16].copy_from_slice(&OWN);
        ip[16..20].copy_from_slice(&GATEWAY);
        let sum = checksum(&ip[..20]);
        ip[10..12].copy_from_slice(&sum);
        let icmp = &mut ip[20..];
        icmp[0] = ECHO;
        icmp[6..8].copy_from_slice(&number.to_be_bytes());
        for (at, byte) in icmp[8..].iter_mut().enumerate() {
            *byte = (at as u16 ^ number) as u8;
        }
        let sum = checksum(icmp);
        icmp[2..4].copy_from_slice(&sum);
        self.send(whole.max(60))?;
        self.receive(|frame| {
            let reply = frame.get(14 + 20..whole)?;
            let ours = frame[12..14] == IPV4 && frame[14 + 9] == ICMP && reply[0] == ECHO_REPLY;
            let same = reply[6..8] == number.to_be_bytes()
                && reply[8..]
                    .iter()
                    .enumerate()
                    .all(|(at, &b)| b == (at as u16 ^ number) as u8);
            (ours && same && checksum(reply) == [0, 0]).then_some(())
        })
    }
}

/// Returns the Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// Asks the gateway of a network for `count` echoes, of every size, one after the other.
pub fn echoes(entry: &Entry, handle: usize, count: usize, hertz: u64) -> Result<(), &'static str> {
    static mut TIMES: [u64; SAMPLES] = [0; SAMPLES];
    let times = &raw mut TIMES;
    // SAFETY: this function is the only one that names them, and it does not call itself.
    let times = unsafe { &mut *times };
    let mut network = Network {
        handle,
        address: entry.network().0,
        frame: [0; 1514],
    };
    let gateway = network.gateway()?;
    for number in 0..count {
        let before = ticks();
        // Up to the longest frame.
        let length = if number % 2 == 0 { 56 } else { number % 1473 };
        network.echo(gateway, number as u16, length)?;
        if let Some(time) = times.get_mut(number) {
            *time = ticks() - before;
        }
    }
    let times = &mut times[..count.min(SAMPLES)];
    times.sort_unstable_by(u64::cmp);
    let median = times.get(times.len() / 2).copied().unwrap_or(0);
    let micros = median * 1_000_000 / hertz.max(1);
    println!("# {count} of {count} echoes, median {micros} us, {median} ticks");
    Ok(())
}
