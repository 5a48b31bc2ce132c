//! Meaning of the machine's lines for a soak.

use crate::logs::Level;
use crate::run::Seen;

/// Information for a soak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A component faulted.
    Fault(String),
    /// A component was started again.
    Restarted(String),
    /// A guest begins to rest: it holds no interrupts.
    Rests(String),
    /// Its rest is over.
    Works(String),
    /// A guest found something to be wrong.
    NotOk(String),
    /// A component logged an error.
    Trouble,
}

/// Reads a line. The monitor's may stand behind the beginning of another one that it
/// interrupted, so it is searched for anywhere but in a guest's text.
#[must_use]
pub fn news(seen: &Seen) -> Option<News> {
    let line = match seen {
        Seen::Log(line) => return (line.level == Level::Error).then_some(News::Trouble),
        Seen::Console(line) => line,
    };
    if let Some((_, text)) = line.split_once("init: ") {
        if let Some(rest) = text.strip_prefix("fault component=") {
            let name = rest.split(' ').next().unwrap_or_default();
            return Some(News::Fault(name.to_owned()));
        }
        if let Some((name, _)) = text.split_once(" restarted, generation ") {
            return Some(News::Restarted(name.to_owned()));
        }
    }
    // The console writes the guest's name; the guest's own text comes after it.
    let (guest, text) = line.strip_prefix('[')?.split_once("] ")?;
    let guest = guest.to_owned();
    match text {
        "# soak: rests" => Some(News::Rests(guest)),
        "# soak: works" => Some(News::Works(guest)),
        _ if text.starts_with("not ok") => Some(News::NotOk(guest)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::Line;

    fn console(line: &str) -> Option<News> {
        news(&Seen::Console(line.to_owned()))
    }

    #[test]
    fn lines_are_understood() {
        let name = |name: &str| name.to_owned();
        for (line, expected) in [
            (
                "init: fault component=irq-router ip=0x8 sp=0x0 cause=page-fault",
                Some(News::Fault(name("irq-router"))),
            ),
            (
                "init: console restarted, generation 4",
                Some(News::Restarted(name("console"))),
            ),
            // The console was writing when the monitor spoke.
            (
                "[web] web: init: timer restarted, generation 12",
                Some(News::Restarted(name("timer"))),
            ),
            ("init: timer starts again in 5 ms", None),
            (
                "[hostile] # soak: rests",
                Some(News::Rests(name("hostile"))),
            ),
            ("[b] # soak: works", Some(News::Works(name("b")))),
            (
                "[b] not ok churn: expected 0x0 found 0x1: interrupts lost at 0x64",
                Some(News::NotOk(name("b"))),
            ),
            ("[b] ok churn", None),
            ("S msix calls 7", None),
            ("", None),
        ] {
            assert_eq!(console(line), expected, "{line}");
        }
    }

    #[test]
    fn only_errors_of_logs_matter() {
        let line = |level| {
            Seen::Log(Line {
                component: "vmm".to_owned(),
                level,
                ticks: None,
                text: "guest exit code 0x11: restart 3".to_owned(),
            })
        };
        assert_eq!(news(&line(Level::Warn)), None);
        assert_eq!(news(&line(Level::Error)), Some(News::Trouble));
    }
}
