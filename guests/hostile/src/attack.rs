//! An attack, and what it works with.

use probe::check::{Verdict, expect};
use probe::target::Target;

use crate::machine::{Ended, Machine, Reach, Registers};
use crate::options::Random;

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
    /// [`Stop::Fail`](probe::check::Stop::Fail) if not.
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
/// [`Stop::Fail`](probe::check::Stop::Fail) with the first of them.
pub fn expect_end(what: &'static str, at: u64, allowed: &[u64], ended: Ended) -> Verdict {
    if allowed.contains(&ended.number()) {
        return Ok(());
    }
    expect(what, at, allowed[0], ended.number())
}
