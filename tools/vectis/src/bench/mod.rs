//! `vectis bench`: what the monitor adds, in instructions, and whether it is more than
//! it was.

mod boot;
mod figures;
pub mod http;
mod rows;

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use boot::Boot;
use figures::{Counts, Figures, Said, Worse, said};

use crate::error::{Error, Result};
use crate::output;
use crate::qemu::{Event, Machine};
use crate::run::{self, Next, Seen, Session};
use crate::workspace::Workspace;

/// The system of one guest.
pub const SYSTEM: &str = "tests/systems/bench.toml";
/// The committed measurement.
const BASELINE: &str = "tests/bench-baseline.json";
/// The page that shows it, between the two marks.
const PAGE: &str = "docs/performance.md";
const MARKS: [&str; 2] = [
    "<!-- vectis bench: begin -->\n",
    "<!-- vectis bench: end -->\n",
];
/// Bound on one machine's run: ten times what a slow one takes.
const BOUND: Duration = Duration::from_secs(600);
/// When guests that measure at the same time begin, in ticks: all of them run by then.
const START: u64 = 1_500_000_000;

/// Returns the system file of `guests` guests that measure at the same time, as text;
/// it inherits that of one, `base`.
#[must_use]
pub fn system(base: &Path, guests: usize) -> String {
    let mut text = format!("[system]\ninherit = {:?}\n", base.display().to_string());
    for n in 2..=guests {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "[component.vmm-{n}]\nprogram = \"vmm\"\npriority = 200\nstack = \"80K\"\n\
             [device.nic{n}]\nmatch = \"8086:10d3\"\nqemu = [\"e1000e,netdev=net{n}\"]\n\
             [guest.bench-{n}]\nimage = \"guests/bench\"\nvmm = \"vmm-{n}\"\nmemory = \"32M\"\n\
             priority = 100\ndevices = [\"nic{n}\"]\non-exit = \"halt\"\n\
             command-line = \"work=packets start={START}\""
        );
    }
    if guests > 1 {
        let _ = writeln!(
            text,
            "[guest.bench]\non-exit = \"halt\"\ncommand-line = \"work=packets start={START}\""
        );
    }
    text
}

/// What was measured on one machine.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// By the guest's name, which is empty on a bare machine.
    pub guests: std::collections::BTreeMap<String, Counts>,
    /// The boot.
    pub boot: Boot,
}

/// Runs a machine until `guests` guests have said all. `lock` is the image's build's.
///
/// # Errors
/// If it does not start, ends before that, or a guest says that something went wrong.
pub fn measure(
    machine: &Machine<'_>,
    writers: &[(String, PathBuf)],
    log: Option<&Path>,
    verbose: bool,
    lock: Option<File>,
) -> Result<Measured> {
    let guests = machine.model.guests.len();
    let options = run::Options {
        bare: log.is_none(),
        quiet: !verbose,
        watched: true,
        ..run::Options::default()
    };
    let (mut session, events) = Session::start(machine, writers, log, &options, lock)?;
    let end = Instant::now() + BOUND;
    let mut measured = Measured::default();
    let mut ended = 0;
    let mut last = String::new();
    while ended < guests {
        let left = end.saturating_duration_since(Instant::now());
        let event = events.recv_timeout(left).map_err(|_| {
            Error::new(
                "the bench was cut off",
                format!(
                    "it did not end in {} s; its last line: {last}",
                    BOUND.as_secs()
                ),
                "-v shows every line of the machine",
            )
        })?;
        let over = matches!(event, Event::Ended);
        if over {
            session.ended(&events)?;
        } else if session.handle(event)? == Next::Stop {
            return Err(Error::new(
                "the bench",
                "ended by a signal",
                "nothing is left running",
            ));
        }
        for seen in session.take_seen() {
            let line = match seen {
                Seen::Console(line) => line,
                Seen::Log(line) => line.text,
            };
            measured.boot.see(&line);
            match said(&line) {
                Some((guest, Said::Count(name, count))) => {
                    let counts = measured.guests.entry(guest.to_owned()).or_default();
                    counts.insert(name, count);
                }
                Some((_, Said::End)) => ended += 1,
                Some((guest, Said::Trouble(text))) => {
                    return Err(Error::new(
                        format!("the bench guest {guest} gave up"),
                        text,
                        "-v shows every line of the machine",
                    ));
                }
                None => {}
            }
            last = line;
        }
        if over && ended < guests {
            return Err(Error::new(
                "the machine ended before the bench did",
                format!("its last line: {last}"),
                "-v shows every line of the machine",
            ));
        }
    }
    Ok(measured)
}

/// What is done with a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Print it as JSON.
    pub json: bool,
    /// Fail where it is above the committed one.
    pub check: bool,
    /// Commit it: write it and the page.
    pub update: bool,
}

/// Prints a measurement, beside the committed one if that is of the same machine.
///
/// # Errors
/// If `check` finds a count that is more than it was, or a file is missing.
pub fn conclude(
    workspace: &Workspace,
    iommu: &str,
    bare: Measured,
    measured: Measured,
    wanted: Wanted,
) -> Result<()> {
    let boot = measured.boot.counts();
    let figures = Figures {
        iommu: iommu.to_owned(),
        bare: bare.guests.into_values().next().unwrap_or_default(),
        boot: boot.map(|(name, count)| (name.to_owned(), count)).collect(),
        guests: measured.guests,
    };
    let path = workspace.root.join(BASELINE);
    if wanted.update {
        let text = serde_json::to_string_pretty(&figures).unwrap_or_default();
        write(&path, &format!("{text}\n"))?;
        let page = workspace.root.join(PAGE);
        let text = read(&page)?;
        let text = with_tables(&text, &figures).ok_or_else(|| {
            Error::new(
                format!("cannot write the tables into {}", page.display()),
                "the two marks around them are not there",
                format!("put {} and {} there", MARKS[0].trim(), MARKS[1].trim()),
            )
        })?;
        write(&page, &text)?;
    }
    let earlier = baseline(&path)?;
    let comparable = earlier.iommu == figures.iommu && earlier.guests.len() == figures.guests.len();
    if wanted.json {
        output::line(&serde_json::to_string_pretty(&figures).unwrap_or_default())?;
    } else {
        for guest in figures.guests.keys() {
            if figures.guests.len() > 1 {
                output::line(&format!("guest {guest}"))?;
            }
            let earlier = comparable.then_some(&earlier);
            output::line(&figures.table(guest, earlier))?;
        }
        output::line(figures.boot_table().trim_end())?;
    }
    if !wanted.check {
        return Ok(());
    }
    let worse = figures.worse_than(&earlier);
    if worse.is_empty() {
        return Ok(());
    }
    let told = worse.iter().map(tell).collect::<Vec<_>>().join("\n  ");
    Err(Error::new(
        format!(
            "{} of the counts are above {BASELINE} by more than 2 %",
            worse.len()
        ),
        format!("\n  {told}"),
        "find what takes the instructions; `vectis bench --update` if they are worth it",
    ))
}

fn tell(worse: &Worse) -> String {
    let Worse {
        of,
        name,
        before,
        now,
    } = worse;
    match now {
        Some(now) => format!("{of}: {name} was {before} and is {now}"),
        None => format!("{of}: {name} was {before} and was not measured"),
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| Error::file("read", path, &e))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|e| Error::file("write", path, &e))
}

fn baseline(path: &Path) -> Result<Figures> {
    serde_json::from_str(&read(path)?).map_err(|e| {
        Error::new(
            format!("cannot read {}", path.display()),
            e,
            "`vectis bench --update` writes it anew",
        )
    })
}

/// Returns the page with these tables between its marks; `None` if they are not there.
fn with_tables(page: &str, figures: &Figures) -> Option<String> {
    let begin = page.find(MARKS[0])? + MARKS[0].len();
    let end = begin + page[begin..].find(MARKS[1])?;
    let tables: String = figures
        .guests
        .keys()
        .map(|guest| figures.table(guest, None))
        .collect();
    Some(format!(
        "{}\n{tables}\n{}\n{}",
        &page[..begin],
        figures.boot_table(),
        &page[end..]
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    #[test]
    fn the_page_shows_the_committed_measurement() {
        let figures = baseline(&root().join(BASELINE)).unwrap();
        let page = read(&root().join(PAGE)).unwrap();
        let made = with_tables(&page, &figures).unwrap();
        assert!(page == made, "`cargo run -- bench --update` writes {PAGE}");
        assert_eq!(with_tables("no marks", &figures), None);
    }

    #[test]
    fn each_guest_has_a_system_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bench.toml");
        let base = std::path::absolute(root().join(SYSTEM)).unwrap();
        for guests in [1, 2, 4] {
            write(&file, &system(&base, guests)).unwrap();
            let model = system::read(&root(), &file, None).unwrap();
            assert_eq!(model.guests.len(), guests);
            assert_eq!(crate::network::networks(&model).len(), guests);
        }
    }
}
