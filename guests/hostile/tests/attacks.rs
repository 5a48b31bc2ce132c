//! The attacks on a function that keeps the rules, and on ones that break one:
//! an attack that cannot fail shows nothing.

#[path = "../../probe/tests/fake/mod.rs"]
#[expect(dead_code, reason = "the probe's tests use all of it")]
mod fake;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::rc::Rc;

use fake::{BDF, Fake, Flaw};
use hostile::machine::{Dma, Ended, Machine, Reach, Registers};
use hostile::options::Random;
use hostile::{Group, Hostile};
use probe::machine::{Machine as _, config_read, config_write};
use probe::target::Target;

const RAM: Range<u64> = 0x400_0000..0x600_0000;
const SCRATCH: u64 = 0x410_0000;

/// What is wrong with configuration space as memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Window {
    Right,
    /// Accesses that are not aligned reach what lies there.
    OddPlaces,
    /// 8 bytes are one dword.
    Half,
    /// The function is at every place.
    Everywhere,
    /// Its registers come again behind those that the ports reach.
    Again,
    /// It takes no writes.
    Deaf,
}

/// Runs port and memory instructions on the probe's function; others return.
struct Cpu {
    function: Fake,
    window: Window,
    ram: BTreeMap<u64, u8>,
    lines: Rc<RefCell<Vec<String>>>,
    runs: u64,
}

impl Cpu {
    /// Reads, or writes a value to, configuration space as memory: by the ports, whose
    /// address is then as it was.
    fn access_window(&mut self, address: u64, bytes: u8, value: Option<u64>) -> u64 {
        let flaw = self.window;
        let all = u64::MAX >> (64 - 8 * u32::from(bytes));
        let offset = address - spec::CONFIG_WINDOW.start;
        let own = u64::from(BDF.device) << 3 == offset >> 12 || flaw == Window::Everywhere;
        let odd = !offset.is_multiple_of(bytes.into()) && flaw != Window::OddPlaces;
        if !own || odd {
            return all;
        }
        let at = offset & 0xfff;
        if at > 0xff && flaw != Window::Again {
            return 0;
        }
        let before = self.function.port_read(0xcf8, 4);
        let parts: &[u64] = match bytes {
            8 if flaw == Window::Half => &[0],
            8 => &[0, 4],
            _ => &[0],
        };
        let mut whole = 0;
        for part in parts {
            let (at, bytes) = ((at + part) as u8, bytes.min(4));
            match value {
                Some(_) if flaw == Window::Deaf => {}
                Some(value) => {
                    let value = (value >> (8 * part)) as u32;
                    config_write(&mut self.function, BDF, at, bytes, value);
                }
                None => {
                    let read = config_read(&mut self.function, BDF, at, bytes);
                    whole |= u64::from(read) << (8 * part);
                }
            }
        }
        self.function.port_write(0xcf8, 4, before);
        whole
    }

    fn load(&mut self, address: u64, bytes: u8) -> u64 {
        if spec::CONFIG_WINDOW.contains(&address) {
            return self.access_window(address, bytes, None);
        }
        if !RAM.contains(&address) {
            return self.function.memory_read(address, bytes).unwrap_or(0);
        }
        (0..u64::from(bytes)).rev().fold(0, |word, at| {
            word << 8 | u64::from(self.ram.get(&(address + at)).copied().unwrap_or(0))
        })
    }

    fn store(&mut self, address: u64, bytes: u8, value: u64) {
        if spec::CONFIG_WINDOW.contains(&address) {
            self.access_window(address, bytes, Some(value));
            return;
        }
        if !RAM.contains(&address) {
            self.function.memory_write(address, bytes, value);
            return;
        }
        let bytes = value.to_le_bytes().into_iter().take(bytes.into());
        self.ram.extend((address..).zip(bytes));
    }
}

impl Machine for Cpu {
    fn run(&mut self, code: &[u8], r: &mut Registers) -> Ended {
        self.runs += 1;
        let port = r.rdx as u16;
        match code {
            [0xec] => r.rax = self.function.port_read(port, 1).into(),
            [0x66, 0xed] => r.rax = self.function.port_read(port, 2).into(),
            [0xed] => r.rax = self.function.port_read(port, 4).into(),
            [0xee] => self.function.port_write(port, 1, r.rax as u32),
            [0x66, 0xef] => self.function.port_write(port, 2, r.rax as u32),
            [0xef] => self.function.port_write(port, 4, r.rax as u32),
            [0x8a, 0x07] => r.rax = self.load(r.rdi, 1),
            [0x66, 0x8b, 0x07] => r.rax = self.load(r.rdi, 2),
            [0x8b, 0x07] => r.rax = self.load(r.rdi, 4),
            [0x48, 0x8b, 0x07] => r.rax = self.load(r.rdi, 8),
            [0x88, 0x07] => self.store(r.rdi, 1, r.rax),
            [0x66, 0x89, 0x07] => self.store(r.rdi, 2, r.rax),
            [0x89, 0x07] => self.store(r.rdi, 4, r.rax),
            [0x48, 0x89, 0x07] => self.store(r.rdi, 8, r.rax),
            _ => {}
        }
        Ended::Returned
    }
    fn tolerate(&mut self, _exceptions: bool) {}
    fn taken(&self, _vector: u8) -> u64 {
        0
    }
    fn rest(&mut self) {}
    fn window(&mut self) {}
    fn end_of_interrupt(&mut self) {}
    fn scratch(&self) -> u64 {
        SCRATCH
    }
    fn ram(&self) -> Range<u64> {
        RAM
    }
    fn reset_console(&mut self) {}
    fn line(&mut self, text: fmt::Arguments) {
        self.lines.borrow_mut().push(text.to_string());
    }
    fn dma(&mut self) -> Option<&mut dyn Dma> {
        None
    }
}

/// Returns the attacks' output on a function with `flaw`, and how many pieces of
/// code were run.
fn run(flaw: Flaw, names: &str) -> (Vec<String>, bool, u64) {
    run_with(flaw, Window::Right, names)
}

/// Returns the same with a flaw of configuration space as memory.
fn run_with(flaw: Flaw, window: Window, names: &str) -> (Vec<String>, bool, u64) {
    let lines = Rc::new(RefCell::new(Vec::new()));
    let mut reach = Reach(Cpu {
        function: Fake::new(flaw),
        window,
        ram: BTreeMap::new(),
        lines: lines.clone(),
        runs: 0,
    });
    let mut hostile = Hostile {
        target: Target::new(&mut reach, BDF, true),
        random: Random::new(1),
        count: None,
    };
    let passed = hostile::run::run(&mut hostile, names);
    let runs = reach.0.runs;
    let lines = lines.borrow().clone();
    (lines, passed, runs)
}

#[test]
fn a_function_that_keeps_the_rules_repels_them() {
    let names = "msix-table,pba,decode-off,bar-moves,config-random:2000,config-absent:2000,\
                 config-memory:2000,function-states";
    let (lines, passed, _) = run(Flaw::None, names);
    assert!(passed, "{lines:#?}");
    for name in names.split(',') {
        let name = name.split(':').next().unwrap();
        assert!(lines.contains(&format!("ok {name}")), "{lines:#?}");
    }
}

#[test]
fn a_function_that_breaks_a_rule_is_found() {
    for (flaw, name) in [
        (Flaw::NarrowReads, "msix-table"),
        (Flaw::EntriesAlias, "msix-table"),
        (Flaw::PbaNarrow, "pba"),
        (Flaw::DecodeIgnored, "decode-off"),
        (Flaw::EveryBus, "config-absent"),
        (Flaw::MsixWithMessage, "function-states"),
    ] {
        let (lines, passed, _) = run(flaw, name);
        let found = lines.iter().any(|line| {
            line.starts_with(&format!("not ok {name}: expected ")) && line.contains(" found ")
        });
        assert!(found && !passed, "{name}: {lines:#?}");
    }
}

#[test]
fn a_window_that_breaks_a_rule_is_found() {
    for (window, what) in [
        (Window::OddPlaces, "odd place of the window"),
        (Window::Half, "register as memory"),
        (Window::Everywhere, "page of nobody"),
        (Window::Again, "extended space"),
        (Window::Deaf, "control by ports"),
    ] {
        let (lines, passed, _) = run_with(Flaw::None, window, "config-memory");
        assert!(
            !passed && lines.iter().any(|line| line.contains(what)),
            "{what}: {lines:#?}"
        );
    }
    let (lines, passed, _) = run(Flaw::SubsystemWritable, "config-memory");
    assert!(!passed, "{lines:#?}");
}

#[test]
fn instructions_that_should_trap_and_do_not_are_found() {
    for name in [
        "exceptions",
        "port-strings",
        "end-of-ram",
        "odd-bases",
        "invalid-bytes",
        "descriptor-tables",
    ] {
        let (lines, passed, _) = run(Flaw::None, name);
        assert!(!passed, "{lines:#?}");
    }
    for name in ["triple-fault", "task-too-short", "page-table-endless"] {
        let (lines, passed, _) = run(Flaw::None, name);
        assert!(!passed, "the guest went on: {lines:#?}");
    }
}

#[test]
fn names_and_counts_choose() {
    let (lines, passed, _) = run(Flaw::None, "pba,nonsense");
    assert!(!passed);
    assert!(lines.contains(&"ok pba".to_owned()), "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with("not ok nonsense")));
    let few = run(Flaw::None, "pba:10").2;
    let more = run(Flaw::None, "pba:100").2;
    assert!(few < more);
    let (lines, passed, _) = run(Flaw::None, "");
    assert!(passed && lines.is_empty());
    // Without a copy engine there is nothing to try.
    let (lines, _, _) = run(Flaw::None, "dma");
    assert_eq!(lines.iter().filter(|l| l.contains("# SKIP")).count(), 3);
}

#[test]
fn each_attack_has_a_name_of_its_own() {
    let mut names = BTreeSet::new();
    for attack in hostile::run::attacks::<Cpu>() {
        assert!(names.insert(attack.name), "{}", attack.name);
        assert!(!["all", "dma"].contains(&attack.name));
    }
    let ends = hostile::run::attacks::<Cpu>()
        .filter(|attack| attack.group == Group::End)
        .count();
    assert_eq!(ends, 18);
}
