//! The load: clients that send requests to the guest without a pause, and the
//! outcome of each request.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::http::Connection;

/// Connections that are kept at once.
const CLIENTS: usize = 4;
/// Longest wait for an answer while the guest is up: ten times the time that a busy
/// machine takes while components restart.
const ANSWER: Duration = Duration::from_secs(20);
/// How long a client waits for the next try or the next change.
const PAUSE: Duration = Duration::from_millis(100);
/// Paths that are asked for in turn.
const PATHS: [&str; 3] = ["/", "/metrics", "/healthz"];
/// Errors that are kept in full.
const KEPT: usize = 10;

/// How it stands with the guest that serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It is being crashed: requests may still be answered.
    Down,
    /// It was started again, and has not answered yet.
    Starting,
    /// It answers.
    Up,
    /// No more requests are sent.
    Over,
}

/// State of the guest when a request began or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Moment {
    phase: Phase,
    /// Crashes so far.
    crashes: u64,
    /// Starts so far; a connection does not outlive one.
    starts: u64,
}

/// Outcome of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    /// The guest was crashed meanwhile.
    Cut,
    Wrong(String),
}

/// Judges a request that did not begin before the guest was up. An answer that
/// came is judged alone; no answer is excused by a crash of the guest before its
/// end.
fn judge(began: Moment, ended: Moment, outcome: Result<u16, String>) -> Fate {
    match outcome {
        Ok(200) => Fate::Answered,
        Ok(status) => Fate::Wrong(format!("status {status}")),
        Err(_) if began.phase == Phase::Down || began.crashes != ended.crashes => Fate::Cut,
        Err(why) => Fate::Wrong(why),
    }
}

/// Sums over all clients.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    /// Requests that were answered with 200.
    pub answered: u64,
    /// Requests that a restart of the guest cut.
    pub cut: u64,
    /// Other requests without a good answer.
    pub wrong: u64,
    /// The first of them.
    pub first_wrong: Vec<String>,
}

struct State {
    now: Moment,
    since: Instant,
    sums: Sums,
}

struct Shared {
    port: u16,
    started: Instant,
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panicked leaves plain numbers, which are always valid.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, phase: Phase) {
        let mut state = self.lock();
        if state.now.phase != phase {
            state.since = Instant::now();
        }
        state.now.phase = phase;
        state.now.crashes += u64::from(phase == Phase::Down);
        state.now.starts += u64::from(phase == Phase::Starting);
        drop(state);
        self.changed.notify_all();
    }
}

/// The clients. They end when this is dropped.
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts clients for a guest that is up.
    #[must_use]
    pub fn start(port: u16) -> Self {
        let now = Moment {
            phase: Phase::Up,
            crashes: 0,
            starts: 0,
        };
        let shared = Arc::new(Shared {
            port,
            started: Instant::now(),
            state: Mutex::new(State {
                now,
                since: Instant::now(),
                sums: Sums::default(),
            }),
            changed: Condvar::new(),
        });
        let clients = (0..CLIENTS)
            .map(|_| {
                let shared = shared.clone();
                std::thread::spawn(move || client(&shared))
            })
            .collect();
        Self { shared, clients }
    }

    /// Records that the guest is about to be crashed; to be called before it is.
    pub fn down(&self) {
        self.shared.set(Phase::Down);
    }

    /// Records that the guest was started again. It is up once it has answered.
    pub fn starting(&self) {
        self.shared.set(Phase::Starting);
    }

    /// Returns whether it is up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.shared.lock().now.phase == Phase::Up
    }

    /// Returns how long it has not answered since it was started again: zero if it
    /// does, or is being crashed.
    #[must_use]
    pub fn starting_for(&self) -> Duration {
        let state = self.shared.lock();
        match state.now.phase {
            Phase::Starting => state.since.elapsed(),
            Phase::Down | Phase::Up | Phase::Over => Duration::ZERO,
        }
    }

    /// Returns the outcomes of all requests so far.
    #[must_use]
    pub fn sums(&self) -> Sums {
        self.shared.lock().sums.clone()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.set(Phase::Over);
        for client in self.clients.drain(..) {
            // A client that panicked has said so.
            let _ = client.join();
        }
    }
}

/// Asks until it is over.
fn client(shared: &Shared) {
    let mut kept: Option<(Connection, u64)> = None;
    for path in PATHS.into_iter().cycle() {
        let began = {
            let mut state = shared.lock();
            while state.now.phase == Phase::Down && kept.is_none() {
                // Bounded, so that a change that is missed costs a moment only.
                let waited = shared.changed.wait_timeout(state, PAUSE);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            state.now
        };
        if began.phase == Phase::Over {
            return;
        }
        let due = || {
            let now = shared.lock().now;
            now.starts == began.starts && now.phase != Phase::Over
        };
        let same = kept.take().filter(|(_, starts)| *starts == began.starts);
        let outcome = match same.map(|(connection, _)| connection) {
            Some(mut connection) => connection
                .get(path, Instant::now() + ANSWER, due)
                .map(|status| (status, connection)),
            None => connect(shared.port, began.phase, due),
        };
        let mut state = shared.lock();
        if state.now.phase == Phase::Over && outcome.is_err() {
            return;
        }
        if let (Ok(_), Phase::Starting) = (&outcome, state.now.phase)
            && state.now.starts == began.starts
        {
            state.now.phase = Phase::Up;
            state.since = Instant::now();
        }
        let (status, connection) = match outcome {
            Ok((status, connection)) => (Ok(status), Some(connection)),
            Err(why) => (Err(why), None),
        };
        kept = connection.map(|connection| (connection, began.starts));
        if began.phase == Phase::Starting && status.is_err() {
            // Not up yet: this was only a try.
            continue;
        }
        match judge(began, state.now, status) {
            Fate::Answered => state.sums.answered += 1,
            Fate::Cut => state.sums.cut += 1,
            Fate::Wrong(why) => {
                state.sums.wrong += 1;
                if state.sums.first_wrong.len() < KEPT {
                    let seconds = shared.started.elapsed().as_secs_f64();
                    let what = format!("GET {path}, {seconds:.1} s after the load began: {why}");
                    state.sums.first_wrong.push(what);
                }
            }
        }
    }
}

/// Connects and makes a first request. QEMU's user network drops connections beyond
/// its short backlog, and a guest that is starting accepts none, so this is repeated
/// until there is an answer, or the bound has passed.
fn connect(port: u16, phase: Phase, due: impl Fn() -> bool) -> Result<(u16, Connection), String> {
    let end = Instant::now() + ANSWER;
    // A running guest answers its connections; a starting one may never see a
    // request that came too early.
    let first = if phase == Phase::Up {
        ANSWER
    } else {
        ANSWER / 10
    };
    loop {
        let until = end.min(Instant::now() + first);
        let tried = Connection::new(port)
            .map_err(|error| format!("no connection: {error}"))
            .and_then(|mut connection| {
                let status = connection.get("/healthz", until, &due)?;
                Ok((status, connection))
            });
        match tried {
            Err(_) if due() && Instant::now() < end => std::thread::sleep(PAUSE),
            tried => return tried,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{Ipv4Addr, TcpListener};

    #[test]
    fn only_a_crash_of_the_guest_excuses_a_request() {
        let at = |phase, crashes| Moment {
            phase,
            crashes,
            starts: 0,
        };
        let up = |crashes| at(Phase::Up, crashes);
        let down = at(Phase::Down, 1);
        let gone = || Err("reset".to_owned());
        assert_eq!(judge(up(0), up(0), Ok(200)), Fate::Answered);
        assert_eq!(judge(up(0), down, Ok(200)), Fate::Answered);
        assert_eq!(judge(up(0), down, gone()), Fate::Cut);
        assert_eq!(judge(down, down, gone()), Fate::Cut);
        // It was up again before the client noticed.
        assert_eq!(judge(down, up(1), gone()), Fate::Cut);
        assert_eq!(judge(up(0), up(1), gone()), Fate::Cut);
        assert_eq!(judge(up(1), up(1), gone()), Fate::Wrong("reset".to_owned()));
        // A wrong answer is wrong at any time.
        assert!(matches!(judge(up(0), down, Ok(500)), Fate::Wrong(_)));
    }

    /// Answers on every connection, for as long as the test runs.
    fn serve(listener: TcpListener) {
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut bytes = [0; 1024];
                    while let Ok(1..) = stream.read(&mut bytes) {
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                        if stream.write_all(answer).is_err() {
                            return;
                        }
                    }
                });
            }
        });
    }

    /// Waits, within a bound, until the condition holds.
    fn wait(load: &Load, condition: impl Fn(&Load) -> bool) {
        let end = Instant::now() + Duration::from_secs(30);
        while !condition(load) {
            assert!(Instant::now() < end, "{:?}", load.sums());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn clients_go_on_after_a_crash() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        serve(listener);
        let load = Load::start(port);
        wait(&load, |load| load.sums().answered > 20);
        load.down();
        assert!(!load.is_up());
        // A guest that is not started is not one that does not answer.
        assert_eq!(load.starting_for(), Duration::ZERO);
        load.starting();
        wait(&load, Load::is_up);
        let answered = load.sums().answered;
        wait(&load, |load| load.sums().answered > answered + 20);
        assert_eq!(load.sums().wrong, 0, "{:?}", load.sums());
    }
}
