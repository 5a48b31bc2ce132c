//! The guest's user-visible registers: all of them, and those that a trap has to do with.

use core::cell::Cell;

/// All registers of a stopped guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// General registers in the order of their x86 encoding: rax, rcx, rdx,
    /// rbx, rsp, rbp, rsi, rdi, r8 to r15.
    pub gpr: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags. Bit 9 (IF) is the hardware's, always 1; the guest's is in the
    /// virtual CPU.
    pub rflags: u64,
    /// Base of FS, always canonical.
    pub fs_base: u64,
    /// Base of GS, always canonical.
    pub gs_base: u64,
}

/// Number of a register in [`Registers::gpr`].
pub const RAX: usize = 0;
/// See [`RAX`].
pub const RCX: usize = 1;
/// See [`RAX`].
pub const RDX: usize = 2;
/// See [`RAX`].
pub const RSP: usize = 4;
/// See [`RAX`].
pub const RBP: usize = 5;

/// Interrupt flag.
pub const RFLAGS_IF: u64 = 1 << 9;
/// Flags that a ring-3 thread may really have set: CF PF AF ZF SF DF OF AC ID.
pub const RFLAGS_USER: u64 = 0x0024_0cd5;
/// Bit 1 always reads 1.
pub const RFLAGS_FIXED: u64 = 1 << 1;

/// Registers in the order in which the kernel reads and writes a thread's: rip, rsp,
/// rflags, rax, rbx, rcx, rdx, rsi, rdi, rbp, r8 to r15, FS base, GS base.
pub const WORDS: usize = 20;
const RIP_WORD: usize = 0;
const RFLAGS_WORD: usize = 2;
const FS_WORD: usize = 18;
const GS_WORD: usize = 19;
/// Positions of the general registers.
const GPR_WORDS: [usize; 16] = [3, 5, 6, 4, 1, 9, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17];

/// Returns whether a CPU with 48-bit addresses takes this one: bits 63 to 47 are equal
/// (SDM vol. 1 section 3.3.7.1).
#[must_use]
pub const fn is_canonical(address: u64) -> bool {
    (address << 16).cast_signed() >> 16 == address.cast_signed()
}

/// A stopped guest, which has its registers.
pub trait Source {
    /// Reads the first registers, as many as there are words, in the order of [`WORDS`].
    fn read(&self, words: &mut [u64]);
}

impl Source for Registers {
    fn read(&self, words: &mut [u64]) {
        let mut all = [0; WORDS];
        (all[RIP_WORD], all[RFLAGS_WORD]) = (self.rip, self.rflags);
        (all[FS_WORD], all[GS_WORD]) = (self.fs_base, self.gs_base);
        for (value, word) in self.gpr.iter().zip(GPR_WORDS) {
            all[word] = *value;
        }
        words.copy_from_slice(&all[..words.len()]);
    }
}

/// Registers of a stopped guest, of which each is read when it is first asked for, and
/// written only if it changed. Reading and writing cost more than all that most traps do.
pub struct Trapped<'a> {
    source: &'a dyn Source,
    words: [Cell<u64>; WORDS],
    /// Words that were read or set, a bit each.
    known: Cell<u32>,
    /// Words that are not as the guest has them.
    changed: u32,
}

impl<'a> Trapped<'a> {
    /// Returns the registers of a guest, of which the first are `told`, by the message
    /// that it stopped with.
    #[must_use]
    pub fn new(source: &'a dyn Source, told: &[u64]) -> Self {
        let mut regs = Self {
            source,
            words: [const { Cell::new(0) }; WORDS],
            known: Cell::new(0),
            changed: 0,
        };
        regs.tell(0, told);
        regs
    }

    /// Forgets them, for the next time that the guest stops.
    pub fn forget(&mut self) {
        self.known.set(0);
        self.changed = 0;
    }

    /// Takes registers that the message tells of, from this position on.
    pub fn tell(&mut self, first: usize, words: &[u64]) {
        let Some(places) = self.words.get_mut(first..first + words.len()) else {
            return;
        };
        for (place, &word) in places.iter_mut().zip(words) {
            place.set(word);
        }
        let told = ((1 << words.len()) - 1) << first;
        self.known.set(self.known.get() | told);
    }

    /// Reads the words up to this one, if it is not known.
    fn know(&self, word: usize) {
        if self.known.get() >> word & 1 == 0 {
            self.read(word);
        }
    }

    /// Reads the words up to this one; those that are known stay.
    #[cold]
    fn read(&self, word: usize) {
        let mut words = [0; WORDS];
        self.source.read(&mut words[..=word]);
        let known = self.known.get();
        for (index, (place, &word)) in self.words.iter().zip(&words[..=word]).enumerate() {
            if known >> index & 1 == 0 {
                place.set(word);
            }
        }
        self.known.set(known | ((1 << (word + 1)) - 1));
    }

    fn word(&self, word: usize) -> u64 {
        self.know(word);
        self.words[word].get()
    }

    fn set_word(&mut self, word: usize, value: u64) {
        let known = self.known.get();
        if known >> word & 1 == 0 || self.words[word].get() != value {
            self.words[word].set(value);
            self.known.set(known | 1 << word);
            self.changed |= 1 << word;
        }
    }

    /// Reads, if need be, all up to this general register at once: for an operation on
    /// several, which names the one that is last in the order of [`WORDS`].
    pub fn need(&self, gpr: usize) {
        self.know(GPR_WORDS[gpr]);
    }

    /// Returns a general register, by its number in [`Registers::gpr`].
    #[must_use]
    pub fn get(&self, gpr: usize) -> u64 {
        self.word(GPR_WORDS[gpr])
    }

    /// Sets a general register.
    pub fn set(&mut self, gpr: usize, value: u64) {
        self.set_word(GPR_WORDS[gpr], value);
    }

    /// Returns the instruction pointer.
    #[must_use]
    pub fn rip(&self) -> u64 {
        self.word(RIP_WORD)
    }

    /// Sets the instruction pointer.
    pub fn set_rip(&mut self, rip: u64) {
        self.set_word(RIP_WORD, rip);
    }

    /// Returns the flags, as [`Registers::rflags`].
    #[must_use]
    pub fn rflags(&self) -> u64 {
        self.word(RFLAGS_WORD)
    }

    /// Sets the flags.
    pub fn set_rflags(&mut self, rflags: u64) {
        self.set_word(RFLAGS_WORD, rflags);
    }

    /// Returns the base of GS, or that of FS.
    #[must_use]
    pub fn base(&self, gs: bool) -> u64 {
        self.word(if gs { GS_WORD } else { FS_WORD })
    }

    /// Sets the base of GS, or that of FS, to a canonical address.
    pub fn set_base(&mut self, gs: bool, base: u64) {
        self.set_word(if gs { GS_WORD } else { FS_WORD }, base);
    }

    /// Returns the low 32 bits of rdx and rax as one value: the operand of
    /// wrmsr.
    #[must_use]
    pub fn edx_eax(&self) -> u64 {
        self.need(RDX);
        self.get(RDX) << 32 | self.get(RAX) & 0xffff_ffff
    }

    /// Sets rdx and rax from the two halves of a value: the result of rdmsr.
    pub fn set_edx_eax(&mut self, value: u64) {
        self.set(RAX, value & 0xffff_ffff);
        self.set(RDX, value >> 32);
    }

    /// Returns all registers as they are now.
    #[must_use]
    pub fn all(&self) -> Registers {
        self.know(GS_WORD);
        Registers {
            gpr: GPR_WORDS.map(|word| self.word(word)),
            rip: self.rip(),
            rflags: self.rflags(),
            fs_base: self.base(false),
            gs_base: self.base(true),
        }
    }

    /// Returns the first registers, up to the last that changed, as the guest is to have
    /// them: none if nothing changed.
    pub fn written(&self) -> impl ExactSizeIterator<Item = u64> {
        // What lies before the last one that changed is written too, as the guest has it.
        let written = (u32::BITS - self.changed.leading_zeros()) as usize;
        let unknown = ((1 << written) - 1) & !self.known.get();
        if unknown != 0 {
            self.read((u32::BITS - 1 - unknown.leading_zeros()) as usize);
        }
        self.words[..written].iter().map(Cell::get)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    extern crate std;
    use std::cell::RefCell;
    use std::vec::Vec;

    use proptest::prelude::*;

    /// A thread as the kernel has it, and how many words were read of it, each time.
    struct Thread {
        words: [u64; WORDS],
        reads: RefCell<Vec<usize>>,
    }

    impl Thread {
        fn new(words: [u64; WORDS]) -> Self {
            Self {
                words,
                reads: RefCell::default(),
            }
        }

        fn write(&mut self, words: &[u64]) {
            self.words[..words.len()].copy_from_slice(words);
        }
    }

    impl Source for Thread {
        fn read(&self, words: &mut [u64]) {
            self.reads.borrow_mut().push(words.len());
            words.copy_from_slice(&self.words[..words.len()]);
        }
    }

    fn numbered() -> Thread {
        Thread::new(core::array::from_fn(|word| 100 + word as u64))
    }

    #[test]
    fn a_register_is_read_once_and_with_it_what_lies_before() {
        let thread = numbered();
        let regs = Trapped::new(&thread, &[7]);
        assert_eq!(regs.rip(), 7, "as it was told");
        assert_eq!(
            (regs.get(RAX), regs.get(RSP), regs.rflags()),
            (103, 101, 102)
        );
        assert_eq!((regs.rip(), regs.get(RCX)), (7, 105));
        assert_eq!(thread.reads.take(), [4, 6]);
        assert_eq!(regs.all().gpr[15], 117);
        assert_eq!((regs.base(false), regs.base(true)), (118, 119));
        assert_eq!(thread.reads.take(), [WORDS]);
    }

    #[test]
    fn what_an_exception_is_answered_with() {
        let thread = numbered();
        let mut regs = Trapped::new(&thread, &[1, 2, 3]);
        assert_eq!(regs.written().len(), 0);
        regs.set_rip(9);
        assert!(regs.written().eq([9]));
        assert!(thread.reads.take().is_empty());
        // What is as it was is no change.
        regs.set_rflags(3);
        assert_eq!(regs.written().len(), 1);
        regs.set(RBP, 7);
        let words: Vec<u64> = regs.written().collect();
        assert_eq!(words, [9, 2, 3, 103, 104, 105, 106, 107, 108, 7]);
        // At once, up to the last that was not known.
        assert_eq!(thread.reads.take(), [9]);
    }

    #[test]
    fn what_is_told_need_not_be_the_first() {
        let thread = numbered();
        let mut regs = Trapped::new(&thread, &[1]);
        regs.tell(3, &[7, 8]);
        assert_eq!((regs.rip(), regs.get(RAX)), (1, 7));
        assert!(thread.reads.take().is_empty());
        assert_eq!((regs.get(RSP), regs.get(RAX)), (101, 7));
        regs.set(RAX, 9);
        regs.forget();
        assert_eq!((regs.get(RAX), regs.written().len()), (103, 0));
        // More than there are: none.
        regs.tell(WORDS - 1, &[1, 2]);
        assert_eq!(regs.base(true), 119);
    }

    /// Numbers as [`Registers`] and as the kernel's order have them.
    #[test]
    fn words_and_registers_are_the_same() {
        let registers = Registers {
            gpr: core::array::from_fn(|index| index as u64),
            rip: 16,
            rflags: 17,
            fs_base: 18,
            gs_base: 19,
        };
        assert_eq!(Trapped::new(&registers, &[]).all(), registers);
        // rip, rsp, rflags, rax, rbx, rcx, rdx, rsi, rdi, rbp, r8.
        let mut words = [0; WORDS];
        registers.read(&mut words);
        assert_eq!(words[..11], [16, 4, 17, 0, 3, 1, 2, 6, 7, 5, 8]);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Get(usize),
        Set(usize, u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let value = prop_oneof![0..3u64, any::<u64>()];
        prop_oneof![
            (0..WORDS).prop_map(Step::Get),
            (0..WORDS, value).prop_map(|(word, value)| Step::Set(word, value)),
        ]
    }

    proptest! {
        /// Whatever is read and set, and whichever words were told: the guest goes on with
        /// what all of its registers read and all of them written would have left.
        #[test]
        fn no_register_is_stale(
            start in any::<[u64; WORDS]>(),
            told in 0..=WORDS,
            steps in prop::collection::vec(step(), 0..12),
        ) {
            let mut thread = Thread::new(start);
            let mut plain = start;
            let words: Vec<u64> = {
                let mut regs = Trapped::new(&thread, &start[..told]);
                for step in steps {
                    match step {
                        Step::Get(word) => prop_assert_eq!(regs.word(word), plain[word]),
                        Step::Set(word, value) => {
                            regs.set_word(word, value);
                            plain[word] = value;
                        }
                    }
                }
                regs.written().collect()
            };
            thread.write(&words);
            prop_assert_eq!(thread.words, plain);
        }
    }
}
