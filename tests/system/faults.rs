//! Every failure is reported, with a status, and nothing is left running.

use std::fs;

use crate::changed::Changed;
use crate::client::{Client, all_answered};
use crate::harness::{
    Finished, Running, alive, finish, free_port, machines_of, one_machine, program, root, run_of,
    signal, vectis,
};

fn refused(end: &Finished, words: &[&str]) {
    assert!(!end.status.success(), "{}", end.text);
    for word in words {
        assert!(end.text.contains(word), "no `{word}` in\n{}", end.text);
    }
    assert!(end.text.contains("help:"), "no help in\n{}", end.text);
}

#[test]
fn a_component_s_fault_is_named_and_symbolised() {
    let _machine = one_machine();
    // Too small a stack: the guard page below it catches the first large frame.
    let changed = Changed::new("stack", "component.pci-config.stack = \"4K\"");
    let mut run = run_of(&changed.0, 300);
    let end = finish(run.args(["--inject-fault", "pci-config"]));
    assert!(!end.status.success(), "{}", end.text);
    for word in [
        "fault component=pci-config",
        "cause=stack-overflow",
        "rbp=0x",
        "crates/runtime/src/entry.rs",
    ] {
        assert!(end.text.contains(word), "no `{word}` in\n{}", end.text);
    }
}

/// The tool finds how much stack a program's calls take. Less is refused, and exactly
/// that much, in whole pages, is enough for all that a serving system does.
#[test]
fn the_smallest_stacks_that_are_taken_are_large_enough() {
    let _machine = one_machine();
    let components = [
        "console",
        "timer",
        "irq-router",
        "msix",
        "pci-config",
        "iommu",
        "vmm",
    ];
    let stack = |name: &str, size: &str| format!("component.{name}.stack = \"{size}\"\n");
    let keys: String = components.iter().map(|name| stack(name, "4K")).collect();
    let tiny = Changed::new("tiny-stacks", &keys).run();
    let msix = "msix has a stack of 4K, but msix's calls take ";
    refused(&tiny, &["cannot be put together", msix]);
    let needs = |name: &str| {
        let (_, after) = tiny.text.split_once(&format!("{name}'s calls take "))?;
        after.split(['K', ';']).next()
    };
    let smallest = |name: &&str| stack(name, &format!("{}K", needs(name).unwrap_or("4")));
    let changed = Changed::new(
        "small-stacks",
        &components.iter().map(smallest).collect::<String>(),
    );
    let file = changed.0.to_str().expect("a path of text");
    let (mut system, port) = Running::serving(&["--system", file]);
    let clients = (0..4).map(|_| Client::connect(port)).collect();
    all_answered(clients, 100);
    for key in ['M', 'R', 'I'] {
        assert!(!system.shown(key).is_empty(), "{key}");
    }
    let counters = system.counters();
    assert!(counters["msix.calls"] > 0, "{counters:?}");
    let end = system.interrupt();
    assert!(
        end.status.success() && !end.text.contains("init: fault"),
        "{}",
        end.text
    );
}

#[test]
fn a_device_that_is_not_there() {
    let _machine = one_machine();
    let changed = Changed::new("device", "device.nic0.match = \"8086:1234\"");
    let end = changed.run();
    assert!(!end.status.success(), "{}", end.text);
    assert!(
        end.text
            .contains("device nic0 (8086:1234) is not in this machine"),
        "{}",
        end.text
    );
}

#[test]
fn a_kernel_that_does_not_boot() {
    let _machine = one_machine();
    // A board whose CPU lacks features that the kernel needs.
    let name = format!("target-test-board-{}.toml", std::process::id());
    let board = "board = { inherit = \"board/qemu-q35/board.toml\", name = \"old\" }
                 qemu.cpu = \"qemu64\"";
    fs::write(root().join(&name), board).expect("a file in the project");
    let changed = Changed::new("cpu", &format!("system.board = \"./{name}\""));
    let end = changed.run();
    fs::remove_file(root().join(&name)).expect("the file is ours");
    refused(&end, &["does not boot", "fsgsbase"]);
}

#[test]
fn images_that_are_no_guests() {
    let _machine = one_machine();
    let file = root().join(format!("target-test-image-{}", std::process::id()));
    let name = file.file_name().and_then(|n| n.to_str()).expect("a name");
    let changed = Changed::new("image", &format!("guest.web.image = \"{name}\""));
    fs::write(&file, b"#!/bin/sh\n").expect("a file in the project");
    refused(&changed.run(), &["ELF"]);
    // An ELF header for another machine: AArch64 is 183.
    let mut header = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    header.extend([2, 0, 183, 0, 1, 0, 0, 0]);
    header.resize(64, 0);
    fs::write(&file, &header).expect("a file in the project");
    refused(&changed.run(), &["another machine"]);
    fs::remove_file(&file).expect("the file is ours");
    refused(&changed.run(), &["no guest image"]);
}

#[test]
fn a_guest_that_does_not_fit() {
    let _machine = one_machine();
    let changed = Changed::new("fit", "guest.web.memory = \"2M\"");
    refused(&changed.run(), &["does not fit"]);
    let changed = Changed::new("board", "guest.web.memory = \"1G\"");
    refused(&changed.run(), &["do not fit"]);
}

#[test]
fn a_port_that_is_taken() {
    let _machine = one_machine();
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = taken.local_addr().expect("its address").port().to_string();
    let end = finish(vectis().args(["run", "--port", &port]));
    refused(&end, &[&port, "--port"]);
}

#[test]
fn qemu_that_dies() {
    let _machine = one_machine();
    let (mut system, _) = Running::serving(&[]);
    let machines = machines_of(system.id());
    signal(machines[0], "KILL");
    let status = system.wait();
    assert!(!status.success(), "{}", system.text());
    assert!(system.text().contains("QEMU"), "{}", system.text());
    assert!(!alive(machines[0]));
}

#[test]
fn qemu_that_is_missing() {
    let _machine = one_machine();
    // Only the folders of cargo and the compiler, so that QEMU is not found.
    let folder = root().join(format!("target-test-path-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder in the project");
    for tool in ["cargo", "rustc", "gcc", "cc", "ld", "as", "sh", "env"] {
        if let Some(path) = program(tool) {
            std::os::unix::fs::symlink(path, folder.join(tool)).expect("a link");
        }
    }
    let end = finish(
        vectis()
            .args(["run", "--port", &free_port().to_string()])
            .env("PATH", &folder)
            .env("VECTIS_NO_INSTALL", "1"),
    );
    fs::remove_dir_all(&folder).expect("the folder is ours");
    assert!(!end.status.success(), "{}", end.text);
    assert!(end.text.contains("apt-get install"), "{}", end.text);
    assert!(end.text.contains("qemu-system-x86"), "{}", end.text);
}

#[test]
fn components_that_crash_are_restarted_under_load() {
    let _machine = one_machine();
    let (mut system, port) = Running::serving(&["--inject-fault", "console"]);
    system.wait_for(|line| line.contains("console restarted, generation 1"));
    let load = std::thread::spawn(move || {
        let mut client = Client::connect(port);
        for _ in 0..300 {
            let (status, _) = client.request("/").expect("an answer");
            assert_eq!(status, 200);
        }
    });
    // The timer is the second component of system.toml.
    system.type_line("F2");
    system.wait_for(|line| line.contains("timer restarted, generation 1"));
    // The console dies of the first two keys and reads the others afterwards.
    system.type_line("F1F2");
    system.wait_for(|line| line.contains("console restarted, generation 2"));
    system.wait_for(|line| line.contains("timer restarted, generation 2"));
    load.join().expect("every request was answered");
    // The timer works after its restart: the guest sleeps and wakes by it.
    let (status, _) = Client::connect(port).request("/").expect("an answer");
    assert_eq!(status, 200);
    assert!(system.interrupt().status.success());
}

/// Returns the entries and routes, without how often something came over them.
fn interrupts(system: &mut Running) -> Vec<String> {
    let lines = [system.shown('M'), system.shown('R')].concat();
    assert!(
        lines.iter().any(|line| line.contains("slot=0")),
        "{lines:?}"
    );
    lines
        .into_iter()
        .map(|line| match line.split_once(" delivered=") {
            Some((state, _)) => state.to_owned(),
            None => line,
        })
        .collect()
}

#[test]
fn interrupts_outlive_the_components_that_make_them() {
    let _machine = one_machine();
    let (mut system, port) = Running::serving(&["--inject-fault", "irq-router"]);
    system.wait_for(|line| line.contains("irq-router restarted, generation 1"));
    let before = interrupts(&mut system);
    let end = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let load = std::thread::spawn({
        let end = end.clone();
        move || {
            let mut client = Client::connect(port);
            let mut answers = 0;
            while !end.load(std::sync::atomic::Ordering::Relaxed) {
                let (status, _) = client.request("/").expect("an answer");
                assert_eq!(status, 200);
                answers += 1;
            }
            answers
        }
    });
    // In the order of system.toml these are the third to the sixth.
    let components = [
        ('3', "irq-router"),
        ('4', "msix"),
        ('5', "pci-config"),
        ('6', "iommu"),
    ];
    for round in 1..=4 {
        for (key, name) in components {
            let generation = round + u32::from(name == "irq-router");
            system.type_line(&format!("F{key}"));
            system.wait_for(|line| {
                line.contains(&format!("{name} restarted, generation {generation}"))
            });
        }
        assert_eq!(interrupts(&mut system), before, "round {round}");
    }
    let counted = system.counters()["vmm.events"];
    let more = (0..1000).any(|_| system.counters()["vmm.events"] > counted);
    assert!(more, "no event came");
    end.store(true, std::sync::atomic::Ordering::Relaxed);
    let answers = load.join().expect("every request was answered");
    assert!(answers > 100, "{answers} answers are hardly a load");
    let counters = system.counters();
    // Each works and counts again: the dump asked two of them.
    for name in [
        "irq-router.calls",
        "msix.calls",
        "pci-config.calls",
        "iommu.calls",
    ] {
        assert!(counters.contains_key(name), "no {name} in {counters:?}");
    }
    assert_eq!(counters["irq-router.failed"], 0);
    assert_eq!(counters["iommu.entries_used"], 3, "as many as are bound");
    let (status, _) = Client::connect(port).request("/").expect("an answer");
    assert_eq!(status, 200);
    assert!(system.interrupt().status.success());
}

#[test]
fn a_component_that_crashes_again_and_again_stops_the_system() {
    let _machine = one_machine();
    let (mut system, _) = Running::serving(&["--inject-fault", "timer"]);
    for generation in 1..=6 {
        system.wait_for(|line| line.contains(&format!("timer restarted, generation {generation}")));
        system.type_line("F2");
    }
    let status = system.wait();
    assert!(!status.success(), "{}", system.text());
    assert!(
        system.text().contains("timer died 7 times"),
        "{}",
        system.text()
    );
}

#[test]
fn a_vmm_that_dies_takes_its_guest_and_no_more() {
    let _machine = one_machine();
    let end = finish(vectis().args([
        "run",
        "--port",
        &free_port().to_string(),
        "--inject-fault",
        "vmm",
    ]));
    assert!(!end.status.success(), "{}", end.text);
    for word in [
        "fault component=vmm",
        "cause=page-fault",
        "guest:web lost its vmm: it is stopped",
        "nic0: its guest is gone, taken back",
        "no guest is left, the system stops",
    ] {
        assert!(end.text.contains(word), "no `{word}` in\n{}", end.text);
    }
}

#[test]
fn a_component_without_restart_stops_the_system() {
    let _machine = one_machine();
    let changed = Changed::new("stop", "component.msix.on-fault = \"stop\"");
    let end = finish(
        vectis()
            .args(["run", "--port", &free_port().to_string()])
            .args(["--inject-fault", "msix", "--system"])
            .arg(&changed.0),
    );
    assert!(!end.status.success(), "{}", end.text);
    for word in ["fault component=msix", "msix is dead, the system stops"] {
        assert!(end.text.contains(word), "no `{word}` in\n{}", end.text);
    }
}
