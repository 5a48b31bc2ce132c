//! The stable driver: every target on its corpus, on mutations of it, and on
//! random bytes. The same cases every time.

use std::fmt::Write as _;
use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use fuzz_targets::{TARGETS, Target};

/// Cases of each target beyond its corpus.
const CASES: u64 = 8000;
/// Longest case, in bytes.
const LONGEST: u64 = 4096;
const SEED: u64 = 0x6675_7a7a;

/// Marsaglia's xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Returns a number below `end`, or 0.
    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 16) as usize % end.max(1)
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| (self.next() >> 32) as u8).collect()
    }
}

fn mutate(case: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) {
    let at = random.below(case.len());
    match random.below(7) {
        0 if !case.is_empty() => case[at] ^= 1 << random.below(8),
        1 if !case.is_empty() => {
            case[at] = [0, 1, 0x7f, 0x80, 0xff, b'0', b'9', b'-'][random.below(8)];
        }
        2 => {
            let count = 1 + random.below(8);
            let new = random.bytes(count);
            case.splice(at..at, new);
        }
        3 => {
            let end = (at + 1 + random.below(16)).min(case.len());
            case.drain(at.min(end)..end);
        }
        4 => {
            let end = (at + 1 + random.below(64)).min(case.len());
            let copy = case[at.min(end)..end].to_vec();
            let to = random.below(case.len());
            case.splice(to..to, copy);
        }
        5 => case.truncate(at),
        _ => {
            let other = &corpus[random.below(corpus.len())];
            case.truncate(at);
            case.extend(&other[random.below(other.len())..]);
        }
    }
    case.truncate(LONGEST as usize);
}

fn run((name, target): Target, number: u64, case: &[u8]) {
    if catch_unwind(|| target(case)).is_err() {
        let mut hex = String::new();
        for byte in case {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
        }
        panic!("target {name}, case {number}: {hex}");
    }
}

fn drive(target: Target) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target.0);
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("each target has a corpus")
        .map(|file| file.expect("readable").path())
        .collect();
    files.sort();
    let corpus: Vec<Vec<u8>> = files
        .iter()
        .map(|file| fs::read(file).expect("readable"))
        .collect();
    assert!(!corpus.is_empty());
    for (number, case) in (0..).zip(&corpus) {
        run(target, number, case);
    }
    let mut random = Random(SEED);
    for number in 0..CASES {
        let mut case;
        if number % 4 == 0 {
            let length = random.below(512);
            case = random.bytes(length);
        } else {
            case = corpus[random.below(corpus.len())].clone();
            for _ in 0..=random.below(8) {
                mutate(&mut case, &corpus, &mut random);
            }
        }
        run(target, number, &case);
    }
}

fn target(name: &str) -> Target {
    let found = TARGETS.into_iter().find(|target| target.0 == name);
    found.expect("there is such a target")
}

#[test]
fn config() {
    drive(target("config"));
}

#[test]
fn guest() {
    drive(target("guest"));
}

#[test]
fn image() {
    drive(target("image"));
}

#[test]
fn replay() {
    drive(target("replay"));
}

#[test]
fn table() {
    drive(target("table"));
}

#[test]
fn a_target_without_a_test_here_shows() {
    let names = TARGETS.map(|target| target.0);
    assert_eq!(names, ["config", "guest", "image", "replay", "table"]);
}
