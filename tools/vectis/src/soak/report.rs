//! The summary of a soak.

use super::counters::Gauge;
use super::load::Sums;

/// Counts of the whole soak.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// The load.
    pub requests: Sums,
    /// Faults that each component survived.
    pub components: Vec<(String, u64)>,
    /// Restarts of each guest.
    pub guests: Vec<(String, u64)>,
    /// Times that a source was masked for a storm.
    pub storms: u64,
    /// Accesses by DMA that the IOMMU recorded as refused (QEMU's AMD-Vi records
    /// none).
    pub refused: u64,
    /// Held resources; empty if they were not compared.
    pub gauges: Vec<Gauge>,
    /// Failures, in order.
    pub failures: Vec<String>,
}

const WIDTH: usize = 34;

impl Summary {
    /// Returns the faults that the counters alone show.
    #[must_use]
    pub fn leaks(&self) -> Vec<String> {
        let changed = self.gauges.iter().filter(|gauge| !gauge.same());
        changed
            .map(|gauge| {
                format!(
                    "{} was {} and is {} after the other guests started anew",
                    gauge.name,
                    number(gauge.before),
                    number(gauge.after)
                )
            })
            .collect()
    }

    /// Returns the table, a line each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut row = |name: &str, value: u64| {
            lines.push(format!("{name:WIDTH$}{value:>10}"));
        };
        row("requests answered", self.requests.answered);
        row("  cut by a restart of the guest", self.requests.cut);
        row("  errors", self.requests.wrong);
        let total = |all: &[(String, u64)]| all.iter().map(|(_, count)| count).sum();
        row("component faults survived", total(&self.components));
        for (name, count) in &self.components {
            row(&format!("  {name}"), *count);
        }
        row("guest restarts", total(&self.guests));
        for (name, count) in &self.guests {
            row(&format!("  {name}"), *count);
        }
        row("storms throttled", self.storms);
        row("DMA refusals recorded", self.refused);
        if !self.gauges.is_empty() {
            lines.push(format!("{:WIDTH$}{:>10}{:>10}", "held", "before", "after"));
        }
        for gauge in &self.gauges {
            lines.push(format!(
                "  {:width$}{:>10}{:>10}{}",
                gauge.name,
                number(gauge.before),
                number(gauge.after),
                if gauge.same() { "" } else { "  differs" },
                width = WIDTH - 2
            ));
        }
        lines
    }

    /// Returns one line in the middle of it.
    #[must_use]
    pub fn progress(&self) -> String {
        let total = |all: &[(String, u64)]| -> u64 { all.iter().map(|(_, count)| count).sum() };
        format!(
            "{} requests, {} cut, {} errors; {} component faults, {} guest restarts, \
             {} storms",
            self.requests.answered,
            self.requests.cut,
            self.requests.wrong,
            total(&self.components),
            total(&self.guests),
            self.storms
        )
    }
}

fn number(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leak_is_named_with_its_numbers() {
        let gauge = |name: &str, before, after| Gauge {
            name: name.to_owned(),
            before: Some(before),
            after,
        };
        let summary = Summary {
            components: vec![("timer".to_owned(), 2), ("msix".to_owned(), 3)],
            gauges: vec![
                gauge("iommu attached", 2, Some(2)),
                gauge("irq-router slots_used", 3, Some(5)),
                gauge("vmm table_slots_used", 1, None),
            ],
            ..Summary::default()
        };
        let leaks = summary.leaks();
        assert_eq!(leaks.len(), 2);
        assert!(leaks[0].starts_with("irq-router slots_used was 3 and is 5"));
        let text = summary.lines().join("\n");
        assert!(
            text.contains("component faults survived                  5"),
            "{text}"
        );
        assert!(
            text.contains("  iommu attached                           2         2\n"),
            "{text}"
        );
        assert!(text.contains("3         5  differs"), "{text}");
        assert!(text.contains("1         -  differs"), "{text}");
    }
}
