//! The list of attacks, and how they are run one after the other.

use core::fmt;

use probe::check::{Mismatch, Stop, Verdict, expect};
use probe::target::Target;

use crate::machine::{Ended, Machine, Reach, Registers};
use crate::options::Random;
use crate::{bars, calls, churn, config, dma, ends, exceptions, flood, kernel, message, nic};
use crate::{ports, random, segments, table};

/// When an attack is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// With `all`: the guest goes on afterwards.
    Common,
    /// With `dma`: where an IOMMU confines the function. Elsewhere it reaches
    /// the kernel.
    Dma,
    /// Runs by its name only, for as long as its count says.
    Mode,
    /// By its name only, and last: afterwards the guest cannot wait any more.
    Last,
    /// By its name only: the guest does not go on.
    End,
}

/// One attack.
pub struct Attack<M: Machine> {
    /// Its name.
    pub name: &'static str,
    /// When it is run.
    pub group: Group,
    /// Does it.
    pub run: fn(&mut Hostile<M>) -> Verdict,
}

/// The guest's function, and the machine that it is in.
pub struct Hostile<'m, M> {
    /// The function.
    pub target: Target<'m, Reach<M>>,
    /// Random numbers.
    pub random: Random,
    /// How often, if the command line says so.
    pub count: Option<u64>,
}

impl<M: Machine> Hostile<'_, M> {
    /// Returns the machine.
    pub fn machine(&mut self) -> &mut M {
        &mut self.target.machine.0
    }

    /// Returns the machine's ports and memory.
    pub fn reach(&mut self) -> &mut Reach<M> {
        self.target.machine
    }

    /// Runs code with all other registers 0.
    pub fn run(&mut self, code: &[u8], rax: u64, rdi: u64) -> Ended {
        let mut registers = Registers {
            rax,
            rdi,
            ..Registers::default()
        };
        self.machine().run(code, &mut registers)
    }

    /// Returns the number of repetitions, `default` if the command line has none.
    pub fn times(&self, default: u64) -> u64 {
        self.count.unwrap_or(default)
    }

    /// Sees that an instruction is still emulated as it should be.
    ///
    /// # Errors
    /// [`Stop::Fail`] if not.
    pub fn still_there(&mut self) -> Verdict {
        // The configuration address register holds what is written.
        let value = self.random.word() as u32 & 0x80ff_fffc;
        let reach = self.reach();
        reach.output(0xcf8, 4, value);
        let (_, got) = reach.input(0xcf8, 4);
        expect("configuration address", 0xcf8u16, value, got)
    }
}

/// Fails unless code ended in one of these ways: a vector each, 0x100 for its
/// end.
///
/// # Errors
/// [`Stop::Fail`] with the first of them.
pub fn expect_end(what: &'static str, at: u64, allowed: &[u64], ended: Ended) -> Verdict {
    if allowed.contains(&ended.number()) {
        return Ok(());
    }
    expect(what, at, allowed[0], ended.number())
}

/// Returns all attacks, in the order in which `all` runs them: those after
/// which less of the guest's own machine is whole come later.
pub fn attacks<M: Machine>() -> impl Iterator<Item = Attack<M>> {
    table::attacks()
        .into_iter()
        .chain(bars::attacks())
        .chain(config::attacks())
        .chain(message::attacks())
        .chain(ports::attacks())
        .chain(exceptions::attacks())
        .chain(segments::attacks())
        .chain(calls::attacks())
        .chain(kernel::attacks())
        .chain(random::attacks())
        .chain(dma::attacks())
        .chain(churn::attacks())
        .chain(flood::attacks())
        .chain(ends::attacks())
}

/// Runs the attacks that `names` asks for, `NAME` or `NAME:COUNT` each; whether
/// each was repelled. A name that nothing has fails.
pub fn run<M: Machine>(hostile: &mut Hostile<M>, names: &str) -> bool {
    let mut all = true;
    let count = hostile.count;
    for wanted in names.split(',').filter(|name| !name.is_empty()) {
        let (wanted, own) = wanted.split_once(':').unwrap_or((wanted, ""));
        hostile.count = own.parse().ok().or(count);
        let mut found = false;
        for attack in attacks::<M>() {
            let group = match attack.group {
                Group::Common => "all",
                Group::Dma => "dma",
                Group::Mode | Group::Last | Group::End => "",
            };
            if attack.name != wanted && group != wanted {
                continue;
            }
            found = true;
            all &= one(hostile, &attack);
        }
        if !found {
            all = false;
            hostile.machine().line(format_args!(
                "not ok {wanted}: expected an attack of that name found none"
            ));
        }
    }
    all
}

fn one<M: Machine>(hostile: &mut Hostile<M>, attack: &Attack<M>) -> bool {
    let name = attack.name;
    hostile.machine().line(format_args!("# {name}"));
    let verdict = (attack.run)(hostile);
    if !matches!(attack.group, Group::Last | Group::End) {
        nic::stop(hostile);
        hostile.target.restore();
    }
    hostile.machine().reset_console();
    let write = |hostile: &mut Hostile<M>, text: fmt::Arguments| hostile.machine().line(text);
    match verdict {
        Ok(()) => write(hostile, format_args!("ok {name}")),
        Err(Stop::Skip(reason)) => write(hostile, format_args!("ok {name} # SKIP {reason}")),
        Err(Stop::Fail(Mismatch {
            what,
            at,
            expected,
            got,
        })) => {
            write(
                hostile,
                format_args!(
                    "not ok {name}: expected {expected:#x} found {got:#x}: {what} at {at:#x}"
                ),
            );
            return false;
        }
    }
    true
}
