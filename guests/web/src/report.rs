//! The figures that the page and the metrics show.

use core::net::Ipv4Addr;

use kit::msix::Entry;
use kit::network::{Link, Statistics};
use kit::pci::{Bar, Bdf};

/// Where the guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// In ring 3, as an seL4 thread under Vectis.
    Vectis,
    /// In ring 0, with the machine to itself.
    Bare,
}

/// An address lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Our address.
    pub address: Ipv4Addr,
    /// Length of the network prefix in bits.
    pub prefix: u8,
    /// The default router, if one was named.
    pub router: Option<Ipv4Addr>,
    /// Seconds until the lease ends.
    pub seconds_left: u64,
}

/// One MSI-X entry and its interrupt count.
#[derive(Clone, Copy, Debug)]
pub struct EntryReport {
    /// The entry as the guest wrote it.
    pub entry: Entry,
    /// The guest's use of it; `None` if unused.
    pub purpose: Option<&'static str>,
    /// Interrupts taken.
    pub interrupts: u64,
}

/// Counts of the server's work so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Requests answered, errors included.
    pub answered: u64,
    /// Those answered with a status of 400 or more.
    pub refused: u64,
    /// Connections accepted.
    pub connections: u64,
    /// Connections ended because nothing came for too long.
    pub timeouts: u64,
}

/// Everything that is shown, at one moment.
pub struct Report<'a> {
    /// Where the guest runs.
    pub host: Host,
    /// The kernel below, as the hypervisor names it: words with commas between them.
    pub kernel: Option<&'a str>,
    /// The hypervisor that CPUID names, if any.
    pub cpu_vendor: Option<&'a str>,
    /// Whether the local APIC is in x2APIC mode.
    pub x2apic: bool,
    /// Microseconds since the guest was entered.
    pub uptime_micros: u64,
    /// Unix time in nanoseconds, if it is known.
    pub unix_ns: Option<u64>,
    /// Time stamp counter frequency in kHz.
    pub tsc_khz: u64,
    /// Usable memory in the loader's map, in bytes.
    pub memory_bytes: u64,
    /// Where the network function is.
    pub bdf: Bdf,
    /// Its vendor identifier.
    pub vendor: u16,
    /// Its device identifier.
    pub device: u16,
    /// Its BARs.
    pub bars: &'a [Option<Bar>; 6],
    /// Its MSI-X table.
    pub entries: &'a [EntryReport],
    /// Interrupts of the local APIC's timer.
    pub timer_interrupts: u64,
    /// How often the CPU was halted for want of work.
    pub halts: u64,
    /// Station address.
    pub mac: [u8; 6],
    /// State of the link.
    pub link: Link,
    /// Frames and bytes.
    pub traffic: Statistics,
    /// The address lease, once there is one.
    pub lease: Option<Lease>,
    /// The server's work.
    pub requests: Requests,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use kit::pci::BarKind;

    const BARS: [Option<Bar>; 6] = [
        Some(Bar {
            kind: BarKind::Memory32,
            address: 0xfebc_0000,
            size: 0x2_0000,
        }),
        None,
        Some(Bar {
            kind: BarKind::Io,
            address: 0xc000,
            size: 32,
        }),
        Some(Bar {
            kind: BarKind::Memory32,
            address: 0xfebd_0000,
            size: 0x4000,
        }),
        None,
        None,
    ];

    const fn entry(vector: u32, purpose: Option<&'static str>, interrupts: u64) -> EntryReport {
        let masked = purpose.is_none();
        let entry = Entry {
            address: 0xfee0_0000,
            data: vector,
            masked,
        };
        EntryReport {
            entry,
            purpose,
            interrupts,
        }
    }

    const ENTRIES: [EntryReport; 4] = [
        entry(0x51, Some("rx"), 1234),
        entry(0x52, Some("tx"), 56),
        entry(0x53, Some("other"), 0),
        entry(0, None, 0),
    ];

    pub(crate) fn sample() -> Report<'static> {
        Report {
            host: Host::Vectis,
            kernel: Some("5.0.0,bundled"),
            cpu_vendor: Some("TCGTCGTCGTCG"),
            x2apic: false,
            uptime_micros: 93_784_000_123,
            unix_ns: Some(1_795_814_130_000_000_005),
            tsc_khz: 2_400_000,
            memory_bytes: 32 << 20,
            bdf: Bdf {
                bus: 0,
                device: 2,
                function: 0,
            },
            vendor: 0x8086,
            device: 0x10d3,
            bars: &BARS,
            entries: &ENTRIES,
            timer_interrupts: 7,
            halts: 1300,
            mac: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
            link: Link {
                up: true,
                speed: 1000,
                full_duplex: true,
            },
            traffic: Statistics {
                received_packets: 10,
                received_bytes: 2_048_000,
                sent_packets: 11,
                sent_bytes: 999,
                missed: 1,
                receive_errors: 2,
                send_drops: 4,
                transmit_hangs: 5,
            },
            lease: Some(Lease {
                address: Ipv4Addr::new(10, 0, 2, 15),
                prefix: 24,
                router: Some(Ipv4Addr::new(10, 0, 2, 2)),
                seconds_left: 86_000,
            }),
            requests: Requests {
                answered: 42,
                refused: 3,
                connections: 8,
                timeouts: 1,
            },
        }
    }
}
