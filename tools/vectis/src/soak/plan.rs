//! The plan of crashes: random targets and times, within the limits of the monitor
//! and the vmms.

use std::time::Duration;

use fastrand::Rng;
use spec::Backoff;

/// Crashes in a row that one target gets at most. The sixth is the last that is
/// survived; a guest may end once by itself as well.
const ROW: u32 = Backoff::LIMIT - 2;
/// Without a crash for so long a target begins a new row: a second more, for
/// the clocks to differ by.
const QUIET: Duration = Duration::from_millis(Backoff::WINDOW_MS + 1_000);

/// Time between two bursts, in milliseconds.
const GAP_MS: std::ops::Range<u64> = 200..3_000;
/// How many targets are crashed at once, more often few.
const SIZES: [usize; 8] = [1, 1, 1, 1, 2, 2, 3, 4];
/// Of so many choices a guest is one, as a component's restart is the shorter.
const GUEST_SHARE: u32 = 6;

/// Crashes of one target.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    length: u32,
    last: Option<Duration>,
}

impl Row {
    /// Returns whether one more at `now` is survived.
    fn allows(&self, now: Duration) -> bool {
        self.length < ROW || self.quiet(now)
    }

    fn quiet(&self, now: Duration) -> bool {
        self.last
            .is_none_or(|last| now.saturating_sub(last) > QUIET)
    }

    fn add(&mut self, now: Duration) {
        if self.quiet(now) {
            self.length = 0;
        }
        self.length += 1;
        self.last = Some(now);
    }
}

/// The choices of one soak. Times count from its start.
#[derive(Clone, Debug)]
pub struct Plan {
    random: Rng,
    rows: Vec<Row>,
    /// Targets from here on are guests.
    guests: usize,
}

impl Plan {
    /// Creates a plan for so many components and guests, which are the targets
    /// in this order.
    #[must_use]
    pub fn new(seed: u64, components: usize, guests: usize) -> Self {
        Self {
            random: Rng::with_seed(seed),
            rows: vec![Row::default(); components + guests],
            guests: components,
        }
    }

    /// Returns how long to wait until the next burst.
    pub fn gap(&mut self) -> Duration {
        Duration::from_millis(self.random.u64(GAP_MS))
    }

    /// Targets to crash together at `now`, each once; those that are not `up`
    /// are left alone. May be none.
    pub fn burst(&mut self, now: Duration, up: impl Fn(usize) -> bool) -> Vec<usize> {
        let size = *self.random.choice(&SIZES).unwrap_or(&1);
        let mut chosen: Vec<usize> = Vec::new();
        for _ in 0..size {
            let guest = self.random.u32(0..GUEST_SHARE) == 0;
            let some = (0..self.rows.len()).filter(|&target| {
                (target >= self.guests) == guest
                    && !chosen.contains(&target)
                    && up(target)
                    && self.rows[target].allows(now)
            });
            let some: Vec<usize> = some.collect();
            if let Some(&target) = self.random.choice(&some) {
                chosen.push(target);
            }
        }
        for &target in &chosen {
            self.rows[target].add(now);
        }
        chosen
    }

    /// Takes this target instead of a random one. Returns `false` if it may not be
    /// crashed at `now`.
    pub fn take(&mut self, target: usize, now: Duration) -> bool {
        let allowed = self.rows[target].allows(now);
        if allowed {
            self.rows[target].add(now);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Crashes of each target, at the times of a long soak.
    fn crashes(seed: u64) -> Vec<Vec<u64>> {
        let mut plan = Plan::new(seed, 6, 2);
        let mut now = Duration::ZERO;
        let mut times = vec![Vec::new(); 8];
        for _ in 0..3_000 {
            now += plan.gap();
            for target in plan.burst(now, |_| true) {
                times[target].push(now.as_millis() as u64);
            }
        }
        times
    }

    #[test]
    fn no_target_is_given_up() {
        for (target, times) in crashes(1).into_iter().enumerate() {
            assert!(times.len() > 100, "target {target}: {}", times.len());
            let mut monitor = init::Restarts::default();
            let mut lives = vmm::Lives::new(spec::OnExit::Restart);
            for time in times {
                // The clocks that count began earlier, and run a little apart.
                let late = time % 500;
                assert!(monitor.fault(100_000 + time + late).is_some());
                let next = lives.ended(vmm::StopReason::HaltForever, 100_000 + time + late);
                assert!(matches!(next, vmm::Next::Restart(_)));
            }
        }
    }

    #[test]
    fn a_seed_makes_one_plan() {
        assert_eq!(crashes(7), crashes(7));
        assert_ne!(crashes(7), crashes(8));
    }

    #[test]
    fn what_is_down_is_left_alone() {
        let mut plan = Plan::new(3, 2, 1);
        for round in 0..200 {
            let now = Duration::from_secs(20 * round);
            assert!(!plan.burst(now, |target| target != 1).contains(&1));
        }
    }

    #[test]
    fn a_target_can_be_taken_as_often_as_it_is_survived() {
        let mut plan = Plan::new(3, 0, 1);
        for _ in 0..ROW {
            assert!(plan.take(0, Duration::from_secs(1)));
        }
        assert!(!plan.take(0, Duration::from_secs(2)));
        assert!(plan.take(0, Duration::from_secs(1) + QUIET + Duration::from_millis(1)));
    }
}
