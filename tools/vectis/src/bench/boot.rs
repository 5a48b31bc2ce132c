//! Boot in instructions: under `-icount shift=0` the time stamp counter counts
//! them, one a tick.

use std::fmt::Write as _;

use crate::logs::number_after;

/// Moments of the boot: a name for the table, and text that a line about it contains.
/// The vmm and the guest may both report the guest's entry; the first counts.
const MARKS: [(&str, &[&str]); 5] = [
    ("kernel hands over", &["handover tsc="]),
    ("init done", &["init done tsc="]),
    ("guest entry", &["guest entry tsc=", ": entry tsc="]),
    ("driver up", &["driver up tsc="]),
    ("address lease", &[": lease "]),
];

/// Counts, as lines about them come by.
#[derive(Clone, Debug, Default)]
pub struct Boot {
    counts: [Option<u64>; MARKS.len()],
}

impl Boot {
    /// Looks at a line of a log or of the guest's console.
    pub fn see(&mut self, line: &str) {
        for (count, (_, keys)) in self.counts.iter_mut().zip(MARKS) {
            if count.is_none() && keys.iter().any(|key| line.contains(key)) {
                *count = number_after(line, "tsc=");
            }
        }
    }

    /// Returns whether the last mark was seen.
    #[must_use]
    pub const fn complete(&self) -> bool {
        self.counts[MARKS.len() - 1].is_some()
    }

    /// Returns the instructions up to each mark, by its name; marks not seen are not there.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let marks = MARKS.iter().zip(self.counts);
        marks.filter_map(|((name, _), count)| Some((*name, count?)))
    }

    /// Returns the table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!("{:<18} {:>15} {:>15}\n", "", "instructions", "difference");
        let mut before = 0;
        for (name, count) in self.counts() {
            let difference = i128::from(count) - i128::from(before);
            let _ = writeln!(text, "{name:<18} {count:>15} {difference:>15}");
            before = count;
        }
        text.push_str(
            "Up to `driver up` a tick is an instruction. The lease includes idle time: with\n\
             sleep=off the clock jumps over every wait for an interrupt.",
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_taken_once_and_in_order() {
        let mut boot = Boot::default();
        for line in [
            "handover tsc=100",
            "init done tsc=250",
            "guest entry tsc=300",
            "[web] web: entry tsc=301",
            "[web] web: driver up tsc=400",
        ] {
            boot.see(line);
            assert!(!boot.complete());
        }
        boot.see("[web] web: lease 10.0.2.15/24 tsc=1000");
        assert!(boot.complete());
        let table = boot.table();
        let figures: Vec<Vec<&str>> = table
            .lines()
            .skip(1)
            .take(5)
            .map(|line| line.split_whitespace().rev().take(2).collect())
            .collect();
        assert_eq!(
            figures,
            [
                ["100", "100"],
                ["150", "250"],
                ["50", "300"],
                ["100", "400"],
                ["600", "1000"]
            ]
        );
    }

    #[test]
    fn what_was_not_seen_is_not_in_the_table() {
        let mut boot = Boot::default();
        boot.see("[web] web: entry tsc=5");
        assert!(!boot.table().contains("init done"));
    }
}
