//! Starts `vectis`, reads its lines, types keys, and ends it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

/// Longest wait for anything: a bound on failures, not a measurement. It has room for
/// a build from nothing.
pub const PATIENCE: Duration = Duration::from_secs(420);

static MACHINES: RwLock<()> = RwLock::new(());

// A test that failed leaves nothing behind that the next one could trip on, so that a
// poisoned lock is as good as another.

/// Returns the right to run a machine, or to build, beside other tests: as many as the test
/// runner has threads, which is one for each core.
pub fn one_machine() -> RwLockReadGuard<'static, ()> {
    MACHINES.read().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the right to run a machine while no other test does: for one whose clock counts
/// instructions, which jumps where nobody has work, and by how far depends on the host; and
/// for `vectis dump`, `logs` and `metrics`, which are about the last that was started.
pub fn the_only_machine() -> RwLockWriteGuard<'static, ()> {
    MACHINES.write().unwrap_or_else(PoisonError::into_inner)
}

/// Returns whether images are made with the bundled kernel: what the tests run inherits the
/// variable that names another.
pub fn is_bundled() -> bool {
    kernel::Installed::prefix_from_environment().is_none()
}

/// Returns the project's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("tools/vectis is two folders below the root")
        .to_owned()
}

/// Returns the command, run from the project's root. Where the target folder is
/// not the usual one, the tests' own is used, so that nothing is built twice.
pub fn vectis() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vectis"));
    command.current_dir(root());
    command
}

/// Returns the command, to run another system file on a free port for at most
/// so many seconds.
pub fn run_of(file: &Path, seconds: u32) -> Command {
    let mut command = vectis();
    command
        .args(["run", "--port", &free_port().to_string()])
        .args(["--timeout", &seconds.to_string(), "--system"])
        .arg(file);
    command
}

/// Output and exit status of a command.
pub struct Finished {
    pub status: ExitStatus,
    pub text: String,
}

/// Runs a command to its end.
pub fn finish(command: &mut Command) -> Finished {
    let mut running = Running::start(command);
    let status = running.wait();
    Finished {
        status,
        text: running.text(),
    }
}

/// Returns a free port of this host.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port()
}

/// Returns the first of `count` ports that follow each other and are all free.
pub fn free_ports(count: u16) -> u16 {
    loop {
        let first = free_port();
        let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        let all = (1..count).all(|n| first.checked_add(n).is_some_and(free));
        if all {
            return first;
        }
    }
}

/// A running `vectis`.
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Running {
    /// Starts the command; its output is read line by line.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("vectis starts");
        let (send, lines) = channel();
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let other = send.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = other.send(line);
            }
        });
        Self {
            stdin: child.stdin.take(),
            child,
            lines,
            seen: Vec::new(),
        }
    }

    /// Starts `vectis run` on a free port and waits until it serves.
    pub fn serving(arguments: &[&str]) -> (Self, u16) {
        let port = free_port();
        let mut running = Self::start(
            vectis()
                .args(["run", "--port", &port.to_string()])
                .args(arguments),
        );
        running.wait_for(|line| line.starts_with("ready: "));
        (running, port)
    }

    /// Starts `vectis run` on free ports and waits until these guests serve. Returns
    /// their ports.
    pub fn all_serving(arguments: &[&str], guests: &[&str]) -> (Self, Vec<u16>) {
        let mut running = Self::start(vectis().args(["run", "--port", "0"]).args(arguments));
        let mut ports = vec![0; guests.len()];
        while ports.contains(&0) {
            let line = running.wait_for(|line| line.starts_with("ready: "));
            let words: Vec<&str> = line.split(' ').collect();
            let [_, name, address] = words[..] else {
                panic!("not about one guest of several: {line}");
            };
            let port = address
                .trim_end_matches('/')
                .rsplit(':')
                .next()
                .and_then(|port| port.parse().ok());
            if let Some(guest) = guests.iter().position(|guest| *guest == name) {
                ports[guest] = port.expect("a port");
            }
        }
        (running, ports)
    }

    /// Process id of `vectis`.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the next line that `wanted` says yes to.
    pub fn wait_for(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if wanted(&line) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("vectis ended before the line came:\n{}", self.text())
                }
                Err(RecvTimeoutError::Timeout) => {
                    panic!("the line did not come:\n{}", self.text())
                }
            }
        }
    }

    /// Waits for a line with each of these words, in any order: what comes over one serial
    /// port has none with what comes over the other.
    pub fn wait_for_all(&mut self, words: &[&str]) {
        let mut left = words.to_vec();
        while !left.is_empty() {
            let line = self.wait_for(|line| left.iter().any(|words| line.contains(words)));
            left.retain(|words| !line.contains(words));
        }
    }

    /// Types a line on the console.
    pub fn type_line(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        writeln!(stdin, "{text}").expect("vectis reads its input");
        stdin.flush().expect("vectis reads its input");
    }

    /// Returns every component's counters, as `component.name`.
    pub fn counters(&mut self) -> BTreeMap<String, u64> {
        self.type_line("S");
        let mut counters = BTreeMap::new();
        loop {
            let line = self.wait_for(|line| line.starts_with("S "));
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["S", "end"] => return counters,
                ["S", component, name, value] => {
                    let value = value.parse().expect("a number");
                    counters.insert(format!("{component}.{name}"), value);
                }
                _ => panic!("not a counter: {line}"),
            }
        }
    }

    /// Returns the lines that the console's key `key` prints, without its end.
    pub fn shown(&mut self, key: char) -> Vec<String> {
        self.type_line(&key.to_string());
        let mut lines = Vec::new();
        loop {
            let line = self.wait_for(|line| line.starts_with(&format!("{key} ")));
            if line == format!("{key} end") {
                return lines;
            }
            lines.push(line);
        }
    }

    /// Ends it as Ctrl-C does.
    pub fn interrupt(mut self) -> Finished {
        signal(self.child.id(), "INT");
        let status = self.wait();
        Finished {
            status,
            text: self.text(),
        }
    }

    /// Waits for its end and for the rest of its output.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("vectis did not end:\n{}", self.text())
                }
            }
        }
        self.child.wait().expect("vectis ends")
    }

    /// Returns all lines so far.
    pub fn text(&self) -> String {
        self.seen.join("\n")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // SIGTERM lets it end QEMU as well.
            signal(self.child.id(), "TERM");
            let _ = self.child.wait();
        }
    }
}

/// Makes sure of a program or file that only tests need: where it is missing the packages are
/// installed, as the command does with what it needs itself.
///
/// # Panics
/// If it is not there afterwards.
pub fn needed<T>(find: impl Fn() -> Option<T>, packages: &[&str]) -> T {
    let found = find().or_else(|| {
        let install = ["install", "-y", "--no-install-recommends"];
        for arguments in [&["update"][..], &[&install, packages].concat()] {
            let mut command = Command::new("apt-get");
            let _ = command
                .args(arguments)
                .env("DEBIAN_FRONTEND", "noninteractive")
                .status();
        }
        find()
    });
    found.unwrap_or_else(|| panic!("needed: `sudo apt-get install {}`", packages.join(" ")))
}

/// Returns a program that is in the PATH.
pub fn program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// Sends a signal to a process of ours.
pub fn signal(process: u32, name: &str) {
    let status = Command::new("kill")
        .args([format!("-{name}"), process.to_string()])
        .status()
        .expect("kill is there");
    assert!(status.success(), "process {process} is not there");
}

/// Process ids of the QEMUs that `parent` started.
pub fn machines_of(parent: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        // Fields of stat: id, (name), state, parent (proc(5)).
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        let Some((name, rest)) = stat.rsplit_once(')') else {
            continue;
        };
        let parent_of = rest.split_whitespace().nth(1).and_then(|p| p.parse().ok());
        if name.contains("qemu-system") && parent_of == Some(parent) {
            found.push(process);
        }
    }
    found
}

/// Returns whether a process is there.
pub fn alive(process: u32) -> bool {
    Path::new("/proc").join(process.to_string()).exists()
}
