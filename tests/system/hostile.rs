//! A guest that attacks, beside one that serves: whatever it does, requests are
//! answered, every component is there, and nobody but itself has ended.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::client::Client;
use crate::harness::{Running, free_ports, one_machine, root, vectis};

/// What the hostile guest survives itself, with how often where that is less
/// than its own number. The last two stand behind the others: they leave little
/// of the guest whole.
const ATTACKS: &[&str] = &[
    "msix-table",
    "pba",
    "decode-off:50",
    "bar-moves",
    "config-random:20000",
    "config-absent:5000",
    "function-states:25",
    "messages:200",
    "storm:60000",
    // 7 does not divide 0x10000, nor anything that ports are grouped by.
    "ports:9362",
    "port-strings",
    "exceptions",
    "interrupt-instructions",
    "flags",
    "changing-code",
    "end-of-ram",
    "far-returns",
    "segment-registers",
    "bases",
    "system-calls",
    "debug-calls",
    "forged-faults",
    "dma-within",
    "churn:1000",
    "random:60000",
    "local-apic:5000",
];

/// What ends the hostile guest, and what the monitor says of it.
const ENDS: &[(&str, &str)] = &[
    ("attack=triple-fault", "guest triple fault, exception 6"),
    ("attack=stack-gone", "guest triple fault, exception 6"),
    ("attack=stack-at-0", "guest triple fault, exception 6"),
    ("attack=idt-gone", "guest triple fault, exception 6"),
    ("attack=idt-garbage", "guest triple fault, exception 6"),
    ("attack=fault-loop", "guest triple fault, exception 6"),
    ("attack=halt", "guest halted with interrupts off"),
    ("exit=panic", "guest failed with code 0x11"),
    ("exit=triple after=20", "guest triple fault, exception 6"),
    ("exit=51", "guest failed with code 0x33"),
];

const COMPONENTS: [&str; 7] = [
    "console",
    "timer",
    "irq-router",
    "msix",
    "pci-config",
    "vmm-victim",
    "vmm-hostile",
];

/// A system file of its own for a test.
struct SystemFile(PathBuf);

impl SystemFile {
    fn new(name: &str, words: &str) -> Self {
        let text = fs::read_to_string(root().join("tests/systems/hostile.toml")).expect("a system");
        let from = "command-line = \"attack=all\"";
        assert!(text.contains(from), "the system has no `{from}`");
        let line = format!("command-line = \"{words}\"");
        let file = root().join(format!("target-test-{name}-{}.toml", std::process::id()));
        fs::write(&file, text.replacen(from, &line, 1)).expect("a file in the project");
        Self(file)
    }
}

impl Drop for SystemFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The system with words on the hostile guest's command line, running: the
/// victim serves, and the hostile guest waits for its first frame.
struct Attacked {
    system: Running,
    /// Removed when it goes.
    _file: SystemFile,
    victim: u16,
    hostile: u16,
}

impl Attacked {
    fn start(name: &str, words: &str) -> Self {
        let file = SystemFile::new(name, &format!("start=frame {words}"));
        let port = free_ports(2);
        let mut system = Running::start(
            vectis()
                .args(["run", "--port", &port.to_string(), "--timeout", "300"])
                .arg("--system")
                .arg(&file.0),
        );
        let (mut serves, mut waits) = (false, false);
        while !(serves && waits) {
            let line = system.wait_for(|line| {
                line.starts_with("ready: victim") || line.contains("waits for a frame")
            });
            serves |= line.starts_with("ready: ");
            waits |= !line.starts_with("ready: ");
        }
        Self {
            system,
            _file: file,
            victim: port,
            hostile: port + 1,
        }
    }

    /// Sends the hostile guest its first frame: QEMU asks for its address.
    fn go(&self) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.hostile)).expect("QEMU's network answers")
    }

    /// Every component's counters; each must have some.
    fn counters(&mut self) -> BTreeMap<String, u64> {
        let counters = self.system.counters();
        for component in COMPONENTS {
            let prefix = format!("{component}.");
            assert!(
                counters.keys().any(|name| name.starts_with(&prefix)),
                "{component} does not answer: {counters:?}"
            );
        }
        counters
    }
}

/// Asks for the page until `enough`; how often it was answered.
fn load(port: u16, enough: &AtomicBool) -> usize {
    let mut client = Client::connect(port);
    let mut answers = 0;
    while !enough.load(Ordering::Relaxed) {
        let (status, body) = client.request("/").expect("an answer");
        assert_eq!(status, 200);
        assert!(body.contains("</html>"));
        answers += 1;
    }
    answers
}

/// Sets the flag when it goes, whether all went well or not.
struct Enough<'a>(&'a AtomicBool);

impl Drop for Enough<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn nobody_was_hurt(text: &str) {
    for word in ["init: fault", "restarted", "panicked"] {
        assert!(!text.contains(word), "`{word}` in\n{text}");
    }
}

#[test]
fn attacks_reach_nobody_else() {
    let _machine = one_machine();
    let words = format!("attack={} exit=stay", ATTACKS.join(","));
    let mut attacked = Attacked::start("attacks", &words);
    let before = attacked.counters();
    let victim = attacked.victim;
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| load(victim, &enough)))
            .collect();
        let done = Enough(&enough);
        let frame = attacked.go();
        attacked
            .system
            .wait_for(|line| line.contains("# hostile: pass") || line.contains("# hostile: fail"));
        drop((frame, done));
        for client in clients {
            let answers = client.join().expect("every request was answered");
            assert!(answers > 0);
        }
    });
    let after = attacked.counters();
    assert!(after["vmm-hostile.traps"] > before["vmm-hostile.traps"] + 100_000);
    let (status, _) = Client::connect(victim).request("/").expect("an answer");
    assert_eq!(status, 200);
    let end = attacked.system.interrupt();
    assert!(end.status.success(), "{}", end.text);
    nobody_was_hurt(&end.text);
    assert!(!end.text.contains("not ok"), "{}", end.text);
    for attack in ATTACKS {
        let name = attack.split(':').next().expect("a name");
        let line = format!("] ok {name}");
        assert!(
            end.text.lines().any(|found| found.ends_with(&line)),
            "no `{line}` in\n{}",
            end.text
        );
    }
}

#[test]
fn a_guest_that_ends_is_named_and_ends_nobody_else() {
    let _machine = one_machine();
    for (words, reason) in ENDS {
        let mut attacked = Attacked::start("ends", words);
        let mut client = Client::connect(attacked.victim);
        let _frame = attacked.go();
        // Until a guest's end is its own, it is the system's, in good order.
        let _ = client.request("/");
        let status = attacked.system.wait();
        let text = attacked.system.text();
        let line = format!("init: vmm-hostile stopped the system: {reason}");
        assert!(text.contains(&line), "no `{line}` after {words} in\n{text}");
        assert_eq!(status.code(), Some(1), "{text}");
        nobody_was_hurt(&text.replace("panicked at guests/hostile", ""));
    }
}

#[test]
fn a_guest_that_spins_leaves_time_for_others() {
    let _machine = one_machine();
    let attacked = Attacked::start("spins", "exit=hang");
    let mut client = Client::connect(attacked.victim);
    let _frame = attacked.go();
    for _ in 0..100 {
        let (status, _) = client.request("/").expect("an answer");
        assert_eq!(status, 200);
    }
    let end = attacked.system.interrupt();
    assert!(end.status.success(), "{}", end.text);
    nobody_was_hurt(&end.text);
}
