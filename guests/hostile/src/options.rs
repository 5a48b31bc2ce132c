//! Options of the command line.

use kit::command_line::CommandLine;

/// How the guest ends once its attacks are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By the exit port, with 0x10 if no attack failed and 0x11 otherwise.
    Result,
    /// By the exit port with this code.
    Code(u8),
    /// By a panic.
    Panic,
    /// By a triple fault.
    Triple,
    /// It loops with interrupts off.
    Hang,
    /// Sleeps forever.
    Stay,
}

/// The command line's words for this guest.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Names separated by commas: an attack each, or `all`, or `dma`; `NAME:N`
    /// has a count of its own.
    pub attacks: &'a str,
    /// Where random numbers start.
    pub seed: u64,
    /// Repetitions of each attack; the attack's own default if absent.
    pub count: Option<u64>,
    /// Rounds of churn before anything else.
    pub after: u64,
    /// How it ends.
    pub exit: Exit,
    /// It waits for a frame from the network before it begins.
    pub wait: bool,
    /// Instead of all that it lives as `soak` says.
    pub soak: bool,
    /// Instead of all that it ends as it is entered, and all is well.
    pub at_once: bool,
    /// Instead of all that it leaves its device armed for its next life.
    pub armed: bool,
}

impl<'a> Options<'a> {
    /// Reads the command line. Without `attack=` and `exit=`, all attacks; with
    /// `exit=` alone, none.
    pub fn new(line: &CommandLine<'a>) -> Self {
        let exit = match line.value("exit") {
            None => Exit::Result,
            Some("panic") => Exit::Panic,
            Some("triple") => Exit::Triple,
            Some("hang") => Exit::Hang,
            Some("stay") => Exit::Stay,
            Some(code) => Exit::Code(code.parse().unwrap_or(kit::EXIT_FAILURE)),
        };
        let default = if matches!(exit, Exit::Result | Exit::Stay) {
            "all"
        } else {
            ""
        };
        Self {
            attacks: line.value("attack").unwrap_or(default),
            seed: line.number("seed").unwrap_or(1),
            count: line.number("count"),
            after: line.number("after").unwrap_or(0),
            exit,
            wait: line.value("start") == Some("frame"),
            soak: line.value("mode") == Some("soak"),
            at_once: line.value("mode") == Some("exit-at-once"),
            armed: line.value("mode") == Some("armed"),
        }
    }
}

/// Random numbers: splitmix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Copy, Debug)]
pub struct Random(u64);

impl Random {
    /// Returns the numbers that follow from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Returns a number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.word() % end
    }

    /// Returns one of several, of which there is at least one.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// Returns a number that is more often a small, a large or a round one than
    /// chance would have it.
    pub fn odd(&mut self) -> u64 {
        let word = self.word();
        match self.below(8) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << (word & 63),
            3 => (1 << (word & 63)) - 1,
            4 => word & 0xff,
            5 => word & 0xffff_ffff,
            _ => word,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &'static str) -> Options<'static> {
        Options::new(&CommandLine::new(line.as_bytes()))
    }

    #[test]
    fn words_are_read_and_have_defaults() {
        let all = options("host=vectis");
        assert_eq!((all.attacks, all.seed, all.count), ("all", 1, None));
        assert_eq!((all.exit, all.after, all.wait), (Exit::Result, 0, false));
        let some = options("attack=a,b seed=7 count=9 exit=stay start=frame");
        assert_eq!((some.attacks, some.seed, some.count), ("a,b", 7, Some(9)));
        assert_eq!((some.exit, some.wait), (Exit::Stay, true));
        let end = options("exit=33 after=5");
        assert_eq!((end.attacks, end.exit, end.after), ("", Exit::Code(33), 5));
        assert!(options("mode=soak").soak && !end.soak);
        assert!(options("mode=exit-at-once").at_once && !end.at_once);
        assert_eq!(options("exit=nonsense").exit, Exit::Code(0x11));
    }

    #[test]
    fn a_seed_makes_one_sequence() {
        let mut a = Random::new(5);
        let mut b = Random::new(5);
        let first: [u64; 4] = core::array::from_fn(|_| a.word());
        assert_eq!(first, core::array::from_fn(|_| b.word()));
        assert_ne!(first[0], Random::new(6).word());
        assert!((0..100).all(|_| a.below(3) < 3));
    }
}
