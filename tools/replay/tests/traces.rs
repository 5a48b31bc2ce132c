//! Plays the traces of `tests/traces`, and checks that a wrong one fails.

use std::fs;
use std::path::PathBuf;

use replay::{Report, parse, run};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/traces")
}

fn text(name: &str) -> String {
    fs::read_to_string(folder().join(name)).expect("the trace is there")
}

fn play(text: &str) -> Report {
    run(&parse(text).expect("a trace"))
}

#[test]
fn every_trace_plays_as_recorded() {
    let mut played = 0;
    let mut wrong = Vec::new();
    for file in fs::read_dir(folder()).expect("the folder is there") {
        let name = file.expect("readable").file_name();
        let name = name.to_str().expect("a plain name");
        let text = text(name);
        let report = play(&text);
        assert_eq!(report.outcomes.len() + 1, text.lines().count());
        wrong.extend(report.mismatches.iter().map(|m| format!("{name}: {m}")));
        played += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(played >= 19, "only {played} traces");
}

/// Plays a trace with one text replaced. Returns the mistakes.
fn changed(name: &str, from: &str, to: &str) -> Vec<String> {
    let text = text(name);
    assert!(text.contains(from));
    let report = play(&text.replacen(from, to, 1));
    report.mismatches.iter().map(ToString::to_string).collect()
}

#[test]
fn a_wrong_value_is_told_with_line_expected_and_got() {
    let wrong = changed("reset_state.jsonl", "\"value\":4,", "\"value\":5,");
    assert_eq!(wrong, ["line 2: value: expected 0x5, got 0x4"]);
}

#[test]
fn wrong_events_are_told() {
    let wrong = changed(
        "program_then_unmask.jsonl",
        "\"data\":65,\"masked\"",
        "\"data\":66,\"masked\"",
    );
    assert_eq!(wrong.len(), 1);
    assert!(
        wrong[0].starts_with("line 6: events: expected [bind 1 "),
        "{wrong:?}"
    );
    let wrong = changed(
        "reset_state.jsonl",
        "\"events\":[]",
        "\"events\":[{\"mask\":{\"entry\":0}}]",
    );
    assert_eq!(wrong, ["line 2: events: expected [mask 0], got []"]);
}

#[test]
fn c8_a_function_that_is_reset_is_expected_to_find_nothing() {
    let name = "function_level_reset.jsonl";
    let poll = r#"{"expect":{"value":4294967295},"len":4,"op":"cfg_read","reg":0}"#;
    let found = r#"{"expect":{"value":1055542},"len":4,"op":"cfg_read","reg":0}"#;
    assert_eq!(changed(name, found, poll).len(), 0, "it takes longer");
    // Without the reset the function is there.
    let reset = r#""reg":136,"value":32768"#;
    let polls = text(name).matches(poll).count();
    let wrong = changed(name, reset, r#""reg":136,"value":0"#);
    let missed = wrong.iter().filter(|m| m.contains("expected 0xffffffff"));
    assert_eq!(missed.count(), polls, "{wrong:?}");
}

#[test]
fn a_missing_capability_is_told() {
    let wrong = changed(
        "reset_state.jsonl",
        "\"msix_present\":true",
        "\"msix_present\":false",
    );
    assert_eq!(wrong, ["line 1: msix_present: expected false, got true"]);
}

#[test]
fn m17_is_checked_if_the_header_asks_for_it() {
    let name = "subdword_access_ignored.jsonl";
    let wrong = changed(
        name,
        "\"privileged\":true",
        "\"privileged\":true,\"arch_check_address\":true",
    );
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert!(wrong[0].ends_with("got []"));
}

#[test]
fn m13_an_undecoded_bar_is_not_claimed_and_keeps_its_state() {
    let mut text = text("program_then_unmask.jsonl");
    let address = 3758096400_u64;
    for (operation, value) in [
        ("\"op\":\"bar_state\",\"index\":0,\"enabled\":false", None),
        ("", Some(u64::from(u32::MAX))),
        ("\"op\":\"bar_state\",\"index\":0,\"enabled\":true", None),
        ("", Some(4276097024)),
        // The same through the command register.
        ("\"op\":\"cfg_write\",\"reg\":4,\"len\":2,\"value\":0", None),
        ("", Some(u64::from(u32::MAX))),
        ("\"op\":\"cfg_write\",\"reg\":4,\"len\":2,\"value\":2", None),
        ("", Some(4276097024)),
    ] {
        let line = match value {
            None => format!("{{{operation},\"expect\":{{\"events\":[]}}}}\n"),
            Some(value) => format!(
                "{{\"op\":\"mmio_read\",\"addr\":{address},\"len\":4,\"expect\":{{\"value\":{value}}}}}\n"
            ),
        };
        text.push_str(&line);
    }
    assert_eq!(play(&text).mismatches, []);
}

#[test]
fn a_bad_trace_is_an_error_with_its_place() {
    let header = text("reset_state.jsonl")
        .lines()
        .next()
        .expect("a header")
        .to_owned();
    for (line, column, message) in [
        ("{\"op\":\"cfg_reed\"}", 16, "unknown variant"),
        (
            "{\"op\":\"cfg_read\",\"reg\":70000,\"len\":1}",
            28,
            "invalid value",
        ),
        ("{\"op\":\"cfg_read\",\"len\":1}", 0, "missing `reg`"),
        (
            "{\"op\":\"bar_state\",\"index\":6,\"enabled\":true}",
            0,
            "missing `index",
        ),
        ("{\"op\":\"mmio_read\",", 18, "EOF"),
    ] {
        let error = parse(&format!("{header}\n\n{line}\n")).expect_err(line);
        assert_eq!((error.line, error.column), (3, column), "{error}");
        assert!(error.message.starts_with(message), "{error}");
    }
    assert!(parse("").is_err());
    for (from, to) in [
        ("\"bdf\":\"00:03.0\"", "\"bdf\":\"3\""),
        ("\"config\":\"f4", "\"config\":\"g4"),
        ("\"config\":\"f4", "\"config\":\"f"),
        ("\"size\":16384", "\"size\":16385"),
        ("\"size\":16384", "\"size\":0"),
        ("\"index\":5", "\"index\":6"),
        ("\"kind\":\"none\"", "\"kind\":\"rom\""),
    ] {
        assert!(header.contains(from));
        let error = parse(&header.replacen(from, to, 1)).expect_err(to);
        assert_eq!(error.line, 1);
    }
}
