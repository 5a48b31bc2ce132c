//! Faults of threads, as their handler receives and answers them.
//!
//! A thread that holds its fault endpoint can send any message to it, so a decoded
//! fault is a claim and not a fact. Where it matters, read the registers.

use sel4_sys::Fault as Tags;
use sel4_sys::{fault_message as length, lookup_failure};

use crate::{MessageInfo, UserContext, Word, with_ipc_buffer, with_ipc_buffer_mut};

/// A fault message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A message without a fault.
    NullFault,
    /// A capability that does not resolve.
    CapFault(CapFault),
    /// A system call number that the kernel does not have.
    UnknownSyscall(UnknownSyscall),
    /// A processor exception.
    UserException(UserException),
    /// A page fault.
    VmFault(VmFault),
}

/// A system call on a capability that does not resolve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapFault {
    /// Address of the instruction.
    pub ip: Word,
    /// The capability's address.
    pub addr: Word,
    /// Whether it was about to receive.
    pub in_recv_phase: bool,
    /// How far the lookup came.
    pub lookup_failure: LookupFailure,
}

/// Why a capability does not resolve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupFailure {
    /// The thread has no CSpace.
    InvalidRoot,
    /// The slot is empty.
    MissingCapability {
        /// Bits that were not resolved.
        bits_left: Word,
    },
    /// The bits do not end where a CNode's do.
    DepthMismatch {
        /// Bits that were not resolved.
        bits_left: Word,
        /// Bits that the CNode would have resolved.
        bits_found: Word,
    },
    /// A guard does not match.
    GuardMismatch {
        /// Bits that were not resolved.
        bits_left: Word,
        /// The guard that is there.
        guard_found: Word,
        /// Its length in bits.
        bits_found: Word,
    },
    /// None that the kernel reports.
    Unknown(Word),
}

/// A system call number that the kernel does not have: the registers at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "the fields are the registers that they are named after"
)]
pub struct UnknownSyscall {
    pub rax: Word,
    pub rbx: Word,
    pub rcx: Word,
    pub rdx: Word,
    pub rsi: Word,
    pub rdi: Word,
    pub rbp: Word,
    pub r8: Word,
    pub r9: Word,
    pub r10: Word,
    pub r11: Word,
    pub r12: Word,
    pub r13: Word,
    pub r14: Word,
    pub r15: Word,
    /// Address of the instruction; a reply continues where it says, which must
    /// be [canonical](crate::is_canonical).
    pub fault_ip: Word,
    pub sp: Word,
    pub flags: Word,
    /// The number, from RDX; a reply does not write it.
    pub syscall: Word,
}

/// A processor exception.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserException {
    /// Address of the instruction (after it for a breakpoint); a reply
    /// continues where it says, which must be
    /// [canonical](crate::is_canonical).
    pub fault_ip: Word,
    /// RSP.
    pub sp: Word,
    /// RFLAGS.
    pub flags: Word,
    /// The vector; a reply does not write it.
    pub number: Word,
    /// The error code, 0 if the exception has none; a reply does not write it.
    pub code: Word,
}

/// A page fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VmFault {
    /// Address of the instruction.
    pub ip: Word,
    /// The address accessed.
    pub addr: Word,
    /// Not zero if it was an instruction fetch.
    pub prefetch: Word,
    /// The page fault's error code (SDM vol. 3, 4.7), its low 5 bits.
    pub fsr: Word,
}

impl Fault {
    /// Decodes a fault message from its header and words. `None` if the label
    /// is not a fault's, or the message is too short for it.
    pub fn from_message(info: MessageInfo, words: &[Word]) -> Option<Self> {
        let words = words.get(..info.length())?;
        match info.label() {
            Tags::TAG_NULL_FAULT => Some(Fault::NullFault),
            Tags::TAG_CAP_FAULT => CapFault::decode(words).map(Fault::CapFault),
            Tags::TAG_UNKNOWN_SYSCALL => words
                .first_chunk()
                .map(|words| Fault::UnknownSyscall(UnknownSyscall::from_words(words))),
            Tags::TAG_USER_EXCEPTION => {
                let &[fault_ip, sp, flags, number, code] =
                    words.first_chunk::<{ length::USER_EXCEPTION_LENGTH }>()?;
                Some(Fault::UserException(UserException {
                    fault_ip,
                    sp,
                    flags,
                    number,
                    code,
                }))
            }
            Tags::TAG_VM_FAULT => {
                let &[ip, addr, prefetch, fsr] =
                    words.first_chunk::<{ length::VM_FAULT_LENGTH }>()?;
                Some(Fault::VmFault(VmFault {
                    ip,
                    addr,
                    prefetch,
                    fsr,
                }))
            }
            _ => None,
        }
    }

    /// Decodes the fault message in the IPC buffer.
    pub fn from_ipc_buffer(info: MessageInfo) -> Option<Self> {
        with_ipc_buffer(|buffer| Self::from_message(info, buffer.msg_regs()))
    }
}

impl CapFault {
    fn decode(words: &[Word]) -> Option<Self> {
        let &[ip, addr, receiving, kind] =
            words.first_chunk::<{ length::CAP_FAULT_MIN_LENGTH }>()?;
        let detail = |index: usize| words.get(length::CAP_FAULT_MIN_LENGTH + index).copied();
        let lookup_failure = match kind {
            lookup_failure::INVALID_ROOT => LookupFailure::InvalidRoot,
            lookup_failure::MISSING_CAPABILITY => LookupFailure::MissingCapability {
                bits_left: detail(0)?,
            },
            lookup_failure::DEPTH_MISMATCH => LookupFailure::DepthMismatch {
                bits_left: detail(0)?,
                bits_found: detail(1)?,
            },
            lookup_failure::GUARD_MISMATCH => LookupFailure::GuardMismatch {
                bits_left: detail(0)?,
                guard_found: detail(1)?,
                bits_found: detail(2)?,
            },
            other => LookupFailure::Unknown(other),
        };
        Some(CapFault {
            ip,
            addr,
            in_recv_phase: receiving != 0,
            lookup_failure,
        })
    }
}

impl UnknownSyscall {
    fn from_words(words: &[Word; length::UNKNOWN_SYSCALL_LENGTH]) -> Self {
        let &[
            rax,
            rbx,
            rcx,
            rdx,
            rsi,
            rdi,
            rbp,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
            fault_ip,
            sp,
            flags,
            syscall,
        ] = words;
        UnknownSyscall {
            rax,
            rbx,
            rcx,
            rdx,
            rsi,
            rdi,
            rbp,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
            fault_ip,
            sp,
            flags,
            syscall,
        }
    }

    /// Returns the words of the reply that continues the thread with these
    /// registers.
    pub fn reply_words(&self) -> [Word; length::UNKNOWN_SYSCALL_REPLY_LENGTH] {
        [
            self.rax,
            self.rbx,
            self.rcx,
            self.rdx,
            self.rsi,
            self.rdi,
            self.rbp,
            self.r8,
            self.r9,
            self.r10,
            self.r11,
            self.r12,
            self.r13,
            self.r14,
            self.r15,
            self.fault_ip,
            self.sp,
            self.flags,
        ]
    }

    /// Writes the reply that continues the thread with these registers to
    /// `msg`, the message words of the IPC buffer. Returns its header.
    pub fn write_reply(&self, msg: &mut [Word; sel4_sys::MSG_MAX_LENGTH]) -> MessageInfo {
        let words = self.reply_words();
        msg[..words.len()].copy_from_slice(&words);
        MessageInfo::new(0, 0, 0, words.len())
    }
}

/// Registers that the reply to an exception sets in every kernel: IP, SP and FLAGS.
pub const EXCEPTION_REGISTERS: usize = length::USER_EXCEPTION_REPLY_LENGTH;
/// General registers of a thread, with IP, SP and FLAGS: the first of [`UserContext`].
pub const ALL_REGISTERS: usize = UserContext::ALL - 2;

/// Returns the registers that a page fault's or an exception's message has behind its own
/// words, up to [`ALL_REGISTERS`], and the position of the first: the registers before are
/// the message's first words. Those of the bundled kernel have them, by a declared edit; then
/// its reply may set as many.
pub fn registers(info: MessageInfo, words: &[Word]) -> Option<(usize, &[Word])> {
    let (first, own) = match info.label() {
        Tags::TAG_USER_EXCEPTION => (EXCEPTION_REGISTERS, length::USER_EXCEPTION_LENGTH),
        Tags::TAG_VM_FAULT => (1, length::VM_FAULT_LENGTH),
        _ => return None,
    };
    let all = own + ALL_REGISTERS - first;
    let registers = words.get(own..all)?;
    (info.length() >= all).then_some((first, registers))
}

/// Returns the reply that continues a thread with these as its first registers, in the
/// order of [`UserContext`]: header and words, of which those past the fourth are put into
/// the IPC buffer. IP must be [canonical](crate::is_canonical).
pub fn reply(mut registers: impl ExactSizeIterator<Item = Word>) -> (MessageInfo, [Word; 4]) {
    let info = MessageInfo::new(0, 0, 0, registers.len());
    let words = [(); 4].map(|()| registers.next().unwrap_or(0));
    if registers.len() > 0 {
        with_ipc_buffer_mut(|buffer| {
            let places = buffer.msg_regs_mut()[words.len()..].iter_mut();
            places.zip(registers).for_each(|(to, word)| *to = word);
        });
    }
    (info, words)
}

impl VmFault {
    /// Returns whether it was an instruction fetch.
    pub const fn is_prefetch(&self) -> bool {
        self.prefetch != 0
    }

    /// Returns whether it was a write (error code bit 1).
    pub const fn is_write(&self) -> bool {
        self.fsr & 2 != 0
    }

    /// Returns whether something was mapped there that did not permit the
    /// access (error code bit 0).
    pub const fn is_protection(&self) -> bool {
        self.fsr & 1 != 0
    }

    /// Returns the reply that runs the instruction at the thread's IP again.
    pub const fn reply(&self) -> (MessageInfo, [Word; 4]) {
        (MessageInfo::new(0, 0, 0, 0), [0; 4])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(label: u64, words: &[Word]) -> Option<Fault> {
        Fault::from_message(MessageInfo::new(label, 0, 0, words.len()), words)
    }

    fn numbers<const N: usize>() -> [Word; N] {
        core::array::from_fn(|i| 100 + i as Word)
    }

    #[test]
    fn page_fault() {
        let Some(Fault::VmFault(fault)) = decode(Tags::TAG_VM_FAULT, &[0x1000, 0xfee0_0000, 0, 7])
        else {
            panic!("not decoded");
        };
        assert_eq!((fault.ip, fault.addr), (0x1000, 0xfee0_0000));
        assert!(fault.is_write() && fault.is_protection() && !fault.is_prefetch());
        assert_eq!(fault.reply().0.to_word(), 0);
    }

    #[test]
    fn exception_and_its_reply() {
        let Some(Fault::UserException(fault)) =
            decode(Tags::TAG_USER_EXCEPTION, &[0x1000, 0x2000, 0x202, 13, 8])
        else {
            panic!("not decoded");
        };
        assert_eq!((fault.number, fault.code), (13, 8));
        let (info, words) = reply([0x1002, fault.sp, fault.flags].into_iter());
        assert_eq!((info.label(), info.length()), (0, EXCEPTION_REGISTERS));
        assert_eq!(words, [0x1002, 0x2000, 0x202, 0]);
        assert_eq!(reply(core::iter::empty()).0.length(), 0);
    }

    #[test]
    fn a_message_with_all_registers_is_one_without_and_they() {
        for (label, first, own) in [
            (Tags::TAG_USER_EXCEPTION, 3, length::USER_EXCEPTION_LENGTH),
            (Tags::TAG_VM_FAULT, 1, length::VM_FAULT_LENGTH),
        ] {
            let words: [Word; 40] = numbers();
            let all = own + ALL_REGISTERS - first;
            let info = |length| MessageInfo::new(label, 0, 0, length);
            assert_eq!(
                registers(info(all), &words),
                Some((first, &words[own..all]))
            );
            assert_eq!(decode(label, &words[..all]), decode(label, &words[..own]));
            // A shorter one has none, nor one that says more than is there.
            assert_eq!(registers(info(all - 1), &words), None);
            assert_eq!(registers(info(all), &words[..all - 1]), None);
        }
        let info = MessageInfo::new(Tags::TAG_UNKNOWN_SYSCALL, 0, 0, 40);
        assert_eq!(registers(info, &numbers::<40>()), None);
    }

    #[test]
    fn unknown_system_call_and_its_reply() {
        let words: [Word; length::UNKNOWN_SYSCALL_LENGTH] = numbers();
        let Some(Fault::UnknownSyscall(call)) = decode(Tags::TAG_UNKNOWN_SYSCALL, &words) else {
            panic!("not decoded");
        };
        assert_eq!((call.rax, call.rbp, call.r15), (100, 106, 114));
        assert_eq!(
            (call.fault_ip, call.sp, call.flags, call.syscall),
            (115, 116, 117, 118)
        );
        let mut msg = [0; sel4_sys::MSG_MAX_LENGTH];
        let info = call.write_reply(&mut msg);
        let reply = length::UNKNOWN_SYSCALL_REPLY_LENGTH;
        assert_eq!((info.label(), info.length()), (0, reply));
        assert_eq!(msg[..reply], words[..reply]);
        assert_eq!(msg[reply], 0);
    }

    #[test]
    fn capability_fault() {
        let fault = decode(
            Tags::TAG_CAP_FAULT,
            &[0x1000, 9, 1, lookup_failure::GUARD_MISMATCH, 52, 3, 12],
        );
        let expected = LookupFailure::GuardMismatch {
            bits_left: 52,
            guard_found: 3,
            bits_found: 12,
        };
        assert_eq!(
            fault,
            Some(Fault::CapFault(CapFault {
                ip: 0x1000,
                addr: 9,
                in_recv_phase: true,
                lookup_failure: expected
            }))
        );
    }

    #[test]
    fn forged_messages_are_no_faults() {
        let kinds = [
            (Tags::TAG_CAP_FAULT, length::CAP_FAULT_MIN_LENGTH),
            (Tags::TAG_UNKNOWN_SYSCALL, length::UNKNOWN_SYSCALL_LENGTH),
            (Tags::TAG_USER_EXCEPTION, length::USER_EXCEPTION_LENGTH),
            (Tags::TAG_VM_FAULT, length::VM_FAULT_LENGTH),
        ];
        for (label, needed) in kinds {
            let words: [Word; length::UNKNOWN_SYSCALL_LENGTH] = numbers();
            assert!(decode(label, &words[..needed]).is_some(), "label {label}");
            assert!(
                decode(label, &words[..needed - 1]).is_none(),
                "label {label}"
            );
        }
        // None of the kinds.
        let other = (0..).find(|label| {
            *label != Tags::TAG_NULL_FAULT && kinds.iter().all(|(kind, _)| kind != label)
        });
        assert_eq!(decode(other.unwrap(), &[0; 10]), None);
        // A length beyond the words that are there.
        assert_eq!(
            Fault::from_message(
                MessageInfo::from_word(
                    MessageInfo::new(Tags::TAG_VM_FAULT, 0, 0, 0).to_word() | 127
                ),
                &[0; 120]
            ),
            None
        );
    }
}
