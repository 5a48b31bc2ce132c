//! The web guest: brings up the machine, then serves until it is switched off.
//!
//! Responsible for: wiring kit's hardware to the server of this crate's
//! library, and sleeping whenever there is nothing to do.
//! Must never: poll while idle, or act inside an interrupt handler.
//! May call: kit, smoltcp, the library.
//! Invariants: interrupts are off except in `Interrupts::wait` and `window`.
#![no_std]
#![no_main]

use core::fmt::Write;

use kit::boot::Boot;
use kit::boot_params::MemoryKind;
use kit::clock::Clock;
use kit::e1000e::dma::DmaMemory;
use kit::interrupts::Interrupts;
use kit::lapic::{self, Lapic};
use kit::mmio::Mmio;
use kit::msix::{Capability, Msix};
use kit::network::{self, Driver, Model, Nic, OTHER_ENTRY, RECEIVE_ENTRY, TRANSMIT_ENTRY};
use kit::pci::{self, Function, Way};
use kit::virtio::net::NetMemory;
use kit::{console, cpu, e1000e, println, virtio};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet, SocketStorage};
use smoltcp::socket::dhcpv4;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{DhcpPacket, DhcpRepr, EthernetAddress, IpCidr, Ipv4Cidr};
use static_cell::ConstStaticCell;
use web::http::Resource;
use web::report::{EntryReport, Host, Lease, Report, Requests};
use web::server::{CONNECTIONS, Memory, Server};
use web::{metrics, page};

kit::entry!(main);

const PORT: u16 = 80;

/// Vectors of the device's interrupts, by MSI-X entry. All share one priority
/// class (the upper digit), above the timer's.
const VECTORS: [(usize, u8, &str); 3] = [
    (RECEIVE_ENTRY, 0x51, "rx"),
    (TRANSMIT_ENTRY, 0x52, "tx"),
    (OTHER_ENTRY, 0x53, "other"),
];

/// Longest sleep without a deadline, so that figures such as the lease's end
/// are looked at now and then.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Wait for a full transmit ring before looking again (a link that is down
/// drains nothing and tells nothing).
const FULL_RING_RETRY: Duration = Duration::from_millis(100);

static DMA: DmaMemory = DmaMemory::new();
static VIRTIO: NetMemory = NetMemory::new();
static SERVER: ConstStaticCell<Memory> = ConstStaticCell::new(Memory::new());
static SOCKETS: ConstStaticCell<[SocketStorage; CONNECTIONS + 1]> =
    ConstStaticCell::new([SocketStorage::EMPTY; CONNECTIONS + 1]);
/// Holds the DHCP packet that a lease came with: any that fits into a frame.
static DHCP_PACKET: ConstStaticCell<[u8; 1500]> = ConstStaticCell::new([0; 1500]);

/// The machine, as the figures need it.
struct Machine {
    boot: Boot,
    clock: Clock,
    interrupts: Interrupts,
    lapic: Lapic,
    function: Function<pci::Config>,
    msix: Msix<Mmio>,
}

/// An address lease with the time of its end.
struct Held {
    lease: Lease,
    end: Instant,
}

fn main(boot: Boot) -> ! {
    console::init();
    println!("web: entry tsc={}", boot.entry_tsc);
    let clock = Clock::calibrated(boot.entry_tsc, &boot.command_line);
    let mut interrupts = Interrupts::install();
    interrupts.post(&boot.command_line);
    let lapic = Lapic::enable(&clock, &boot.command_line);
    let way = Way::of(&boot.command_line);
    let (mut function, model) =
        network::find(way).expect("there is no network function that has a driver here");
    function.enable();
    let capability = Capability::read(&function).expect("the function has no usable MSI-X");
    let table = function
        .map(capability.table_bar)
        .expect("the MSI-X table cannot be mapped");
    let mut msix = Msix::new(capability, table, &mut function);
    for (entry, vector, _) in VECTORS {
        msix.route(entry, vector, lapic.id())
            .expect("the MSI-X table is too small");
    }
    msix.enable(&mut function);
    let (mut intel, mut paravirtual);
    let driver: &mut dyn Driver = match model {
        Model::E1000e => {
            intel = start_e1000e(&mut function);
            &mut intel
        }
        Model::Virtio => {
            paravirtual = start_virtio(way, &mut function);
            &mut paravirtual
        }
    };
    println!("web: driver up tsc={}", cpu::tsc());

    let machine = Machine {
        boot,
        clock,
        interrupts,
        lapic,
        function,
        msix,
    };
    run(machine, Nic::new(driver))
}

/// Starts an 82574L whose MSI-X is on.
fn start_e1000e(function: &mut Function<pci::Config>) -> e1000e::E1000e<'static, Mmio> {
    let registers = function
        .map(e1000e::REGISTER_BAR)
        .expect("BAR 0 cannot be mapped");
    let stopped = e1000e::Stopped::reset(registers).expect("the network device does not start");
    // The reset has cleared any earlier setup, so it may reach memory.
    function.enable_bus_master();
    stopped.start(&DMA)
}

/// Starts a virtio network whose MSI-X is on.
fn start_virtio(way: Way, function: &mut Function<pci::Config>) -> virtio::net::Network {
    let stopped = virtio::Stopped::reset(way, function).expect("the network device does not start");
    // As above.
    function.enable_bus_master();
    stopped
        .start_network(&VIRTIO)
        .expect("the network device does not start")
}

/// Runs the loop: the stack, the server, then sleep until something happens.
fn run(mut machine: Machine, mut nic: Nic<'_>) -> ! {
    let mut config = Config::new(EthernetAddress(nic.driver.address()).into());
    config.random_seed = cpu::tsc();
    let mut interface = Interface::new(config, &mut nic, now(&machine.clock));
    let mut sockets = SocketSet::new(&mut SOCKETS.take()[..]);
    let mut dhcp = dhcpv4::Socket::new();
    dhcp.set_receive_packet_buffer(&mut DHCP_PACKET.take()[..]);
    let dhcp = sockets.add(dhcp);
    let mut server = Server::new(PORT, SERVER.take(), &mut sockets);

    let mut held: Option<Held> = None;
    let mut serving = false;
    let mut others_seen = 0;
    let mut armed: Option<Instant> = None;
    let mut timers_seen = 0;
    loop {
        let time = now(&machine.clock);
        interface.poll(time, &mut nic, &mut sockets);
        if let Some(event) = sockets.get_mut::<dhcpv4::Socket>(dhcp).poll() {
            let was_held = held.is_some();
            held = configure(&mut interface, event, time);
            if let Some(held) = held.as_ref().filter(|_| !was_held) {
                let Lease {
                    address, prefix, ..
                } = held.lease;
                println!("web: lease {address}/{prefix} tsc={}", cpu::tsc());
                let line = &machine.boot.command_line;
                // The last life of those that were asked for stays.
                let last = line.number("lives").is_some_and(|lives| {
                    lives <= line.number("restarts").unwrap_or(0).saturating_add(1)
                });
                if line.value("exit") == Some("on-lease") && !last {
                    kit::exit(kit::EXIT_SUCCESS);
                }
            }
        }
        let mut content = |resource, requests: &Requests, out: &mut dyn Write| {
            write_content(resource, requests, &machine, &mut nic, held.as_ref(), out)
        };
        let served = server.serve(time, &mut sockets, &mut content);
        if held.is_some() && !serving {
            serving = true;
            println!("web: serving on port {PORT} tsc={}", cpu::tsc());
        }
        nic.driver.flush();

        let others = machine.interrupts.count(VECTORS[OTHER_ENTRY].1);
        if others != others_seen {
            others_seen = others;
            nic.driver.acknowledge_other();
            restart_dhcp(&nic, held.is_some(), &mut sockets, dhcp);
            continue;
        }
        if served {
            continue;
        }
        let time = now(&machine.clock);
        let mut deadline = time + LONGEST_SLEEP;
        match nic.driver.watch(time.total_micros() as u64) {
            Ok(Some(at)) => deadline = deadline.min(Instant::from_micros(at as i64)),
            Ok(None) => {}
            Err(error) => {
                println!("web: the network device hangs and does not start: {error}");
                deadline = deadline.min(time + FULL_RING_RETRY);
            }
        }
        if let Some(at) = interface.poll_at(time, &sockets) {
            // A stack that wants to send at once but has no room waits for the
            // ring.
            let at = if nic.driver.can_begin() {
                at
            } else {
                at.max(time + FULL_RING_RETRY)
            };
            deadline = deadline.min(at);
        }
        if let Some(at) = server.deadline() {
            deadline = deadline.min(at);
        }
        if deadline <= time {
            machine.interrupts.window();
            continue;
        }
        // Arming costs a trap on Vectis. A timer that is set earlier than need
        // be is left alone: it wakes us once, to set it anew.
        let timers = machine.interrupts.count(lapic::TIMER_VECTOR);
        if timers != timers_seen {
            timers_seen = timers;
            armed = None;
        }
        if armed.is_none_or(|at| at > deadline || at <= time) {
            machine.lapic.arm((deadline - time).total_micros());
            armed = Some(deadline);
        }
        if nic.driver.listen() {
            machine.interrupts.wait();
            nic.driver.quiet();
        }
    }
}

fn now(clock: &Clock) -> Instant {
    Instant::from_micros(clock.micros() as i64)
}

/// Applies a lease that DHCP got or lost.
fn configure(interface: &mut Interface, event: dhcpv4::Event, time: Instant) -> Option<Held> {
    interface.update_ip_addrs(|addresses| addresses.clear());
    interface.routes_mut().remove_default_ipv4_route();
    let dhcpv4::Event::Configured(config) = event else {
        return None;
    };
    set_address(interface, config.address);
    if let Some(router) = config.router {
        // The route table has two places and was just emptied.
        let _ = interface.routes_mut().add_default_ipv4_route(router);
    }
    let seconds = config
        .packet
        .as_ref()
        .and_then(|packet: &DhcpPacket<&[u8]>| DhcpRepr::parse(packet).ok())
        .and_then(|packet| packet.lease_duration)
        .unwrap_or(0);
    Some(Held {
        lease: Lease {
            address: config.address.address(),
            prefix: config.address.prefix_len(),
            router: config.router,
            seconds_left: u64::from(seconds),
        },
        end: time + Duration::from_secs(u64::from(seconds)),
    })
}

fn set_address(interface: &mut Interface, address: Ipv4Cidr) {
    interface.update_ip_addrs(|addresses| {
        // The list has two places and was just emptied.
        let _ = addresses.push(IpCidr::Ipv4(address));
    });
}

/// Restarts DHCP after a link change: a client without a lease asks at once instead of when
/// its last question, which had nowhere to go, times out.
fn restart_dhcp(nic: &Nic, held: bool, sockets: &mut SocketSet, dhcp: SocketHandle) {
    if !held && nic.driver.link().up {
        sockets.get_mut::<dhcpv4::Socket>(dhcp).reset();
    }
}

/// Writes the body of a resource.
fn write_content(
    resource: Resource,
    requests: &Requests,
    machine: &Machine,
    nic: &mut Nic,
    held: Option<&Held>,
    out: &mut dyn Write,
) -> core::fmt::Result {
    if resource == Resource::Health {
        return out.write_str("ok\n");
    }
    let Machine {
        boot,
        clock,
        interrupts,
        lapic,
        function,
        msix,
    } = machine;
    let time = now(clock);
    let blank = EntryReport {
        entry: msix.entries()[0],
        purpose: None,
        interrupts: 0,
    };
    let mut entries = [blank; kit::msix::MAX_ENTRIES];
    let entries = &mut entries[..msix.len()];
    for (index, (report, entry)) in entries.iter_mut().zip(msix.entries()).enumerate() {
        report.entry = *entry;
        if let Some((_, vector, purpose)) = VECTORS.iter().find(|(of, ..)| *of == index) {
            report.purpose = Some(purpose);
            report.interrupts = interrupts.count(*vector);
        }
    }
    let vendor = cpu::hypervisor();
    let memory = boot
        .params
        .memory()
        .filter(|range| range.kind == MemoryKind::Usable);
    let report = Report {
        host: match boot.command_line.value("host") {
            Some("vectis") => Host::Vectis,
            _ => Host::Bare,
        },
        kernel: boot.command_line.value("sel4"),
        cpu_vendor: vendor
            .as_ref()
            .and_then(|vendor| core::str::from_utf8(vendor).ok()),
        x2apic: lapic.is_x2apic(),
        uptime_micros: clock.micros(),
        unix_ns: clock.unix_ns_at(kit::cpu::tsc()),
        tsc_khz: clock.khz(),
        memory_bytes: memory.fold(0, |sum, range| sum.saturating_add(range.size)),
        bdf: function.bdf,
        vendor: function.vendor,
        device: function.device,
        bars: &function.bars,
        entries,
        timer_interrupts: interrupts.count(lapic::TIMER_VECTOR),
        halts: interrupts.halts(),
        mac: nic.driver.address(),
        link: nic.driver.link(),
        traffic: nic.driver.statistics(),
        lease: held.map(|held| Lease {
            seconds_left: if held.end > time {
                (held.end - time).secs()
            } else {
                0
            },
            ..held.lease
        }),
        requests: *requests,
    };
    match resource {
        Resource::Metrics => metrics::write(out, &report),
        // The server has answered the others by itself.
        _ => page::write(out, &report),
    }
}
