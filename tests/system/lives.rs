//! A guest's end: its consequences, and their absence for all others.

use std::net::{Ipv4Addr, TcpStream};

use crate::changed::Changed;
use crate::client::Client;
use crate::harness::{Running, finish, one_machine, run_of, the_only_machine, vectis};

/// Returns the system's resources that a guest holds: slots, vectors, remapping entries, mapped
/// pages, attached functions, page tables.
fn held(system: &mut Running) -> [u64; 6] {
    let counters = system.counters();
    [
        counters["irq-router.slots_used"],
        counters["irq-router.vectors_used"],
        counters["iommu.entries_used"],
        counters["iommu.pages_mapped"],
        counters["iommu.attached"],
        counters["vmm.table_slots_used"],
    ]
}

/// Another guest in the project's system.
const HOSTILE: &str = "guest.web.image = \"guests/hostile\"";

/// Returns the project's system with words on the guest's command line.
fn web_with(name: &str, words: &str) -> Changed {
    Changed::new(name, &format!("guest.web.command-line = \"{words}\""))
}

#[test]
fn a_guest_restarts_a_hundred_times_and_leaks_nothing() {
    let _machine = one_machine();
    let (mut fresh, port) = Running::serving(&[]);
    Client::connect(port).request("/").expect("an answer");
    let before = held(&mut fresh);
    drop(fresh);
    let changed = web_with("lives", "exit=on-lease lives=101");
    let file = changed.0.display().to_string();
    let (mut system, port) = Running::serving(&["--system", &file]);
    let restarts = system.text().matches("guest finished: restart").count();
    assert_eq!(restarts, 100, "{}", system.text());
    let (status, _) = Client::connect(port).request("/").expect("an answer");
    assert_eq!(status, 200);
    assert_eq!(held(&mut system), before);
    assert_eq!(system.counters()["vmm.guest_restarts"], 100);
    assert!(system.interrupt().status.success());
}

#[test]
fn a_guest_that_panics_serves_again() {
    let _machine = one_machine();
    let (mut system, port) = Running::serving(&["--inject-fault", "guest:web"]);
    system.wait_for_all(&[
        "guest failed with code 0x11: restart 1",
        ": serving on port ",
    ]);
    let (status, _) = Client::connect(port).request("/").expect("an answer");
    assert_eq!(status, 200);
    // Its function is clean: nothing of the former life is bound twice.
    let held = held(&mut system);
    assert_eq!(held, [3, 3, 3, 8192, 1, held[5]]);
    assert!(system.interrupt().status.success());
}

#[test]
fn a_guest_that_fails_again_and_again_stays_halted() {
    let _machine = one_machine();
    let changed = web_with("failing", "exit=panic").also(HOSTILE);
    let mut system = Running::start(&mut run_of(&changed.0, 120));
    system.wait_for(|line| line.contains("failed 7 times in a row, it stays halted"));
    // The rest of the system is there: keys answer.
    let counters = system.counters();
    assert_eq!(counters["vmm.guest_restarts"], 6);
    assert_eq!(
        counters["iommu.attached"], 0,
        "its function reaches nothing"
    );
    assert_eq!(counters["iommu.entries_used"], 0);
}

#[test]
fn a_vmm_that_dies_leaves_the_other_guest_serving() {
    let _machine = the_only_machine();
    let changed = Changed::of(
        "tests/systems/two-guests.toml",
        "vmm-b",
        "component.vmm-b.on-fault = \"stop-guest\"",
    );
    let file = changed.0.display().to_string();
    let arguments = ["--system", &file, "--inject-fault", "vmm-b"];
    let (mut system, ports) = Running::all_serving(&arguments, &["a", "b"]);
    system.wait_for_all(&[
        "guest:b lost its vmm: it is stopped",
        "nic1: its guest is gone, taken back",
    ]);
    let mut client = Client::connect(ports[0]);
    for _ in 0..100 {
        assert_eq!(client.request("/").expect("an answer").0, 200);
    }
    let dump = finish(vectis().args(["dump", "I"])).text;
    assert!(dump.contains("I nic0 (a): AMD-Vi, attached"), "{dump}");
    assert!(
        dump.contains("I nic1 (b): AMD-Vi, detached, 0 pages, 0 vectors"),
        "{dump}"
    );
    assert!(system.interrupt().status.success());
}

/// The old life's receive ring lies in the image of the next one. The 82574L has no
/// function-level reset, and QEMU's survives D3hot: its own reset is what counts.
#[test]
fn a_device_does_not_write_into_its_guests_next_life() {
    let _machine = one_machine();
    let changed = web_with("armed", "mode=armed").also(HOSTILE);
    let port = crate::harness::free_port();
    let mut run = vectis();
    run.args(["run", "--port", &port.to_string(), "--timeout", "300"])
        .arg("--system")
        .arg(&changed.0);
    let mut system = Running::start(&mut run);
    for life in 0..3 {
        system.wait_for(|line| line.contains(&format!("# armed: life {life} waits")));
        // QEMU sends ARP requests for the guest's address: frames for any receiver.
        let frames: Vec<_> = (0..4)
            .map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, port)))
            .collect();
        let line = system.wait_for(|line| line.contains(&format!("# armed: life {life} words=")));
        assert!(line.contains("words=0 receiver=off"), "{}", system.text());
        drop(frames);
    }
}

/// A probe starts again after its end.
const RESTART: &str = "guest.probe.on-exit = \"restart\"";

/// QEMU's xHCI has no reset that pci-config can give it.
#[test]
fn a_function_that_nothing_resets_keeps_its_guest_halted_but_for_its_owners_word() {
    let _machine = one_machine();
    let restarts = |name: &str| Changed::of("tests/systems/xhci.toml", name, RESTART);
    let changed = restarts("unclean");
    let mut system = Running::start(&mut run_of(&changed.0, 300));
    system.wait_for(|line| line.contains(": nothing resets it: "));
    system.wait_for(|line| line.contains("it stays halted, a function was not "));
    let counters = system.counters();
    assert_eq!(counters["iommu.attached"], 0, "it reaches nothing");
    drop(system);
    let changed = restarts("optional").also("device.usb0.reset = \"optional\"");
    let mut system = Running::start(&mut run_of(&changed.0, 300));
    system.wait_for(|line| line.contains(": nothing resets it: "));
    for _ in 0..2 {
        system.wait_for(|line| line.contains("# probe: pass"));
    }
}

/// A probe that ends well starts again, and finds its function as it was: the
/// NVMe controller has a function-level reset, which it gets between two lives.
#[test]
fn a_function_is_clean_in_each_life() {
    let _machine = one_machine();
    let changed = Changed::of("tests/systems/nvme.toml", "nvme", RESTART);
    let mut system = Running::start(&mut run_of(&changed.0, 300));
    for restart in 1..=3 {
        let line = format!("guest finished: restart {restart}");
        system.wait_for_all(&["# probe: pass", &line]);
    }
    assert!(!system.text().contains("] not ok"), "{}", system.text());
}

/// Returns a system whose only guest runs out of stack.
fn overflows(name: &str) -> Changed {
    Changed::new(
        name,
        "guest.web.image = \"guests/meter\"
         guest.web.on-exit = \"halt\"
         guest.web.command-line = \"overflow=1\"",
    )
}

/// Nothing is mapped below the stack: the guest ends before it has overwritten
/// anything. Its exception frame has no room there either, so the monitor cannot tell
/// it from an exception without a handler.
#[test]
fn a_guest_that_overflows_its_stack_is_over() {
    let _machine = one_machine();
    let changed = overflows("overflow");
    let mut system = Running::start(&mut run_of(&changed.0, 120));
    let end = system.wait_for(|line| line.contains("it stays halted"));
    let reason = "guest triple fault, exception 14 (stack overflow, or no handler)";
    assert!(end.contains(reason), "{end}");
    let text = system.text();
    assert!(!text.contains("bytes deep"), "{text}");
    // Its state, and from its own file the functions behind the addresses.
    assert!(
        text.contains("guest ended at ip=0x3") && text.contains("error=0x6"),
        "{text}"
    );
    let calls = text.matches(" overflow (guests/meter/src/main.rs:").count();
    assert!(calls > 10, "{calls} calls: {text}");
}

#[test]
fn a_guest_on_bare_qemu_names_its_stack_overflow() {
    let _machine = one_machine();
    let changed = overflows("overflow-bare");
    let end = finish(run_of(&changed.0, 120).arg("--bare"));
    assert!(end.text.contains("stack overflow at rip"), "{}", end.text);
    assert!(end.text.contains("exception 14"), "{}", end.text);
    assert!(!end.text.contains("bytes deep"), "{}", end.text);
    assert!(!end.status.success());
}

#[test]
fn the_exit_status_tells_how_a_guest_ended() {
    let _machine = one_machine();
    for (words, status) in [
        ("exit=16", 0),
        ("exit=33", 10),
        ("attack=halt", 11),
        ("exit=triple", 12),
    ] {
        let keys = format!(
            "guest.web.image = \"guests/hostile\"\nguest.web.on-exit = \"stop\"\n\
             guest.web.command-line = \"{words}\""
        );
        let end = Changed::new("ending", &keys).run();
        assert_eq!(end.status.code(), Some(status), "{words}: {}", end.text);
    }
}
