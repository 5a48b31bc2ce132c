//! The running machine of a soak: its events, and the state derived from its lines.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::counters::{Answer, Counters};
use super::watch::{News, news};
use super::{End, Step};
use crate::error::{Error, Result};
use crate::output;
use crate::qemu::{Event, Machine};
use crate::run::{self, Next, Seen, Session};

/// Longest time between two looks at a condition that no event tells of.
const RECHECK: Duration = Duration::from_millis(50);
/// Bound on the wait for one answer of the console.
const ANSWER: Duration = Duration::from_secs(5);
/// How often it is asked: a console that was just started again forgets keys.
const ATTEMPTS: usize = 6;
/// Lines that are kept for the case of a failure.
const LAST: usize = 60;

/// One component's faults.
#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    expected: u64,
    came: u64,
    restarted: u64,
}

/// State derived from the machine's lines.
#[derive(Default)]
pub struct Known {
    faults: BTreeMap<String, Faults>,
    /// Guests that rest now and then; whether they do.
    resting: BTreeMap<String, bool>,
    /// Guests that were crashed and are not known to be back.
    crashed: Vec<String>,
    /// Whole answers to key S, and the last of them.
    answers: u64,
    counters: Counters,
}

impl Known {
    /// Returns whether every crash of the component was followed by its
    /// restart.
    pub fn is_back(&self, component: &str) -> bool {
        let faults = self.faults.get(component);
        faults.is_none_or(|faults| faults.restarted >= faults.expected)
    }

    /// Restarts of the component.
    pub fn survived(&self, component: &str) -> u64 {
        self.faults
            .get(component)
            .map_or(0, |faults| faults.restarted)
    }

    /// Returns whether all guests rest that ever do.
    pub fn all_rest(&self) -> bool {
        self.resting.values().all(|rests| *rests)
    }

    /// Returns whether each of these guests has told of a rest or of work.
    pub fn heard_of(&self, guests: &[String]) -> bool {
        guests.iter().all(|guest| self.resting.contains_key(guest))
    }

    /// Takes an item in. Returns it in words if it should not have happened.
    fn news(&mut self, news: News) -> Option<String> {
        match news {
            News::Fault(name) => {
                let faults = self.faults.entry(name.clone()).or_default();
                faults.came += 1;
                if faults.came > faults.expected {
                    return Some(format!("{name} faulted without being crashed"));
                }
            }
            News::Restarted(name) => self.faults.entry(name).or_default().restarted += 1,
            News::Rests(guest) => {
                self.resting.insert(guest, true);
            }
            News::Works(guest) => {
                self.resting.insert(guest, false);
            }
            // A crash can strike in the middle of a comparison.
            News::NotOk(guest) if self.crashed.contains(&guest) => {}
            News::NotOk(guest) => return Some(format!("guest {guest} found something wrong")),
            News::Trouble => return Some("a component logged an error".to_owned()),
        }
        None
    }
}

/// The machine.
pub struct Driver<'a> {
    session: Session<'a>,
    events: Receiver<Event>,
    answer: Answer,
    last: VecDeque<String>,
    /// State derived from its lines.
    pub known: Known,
    /// Unexpected events, with the line that reports each.
    pub noticed: Vec<String>,
    /// Failures, in order.
    pub failures: Vec<String>,
}

impl<'a> Driver<'a> {
    /// Starts it. `lock` is the build's.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(
        machine: &Machine<'_>,
        writers: &[(String, PathBuf)],
        log: &Path,
        options: &'a run::Options,
        lock: File,
    ) -> Result<Self> {
        let (session, events) = Session::start(machine, writers, Some(log), options, Some(lock))?;
        Ok(Self {
            session,
            events,
            answer: Answer::default(),
            last: VecDeque::new(),
            known: Known::default(),
            noticed: Vec::new(),
            failures: Vec::new(),
        })
    }

    /// Waits until a guest serves: its name and port on this host.
    ///
    /// # Errors
    /// If the machine ends, or the user wants that.
    pub fn wait_ready(&mut self, bound: Duration) -> Result<Option<(String, u16)>> {
        let end = Instant::now() + bound;
        while Instant::now() < end {
            if let Some(ready) = self.session.ready() {
                return Ok(Some(ready));
            }
            match self.pump(Instant::now() + RECHECK, |_| false) {
                Ok(_) => {}
                Err(End::Machine(error)) => return Err(error),
                Err(End::Early | End::Failed) => {
                    return Err(self.failed("ended by a signal", "no guest was serving yet"));
                }
            }
        }
        Ok(None)
    }

    /// Returns a failure before the soak itself, with the machine's last lines
    /// above it.
    pub fn failed(&self, what: &str, cause: impl std::fmt::Display) -> Error {
        for line in self.last_lines() {
            output::progress(&format!("  {line}"));
        }
        Error::new(
            what,
            cause,
            "-v shows every line of the system; `vectis logs` has the components' logs",
        )
    }

    /// Returns the lines before now.
    pub fn last_lines(&self) -> impl Iterator<Item = &String> {
        self.last.iter()
    }

    /// Handles events until `condition` holds, or until `end`. Returns whether it holds.
    ///
    /// # Errors
    /// If the machine ends, or the user wants that.
    pub fn pump(&mut self, end: Instant, condition: impl Fn(&Known) -> bool) -> Step<bool> {
        loop {
            if condition(&self.known) {
                return Ok(true);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            match self.events.recv_timeout(left.min(RECHECK)) {
                Ok(event) => self.handle(event)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(End::Machine(gone())),
            }
        }
    }

    fn handle(&mut self, event: Event) -> Step<()> {
        let done = match event {
            Event::Signal(_) => return Err(End::Early),
            Event::Ended => match self.session.ended(&self.events) {
                Ok(()) => Err(gone()),
                Err(error) => Err(error),
            },
            event => self.session.handle(event),
        };
        for seen in self.session.take_seen() {
            self.see(&seen);
        }
        match done? {
            Next::Continue => Ok(()),
            Next::Stop => Err(End::Machine(gone())),
        }
    }

    fn see(&mut self, seen: &Seen) {
        let text = match seen {
            Seen::Console(line) => line.clone(),
            Seen::Log(line) => format!("{} {:?}: {}", line.component, line.level, line.text),
        };
        if let Seen::Console(line) = seen
            && line.starts_with("S ")
        {
            if let Some(counters) = self.answer.line(line) {
                self.known.counters = counters;
                self.known.answers += 1;
            }
            return;
        }
        if let Some(what) = news(seen).and_then(|news| self.known.news(news)) {
            self.noticed.push(format!("{what}: {text}"));
        }
        if self.last.len() == LAST {
            self.last.pop_front();
        }
        self.last.push_back(text);
    }

    /// Types keys on the console.
    pub fn press(&mut self, keys: &str) {
        self.session.press(keys);
    }

    /// Records that a component is about to be crashed.
    pub fn expect_fault(&mut self, component: &str) {
        let faults = self.known.faults.entry(component.to_owned()).or_default();
        faults.expected += 1;
    }

    /// Records that a guest is about to be crashed.
    pub fn expect_crash(&mut self, guest: &str) {
        self.known.crashed.push(guest.to_owned());
        // It may be said to rest again only by its next life.
        if let Some(rests) = self.known.resting.get_mut(guest) {
            *rests = false;
        }
    }

    /// Records that a crashed guest is back.
    pub fn crash_over(&mut self, guest: &str) {
        self.known.crashed.retain(|crashed| crashed != guest);
    }

    /// Returns every component's counters; `None` if the console does not
    /// answer.
    ///
    /// # Errors
    /// If the machine ends, or the user wants that.
    pub fn counters(&mut self) -> Step<Option<Counters>> {
        for _ in 0..ATTEMPTS {
            let before = self.known.answers;
            self.press("S");
            let answered = |known: &Known| known.answers > before;
            if self.pump(Instant::now() + ANSWER, answered)? {
                return Ok(Some(self.known.counters.clone()));
            }
        }
        Ok(None)
    }
}

fn gone() -> Error {
    Error::new(
        "the machine ended",
        "nobody asked it to",
        "its last lines are above",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_nobody_asked_for_is_noticed() {
        let mut known = Known::default();
        let fault = || News::Fault("timer".to_owned());
        known.faults.entry("timer".to_owned()).or_default().expected = 1;
        assert!(!known.is_back("timer"));
        assert_eq!(known.news(fault()), None);
        assert_eq!(known.news(News::Restarted("timer".to_owned())), None);
        assert!(known.is_back("timer"));
        assert_eq!(known.survived("timer"), 1);
        let what = known.news(fault()).unwrap();
        assert!(what.contains("timer faulted"), "{what}");
    }

    #[test]
    fn what_a_guest_finds_is_excused_by_its_crash_only() {
        let mut known = Known::default();
        let found = || News::NotOk("b".to_owned());
        assert!(known.news(found()).is_some());
        known.crashed.push("b".to_owned());
        assert_eq!(known.news(found()), None);
    }

    #[test]
    fn guests_that_rest_are_known_by_it() {
        let mut known = Known::default();
        assert!(known.all_rest());
        known.news(News::Rests("b".to_owned()));
        assert!(known.all_rest());
        known.news(News::Works("b".to_owned()));
        assert!(!known.all_rest());
        let others = ["b".to_owned(), "c".to_owned()];
        assert!(known.heard_of(&others[..1]));
        assert!(!known.heard_of(&others));
    }
}
