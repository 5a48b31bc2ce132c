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
use probe::machine::Machine as _;
use probe::target::Target;

const RAM: Range<u64> = 0x400_0000..0x600_0000;
const SCRATCH: u64 = 0x410_0000;

/// Runs port and memory instructions on the probe's function; others return.
struct Cpu {
    function: Fake,
    ram: BTreeMap<u64, u8>,
    lines: Rc<RefCell<Vec<String>>>,
    runs: u64,
}

impl Cpu {
    fn load(&mut self, address: u64, bytes: u8) -> u64 {
        if !RAM.contains(&address) {
            return self.function.memory_read(address, bytes).unwrap_or(0);
        }
        (0..u64::from(bytes)).rev().fold(0, |word, at| {
            word << 8 | u64::from(self.ram.get(&(address + at)).copied().unwrap_or(0))
        })
    }

    fn store(&mut self, address: u64, bytes: u8, value: u64) {
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
    let lines = Rc::new(RefCell::new(Vec::new()));
    let mut reach = Reach(Cpu {
        function: Fake::new(flaw),
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
    let names =
        "msix-table,pba,decode-off,bar-moves,config-random:2000,config-absent:2000,function-states";
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
