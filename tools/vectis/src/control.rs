//! Other commands' way to the console of a running system.
//!
//! `run` listens on a socket in its temporary folder and leaves its path in
//! target/vectis/run/control. Input from there is typed on COM1, and every line of
//! COM1 goes to all connected clients.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::output;
use crate::qemu::Event;

/// The file with the socket's path.
const POINTER: &str = "control";
/// Bound on the wait for an answer: only a system that will never answer is
/// cut off.
const PATIENCE: Duration = Duration::from_secs(30);

/// The listening side.
pub struct Control {
    pointer: PathBuf,
    socket: PathBuf,
    visitors: Vec<UnixStream>,
}

impl Control {
    /// Listens on `socket` and says so in `folder`.
    ///
    /// # Errors
    /// If either cannot be made.
    pub fn listen(socket: &Path, folder: &Path, events: &SyncSender<Event>) -> Result<Self> {
        let listener =
            UnixListener::bind(socket).map_err(|e| Error::file("listen on", socket, &e))?;
        let pointer = folder.join(POINTER);
        fs::write(&pointer, socket.as_os_str().as_encoded_bytes())
            .map_err(|e| Error::file("write", &pointer, &e))?;
        let events = events.clone();
        thread::spawn(move || {
            for visitor in listener.incoming().flatten() {
                let Ok(keys) = visitor.try_clone() else {
                    continue;
                };
                if events.send(Event::Visitor(visitor)).is_err() {
                    return;
                }
                pass(keys, events.clone());
            }
        });
        Ok(Self {
            pointer,
            socket: socket.to_path_buf(),
            visitors: Vec::new(),
        })
    }

    /// Adds a client that connected.
    pub fn welcome(&mut self, visitor: UnixStream) {
        self.visitors.push(visitor);
    }

    /// Sends a line to all clients; drops those that are gone.
    pub fn show(&mut self, line: &str) {
        self.visitors
            .retain_mut(|visitor| writeln!(visitor, "{line}").is_ok());
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // A later run may have put its own there.
        let own = fs::read(&self.pointer)
            .is_ok_and(|text| text == self.socket.as_os_str().as_encoded_bytes());
        if own {
            let _ = fs::remove_file(&self.pointer);
        }
    }
}

fn pass(mut keys: UnixStream, events: SyncSender<Event>) {
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok(length @ 1..) = keys.read(&mut buffer) {
            if events.send(Event::Keys(buffer[..length].to_vec())).is_err() {
                return;
            }
        }
    });
}

/// Types `keys` on the console of the running system and prints its answers:
/// each ends with a line `KEY end`.
///
/// # Errors
/// If no system runs, or it does not answer.
pub fn dump(folder: &Path, keys: &str) -> Result<()> {
    // The console is silent about a key that means nothing to it, and some make it
    // do something else than report.
    let known: Vec<char> = console::REPORTS
        .iter()
        .map(|key| char::from(*key))
        .collect();
    if let Some(key) = keys.chars().find(|key| !known.contains(key)) {
        let known: Vec<String> = known.iter().map(char::to_string).collect();
        return Err(Error::new(
            format!("no report for key {key:?}"),
            "the console has none",
            format!("there is {}; h explains them", known.join(", ")),
        ));
    }
    let mut console = Console::of_run(folder)?;
    for key in keys.chars() {
        for line in console.ask(key)? {
            output::line(&line)?;
        }
    }
    Ok(())
}

/// The console of a running system, as another command sees it.
pub struct Console {
    keys: UnixStream,
    lines: BufReader<UnixStream>,
}

impl Console {
    /// Connects to the last run's, whose log is in `folder`.
    ///
    /// # Errors
    /// If no system runs.
    pub fn of_run(folder: &Path) -> Result<Self> {
        let socket = fs::read_to_string(folder.join(POINTER)).map_err(|cause| {
            Error::new(
                "no running system",
                cause,
                "start one with `vectis run` in another terminal",
            )
        })?;
        Self::connect(Path::new(&socket))
    }

    /// Connects to a socket with a system's COM1 behind it.
    ///
    /// # Errors
    /// If there is none.
    pub fn connect(socket: &Path) -> Result<Self> {
        let failed = |cause: std::io::Error| {
            Error::new(
                format!("no running system behind {}", socket.display()),
                cause,
                "start one with `vectis run` in another terminal",
            )
        };
        let keys = UnixStream::connect(socket).map_err(failed)?;
        keys.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        let lines = BufReader::new(keys.try_clone().map_err(failed)?);
        Ok(Self { keys, lines })
    }

    /// Presses a key that has a report, and returns its lines, without what guests
    /// print meanwhile.
    ///
    /// # Errors
    /// If the system does not answer.
    pub fn ask(&mut self, key: char) -> Result<Vec<String>> {
        let silent = |cause: std::io::Error| {
            Error::new(
                "the system does not answer",
                cause,
                "see what `vectis run` says; -v shows every component's log",
            )
        };
        write!(self.keys, "{key}").map_err(silent)?;
        let end = format!("{key} end");
        let own = format!("{key} ");
        let mut report = Vec::new();
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).map_err(silent)? == 0 {
                return Err(silent(std::io::Error::other("it has ended")));
            }
            let line = line.trim_end();
            if line == end {
                return Ok(report);
            }
            if key == 'h' || line.starts_with(&own) {
                report.push(line.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_without_a_report_is_refused_before_anybody_is_asked() {
        let nowhere = tempfile::tempdir().unwrap();
        for keys in ["Q", "MQ", "F1", "?", "M ", "\u{e9}"] {
            let text = dump(nowhere.path(), keys).unwrap_err().to_string();
            assert!(text.contains("no report for key"), "{text}");
            assert!(text.contains("there is h, M, R, I, S"), "{text}");
        }
        let text = dump(nowhere.path(), "hMRIS").unwrap_err().to_string();
        assert!(text.contains("no running system"), "{text}");
    }
}
