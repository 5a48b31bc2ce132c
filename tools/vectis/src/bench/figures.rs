//! What was measured, as a table, and beside an earlier measurement.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::rows::{ROWS, UNSTEADY};

/// How the guest's results begin (guests/bench).
const RESULT: &str = "# bench: ";
/// What it says last.
const END: &str = "end";

/// Instructions by the name of what takes them.
pub type Counts = BTreeMap<String, u64>;

/// What a line of the bench guest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A result.
    Count(String, u64),
    /// There are no more.
    End,
    /// Something went wrong, and the guest ends.
    Trouble(String),
}

/// Returns the guest's name, empty on a bare machine, and what it said; `None` for any
/// other line.
pub fn said(line: &str) -> Option<(&str, Said)> {
    let (guest, rest) = match line.strip_prefix('[').and_then(|l| l.split_once("] ")) {
        Some(split) => split,
        None => ("", line),
    };
    let text = rest.trim_end().strip_prefix(RESULT)?;
    let count = text
        .split_once(' ')
        .and_then(|(name, count)| Some((name.to_owned(), count.parse().ok()?)));
    let said = match count {
        Some((name, count)) => Said::Count(name, count),
        None if text == END => Said::End,
        None => Said::Trouble(text.to_owned()),
    };
    Some((guest, said))
}

/// A measurement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// The machine's IOMMU.
    pub iommu: String,
    /// Of the same guest without a monitor.
    pub bare: Counts,
    /// Of each guest, by name.
    pub guests: BTreeMap<String, Counts>,
    /// From power-on to each step of the boot.
    pub boot: Counts,
}

/// A count that is more than it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worse {
    /// Of whom: a guest, `bare` or `boot`.
    pub of: String,
    /// What.
    pub name: String,
    /// What it was.
    pub before: u64,
    /// What it is; `None` if it is missing.
    pub now: Option<u64>,
}

/// Returns the most that a count may be which was `before`: 2 % above, or 2 instructions
/// where that is less than rounding.
const fn bound(before: u64) -> u64 {
    let more = before / 50;
    before + if more > 2 { more } else { 2 }
}

impl Figures {
    /// Returns the counts that are above those of `earlier` by more than its bound allows,
    /// and those that are missing.
    #[must_use]
    pub fn worse_than(&self, earlier: &Self) -> Vec<Worse> {
        let empty = Counts::new();
        let mut pairs = vec![
            ("bare", &earlier.bare, &self.bare),
            ("boot", &earlier.boot, &self.boot),
        ];
        for (guest, before) in &earlier.guests {
            pairs.push((guest, before, self.guests.get(guest).unwrap_or(&empty)));
        }
        let mut worse = Vec::new();
        for (of, before, now) in pairs {
            let judged = before
                .iter()
                .filter(|(name, _)| !UNSTEADY.contains(&name.as_str()));
            for (name, &before) in judged {
                let now = now.get(name).copied();
                if now.is_none_or(|now| now > bound(before)) {
                    worse.push(Worse {
                        of: of.to_owned(),
                        name: name.clone(),
                        before,
                        now,
                    });
                }
            }
        }
        worse
    }

    /// Returns the table of a guest, in Markdown. With an earlier measurement it has its
    /// counts as well.
    #[must_use]
    pub fn table(&self, guest: &str, earlier: Option<&Self>) -> String {
        let empty = Counts::new();
        let counts = self.guests.get(guest).unwrap_or(&empty);
        let before = earlier.and_then(|earlier| earlier.guests.get(guest));
        let mut header = vec!["", "bare", "Vectis", "added", "ratio"];
        if earlier.is_some() {
            header.push("before");
        }
        header.extend(["KVM adds", "Xen adds", "goal"]);
        let mut table = vec![header.iter().map(ToString::to_string).collect::<Vec<_>>()];
        for row in ROWS {
            let Some(&count) = counts.get(row.name) else {
                continue;
            };
            let bare = self.bare.get(row.name).copied();
            let added = bare.map(|bare| i128::from(count) - i128::from(bare));
            let ratio = bare.filter(|bare| *bare > 0);
            let ratio = ratio.map(|bare| format!("{:.2}", count as f64 / bare as f64));
            let mut cells = vec![
                row.what.to_owned(),
                optional(bare),
                grouped(i128::from(count)),
                added.map(grouped).unwrap_or_default(),
                ratio.unwrap_or_default(),
            ];
            if earlier.is_some() {
                cells.push(optional(before.and_then(|b| b.get(row.name)).copied()));
            }
            cells.push(optional(row.others.map(|(kvm, _)| kvm)));
            cells.push(optional(row.others.map(|(_, xen)| xen)));
            cells.push(optional(row.goal));
            table.push(cells);
        }
        markdown(&table)
    }

    /// Returns the table of the boot, in Markdown.
    #[must_use]
    pub fn boot_table(&self) -> String {
        let mut steps: Vec<(&String, u64)> = self.boot.iter().map(|(n, c)| (n, *c)).collect();
        steps.sort_by_key(|(_, count)| *count);
        let mut table = vec![
            ["boot", "instructions", "from the step before"]
                .map(str::to_owned)
                .to_vec(),
        ];
        let mut before = 0;
        for (name, count) in steps {
            let step = i128::from(count - before);
            table.push(vec![name.clone(), grouped(count.into()), grouped(step)]);
            before = count;
        }
        markdown(&table)
    }
}

fn optional(count: Option<u64>) -> String {
    count.map(|c| grouped(c.into())).unwrap_or_default()
}

/// Returns a number with a comma between groups of three digits.
fn grouped(number: i128) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    if number < 0 {
        text.push('-');
    }
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a table whose columns line up; the first is text, the others are numbers.
fn markdown(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
            .max(3)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Writing to a string cannot fail.
            let _ = match column {
                0 => write!(text, "| {cell:<width$} |"),
                _ => write!(text, " {cell:>width$} |"),
            };
        }
        text.push('\n');
        if index == 0 {
            for (column, width) in widths.iter().enumerate() {
                let _ = match column {
                    0 => write!(text, "|{}|", "-".repeat(width + 2)),
                    _ => write!(text, "{}:|", "-".repeat(width + 1)),
                };
            }
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(all: &[(&str, u64)]) -> Counts {
        all.iter().map(|(n, c)| ((*n).to_owned(), *c)).collect()
    }

    fn figures(bare: u64, ping: u64) -> Figures {
        Figures {
            iommu: "amd".to_owned(),
            bare: counts(&[("ping", bare)]),
            guests: [("bench".to_owned(), counts(&[("ping", ping)]))].into(),
            boot: counts(&[("b", 1500), ("a", 1000)]),
        }
    }

    #[test]
    fn a_guest_s_lines_are_its_results() {
        let count = Said::Count("ping".to_owned(), 16);
        assert_eq!(
            said("[bench] # bench: ping 16"),
            Some(("bench", count.clone()))
        );
        assert_eq!(said("# bench: ping 16\r"), Some(("", count)));
        assert_eq!(said("[b] # bench: end"), Some(("b", Said::End)));
        let trouble = Said::Trouble("nothing came in 5 us".to_owned());
        assert_eq!(said("# bench: nothing came in 5 us"), Some(("", trouble)));
        for other in ["bench: entry tsc=5", "[bench] bench: driver up", "", "[x"] {
            assert_eq!(said(other), None, "{other}");
        }
    }

    #[test]
    fn two_percent_more_is_the_bound() {
        let before = figures(495, 10_000);
        assert_eq!(figures(495, 10_200).worse_than(&before), []);
        assert_eq!(figures(495, 9_000).worse_than(&before), []);
        let worse = figures(495, 10_201).worse_than(&before);
        let expected = Worse {
            of: "bench".to_owned(),
            name: "ping".to_owned(),
            before: 10_000,
            now: Some(10_201),
        };
        assert_eq!(worse, [expected]);
        // What depends on the host's moment, or on the tick's, is not judged.
        for (name, is_judged) in [
            ("ping-back-to-back", false),
            ("ping-posted-max", false),
            ("ping-posted-mean", false),
            ("ping-posted", true),
            ("ping-back-to-back-mean", true),
            ("ping-max", true),
        ] {
            let counting = |count: u64| {
                let mut all = before.clone();
                let counts = all.guests.entry("bench".to_owned()).or_default();
                counts.insert(name.to_owned(), count);
                all
            };
            let worse = counting(20_000).worse_than(&counting(10_000));
            assert_eq!(!worse.is_empty(), is_judged, "{name}");
        }
        // A rounded small one.
        assert_eq!(figures(8, 1).worse_than(&figures(6, 1)), []);
        assert_eq!(figures(9, 1).worse_than(&figures(6, 1))[0].of, "bare");
    }

    #[test]
    fn what_is_missing_is_worse() {
        let mut now = figures(495, 10_000);
        now.boot.remove("a");
        now.guests.clear();
        let worse = now.worse_than(&figures(495, 10_000));
        let missing: Vec<_> = worse.iter().map(|w| (w.name.as_str(), w.now)).collect();
        assert_eq!(missing, [("a", None), ("ping", None)]);
    }

    #[test]
    fn the_table_has_what_is_added_beside_the_others() {
        let table = figures(495, 16_681).table("bench", Some(&figures(495, 17_000)));
        let row: Vec<&str> = table
            .lines()
            .nth(2)
            .unwrap()
            .split('|')
            .map(str::trim)
            .collect();
        assert_eq!(
            row[2..row.len() - 1],
            [
                "495", "16,681", "16,186", "33.70", "17,000", "11,521", "19,584", "7,000"
            ]
        );
        let widths: Vec<usize> = table.lines().map(|l| l.chars().count()).collect();
        assert!(widths.iter().all(|w| *w == widths[0]), "{table}");
        let alone = figures(495, 300).table("bench", None);
        assert!(
            alone.contains(" -195 ") && !alone.contains("before"),
            "{alone}"
        );
    }

    #[test]
    fn the_boot_s_steps_follow_each_other() {
        let table = figures(1, 1).boot_table();
        let rows: Vec<Vec<&str>> = table
            .lines()
            .skip(2)
            .map(|line| line.split('|').map(str::trim).collect())
            .collect();
        assert_eq!(rows[0][1..4], ["a", "1,000", "1,000"]);
        assert_eq!(rows[1][1..4], ["b", "1,500", "500"]);
    }
}
