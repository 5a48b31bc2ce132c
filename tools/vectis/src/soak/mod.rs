//! `vectis soak`: crashes under load, and a check for losses.
//!
//! Crashes come in bursts: keys are typed on the console, and before the next
//! burst every component of the last one must be back. A guest's restart may take
//! longer than that. The counters are read around each burst, since a restarted
//! component counts from 0.

pub(crate) mod counters;
mod http;

pub use http::Connection;
mod load;
mod plan;
mod report;
mod state;
mod targets;
mod watch;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use self::counters::{Counters, Gauge, Totals, compare};
use self::load::Load;
use self::plan::Plan;
use self::report::Summary;
use self::state::{Driver, Known};
use self::targets::{Target, targets};
use crate::error::{Error, Result};
use crate::output;
use crate::qemu::Machine;
use crate::run;

/// Bound on the wait for a guest to serve, from its start on.
const SERVES: Duration = Duration::from_secs(90);
/// Bound on the wait for a component to be back: it waits 0.2 s at most.
const BACK: Duration = Duration::from_secs(20);
/// Time between two checks of the guests during a wait.
const RECHECK: Duration = Duration::from_millis(300);
/// Bound on the wait for a guest to rest once it was started.
const RESTS: Duration = Duration::from_secs(30);
/// Time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);
/// How often the guests are started anew for a comparison.
const ROUNDS: usize = 3;
/// Failures after which it does not go on.
const FAILURES: usize = 20;

/// The user's options for a soak.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long crashes go on.
    pub time: Duration,
    /// Where random choices start.
    pub seed: u64,
    /// Show every line of the system.
    pub verbose: bool,
}

/// Boots the system, crashes its components and guests for a while, and compares.
///
/// # Errors
/// If it does not start, or something was lost or leaked.
pub fn soak(
    machine: &Machine<'_>,
    writers: &[(String, PathBuf)],
    log: &Path,
    options: &Options,
    lock: File,
) -> Result<()> {
    let run_options = run::Options {
        quiet: !options.verbose,
        watched: true,
        ..run::Options::default()
    };
    let targets = targets(machine.model);
    let mut driver = Driver::start(machine, writers, log, &run_options, lock)?;
    let Some((served, port)) = driver.wait_ready(SERVES)? else {
        return Err(driver.failed(
            "no guest serves",
            format!("nothing was said of it in {} s", SERVES.as_secs()),
        ));
    };
    let first_guest = targets.iter().take_while(|t| t.vmm.is_none()).count();
    let guests = targets.len() - first_guest;
    let mut soak = Soak {
        plan: Plan::new(options.seed, first_guest, guests),
        served: targets
            .iter()
            .position(|t| t.vmm.is_some() && t.name == served),
        targets,
        load: Load::start(port),
        started: Instant::now(),
        totals: Totals::default(),
        latest: Counters::new(),
        first: Counters::new(),
        gauges: Vec::new(),
        driver,
    };
    let ended = soak.run(options.time);
    soak.finish(ended, options.seed)
}

struct Soak<'a> {
    driver: Driver<'a>,
    plan: Plan,
    targets: Vec<Target>,
    /// The target that serves, if it is one.
    served: Option<usize>,
    load: Load,
    started: Instant,
    totals: Totals,
    /// The last counters, and those at the beginning.
    latest: Counters,
    first: Counters,
    gauges: Vec<Gauge>,
}

/// Why a soak does not go on.
enum End {
    /// The user pressed Ctrl-C.
    Early,
    /// It makes no sense to.
    Failed,
    /// The machine is gone.
    Machine(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Machine(error)
    }
}

type Step<T> = std::result::Result<T, End>;

impl Soak<'_> {
    fn run(&mut self, time: Duration) -> Step<()> {
        self.wait_served()?;
        self.wait_others()?;
        self.first = self.rested()?;
        self.totals = Totals::from(&self.first);
        output::progress("both ends are compared while all other guests rest; crashes begin");
        let end = Instant::now() + time;
        let mut report = Instant::now() + PROGRESS;
        let mut next = Instant::now() + self.plan.gap();
        while Instant::now() < end {
            let until = next.min(report).min(end);
            self.driver.pump(until, |_| false)?;
            self.check()?;
            if Instant::now() >= report {
                output::progress(&self.summary().progress());
                report += PROGRESS;
            }
            if Instant::now() >= next && Instant::now() < end {
                let up = self.load.is_up();
                let (now, served) = (self.started.elapsed(), self.served);
                let chosen = self.plan.burst(now, |target| up || Some(target) != served);
                self.crash(&chosen)?;
                next = Instant::now() + self.plan.gap();
            }
        }
        output::progress("no more crashes: everything is let settle");
        self.wait_served()?;
        self.compare()
    }

    /// Waits until the guest that serves answers requests again.
    fn wait_served(&mut self) -> Step<()> {
        let answered = self.load.sums().answered;
        let load = &self.load;
        let is_up = |_: &_| load.is_up() && load.sums().answered > answered;
        if !self.driver.pump(Instant::now() + SERVES, is_up)? {
            self.fail("the guest that serves does not answer".to_owned())?;
        }
        Ok(())
    }

    /// Waits until every other guest has told of a rest or of work. One that is crashed
    /// before that is not known to rest at all, and would be compared while it starts;
    /// one that never tells is not waited for again.
    fn wait_others(&mut self) -> Step<()> {
        let others: Vec<String> = self
            .others()
            .map(|other| self.targets[other].name.clone())
            .collect();
        let heard = |known: &Known| known.heard_of(&others);
        self.driver.pump(Instant::now() + RESTS, heard)?;
        Ok(())
    }

    /// Returns the guests but for the one that serves.
    fn others(&self) -> impl Iterator<Item = usize> {
        (0..self.targets.len()).filter(|&t| self.targets[t].vmm.is_some() && Some(t) != self.served)
    }

    /// Records a failure; ends the soak if there are many.
    fn fail(&mut self, what: String) -> Step<()> {
        output::progress(&format!("FAILED: {what}"));
        self.driver.failures.push(what);
        if self.driver.failures.len() >= FAILURES {
            return Err(End::Failed);
        }
        Ok(())
    }

    /// Collects events that should not have happened.
    fn check(&mut self) -> Step<()> {
        for what in std::mem::take(&mut self.driver.noticed) {
            self.fail(what)?;
        }
        if self.load.starting_for() > SERVES {
            self.fail("the guest that serves was started, and does not answer".to_owned())?;
            return Err(End::Failed);
        }
        Ok(())
    }

    /// Takes the counters.
    fn sample(&mut self) -> Step<Counters> {
        let Some(counters) = self.driver.counters()? else {
            self.fail("the console does not answer key S".to_owned())?;
            return Err(End::Failed);
        };
        self.totals.add(&counters);
        self.latest.clone_from(&counters);
        self.check()?;
        Ok(counters)
    }

    /// Starts of a guest after its first, by its vmm.
    fn restarts(counters: &Counters, vmm: &str) -> u64 {
        let key = (vmm.to_owned(), "guest_restarts".to_owned());
        counters.get(&key).copied().unwrap_or(0)
    }

    /// Crashes targets at once, and waits until each was started again.
    fn crash(&mut self, chosen: &[usize]) -> Step<()> {
        if chosen.is_empty() {
            return Ok(());
        }
        let before = self.sample()?;
        self.check_served(&before)?;
        // The console last: it takes the keys.
        let mut order = chosen.to_vec();
        order.sort_by_key(|&target| self.targets[target].name == "console");
        let mut keys = String::new();
        for &target in &order {
            let target = &mut self.targets[target];
            target.crashes += 1;
            keys.extend(['F', target.key]);
            match &target.vmm {
                None => self.driver.expect_fault(&target.name),
                Some(_) => self.driver.expect_crash(&target.name),
            }
        }
        let served = self.served.is_some_and(|served| order.contains(&served));
        if served {
            self.load.down();
        }
        self.driver.press(&keys);
        for &target in order.iter().filter(|&&t| self.targets[t].vmm.is_none()) {
            let name = self.targets[target].name.clone();
            let back = |driver: &Known| driver.is_back(&name);
            if !self.driver.pump(Instant::now() + BACK, back)? {
                self.fail(format!("{name} was crashed and did not come back"))?;
                return Err(End::Failed);
            }
        }
        for &target in &order {
            if let Some(vmm) = self.targets[target].vmm.clone() {
                self.wait_restarted(target, &vmm, Self::restarts(&before, &vmm))?;
            }
        }
        if served {
            self.load.starting();
        }
        Ok(())
    }

    fn wait_restarted(&mut self, target: usize, vmm: &str, before: u64) -> Step<()> {
        let end = Instant::now() + SERVES;
        loop {
            let counters = self.sample()?;
            if Self::restarts(&counters, vmm) > before {
                let name = self.targets[target].name.clone();
                self.driver.crash_over(&name);
                return Ok(());
            }
            if Instant::now() >= end {
                let name = &self.targets[target].name;
                self.fail(format!(
                    "guest {name} was crashed and was not started again"
                ))?;
                return Err(End::Failed);
            }
            self.driver.pump(Instant::now() + RECHECK, |_| false)?;
        }
    }

    /// Returns the guest that serves does not end by itself.
    fn check_served(&mut self, counters: &Counters) -> Step<()> {
        let Some(served) = self.served.map(|served| &self.targets[served]) else {
            return Ok(());
        };
        let vmm = served.vmm.as_deref().unwrap_or_default();
        let (restarts, crashes) = (Self::restarts(counters, vmm), served.crashes);
        if restarts == crashes {
            return Ok(());
        }
        let name = served.name.clone();
        self.fail(format!(
            "guest {name} was crashed {crashes} times and restarted {restarts} times"
        ))?;
        Err(End::Failed)
    }

    /// Starts every other guest anew, and takes the counters while each of them
    /// rests and the one that serves is up.
    fn rested(&mut self) -> Step<Counters> {
        let others: Vec<usize> = self.others().collect();
        for _ in 0..ROUNDS {
            for &other in &others {
                while !self.plan.take(other, self.started.elapsed()) {
                    self.driver.pump(Instant::now() + RECHECK, |_| false)?;
                    self.check()?;
                }
            }
            self.crash(&others)?;
            let rest = |driver: &Known| driver.all_rest();
            if !self.driver.pump(Instant::now() + RESTS, rest)? {
                continue;
            }
            let counters = self.sample()?;
            if self.driver.known.all_rest() {
                return Ok(counters);
            }
        }
        self.fail("the other guests did not rest for long enough to compare".to_owned())?;
        Err(End::Failed)
    }

    /// Compares the held resources with the beginning. A difference may be transient, so
    /// it is read again.
    fn compare(&mut self) -> Step<()> {
        for _ in 0..ROUNDS {
            let counters = self.rested()?;
            self.check_served(&counters)?;
            self.gauges = compare(&self.first, &counters);
            if self.gauges.iter().all(Gauge::same) {
                break;
            }
        }
        self.wait_served()
    }

    fn summary(&self) -> Summary {
        let restarts = |t: &Target| {
            let vmm = t.vmm.as_deref()?;
            Some((t.name.clone(), Self::restarts(&self.latest, vmm)))
        };
        let components = self.targets.iter().filter(|t| t.vmm.is_none());
        Summary {
            requests: self.load.sums(),
            components: components
                .map(|t| (t.name.clone(), self.driver.known.survived(&t.name)))
                .collect(),
            guests: self.targets.iter().filter_map(restarts).collect(),
            storms: self.totals.of("storms"),
            refused: self.totals.of("faults"),
            gauges: self.gauges.clone(),
            failures: self.driver.failures.clone(),
        }
    }

    /// Prints the summary and judges.
    fn finish(self, ended: Step<()>, seed: u64) -> Result<()> {
        let mut summary = self.summary();
        let leaks = summary.leaks();
        summary.failures.extend(leaks);
        let wrong = summary.requests.first_wrong.iter();
        summary.failures.extend(wrong.cloned());
        if let Err(End::Machine(error)) = &ended {
            summary.failures.insert(0, error.to_string());
        }
        if !summary.failures.is_empty() {
            output::line("the system's last lines:")?;
            for line in self.driver.last_lines() {
                output::line(&format!("  {line}"))?;
            }
        }
        for line in summary.lines() {
            output::line(&line)?;
        }
        for failure in &summary.failures {
            output::line(&format!("FAILED: {failure}"))?;
        }
        let Some(first) = summary.failures.first() else {
            return output::line(if matches!(ended, Err(End::Early)) {
                "ended early: nothing lost so far, what is held was not compared"
            } else {
                "nothing lost, nothing leaked"
            });
        };
        Err(Error::new(
            "the soak failed",
            first,
            format!(
                "`vectis soak -v --seed {seed}` makes the same choices again and shows every \
                 line; `vectis logs` has the components' logs of this run"
            ),
        ))
    }
}
