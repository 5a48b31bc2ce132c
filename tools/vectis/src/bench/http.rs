//! `vectis bench --http`: instructions for what a client on this host asks of the web guest.
//!
//! The client is outside of the machine, whose clock waits for it: what the guest could
//! count has its idle time in it. QEMU records the run, and tells how many instructions ran
//! so far (QMP, `query-replay`); while nobody has work that stands nearly still.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::output;
use crate::qemu::{Event, Machine};
use crate::run::{self, Next, Session};
use crate::soak::Connection;

/// Bound on one machine's run: ten times what a slow one takes.
const BOUND: Duration = Duration::from_secs(600);
/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(60);
/// How often the requests are looked after.
const LOOK: Duration = Duration::from_millis(50);

/// Words for the command line of the guest on the bare machine: with them its page says as
/// much as the one on Vectis, above all the time of day, which is 2,000 instructions of work.
pub const WORDS: &str = "host=vectis sel4=5.0.0,bundled tsc_epoch_ns=1795000000000000000";

/// What is asked for.
struct Row {
    name: &'static str,
    path: &'static str,
    connections: usize,
    /// Requests on each connection.
    requests: usize,
}

const ROWS: [Row; 4] = [
    Row {
        name: "HTTP request, one connection",
        path: "/",
        connections: 1,
        requests: 400,
    },
    Row {
        name: "HTTP request, 8 connections",
        path: "/",
        connections: 8,
        requests: 400,
    },
    Row {
        name: "1 MiB sent, one connection",
        path: "/bytes/1048576",
        connections: 1,
        requests: 24,
    },
    Row {
        name: "1 MiB sent, 8 connections",
        path: "/bytes/1048576",
        connections: 8,
        requests: 4,
    },
];

/// Instructions for one answer of each row.
pub type Counts = [u64; ROWS.len()];

fn failed(cause: impl ToString) -> Error {
    Error::new(
        "the bench of requests failed",
        cause.to_string(),
        "-v shows every line of the machine; try again",
    )
}

/// QEMU's monitor (QMP).
struct Monitor {
    lines: BufReader<UnixStream>,
}

impl Monitor {
    fn connect(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path).map_err(|e| Error::file("open", path, &e))?;
        stream.set_read_timeout(Some(ANSWER)).map_err(failed)?;
        let mut monitor = Self {
            lines: BufReader::new(stream),
        };
        // It speaks first, and takes commands after this one.
        monitor.line()?;
        monitor.ask("qmp_capabilities")?;
        Ok(monitor)
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.lines.read_line(&mut line).map_err(failed)?;
        serde_json::from_str(&line).map_err(failed)
    }

    fn ask(&mut self, command: &str) -> Result<Value> {
        let text = json!({ "execute": command }).to_string();
        writeln!(self.lines.get_ref(), "{text}").map_err(failed)?;
        loop {
            // Events come between a command and its answer.
            let mut line = self.line()?;
            if line.get("error").is_some() {
                return Err(failed(format!("QEMU answers {command} by {line}")));
            }
            if let Some(answer) = line.get_mut("return") {
                return Ok(answer.take());
            }
        }
    }

    /// Returns how many instructions ran so far.
    fn instructions(&mut self) -> Result<u64> {
        let answer = self.ask("query-replay")?;
        answer["icount"]
            .as_u64()
            .ok_or_else(|| failed(format!("no count in QEMU's {answer}")))
    }
}

fn get(connection: &mut Connection, path: &str) -> Result<()> {
    match connection.get(path, Instant::now() + ANSWER, || true) {
        Ok(200) => Ok(()),
        Ok(status) => Err(failed(format!("{path} is answered by {status}"))),
        Err(why) => Err(failed(format!("{path}: {why}"))),
    }
}

/// Asks for a row, and returns the instructions for each answer.
fn measure_row(row: &Row, port: u16, monitor: &mut Monitor) -> Result<u64> {
    let connections = (0..row.connections).map(|_| {
        let mut connection = Connection::new(port).map_err(failed)?;
        // What only the first request costs is not measured.
        get(&mut connection, row.path)?;
        Ok(connection)
    });
    let connections: Vec<Connection> = connections.collect::<Result<_>>()?;
    let before = monitor.instructions()?;
    thread::scope(|scope| {
        let ask = |mut connection: Connection| {
            scope.spawn(move || (0..row.requests).try_for_each(|_| get(&mut connection, row.path)))
        };
        let clients: Vec<_> = connections.into_iter().map(ask).collect();
        let mut ended = clients.into_iter().map(thread::ScopedJoinHandle::join);
        ended.try_for_each(|ended| ended.unwrap_or_else(|_| Err(failed("a client panicked"))))
    })?;
    let count = monitor.instructions()? - before;
    Ok(count / (row.connections * row.requests) as u64)
}

fn measure_all(port: u16, monitor: &Path) -> Result<Counts> {
    let mut monitor = Monitor::connect(monitor)?;
    let mut counts = [0; ROWS.len()];
    for (count, row) in counts.iter_mut().zip(&ROWS) {
        *count = measure_row(row, port, &mut monitor)?;
    }
    Ok(counts)
}

/// Runs a machine, whose clock is [`Clock::Recorded`](crate::qemu::Clock::Recorded), and
/// measures its guest. `lock` is the image's build's.
///
/// # Errors
/// If it does not start, ends before that, or a request is not answered.
pub fn measure(
    machine: &Machine<'_>,
    writers: &[(String, PathBuf)],
    log: Option<&Path>,
    verbose: bool,
    lock: Option<File>,
) -> Result<Counts> {
    let options = run::Options {
        bare: log.is_none(),
        quiet: !verbose,
        watched: true,
        ..run::Options::default()
    };
    let (mut session, events) = Session::start(machine, writers, log, &options, lock)?;
    let end = Instant::now() + BOUND;
    let mut client = None;
    while Instant::now() < end {
        match events.recv_timeout(LOOK) {
            Ok(Event::Ended) => {
                session.ended(&events)?;
                return Err(failed("the machine ended"));
            }
            Ok(event) => {
                if session.handle(event)? == Next::Stop {
                    return Err(failed("ended by a signal; nothing is left running"));
                }
            }
            // Nobody said anything.
            Err(_) => {}
        }
        session.take_seen();
        client = match client {
            None => session.ready().map(|(_, port)| {
                let monitor = session.monitor();
                thread::spawn(move || measure_all(port, &monitor))
            }),
            Some(client) if client.is_finished() => {
                let counts = client.join();
                return counts.unwrap_or_else(|_| Err(failed("the client panicked")));
            }
            client => client,
        };
    }
    Err(failed(format!("it did not end in {} s", BOUND.as_secs())))
}

/// Prints the counts of the bare machine and of Vectis.
///
/// # Errors
/// If they cannot be printed.
pub fn conclude(bare: Counts, vectis: Counts, as_json: bool) -> Result<()> {
    if as_json {
        let row = |(row, (bare, vectis)): (&Row, (u64, u64))| json!({ "name": row.name, "bare": bare, "vectis": vectis });
        let rows: Vec<Value> = ROWS
            .iter()
            .zip(bare.into_iter().zip(vectis))
            .map(row)
            .collect();
        return output::line(&format!("{:#}", Value::from(rows)));
    }
    output::line(table(bare, vectis).trim_end())
}

fn table(bare: Counts, vectis: Counts) -> String {
    let mut text = String::from(
        "| instructions for each answer    |       bare |     Vectis | ratio |\n\
         |---------------------------------|-----------:|-----------:|------:|\n",
    );
    for (row, (bare, vectis)) in ROWS.iter().zip(bare.into_iter().zip(vectis)) {
        let ratio = vectis as f64 / bare.max(1) as f64;
        text += &format!(
            "| {:<31} | {bare:>10} | {vectis:>10} | {ratio:>5.3} |\n",
            row.name
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn the_monitor_is_asked_past_its_events() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("qmp");
        let listener = UnixListener::bind(&path).unwrap();
        let qemu = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            writeln!(&stream, r#"{{"QMP": {{}}}}"#).unwrap();
            for answer in [
                r#"{"return": {}}"#,
                "{\"event\": \"RTC_CHANGE\"}\n{\"return\": {\"mode\": \"record\", \"icount\": 77}}",
                r#"{"return": {"mode": "none"}}"#,
                r#"{"error": {"class": "CommandNotFound"}}"#,
            ] {
                lines.next().unwrap().unwrap();
                writeln!(&stream, "{answer}").unwrap();
            }
        });
        let mut monitor = Monitor::connect(&path).unwrap();
        assert_eq!(monitor.instructions(), Ok(77));
        let text = monitor.instructions().unwrap_err().to_string();
        assert!(text.contains("no count"), "{text}");
        let text = monitor.instructions().unwrap_err().to_string();
        assert!(text.contains("CommandNotFound"), "{text}");
        qemu.join().unwrap();
    }

    #[test]
    fn the_table_has_a_line_for_each_row() {
        let text = table(
            [50_000, 45_000, 9_000_000, 8_000_000],
            [60_000, 49_500, 9_000_000, 0],
        );
        assert!(
            text.contains("| HTTP request, one connection    |      50000 |      60000 | 1.200 |"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 2 + ROWS.len());
    }
}
