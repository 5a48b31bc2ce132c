//! The other commands.

use std::fs;

use crate::harness::{finish, one_machine, root, vectis};

#[test]
fn help_names_every_command() {
    let end = finish(vectis().arg("--help"));
    assert!(end.status.success());
    for command in ["run", "soak", "build", "test", "graph", "caps", "logs"] {
        assert!(end.text.contains(command), "{command}");
        let help = finish(vectis().args([command, "--help"]));
        assert!(
            help.status.success() && help.text.contains("Usage"),
            "{command}"
        );
    }
    assert!(!finish(vectis().arg("nonsense")).status.success());
}

#[test]
fn build_writes_a_folder_with_a_manifest() {
    let _machine = one_machine();
    let out = root().join(format!("target-test-out-{}", std::process::id()));
    let end = finish(vectis().args(["build", "--release", "--out"]).arg(&out));
    assert!(end.status.success(), "{}", end.text);
    let manifest = fs::read_to_string(out.join("manifest.json")).expect("a manifest");
    let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
    for file in ["kernel.elf", "init.elf"] {
        assert!(out.join(file).is_file(), "{file}");
        assert!(manifest.to_string().contains(file), "{file}");
    }
    let text = manifest.to_string();
    for fact in ["5.0.0", "sha256", "CONFIG_FASTPATH", "rustc", "pci-config"] {
        assert!(text.contains(fact), "no {fact} in the manifest");
    }
    // A guest can execute `syscall`: the release kernel has no debug calls.
    assert!(!text.contains("CONFIG_DEBUG_BUILD"));
    fs::remove_dir_all(&out).expect("the folder is ours");
}

#[test]
fn caps_and_graph_come_from_the_system_file() {
    let caps = finish(vectis().arg("caps"));
    assert!(caps.status.success(), "{}", caps.text);
    for line in [
        "IRQControl",
        "configuration page of nic0",
        "MSI-X table and PBA pages of nic0",
    ] {
        assert_eq!(caps.text.matches(line).count(), 1, "{line} has one holder");
    }
    let graph = finish(vectis().arg("graph"));
    assert!(graph.status.success(), "{}", graph.text);
    // The picture in the docs is this one: `vectis graph --out docs/system.svg`.
    let picture = fs::read_to_string(root().join("docs/system.svg")).expect("the picture");
    assert_eq!(graph.text.trim(), picture.trim());
}

#[test]
fn boot_counts_are_printed_in_order() {
    let _machine = one_machine();
    let end = finish(vectis().args(["run", "--bench-boot", "--timeout", "300"]));
    assert!(end.status.success(), "{}", end.text);
    let count = |name: &str| -> u64 {
        end.text
            .lines()
            .find_map(|line| {
                line.strip_prefix(name)?
                    .split_whitespace()
                    .next()?
                    .parse()
                    .ok()
            })
            .unwrap_or_else(|| panic!("no `{name}` in\n{}", end.text))
    };
    let steps = [
        "kernel hands over",
        "init done",
        "guest entry",
        "driver up",
        "address lease",
    ];
    for pair in steps.windows(2) {
        assert!(count(pair[0]) < count(pair[1]), "{pair:?}");
    }
}

#[test]
fn replay_prints_outcomes_and_judges_them() {
    let trace = root().join("tests/traces/program_then_unmask.jsonl");
    let end = finish(vectis().arg("replay").arg(&trace));
    assert_eq!(end.status.code(), Some(0), "{}", end.text);
    let bound = end.text.lines().any(|line| {
        let outcome: serde_json::Value = serde_json::from_str(line).expect("JSON");
        outcome["events"][0]["bind"]["entry"] == 1
    });
    assert!(bound, "{}", end.text);
    let text = fs::read_to_string(&trace).expect("the trace");
    let changed = root().join(format!("target-test-trace-{}", std::process::id()));
    fs::write(&changed, text.replacen("\"entry\":1", "\"entry\":2", 1)).expect("a file");
    let end = finish(vectis().args(["replay", "--summary"]).arg(&changed));
    assert_eq!(end.status.code(), Some(1), "{}", end.text);
    assert!(end.text.contains("expected [bind 2"), "{}", end.text);
    fs::write(&changed, format!("{text}{{\"op\":}}\n")).expect("a file");
    let end = finish(vectis().arg("replay").arg(&changed));
    fs::remove_file(&changed).expect("the file is ours");
    assert_eq!(end.status.code(), Some(2), "{}", end.text);
    let line = text.lines().count() + 1;
    assert!(end.text.contains(&format!(":{line}:")), "{}", end.text);
}
