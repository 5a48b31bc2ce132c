//! `vectis metrics`: the components' counters in Prometheus' text exposition format,
//! version 0.0.4.
//!
//! The console's key S prints them by component and name. What each counts is said by
//! its documentation in the component that has it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use crate::control::Console;
use crate::error::Result;
use crate::output;
use crate::record;
use crate::soak::counters::{Answer, Counters};

/// The key that prints every counter.
const KEY: char = 'S';

/// What the counters of every component, by their meaning and not by a program, are.
const COMMON: [(&str, &str); 3] = [
    (shm::RESTARTS, "Times that it was started again."),
    ("calls", "Requests that it took from other components."),
    (
        "log_records_dropped",
        "Log records that were lost for want of room.",
    ),
];

/// Programs of components with what their counters mean.
const PROGRAMS: [(&str, &[(&str, &str)]); 7] = [
    ("timer", timer::Counters::MEANINGS),
    ("irq-router", irq_router::Counters::MEANINGS),
    ("msix", msix::Counters::MEANINGS),
    ("pci-config", pci_config::Counters::MEANINGS),
    ("iommu", iommu::Counters::MEANINGS),
    ("vmm", vmm::Counters::MEANINGS),
    // Its program has it beside the others, since its memory does not go with it.
    (
        "vmm",
        &[("table_slots_used", "Page tables that it has made for BARs.")],
    ),
];

/// What goes up and down, or is a point in time.
const GAUGES: [&str; 8] = [
    "attached",
    "entries_used",
    "pages_mapped",
    "slots_used",
    "table_slots_used",
    "vectors_parked",
    "vectors_used",
    "woken_at",
];

/// Prints the metrics of the system whose COM1 is the socket `console`, or of the last
/// `vectis run`. `folder` has the manifest of its image.
///
/// # Errors
/// If no system runs, or it does not answer.
pub fn metrics(folder: &Path, console: Option<&Path>) -> Result<()> {
    let programs = programs(folder)?;
    let mut console = match console {
        Some(socket) => Console::connect(socket)?,
        None => Console::of_run(folder)?,
    };
    let mut answer = Answer::default();
    for line in console.ask(KEY)? {
        answer.line(&line);
    }
    let Some(counters) = answer.line("S end") else {
        return Ok(());
    };
    output::line(text(&counters, &programs).trim_end())
}

/// Returns the program of each component, by the manifest in `folder`.
fn programs(folder: &Path) -> Result<BTreeMap<String, String>> {
    let writers = record::writers(folder)?;
    let named = writers.into_iter().map(|(name, elf)| {
        let program = elf.file_name().unwrap_or_default().to_string_lossy();
        (name, program.into_owned())
    });
    Ok(named.collect())
}

/// One metric: what it counts and its value for each component.
#[derive(Default)]
struct Metric {
    help: String,
    gauge: bool,
    values: Vec<(String, u64)>,
}

/// Returns the text.
fn text(counters: &Counters, programs: &BTreeMap<String, String>) -> String {
    let mut metrics: BTreeMap<String, Metric> = BTreeMap::new();
    for ((component, name), value) in counters {
        let program = programs.get(component).map_or("", String::as_str);
        let (prefix, help) = match meaning(&COMMON, name) {
            Some(help) => ("component", help),
            None => (program, known(program, name)),
        };
        let gauge = GAUGES.contains(&name.as_str());
        let suffix = if gauge { "" } else { "_total" };
        let full = format!("vectis_{prefix}_{name}{suffix}").replace('-', "_");
        let metric = metrics.entry(full).or_default();
        metric.help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        metric.gauge = gauge;
        metric.values.push((component.clone(), *value));
    }
    let mut out = String::new();
    for (name, metric) in metrics {
        let kind = if metric.gauge { "gauge" } else { "counter" };
        // Writing to a String does not fail.
        let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {kind}", metric.help);
        for (component, value) in metric.values {
            let _ = writeln!(out, "{name}{{component=\"{component}\"}} {value}");
        }
    }
    out
}

/// Returns what a counter of a program means.
fn known(program: &str, name: &str) -> &'static str {
    let mut of_program = PROGRAMS.iter().filter(|(known, _)| *known == program);
    of_program
        .find_map(|(_, meanings)| meaning(meanings, name))
        .unwrap_or("A counter of this component.")
}

fn meaning(meanings: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    let named = meanings.iter().find(|(known, _)| *known == name);
    named.map(|(_, help)| *help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_has_its_meaning_and_its_kind() {
        let programs = [("vmm-web", "vmm"), ("irq-router", "irq-router")];
        let programs = programs.map(|(name, program)| (name.to_owned(), program.to_owned()));
        let counters = [
            ("vmm-web", "traps", 7),
            ("vmm-web", "restarts", 1),
            ("irq-router", "restarts", 0),
            ("irq-router", "slots_used", 3),
            ("console", "log_records_dropped", 2),
        ];
        let counters = counters.map(|(of, name, value)| ((of.to_owned(), name.to_owned()), value));
        let text = text(&counters.into(), &programs.into());
        let expected = "\
# HELP vectis_component_log_records_dropped_total Log records that were lost for want of room.
# TYPE vectis_component_log_records_dropped_total counter
vectis_component_log_records_dropped_total{component=\"console\"} 2
# HELP vectis_component_restarts_total Times that it was started again.
# TYPE vectis_component_restarts_total counter
vectis_component_restarts_total{component=\"irq-router\"} 0
vectis_component_restarts_total{component=\"vmm-web\"} 1
# HELP vectis_irq_router_slots_used Slots of all guests that are bound now: a restart does not begin it anew.
# TYPE vectis_irq_router_slots_used gauge
vectis_irq_router_slots_used{component=\"irq-router\"} 3
# HELP vectis_vmm_traps_total Traps of every kind.
# TYPE vectis_vmm_traps_total counter
vectis_vmm_traps_total{component=\"vmm-web\"} 7
";
        assert_eq!(text, expected);
    }

    #[test]
    fn gauges_are_counters_that_there_are() {
        let all = PROGRAMS.iter().flat_map(|(_, meanings)| meanings.iter());
        let names: Vec<&str> = all.map(|(name, _)| *name).collect();
        for gauge in GAUGES {
            assert!(names.contains(&gauge), "{gauge}");
        }
    }
}
