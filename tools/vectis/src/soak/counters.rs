//! Values of the console's key S: counts, added up over restarts, and gauges, which
//! are compared.

use std::collections::{BTreeMap, BTreeSet};

/// Counters of resources that are held, or of records that are lost. A restart of
/// their component does not reset them.
const GAUGES: [&str; 7] = [
    "attached",
    "entries_used",
    "log_records_dropped",
    "pages_mapped",
    "slots_used",
    "table_slots_used",
    "vectors_used",
];

/// Every component's counters, by component and name.
pub type Counters = BTreeMap<(String, String), u64>;

/// An answer of the console, as far as it came.
#[derive(Clone, Debug, Default)]
pub struct Answer(Counters);

impl Answer {
    /// Takes a line of the console. Returns the counters once the last line is there.
    pub fn line(&mut self, line: &str) -> Option<Counters> {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["S", "end"] => Some(std::mem::take(&mut self.0)),
            ["S", component, name, value] => {
                if let Ok(value) = value.parse() {
                    self.0
                        .insert((component.to_owned(), name.to_owned()), value);
                }
                None
            }
            _ => None,
        }
    }
}

/// Sums of counters that restart with their component. Counts between the last
/// reading and a crash are missing from them.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    last: Counters,
    sums: Counters,
}

impl Totals {
    /// Begins to count from here.
    #[must_use]
    pub fn from(counters: &Counters) -> Self {
        Self {
            last: counters.clone(),
            sums: Counters::new(),
        }
    }

    /// Adds the counts since the last reading.
    pub fn add(&mut self, counters: &Counters) {
        for (key, &value) in counters {
            let last = self.last.insert(key.clone(), value).unwrap_or(0);
            // Less than before: it began anew.
            let more = value.checked_sub(last).unwrap_or(value);
            *self.sums.entry(key.clone()).or_default() += more;
        }
    }

    /// Returns the sum of this counter over all components that have it.
    #[must_use]
    pub fn of(&self, name: &str) -> u64 {
        let named = self.sums.iter().filter(|((_, own), _)| own == name);
        named.map(|(_, value)| value).sum()
    }
}

/// A gauge at both ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gauge {
    /// Component and name.
    pub name: String,
    /// At the beginning; `None` if it was not there.
    pub before: Option<u64>,
    /// At the end.
    pub after: Option<u64>,
}

impl Gauge {
    /// Returns whether it is unchanged.
    #[must_use]
    pub fn same(&self) -> bool {
        self.before.is_some() && self.before == self.after
    }
}

/// Compares the gauges of two answers.
#[must_use]
pub fn compare(before: &Counters, after: &Counters) -> Vec<Gauge> {
    let all: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    all.into_iter()
        .filter(|(_, name)| GAUGES.contains(&name.as_str()))
        .map(|key| Gauge {
            name: format!("{} {}", key.0, key.1),
            before: before.get(key).copied(),
            after: after.get(key).copied(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(lines: &[&str]) -> Counters {
        let mut answer = Answer::default();
        for line in lines {
            assert_eq!(answer.line(line), None);
        }
        answer.line("S end").unwrap()
    }

    #[test]
    fn answers_are_read() {
        let counters = answer(&[
            "S msix calls 7",
            "[web] S msix calls 9",
            "S msix calls x",
            "S iommu attached 2",
        ]);
        assert_eq!(counters.len(), 2);
        assert_eq!(counters[&("msix".to_owned(), "calls".to_owned())], 7);
        // The next answer begins with nothing.
        assert!(answer(&[]).is_empty());
    }

    #[test]
    fn counts_survive_a_restart() {
        let mut totals = Totals::from(&answer(&["S iommu faults 10"]));
        totals.add(&answer(&["S iommu faults 12"]));
        totals.add(&answer(&["S iommu faults 3", "S vmm faults 5"]));
        assert_eq!(totals.of("faults"), 2 + 3 + 5);
        assert_eq!(totals.of("storms"), 0);
    }

    #[test]
    fn gauges_must_be_the_same() {
        let before = answer(&[
            "S irq-router slots_used 3",
            "S irq-router bound 3",
            "S iommu attached 2",
        ]);
        let same = answer(&[
            "S irq-router slots_used 3",
            "S irq-router bound 90",
            "S iommu attached 2",
        ]);
        assert!(compare(&before, &same).iter().all(Gauge::same));
        let leaked = answer(&["S irq-router slots_used 4", "S a log_records_dropped 0"]);
        let differ: Vec<String> = compare(&before, &leaked)
            .into_iter()
            .filter(|gauge| !gauge.same())
            .map(|gauge| format!("{} {:?} {:?}", gauge.name, gauge.before, gauge.after))
            .collect();
        assert_eq!(
            differ,
            [
                "a log_records_dropped None Some(0)",
                "iommu attached Some(2) None",
                "irq-router slots_used Some(3) Some(4)",
            ]
        );
    }
}
