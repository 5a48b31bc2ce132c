//! Turns the log lines of a traced run into trace files (docs/replay.md).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use pci::Bdf;
use serde_json::{Value, json};

use crate::error::{Error, Result};

/// How `pci::BarKind` is called in a trace, by its number.
const KINDS: [&str; 4] = ["none", "io", "mem32", "mem64"];
const BARS: usize = 6;

/// A function's file, and its header until that is complete.
struct Function {
    file: File,
    path: PathBuf,
    bdf: u16,
    config: Vec<u8>,
    bars: Vec<Value>,
}

/// Writes a file for each function: the first one's has the name that was asked
/// for, the others' have the device's name before the ending.
pub struct Traces {
    path: PathBuf,
    functions: BTreeMap<String, Function>,
}

impl Traces {
    /// Traces into `path`.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            functions: BTreeMap::new(),
        }
    }

    /// Takes the text of a log line; one that is none of a trace is ignored.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn line(&mut self, text: &str) -> Result<()> {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words[..] {
            [
                "trace",
                "device",
                name,
                "bdf",
                bdf,
                "config",
                ref bytes @ ..,
            ] => self.device(name, number(bdf) as u16, bytes),
            [
                "trace",
                "bar",
                name,
                index,
                "kind",
                kind,
                "address",
                address,
                "size",
                size,
            ] => self.bar(name, [index, kind, address, size].map(number)),
            [
                "trace",
                op,
                "bdf",
                bdf,
                "at",
                at,
                "len",
                length,
                "value",
                value,
            ] => self.access(op, [bdf, at, length, value].map(number)),
            _ => Ok(()),
        }
    }

    fn device(&mut self, name: &str, bdf: u16, bytes: &[&str]) -> Result<()> {
        let path = if self.functions.is_empty() {
            self.path.clone()
        } else {
            self.path.with_extension(format!("{name}.jsonl"))
        };
        let file = File::create(&path).map_err(|e| Error::file("write", &path, &e))?;
        let digits = |word: &&str| word.trim_matches(['[', ']', ',']).parse().unwrap_or(0);
        let function = Function {
            file,
            path,
            bdf,
            config: bytes.iter().map(digits).collect(),
            bars: Vec::new(),
        };
        self.functions.insert(name.to_owned(), function);
        Ok(())
    }

    fn bar(&mut self, name: &str, [index, kind, address, size]: [u64; 4]) -> Result<()> {
        let Some(function) = self.functions.get_mut(name) else {
            return Ok(());
        };
        let kind = KINDS.get(kind as usize).copied().unwrap_or("none");
        function.bars.push(json!({
            "index": index, "kind": kind, "address": address, "size": size
        }));
        if function.bars.len() < BARS {
            return Ok(());
        }
        let config: String = function.config.iter().map(|b| format!("{b:02x}")).collect();
        let bdf = Bdf::from_requester_id(function.bdf).to_string();
        let header = json!({
            "name": name,
            "about": "recorded by vectis run --trace",
            "device": {
                "bdf": bdf, "config": config, "bars": function.bars,
                "privileged": false, "arch_check_address": true
            }
        });
        function.write(&header)?;
        // The guest starts with the decode bits of the command register.
        let decode = function
            .config
            .get(4)
            .is_some_and(|command| command & 2 != 0);
        for index in 0..BARS {
            function.write(&json!({"op": "bar_state", "index": index, "enabled": decode}))?;
        }
        Ok(())
    }

    fn access(&mut self, op: &str, [bdf, at, length, value]: [u64; 4]) -> Result<()> {
        let owner = self
            .functions
            .values_mut()
            .find(|function| u64::from(function.bdf) == bdf);
        let Some(function) = owner else {
            return Ok(());
        };
        let place = if op.starts_with("cfg") { "reg" } else { "addr" };
        let mut line = json!({"op": op, place: at, "len": length});
        if op.ends_with("read") {
            line["expect"] = json!({"value": value});
        } else {
            line["value"] = json!(value);
        }
        function.write(&line)
    }
}

impl Function {
    fn write(&mut self, line: &Value) -> Result<()> {
        writeln!(self.file, "{line}").map_err(|e| Error::file("write", &self.path, &e))
    }
}

fn number(word: &str) -> u64 {
    word.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_trace_can_be_replayed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        let mut traces = Traces::new(&path);
        let mut config = vec!["0".to_owned(); 256];
        config[0] = "134,".to_owned();
        config[1] = "128,".to_owned();
        traces
            .line(&format!(
                "trace device nic0 bdf 8 config [{}]",
                config.join(" ")
            ))
            .unwrap();
        for index in 0..BARS {
            let text = format!("trace bar nic0 {index} kind 0 address 0 size 0");
            traces.line(&text).unwrap();
        }
        traces
            .line("trace cfg_read bdf 8 at 0 len 2 value 32902")
            .unwrap();
        traces
            .line("trace cfg_read bdf 16 at 0 len 2 value 1")
            .unwrap();
        traces.line("HPET on pin 2").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 1 + BARS + 1);
        let report = replay::run(&replay::parse(&text).unwrap());
        assert!(report.passed(), "{:?}", report.mismatches);
    }
}
