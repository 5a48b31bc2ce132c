//! The guest's thread.

use core::cell::Cell;

use runtime::Context;
use sel4::cap::{Granule, Tcb};
use sel4::{MessageInfo, UserContext, fault};
use spec::names;
use vmm::{Registers, Source, StopReason, Trapped, WORDS};

/// Position of rsi among the registers.
const RSI: usize = 6;
/// #GP: raised for an address that is not canonical.
const GENERAL_PROTECTION: u8 = 13;
/// A slot without a capability: an IPC buffer without a page.
const NO_PAGE: u64 = 0;

/// What is sent to the guest's thread, with the next receive, to have it go on: header and
/// words.
pub type Reply = (MessageInfo, [u64; 4]);

/// The guest's thread.
pub struct Guest {
    tcb: Tcb,
    /// Its GS base, unless the kernel keeps it.
    gs_base: Cell<u64>,
}

impl Guest {
    /// Returns the thread that init configured.
    pub fn new(context: &Context) -> Self {
        Self {
            tcb: context.capability(names::GUEST_TCB),
            gs_base: Cell::new(0),
        }
    }

    /// Starts the guest at `entry`, in the state that the Linux 64-bit boot
    /// protocol promises as far as ring 3 can see it: rsi points to the boot
    /// parameters.
    pub fn start(&self, entry: u64, boot_params: u64) -> Result<(), StopReason> {
        let mut registers = Registers {
            rip: entry,
            rflags: 0x202,
            ..Registers::default()
        };
        registers.gpr[RSI] = boot_params;
        let mut words = [0; WORDS];
        registers.read(&mut words);
        self.write_words(&words, true)
    }

    /// Suspends the guest for the last time; the kernel drops its pending IPC and fault
    /// message.
    pub fn end(&self) {
        // The capability is the VMM's own, so that this cannot fail.
        let _ = self.tcb.tcb_suspend();
    }

    /// Lets it go on with the registers that a trap left. If it waits for a reply that sets
    /// those that changed, of the first `settable` ones, the reply is returned and left to
    /// the caller: sent with the next receive it costs no system call of its own. Whatever
    /// comes between may use the IPC buffer.
    ///
    /// # Errors
    /// As for [`Guest::write`].
    pub fn go_on(&self, regs: &Trapped<'_>, settable: usize) -> Result<Option<Reply>, StopReason> {
        let written = regs.written();
        if written.len() <= settable && sel4::is_canonical(regs.rip()) {
            return Ok(Some(fault::reply(written)));
        }
        self.write(regs, true)?;
        Ok(None)
    }

    /// Writes those of its registers that changed, and lets it go on if `resume`.
    ///
    /// # Errors
    /// A guest that put an address into them which no CPU takes is over.
    pub fn write(&self, regs: &Trapped<'_>, resume: bool) -> Result<(), StopReason> {
        let mut words = [0; WORDS];
        let written = regs.written();
        let count = written.len();
        words
            .iter_mut()
            .zip(written)
            .for_each(|(to, word)| *to = word);
        self.write_words(&words[..count], resume)
    }

    fn write_words(&self, words: &[u64], resume: bool) -> Result<(), StopReason> {
        let mut all = [0; UserContext::ALL];
        let count = words.len().min(all.len());
        all[..count].copy_from_slice(&words[..count]);
        let mut written = Ok(());
        if let Some(&gs_base) = words.get(UserContext::WORDS)
            && gs_base != self.gs_base.get()
        {
            let no_page = Granule::from_bits(NO_PAGE);
            written = self.tcb.tcb_set_ipc_buffer(gs_base as usize, no_page);
            self.gs_base.set(gs_base);
        }
        let context = UserContext::from_words(all);
        written = written.and_then(|()| self.tcb.tcb_write_registers(resume, count, &context));
        written.map_err(|error| {
            defmt::warn!(
                "guest registers refused (rip {=u64:#x}): error {=u64}",
                all[0],
                error as u64
            );
            StopReason::TripleFault(GENERAL_PROTECTION)
        })
    }
}

impl Source for Guest {
    fn read(&self, words: &mut [u64]) {
        // The capability is the VMM's own and the count is right.
        let context = match self.tcb.tcb_read_registers(false, words.len()) {
            Ok(context) => context.to_words(),
            Err(error) => panic!("the guest's registers: {error:?}"),
        };
        words.copy_from_slice(&context[..words.len()]);
        if let Some(gs_base) = words.get_mut(UserContext::WORDS) {
            *gs_base = self.gs_base.get();
        }
    }
}
