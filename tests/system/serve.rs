//! The whole path: a unikernel serves through the NIC and MSI-X.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::client::{Client, all_answered, metric};
use crate::harness::{
    Running, alive, finish, free_port, is_bundled, machines_of, one_machine, root,
    the_only_machine, vectis,
};

const CONNECTIONS: usize = 8;
const REQUESTS: usize = 1000;

fn change(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>, name: &str) -> u64 {
    let get = |counters: &BTreeMap<String, u64>| {
        *counters
            .get(name)
            .unwrap_or_else(|| panic!("no counter {name} in {counters:?}"))
    };
    get(after) - get(before)
}

#[test]
fn a_thousand_requests_and_no_component_hop() {
    let _machine = one_machine();
    let (mut system, port) = Running::serving(&[]);
    let clients = (0..CONNECTIONS).map(|_| Client::connect(port)).collect();
    let before = system.counters();
    all_answered(clients, REQUESTS / CONNECTIONS);
    let after = system.counters();
    // The data path: kernel notification and injection, no other component.
    for served in ["pci-config.calls", "msix.calls", "irq-router.calls"] {
        assert_eq!(change(&before, &after, served), 0, "{served}");
    }
    assert!(change(&before, &after, "vmm.events") > 0);
    assert!(change(&before, &after, "vmm.posted") > 0);
    let (_, metrics) = Client::connect(port).request("/metrics").expect("metrics");
    let interrupts = "vectis_guest_interrupts_total{entry=\"0\",purpose=\"rx\"}";
    assert!(metric(&metrics, interrupts) > 0.0);
    assert!(metric(&metrics, "vectis_guest_http_requests_total") >= REQUESTS as f64);
    assert_eq!(metric(&metrics, "vectis_guest_http_errors_total"), 0.0);
    // The clock chip of the machine has this host's time.
    let host = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    let apart = metric(&metrics, "vectis_guest_time_seconds") - host.as_secs_f64();
    assert!(apart.abs() < 3600.0, "{apart} s apart");
    let end = system.interrupt();
    assert!(end.status.success(), "{}", end.text);
}

#[test]
fn the_page_shows_what_the_guest_drives() {
    let _machine = one_machine();
    let (system, port) = Running::serving(&[]);
    let mut client = Client::connect(port);
    let (status, page) = client.request("/").expect("the page");
    assert_eq!(status, 200);
    let installed = !is_bundled();
    for shown in [
        "8086:10d3",
        "MSI-X table",
        "0x51",
        "Packets in",
        "Up</dt>",
        "Lease",
        if installed {
            "seL4 installed ("
        } else {
            "seL4 5.0.0 (bundled)"
        },
    ] {
        assert!(page.contains(shown), "{shown} is not on the page:\n{page}");
    }
    for external in ["src=", "href=\"http", "@import", "url("] {
        assert!(
            !page.contains(external),
            "the page loads something: {external}"
        );
    }
    assert_eq!(client.request("/nothing").expect("an answer").0, 404);
    drop(system);
}

#[test]
fn idle_means_idle() {
    let _machine = one_machine();
    let (mut system, port) = Running::serving(&[]);
    let mut client = Client::connect(port);
    client.request("/healthz").expect("an answer");
    let before = system.counters();
    // Nothing to wait for: the guest has five seconds in which it could show
    // that it does not sleep.
    std::thread::sleep(Duration::from_secs(5));
    let after = system.counters();
    let traps = change(&before, &after, "vmm.traps");
    assert!(traps < 200, "{traps} traps while there was nothing to do");
    // Share of the time that it was awake, this request included.
    client.request("/healthz").expect("an answer");
    let end = system.counters();
    let ticks = change(&before, &end, "vmm.woken_at");
    let halted = change(&before, &end, "vmm.halted_ticks");
    assert!(
        halted as f64 / ticks as f64 > 0.95,
        "halted for {halted} of {ticks} ticks"
    );
    drop(system);
}

#[test]
fn the_same_guest_serves_on_bare_qemu() {
    let _machine = one_machine();
    let (system, port) = Running::serving(&["--bare"]);
    let (status, metrics) = Client::connect(port).request("/metrics").expect("metrics");
    assert_eq!(status, 200);
    assert!(metrics.contains("host=\"bare\""));
    drop(system);
}

#[test]
fn ctrl_c_leaves_nothing_running() {
    let _machine = one_machine();
    let (system, _) = Running::serving(&[]);
    let machines = machines_of(system.id());
    assert_eq!(machines.len(), 1);
    let end = system.interrupt();
    assert!(end.status.success(), "{}", end.text);
    assert!(!alive(machines[0]));
}

#[test]
fn a_recorded_run_replays_to_the_same_answers() {
    let _machine = one_machine();
    let trace = root().join(format!("target-test-live-{}.jsonl", std::process::id()));
    let port = free_port().to_string();
    let end = finish(
        vectis()
            .args(["run", "--port", &port, "--exit-after-ready", "--trace"])
            .arg(&trace),
    );
    assert!(end.status.success(), "{}", end.text);
    let text = std::fs::read_to_string(&trace).expect("a trace");
    let end = finish(vectis().args(["replay", "--summary"]).arg(&trace));
    std::fs::remove_file(&trace).expect("the file is ours");
    assert!(end.status.success(), "{}\n{text}", end.text);
    // The driver programmed its table: reads and writes of both kinds.
    for op in ["cfg_read", "cfg_write", "mmio_write"] {
        assert!(text.contains(op), "no {op} in\n{text}");
    }
}

#[test]
fn dump_asks_a_running_system() {
    let _machine = the_only_machine();
    let (system, _) = Running::serving(&[]);
    let end = finish(vectis().args(["dump", "S"]));
    assert!(end.status.success(), "{}", end.text);
    assert!(end.text.contains("S msix calls "), "{}", end.text);
    drop(system);
    let end = finish(vectis().arg("dump"));
    assert!(!end.status.success() && end.text.contains("no running system"));
}

#[test]
fn keys_show_the_state_of_every_interrupt() {
    let _machine = the_only_machine();
    let (system, port) = Running::serving(&[]);
    Client::connect(port).request("/").expect("an answer");
    let dump = finish(vectis().args(["dump", "MR"])).text;
    assert!(
        dump.contains("M nic0 00:01.0 (web): MSI-X 5 entries, enabled"),
        "{dump}"
    );
    let rx = dump
        .lines()
        .find(|line| line.contains("vec=51") && line.starts_with("M "))
        .unwrap_or_else(|| panic!("no rx entry in\n{dump}"));
    // The CPU's vector is ours, independent of the guest's choice.
    assert!(rx.contains("fixed edge dest=00 phys mask=---") && rx.contains("slot=0 host=30"));
    assert!(!rx.contains("delivered=0 "), "{rx}");
    // Entries 3 and 4 are as after reset: shown only when M comes twice.
    assert_eq!(
        dump.lines().filter(|l| l.starts_with("M  ")).count(),
        3,
        "{dump}"
    );
    assert!(
        dump.contains("R web slot  0 <- nic0 msix 0 host=30 -> vec=51"),
        "{dump}"
    );
    drop(system);
}
