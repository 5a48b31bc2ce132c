//! Two guests beside each other: both serve, and neither feels the other's load.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::changed::Changed;
use crate::client::{Client, all_answered, metric};
use crate::harness::{Running, one_machine, run_of};

const SYSTEM: &str = "tests/systems/two-guests.toml";
const CONNECTIONS: usize = 4;
const REQUESTS: usize = 200;

/// Sends requests on several connections at once, each of which must be answered.
fn requests(port: u16) {
    let clients = (0..CONNECTIONS).map(|_| Client::connect(port)).collect();
    all_answered(clients, REQUESTS / CONNECTIONS);
}

/// Opens silent connections, and ones that send bytes other than HTTP, until
/// `enough`.
fn flood(port: u16, enough: &AtomicBool) {
    let mut held = Vec::new();
    while !enough.load(Ordering::Relaxed) {
        // The guest may refuse and close as it likes.
        let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
            continue;
        };
        let _ = stream.write_all(&[0xa5; 4096]);
        held.push(stream);
        if held.len() > 32 {
            held.clear();
        }
    }
}

/// Returns the guest's error count, by a separate client, since the server closes a
/// connection after an error.
fn errors(port: u16) -> f64 {
    let (_, metrics) = Client::connect(port).request("/metrics").expect("metrics");
    metric(&metrics, "vectis_guest_http_errors_total")
}

/// The guests' addresses may overlap, as by default, or lie anywhere: their functions
/// are confined to their RAM.
#[test]
fn guests_have_addresses_of_their_own() {
    let _machine = one_machine();
    let changed = Changed::of(SYSTEM, "addresses", "guest.b.address = 0x4000_0000");
    let file = changed.0.to_str().expect("a path of text");
    let (system, ports) = Running::all_serving(&["--system", file], &["a", "b"]);
    ports.into_iter().for_each(requests);
    let text = system.text();
    let confined = "reaches its guest's memory only, raises its own interrupts only (measured)";
    assert_eq!(text.matches(confined).count(), 2, "{text}");
}

/// As many guests as there can be, each with a function of its own.
#[test]
fn sixteen_guests_serve() {
    let _machine = one_machine();
    let names: Vec<String> = (0..spec::GUESTS).map(|guest| format!("g{guest}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let arguments = ["--system", "tests/systems/sixteen-guests.toml"];
    let (mut system, ports) = Running::all_serving(&arguments, &names);
    for port in ports {
        assert_eq!(Client::connect(port).request("/").expect("the page").0, 200);
    }
    let counters = system.counters();
    assert_eq!(counters["iommu.attached"], spec::GUESTS as u64);
}

/// As many functions as one guest can have.
#[test]
fn one_guest_has_sixteen_functions() {
    let _machine = one_machine();
    let others = 1..pci::GUEST_FUNCTIONS;
    let names: Vec<String> = others.clone().map(|n| format!("\"other{n}\"")).collect();
    let devices: String = others
        .map(|n| format!("device.other{n} = {{ match = \"8086:10d3\", qemu = [\"e1000e\"] }}\n"))
        .collect();
    let keys = format!(
        "{devices}guest.web.devices = [\"nic0\", {}]",
        names.join(", ")
    );
    let changed = Changed::new("functions", &keys);
    let file = changed.0.to_str().expect("a path of text");
    let (mut system, port) = Running::serving(&["--system", file]);
    requests(port);
    let counters = system.counters();
    assert_eq!(counters["iommu.attached"], pci::GUEST_FUNCTIONS as u64);
}

/// The last of them has its MSI-X table where the guest finds it. By its address it comes
/// first, so that the probe need not check the others before.
#[test]
fn the_last_of_sixteen_functions_works() {
    let _machine = one_machine();
    let last = pci::GUEST_FUNCTIONS - 1;
    let nic = "match = \"8086:10d3\", qemu = [\"e1000e\"]";
    let devices: String = (0..last)
        .map(|n| format!("device.nic{n} = {{ {nic} }}\n"))
        .collect();
    let names: Vec<String> = (0..=last).map(|n| format!("\"nic{n}\"")).collect();
    let keys = format!(
        "system.name = \"functions\"\n{devices}\
         device.nic{last} = {{ {nic}, guest-address = \"00:00.0\" }}\n\
         guest.probe.devices = [{}]",
        names.join(", ")
    );
    let changed = Changed::of("tests/systems/probe.toml", "last-function", &keys);
    let mut system = Running::start(&mut run_of(&changed.0, 300));
    let check = "- 00:00.0 m9_entries_masked_and_empty_at_start";
    let line = system.wait_for(|line| line.contains(check));
    assert!(line.contains("] ok "), "{}", system.text());
}

#[test]
fn two_guests_serve() {
    let _machine = one_machine();
    let (mut system, ports) = Running::all_serving(&["--system", SYSTEM], &["a", "b"]);
    let [a, b] = ports[..] else {
        panic!("two ports: {ports:?}");
    };
    std::thread::scope(|scope| {
        for port in [a, b] {
            scope.spawn(move || requests(port));
        }
    });
    assert_eq!(errors(a), 0.0);
    assert_eq!(errors(b), 0.0);

    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| flood(a, &enough));
        // Not to flood for ever if a request fails.
        let done = std::panic::catch_unwind(|| requests(b));
        enough.store(true, Ordering::Relaxed);
        done.expect("all requests are answered beside the flood");
    });
    assert_eq!(errors(b), 0.0);
    // The flooded guest is well, and has seen the garbage.
    assert!(errors(a) > 0.0);

    // Each guest's interrupts went to its own vmm.
    let counters = system.counters();
    for vmm in ["vmm-a", "vmm-b"] {
        assert!(counters[&format!("{vmm}.posted")] > 0, "{counters:?}");
    }
    let end = system.interrupt();
    assert!(end.status.success(), "{}", end.text);
    assert!(!end.text.contains("init: fault"), "{}", end.text);
}
