//! `vectis run`: a machine from its start to its end.

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use spec::{EXIT_SUCCESS, Ending};

use crate::bench::Boot;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::logs::{Decoder, Level, Line};
use crate::network::Guests;
use crate::output;
use crate::qemu::{CONTROL, Event, MONITOR, Machine, Port, Qemu};
use crate::symbols::Symbols;
use crate::text::Lines;
use crate::trace::Traces;

/// The exit status for a `--timeout` that passed, as of timeout(1).
const TIMED_OUT: u8 = 124;

/// Bound on the time to a first sign of life. Ten times the time of a slow machine:
/// only a boot that will never come is cut off.
const FIRST_SIGN: Duration = Duration::from_secs(30);

/// How lines begin that init writes by itself, before the console runs.
const FROM_INIT: [&str; 3] = ["init: ", "audit: ", "# probe: "];

/// How QEMU begins to say that KVM met something that it cannot do.
const KVM_GAVE_UP: &str = "KVM internal error";

/// Bound on how long the last bytes of the serial ports are waited for once
/// QEMU has ended.
const LAST_BYTES: Duration = Duration::from_secs(2);

/// Events that wait to be handled. When there are more, QEMU waits: a guest that
/// floods its console must not fill this host's memory.
const EVENTS: usize = 256;

/// The user's options for a run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Least urgent level of logs that is shown.
    pub level: Level,
    /// No seL4: the guest itself is the kernel.
    pub bare: bool,
    /// End once all guests serve.
    pub exit_after_ready: bool,
    /// End after this time.
    pub timeout: Option<Duration>,
    /// End once boot is measured.
    pub bench: bool,
    /// The machine's clock counts instructions.
    pub counted: bool,
    /// Crash the component that this key stands for once all guests serve.
    pub inject: Option<char>,
    /// Record the guest's accesses into this file.
    pub trace: Option<PathBuf>,
    /// Print none of the machine's lines.
    pub quiet: bool,
    /// Keep the machine's lines for [`Session::take_seen`], and leave its keys to
    /// [`Session::press`].
    pub watched: bool,
}

/// A line that the machine wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// For people: from a guest, the console or the monitor, or from QEMU.
    Console(String),
    /// A component's log.
    Log(Line),
}

/// Returns the key that stands, after `F`, for the component or guest at
/// `index`: its position from 1 as one digit of base 36; guests come after the
/// components. `None` past the last digit.
#[must_use]
pub fn position_key(index: usize) -> Option<char> {
    let position = u32::try_from(index).ok()?.checked_add(1)?;
    char::from_digit(position, 36)
}

/// Runs a machine. `writers` are the components' names and ELF files in the
/// order of their log ids; their frames are recorded in `log`, if there is one. `lock` is
/// the image's build's.
///
/// # Errors
/// If it does not start, or ends other than asked.
pub fn run(
    machine: &Machine<'_>,
    writers: &[(String, PathBuf)],
    log: Option<&Path>,
    options: &Options,
    lock: Option<File>,
) -> Result<()> {
    let started = Instant::now();
    let (mut session, events) = Session::start(machine, writers, log, options, lock)?;
    session.follow(&events, started)
}

/// The signals that ask a process to end, of a terminal or of another process.
/// SIGPIPE is not among them: Rust programs ignore it, and get an error.
const END: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];

/// Returns whether a process ignores a signal, by its /proc/PID/status
/// (proc(5)): bit N - 1 of `SigIgn` stands for signal N.
fn ignores(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// Turns signals that request an end into events. A SIGHUP that the parent process
/// had set to be ignored, as nohup(1) does, stays ignored.
fn watch_signals(events: &SyncSender<Event>) -> Result<()> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let watched = END
        .into_iter()
        .filter(|signal| *signal != SIGHUP || !ignores(&status, SIGHUP));
    let mut signals = Signals::new(watched)
        .map_err(|e| Error::new("cannot watch for signals", e, "try again"))?;
    let events = events.clone();
    thread::spawn(move || {
        for signal in signals.forever() {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Whether the run goes on.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// It does.
    Continue,
    /// It came to the end that was asked for.
    Stop,
}

/// A machine that runs, and all that is known of it.
pub struct Session<'a> {
    options: &'a Options,
    guests: Guests,
    qemu: Qemu,
    sender: SyncSender<Event>,
    decoder: Decoder,
    recording: Option<File>,
    symbols: Symbols,
    /// COM1, to type on.
    keys: Option<UnixStream>,
    /// Other commands that are connected to the console.
    control: Option<Control>,
    traces: Option<Traces>,
    lines: Lines,
    seen: Vec<Seen>,
    boot: Boot,
    /// Serial ports that are open.
    open: usize,
    /// Whether the machine has said anything.
    alive: bool,
}

impl<'a> Session<'a> {
    /// Starts a machine, as [`run`] does. Returns the channel of its events, each of
    /// which is to be passed to [`Session::handle`]. From then on no file of the image
    /// is needed by its name, so that `lock`, the build's, is let go.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(
        machine: &Machine<'_>,
        writers: &[(String, PathBuf)],
        log: Option<&Path>,
        options: &'a Options,
        lock: Option<File>,
    ) -> Result<(Self, Receiver<Event>)> {
        let decoder = Decoder::new(writers)?;
        let recording = log
            .map(|path| File::create(path).map_err(|e| Error::file("make", path, &e)))
            .transpose()?;
        let (sender, events) = sync_channel(EVENTS);
        watch_signals(&sender)?;
        let qemu = Qemu::start(machine, &sender)?;
        let control = match log.and_then(Path::parent) {
            Some(folder) => Some(Control::listen(&qemu.socket(CONTROL), folder, &sender)?),
            None => None,
        };
        let session = Self {
            options,
            guests: Guests::new(machine.model, &machine.ports, options.bare),
            qemu,
            sender,
            decoder,
            recording,
            symbols: Symbols::new(writers, &machine.guests()),
            keys: None,
            control,
            traces: options.trace.as_deref().map(Traces::new),
            lines: Lines::default(),
            seen: Vec::new(),
            boot: Boot::default(),
            open: 0,
            alive: false,
        };
        drop(lock);
        Ok((session, events))
    }

    /// Returns the lines that came since this was last asked.
    pub fn take_seen(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.seen)
    }

    /// Returns the path of QEMU's own monitor, of a machine that is recorded.
    #[must_use]
    pub fn monitor(&self) -> PathBuf {
        self.qemu.socket(MONITOR)
    }

    /// Returns the name and port of a guest that serves, if there is one.
    #[must_use]
    pub fn ready(&self) -> Option<(String, u16)> {
        self.guests.first_ready()
    }

    /// Types keys on the console.
    pub fn press(&mut self, keys: &str) {
        if let Some(port) = &mut self.keys {
            // If the port is closed, QEMU is ending, which is said there.
            let _ = port.write_all(keys.as_bytes());
        }
    }

    fn print(&self, line: &str) -> Result<()> {
        if self.options.quiet {
            return Ok(());
        }
        output::line(line)
    }

    fn follow(&mut self, events: &Receiver<Event>, started: Instant) -> Result<()> {
        let end = self.options.timeout.map(|timeout| started + timeout);
        let first_sign = started + FIRST_SIGN;
        loop {
            let bound = match (self.alive, end) {
                (true, end) => end,
                (false, end) => Some(end.map_or(first_sign, |end| end.min(first_sign))),
            };
            let event = match bound {
                None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => events.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match event {
                Ok(Event::Ended) => return self.ended(events),
                Ok(event) => {
                    if self.handle(event)? == Next::Stop {
                        return Ok(());
                    }
                }
                Err(_) if end.is_some_and(|end| Instant::now() >= end) => {
                    let what = if self.guests.all_ready() {
                        "still serving"
                    } else {
                        "not ready"
                    };
                    return Err(Error::new(
                        "the run was cut off",
                        format!("{what} when --timeout passed"),
                        "give it more time, or look at the logs with -v",
                    )
                    .with_status(TIMED_OUT));
                }
                Err(_) => {
                    let said = self.lines.finish().map_or_else(
                        || "nothing came over the serial port".to_owned(),
                        |text| format!("the kernel's last words: {text}"),
                    );
                    return Err(Error::new(
                        "the system does not boot",
                        format!("init gave no sign in {} s; {said}", FIRST_SIGN.as_secs()),
                        "compare the board's machine and cpu with docs/system-toml.md; \
                         with --debug the kernel says how far it comes",
                    ));
                }
            }
        }
    }

    /// Takes an event in.
    ///
    /// # Errors
    /// If it is the end of the run, and not one that was asked for.
    pub fn handle(&mut self, event: Event) -> Result<Next> {
        match event {
            Event::Open(port, stream) => {
                self.open += 1;
                if port == Port::People {
                    self.keys = stream.try_clone().ok();
                    if !self.options.watched {
                        pass_keys(stream);
                    }
                }
            }
            Event::Bytes(port, bytes) => {
                // The kernel's messages before a panic are not a sign of life; init
                // logs as soon as it runs, and a bare guest prints by itself.
                self.alive |= port == Port::Logs || self.options.bare;
                return match port {
                    Port::People => self.people(&bytes),
                    Port::Logs => self.logs(&bytes),
                };
            }
            Event::Closed => self.open -= 1,
            Event::Visitor(visitor) => {
                if let Some(control) = &mut self.control {
                    control.welcome(visitor);
                }
            }
            Event::Keys(bytes) => {
                if let Some(keys) = &mut self.keys {
                    // If the port is closed, QEMU is ending, which is said there.
                    let _ = keys.write_all(&bytes);
                }
            }
            Event::Said(text) => {
                let line = format!("qemu: {text}");
                if !self.options.quiet {
                    output::progress(&line);
                }
                if self.options.watched {
                    self.seen.push(Seen::Console(line));
                }
                // The machine stands still then, and QEMU waits for a debugger.
                if text.starts_with(KVM_GAVE_UP) {
                    return Err(Error::new(
                        "this host's KVM cannot run the machine",
                        text,
                        "leave --kvm out; where it is nested, look at the outer host, and at \
                         `dmesg` for what KVM this is",
                    ));
                }
            }
            Event::Ended => {}
            Event::Signal(signal) => {
                if self.guests.any_ready() {
                    output::progress("ended");
                    return Ok(Next::Stop);
                }
                return Err(Error::new(
                    "ended by a signal",
                    "no guest was serving yet",
                    "nothing is left running",
                )
                .with_status(128 + signal as u8));
            }
            Event::Reachable(guest, Ok(())) => {
                let ready = self.guests.reached(guest);
                self.print(&ready)?;
                if !self.guests.all_ready() {
                    return Ok(Next::Continue);
                }
                if self.options.exit_after_ready {
                    return Ok(Next::Stop);
                }
                if let Some(position) = self.options.inject {
                    self.press(&format!("F{position}"));
                }
            }
            Event::Reachable(guest, Err(error)) => {
                let port = self.guests.port(guest);
                return Err(Error::new(
                    format!("the guest serves, but port {port} does not lead to it"),
                    error,
                    "another program may have taken the port: choose another with --port",
                ));
            }
        }
        Ok(Next::Continue)
    }

    fn people(&mut self, bytes: &[u8]) -> Result<Next> {
        for line in self.lines.push(bytes) {
            self.print(&line)?;
            self.alive |= FROM_INIT.iter().any(|sign| line.starts_with(sign));
            if let Some(control) = &mut self.control {
                control.show(&line);
            }
            let explanations = self.symbols.explain(&line);
            for explanation in &explanations {
                self.print(explanation)?;
            }
            if self.options.watched {
                let all = std::iter::once(line.clone()).chain(explanations);
                self.seen.extend(all.map(Seen::Console));
            }
            if self.mark(&line)? == Next::Stop {
                return Ok(Next::Stop);
            }
            if let Some((guest, port)) = self.guests.see(&line) {
                let events = self.sender.clone();
                thread::spawn(move || {
                    let tried = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map(drop);
                    let _ = events.send(Event::Reachable(guest, tried));
                });
            }
        }
        Ok(Next::Continue)
    }

    fn logs(&mut self, bytes: &[u8]) -> Result<Next> {
        if let Some(recording) = &mut self.recording {
            recording.write_all(bytes).map_err(|e| {
                Error::new(
                    "cannot record the log",
                    e,
                    "check that the disk is not full",
                )
            })?;
        }
        for line in self.decoder.push(bytes) {
            if let Some(traces) = &mut self.traces {
                traces.line(&line.text)?;
            }
            if !self.options.quiet {
                show(&self.decoder, &line, self.options.level)?;
                for explanation in self.symbols.explain_guest(&line.component, &line.text) {
                    self.print(&explanation)?;
                }
            }
            if self.mark(&line.text)? == Next::Stop {
                return Ok(Next::Stop);
            }
            if self.options.watched {
                self.seen.push(Seen::Log(line));
            }
        }
        Ok(Next::Continue)
    }

    fn mark(&mut self, line: &str) -> Result<Next> {
        self.boot.see(line);
        if self.options.bench && self.boot.complete() {
            output::line(&self.boot.table())?;
            return Ok(Next::Stop);
        }
        Ok(Next::Continue)
    }

    /// Shows the last bytes and says why QEMU ended.
    ///
    /// # Errors
    /// If its end was none that was asked for.
    pub fn ended(&mut self, events: &Receiver<Event>) -> Result<()> {
        let status = self.qemu.wait()?;
        let bound = Instant::now() + LAST_BYTES;
        while self.open > 0 {
            let left = bound.saturating_duration_since(Instant::now());
            let Ok(event) = events.recv_timeout(left) else {
                break;
            };
            if self.handle(event)? == Next::Stop {
                return Ok(());
            }
        }
        if let Some(line) = self.lines.finish() {
            output::line(&line)?;
        }
        let skipped = self.decoder.skipped();
        if skipped > 0 {
            output::progress(&format!(
                "{skipped} bytes on the log port were no log lines"
            ));
        }
        output::progress(verdict(status, self.options.bare, self.alive)?);
        Ok(())
    }
}

/// Returns what ended a system, for people.
const fn cause(ending: Ending) -> &'static str {
    match ending {
        Ending::Success => "nothing failed",
        Ending::Failure => "a component or the boot failed",
        Ending::GuestFailed => "a guest reported a failure",
        Ending::GuestHalted => "a guest halted with interrupts off",
        Ending::GuestException => "a guest had an exception that it could not handle",
        Ending::GuestImage => "a guest's image could not be loaded",
        Ending::GuestPageTable => "a guest loaded a page table that is no identity map",
    }
}

/// Returns the name of the machine's end if it succeeded.
fn verdict(status: ExitStatus, bare: bool, alive: bool) -> Result<&'static str> {
    let Some(code) = status.code() else {
        return Err(Error::new(
            "QEMU was killed",
            format!("signal {}", status.signal().unwrap_or(0)),
            "look for what killed it, such as the system's memory limit",
        ));
    };
    // isa-debug-exit turns the written value into the status (value << 1) | 1.
    let value = code >> 1;
    match (code & 1, bare) {
        (1, _) if !alive => Err(Error::new(
            "QEMU ended before the machine said anything",
            format!("status {code}"),
            "its own message is above",
        )),
        (1, false) if value == 0 => Ok("the system stopped"),
        (1, true) if value == EXIT_SUCCESS as i32 => Ok("the guest stopped"),
        (1, false) => {
            let ending = Ending::from_number(value as u8);
            Err(Error::new(
                "the system stopped",
                cause(ending),
                "its last log lines say why; -v shows all of them",
            )
            .with_status(ending as u8))
        }
        (1, true) => Err(Error::new(
            "the guest stopped",
            format!("it reported {value:#x}"),
            "its last lines say why",
        )
        .with_status(Ending::GuestFailed as u8)),
        _ if code == 0 => Err(Error::new(
            "the machine was reset",
            "a triple fault, or a request for it",
            "run with --debug -v to see how far it came",
        )),
        _ => Err(Error::new(
            "QEMU ended",
            format!("status {code}"),
            "its own message is above",
        )),
    }
}

/// Prints a log line if it is urgent enough.
///
/// # Errors
/// If the reader of standard output has gone away.
pub fn show(decoder: &Decoder, line: &Line, level: Level) -> Result<()> {
    if line.level < level {
        return Ok(());
    }
    output::line(&decoder.show(line))
}

/// Passes standard input to COM1.
fn pass_keys(mut to: UnixStream) {
    if std::io::stdin().is_terminal() && !in_foreground() {
        // Reading would stop this process (SIGTTIN).
        return;
    }
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok(length @ 1..) = std::io::stdin().read(&mut buffer) {
            if to.write_all(&buffer[..length]).is_err() {
                return;
            }
        }
    });
}

/// Returns whether this process's group is the one that its terminal listens
/// to: the fields pgrp and tpgid of /proc/self/stat (proc(5)) are equal.
fn in_foreground() -> bool {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in parentheses may hold anything.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().collect())
        .unwrap_or_default();
    matches!(fields[..], [_state, _parent, group, _session, _terminal, foreground, ..]
        if group == foreground)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the status of a process that ended with `code`.
    fn ended(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    #[test]
    fn what_is_ignored_stands_in_the_status() {
        let status = "Name:\tx\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n";
        assert!(ignores(status, SIGHUP) && ignores(status, 13));
        assert!(!ignores(status, SIGINT) && !ignores("", SIGHUP));
    }

    #[test]
    fn only_an_orderly_stop_is_good() {
        assert!(verdict(ended(1), false, true).is_ok());
        assert!(verdict(ended(0x21), true, true).is_ok());
        for (code, bare, alive) in [
            (1, false, false),
            (0, false, true),
            (3, false, true),
            (1, true, true),
            (0x21, false, true),
            (0x23, true, true),
            (2, false, true),
        ] {
            assert!(verdict(ended(code), bare, alive).is_err(), "{code} {bare}");
        }
        assert!(verdict(ExitStatus::from_raw(9), false, true).is_err());
        for ending in Ending::ALL {
            let ended = verdict(ended((ending as i32) << 1 | 1), false, true);
            let status = ended.map_or_else(|error| error.status, |_| 0);
            assert_eq!(status, ending as u8);
        }
    }
}
