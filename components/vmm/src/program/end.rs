//! A guest's end, as the component takes it back.

use runtime::Stop;
use sel4::cap::Endpoint;
use spec::{BADGE_TIMER, Backoff, FunctionId};
use vmm::{Host as _, Next, Share, TakeBack};

use super::surroundings::Surroundings;

/// The end of one life of the guest.
pub struct End<'a, 'b> {
    /// What the guest had.
    pub host: &'b mut Surroundings<'a>,
    /// The endpoint with the guest's events.
    pub endpoint: Endpoint,
    /// The guest's turns.
    pub share: Share,
    /// Ticks of the time stamp counter in a millisecond.
    pub tsc_khz: u64,
    /// Why it ended.
    pub stop: Stop,
    /// Its starts after the first, with the one that may follow.
    pub restarts: u64,
}

impl TakeBack for End<'_, '_> {
    fn reset(&mut self, function: FunctionId) -> Option<u64> {
        self.host.reset(function)
    }

    fn detach(&mut self, function: FunctionId) -> bool {
        self.host.detach(function)
    }

    fn unmap_bars(&mut self) {
        self.host.unmap_bars();
    }

    fn drop_events(&mut self) {
        self.host.set_deadline(None);
        // The guest's thread is suspended, so that only events come. What was
        // signalled so far is one word; a function that could not be taken back
        // may go on, and is not waited for.
        self.endpoint.nb_recv(());
    }

    fn report(&mut self, next: Next) {
        let text = defmt::Display2Format(&self.stop);
        match next {
            Next::Stop | Next::Halt => defmt::warn!("{}: it stays halted", text),
            Next::GiveUp => {
                defmt::error!(
                    "{}: failed {=u32} times in a row, it stays halted",
                    text,
                    Backoff::LIMIT + 1
                );
            }
            Next::Unclean => {
                defmt::error!("{}: it stays halted, a function was not taken back", text);
            }
            Next::NotReset => {
                defmt::error!("it stays halted, a function was not reset (M24)");
            }
            Next::Restart(_) => defmt::warn!("{}: restart {=u64}", text, self.restarts),
        }
    }

    fn rest(&mut self, wait_ms: u64) {
        // What a start costs is paid in the guest's own turn.
        let end = runtime::tsc() + wait_ms * self.tsc_khz;
        let end = self.share.next_own(end);
        while runtime::tsc() < end {
            self.host.set_deadline(Some(end));
            while self.endpoint.recv(()).1 & BADGE_TIMER == 0 {}
        }
    }

    fn clear_ram(&mut self) {
        self.host.clear_ram();
    }
}
