//! Log frames to text, each by its writer's own ELF file, which holds the
//! strings that the frame only numbers.

use std::path::PathBuf;

use clap::ValueEnum;
use defmt_decoder::Table;

use crate::error::{Error, Result};
use crate::frames::{Frame, Frames};
use crate::workspace::read;

/// How urgent a line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Level {
    /// Every detail.
    Trace,
    /// For finding faults.
    Debug,
    /// Normal events.
    Info,
    /// Something is not as it should be.
    #[default]
    Warn,
    /// Something failed.
    Error,
}

impl Level {
    /// Returns the level's name, as wide as the widest.
    const fn padded(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info ",
            Self::Warn => "warn ",
            Self::Error => "error",
        }
    }
}

/// A decoded line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Name of the component.
    pub component: String,
    /// Urgency.
    pub level: Level,
    /// Time stamp counter.
    pub ticks: Option<u64>,
    /// The message.
    pub text: String,
}

struct Writer {
    name: String,
    table: Option<Table>,
}

/// Decodes the stream of the log port.
pub struct Decoder {
    writers: Vec<Writer>,
    frames: Frames,
    /// Ticks in a millisecond, once init has said it.
    khz: Option<u64>,
}

impl Decoder {
    /// Reads the writers' ELF files, in the order of their ids.
    ///
    /// # Errors
    /// If a file cannot be read or its log strings not be used.
    pub fn new(writers: &[(String, PathBuf)]) -> Result<Self> {
        let mut decoders = Vec::new();
        for (name, file) in writers {
            let table = Table::parse(&read(file)?).map_err(|e| {
                Error::new(
                    format!("cannot use the log strings in {}", file.display()),
                    format!("{e:#}"),
                    "build again; defmt and defmt-decoder must be of versions that fit",
                )
            })?;
            decoders.push(Writer {
                name: name.clone(),
                table,
            });
        }
        Ok(Self {
            writers: decoders,
            frames: Frames::default(),
            khz: None,
        })
    }

    /// Takes bytes. Returns the lines that they complete, by their time stamps.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Line> {
        self.frames.push(bytes);
        let mut lines = Vec::new();
        while let Some(frame) = self.frames.pop() {
            let line = self.decode(&frame);
            if let Some(khz) = number_after(&line.text, "tsc_khz=").filter(|khz| *khz > 0) {
                self.khz = Some(khz);
            }
            lines.push(line);
        }
        in_order(&mut lines);
        lines
    }

    /// Returns the bytes of the stream that belonged to no frame.
    #[must_use]
    pub const fn skipped(&self) -> u64 {
        self.frames.skipped
    }

    fn decode(&self, frame: &Frame) -> Line {
        let trouble = |component: &str, text: &str| Line {
            component: component.to_owned(),
            level: Level::Warn,
            ticks: None,
            text: format!("{text} ({} bytes)", frame.payload.len()),
        };
        let Some(writer) = self.writers.get(usize::from(frame.writer)) else {
            return trouble(&format!("log {}", frame.writer), "a log of nobody");
        };
        let Some(table) = &writer.table else {
            return trouble(&writer.name, "a log line, but its program has no strings");
        };
        let mut decoder = table.new_stream_decoder();
        decoder.received(&frame.payload);
        match decoder.decode() {
            Ok(decoded) => Line {
                component: writer.name.clone(),
                level: match decoded.level().map(|level| level.as_str()) {
                    Some("trace") => Level::Trace,
                    Some("debug") => Level::Debug,
                    Some("warn") => Level::Warn,
                    Some("error") => Level::Error,
                    _ => Level::Info,
                },
                ticks: decoded
                    .display_timestamp()
                    .and_then(|stamp| stamp.to_string().parse().ok()),
                text: decoded.display_message().to_string(),
            },
            Err(_) => trouble(&writer.name, "a log line that cannot be decoded"),
        }
    }

    /// Returns the line as people read it.
    #[must_use]
    pub fn show(&self, line: &Line) -> String {
        let time = match (line.ticks, self.khz) {
            (Some(ticks), Some(khz)) => {
                let micros = u128::from(ticks) * 1000 / u128::from(khz);
                format!("{:>9}.{:03} ms", micros / 1000, micros % 1000)
            }
            (Some(ticks), None) => format!("{ticks:>16}"),
            (None, _) => format!("{:>16}", "?"),
        };
        let margin = format!("\n{:20}", "");
        format!(
            "[{time}] {:<12} {}  {}",
            line.component,
            line.level.padded(),
            line.text.replace('\n', &margin)
        )
    }
}

/// Puts lines in the order of their time stamps. The console reads the writers'
/// rings one after the other, so that an earlier line may come later. A
/// line without a stamp stays behind the one before it.
pub fn in_order(lines: &mut Vec<Line>) {
    let mut last = 0;
    let mut stamped: Vec<(u64, Line)> = lines
        .drain(..)
        .map(|line| {
            last = line.ticks.unwrap_or(last);
            (last, line)
        })
        .collect();
    // Stable: lines with the same stamp keep their order.
    stamped.sort_by_key(|(ticks, _)| *ticks);
    lines.extend(stamped.into_iter().map(|(_, line)| line));
}

/// Returns the decimal number right after `key`.
#[must_use]
pub fn number_after(text: &str, key: &str) -> Option<u64> {
    let (_, rest) = text.split_once(key)?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoder() -> Decoder {
        Decoder {
            writers: vec![Writer {
                name: "init".to_owned(),
                table: None,
            }],
            frames: Frames::default(),
            khz: None,
        }
    }

    #[test]
    fn a_frame_that_cannot_be_decoded_is_a_line_too() {
        let mut decoder = decoder();
        let start = console::FRAME_START;
        let lines = decoder.push(&[start, 0, 1, 0, 9, start, 7, 0, 0]);
        assert_eq!(lines.len(), 2);
        assert!(lines[0].text.contains("no strings"));
        assert_eq!(lines[1].component, "log 7");
        assert!(lines.iter().all(|line| line.level == Level::Warn));
    }

    #[test]
    fn time_is_ticks_until_the_frequency_is_known() {
        let mut decoder = decoder();
        let line = Line {
            component: "vmm".to_owned(),
            level: Level::Info,
            ticks: Some(12_345_678),
            text: "one\ntwo".to_owned(),
        };
        assert_eq!(
            decoder.show(&line),
            "[        12345678] vmm          info   one\n                    two"
        );
        decoder.khz = Some(1_000_000);
        assert!(
            decoder
                .show(&line)
                .starts_with("[       12.345 ms] vmm          info ")
        );
    }

    #[test]
    fn lines_come_in_the_order_of_their_stamps() {
        let line = |ticks: Option<u64>, text: &str| Line {
            component: "vmm".to_owned(),
            level: Level::Info,
            ticks,
            text: text.to_owned(),
        };
        let mut lines = vec![
            line(None, "first"),
            line(Some(30), "c"),
            line(None, "after c"),
            line(Some(10), "a"),
            line(Some(20), "b"),
            line(Some(20), "also b"),
            line(Some(u64::MAX), "z"),
            line(Some(30), "d"),
        ];
        in_order(&mut lines);
        let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
        let expected = ["first", "a", "b", "also b", "c", "after c", "d", "z"];
        assert_eq!(texts, expected);
    }

    #[test]
    fn numbers_stand_after_their_key() {
        assert_eq!(number_after("a tsc=12 b", "tsc="), Some(12));
        assert_eq!(number_after("tsc=x", "tsc="), None);
        assert_eq!(number_after("a", "tsc="), None);
        assert_eq!(number_after("tsc=99999999999999999999", "tsc="), None);
    }
}
