//! The other commands.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::client::Client;
use crate::harness::{
    Running, alive, finish, free_port, is_bundled, machines_of, one_machine, root, run_of, signal,
    the_only_machine, vectis,
};

#[test]
fn help_names_every_command() {
    let end = finish(vectis().arg("--help"));
    assert!(end.status.success());
    for command in [
        "run", "soak", "build", "test", "graph", "show", "caps", "logs", "probe", "inspect",
    ] {
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
fn inspect_tells_by_its_status_whether_all_would_start() {
    let inspect = |arguments: &[&str]| {
        let folder = root().join("tests/dumps");
        let mut command = vectis();
        command.current_dir(folder).arg("inspect").args(arguments);
        finish(&mut command)
    };
    let one = inspect(&["machine.txt", "--device", "00:02.0", "--format", "json"]);
    assert_eq!(one.status.code(), Some(0), "{}", one.text);
    assert!(one.text.contains("\"starts\": \"yes\""), "{}", one.text);
    let all = inspect(&["machine.txt", "acpidump.txt"]);
    assert_eq!(all.status.code(), Some(1), "{}", all.text);
    assert!(
        all.text.contains("3 of 9 functions would not start"),
        "{}",
        all.text
    );
    // A bridge is no endpoint, but who asks for it wants it assigned.
    let bridge = inspect(&["machine.txt", "--device", "00:1c.0"]);
    assert_eq!(bridge.status.code(), Some(1), "{}", bridge.text);
    for arguments in [
        &["nothing.txt"][..],
        &["machine.txt", "--device", "1f:00.0"],
        &["../README.md"],
    ] {
        let end = inspect(arguments);
        assert_eq!(end.status.code(), Some(2), "{}", end.text);
        assert!(end.text.contains("help: "), "{}", end.text);
    }
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
    let kernel = &manifest["kernel"];
    if !is_bundled() {
        assert_eq!(manifest["versions"]["sel4"], "installed");
        assert_eq!(
            kernel["installed"]["sha256"].as_str().map(str::len),
            Some(64)
        );
        // What the tool changed is there, if it changed anything.
        let changed = kernel["changed"].as_array().expect("a list");
        assert_eq!(kernel["guest-flags"] == "completed", !changed.is_empty());
    } else {
        assert_eq!(manifest["versions"]["sel4"], "5.0.0");
        assert_eq!(kernel["guest-flags"], "cleared");
    }
    assert_ne!(kernel["guest-flags"], "open");
    for fact in ["sha256", "CONFIG_FASTPATH", "rustc", "pci-config"] {
        assert!(text.contains(fact), "no {fact} in the manifest");
    }
    // A guest can execute `syscall`: the release kernel has no debug calls.
    assert!(!text.contains("CONFIG_DEBUG_BUILD"));
    fs::remove_dir_all(&out).expect("the folder is ours");
}

/// Without the change each guest can halt the machine, and has to be trusted with that: an
/// error with its place, before its programs are built.
#[test]
fn an_untouched_kernel_is_for_trusted_guests_only() {
    let _machine = one_machine();
    let end = finish(vectis().args(["build", "--kernel-untouched"]));
    assert!(!end.status.success());
    if is_bundled() {
        assert!(end.text.contains("declared edits"), "{}", end.text);
        return;
    }
    for text in [
        "a guest may halt the machine by its flags",
        "guest web can halt the machine (system.toml:",
        "kernel = \"trusted\"",
    ] {
        assert!(end.text.contains(text), "no `{text}` in\n{}", end.text);
    }
}

/// Returns the names of a folder's entries.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder is ours").flatten();
    entries
        .map(|entry| entry.file_name().display().to_string())
        .collect()
}

#[test]
fn nothing_is_written_where_it_was_not_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    fs::write(path.join("letter"), "").expect("the folder is ours");
    let end = finish(vectis().args(["build", "--out"]).arg(path));
    assert!(!end.status.success(), "{}", end.text);
    assert!(end.text.contains("cannot build into"), "{}", end.text);
    let file = path.join("no/such/folder/system.svg");
    let end = finish(vectis().args(["graph", "--out"]).arg(&file));
    assert!(!end.status.success(), "{}", end.text);
    assert!(end.text.contains("cannot write"), "{}", end.text);
    let file = path.join("none/trace.jsonl");
    let end = finish(vectis().args(["run", "--port", "0", "--trace"]).arg(&file));
    assert!(!end.status.success(), "{}", end.text);
    assert!(end.text.contains("cannot write"), "{}", end.text);
    assert_eq!(names(path), ["letter"]);
}

/// Reads a line and closes the pipe, as `| head -1` does. Returns the command's
/// standard error, and whether it succeeded.
fn head(arguments: &[&str], temporary: &Path) -> (String, bool) {
    let mut child = vectis()
        .args(arguments)
        .env("TMPDIR", temporary)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("vectis starts");
    let mut line = String::new();
    let mut stdout = BufReader::with_capacity(1, child.stdout.take().expect("a pipe"));
    stdout.read_line(&mut line).expect("a line");
    drop(stdout);
    let mut said = String::new();
    let mut stderr = child.stderr.take().expect("a pipe");
    stderr.read_to_string(&mut said).expect("text");
    (said, child.wait().expect("it ends").success())
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let _machine = the_only_machine();
    // Names that QEMU's options and a shell would take apart.
    let folder = tempfile::Builder::new()
        .prefix("a b,c")
        .tempdir()
        .expect("a folder");
    let trace = root().join("tests/traces/subdword_access_ignored.jsonl");
    let trace = trace.display().to_string();
    let run = ["run", "-v", "--port", "0", "--timeout", "120"];
    for arguments in [
        &["caps"][..],
        &["graph"],
        &["replay", &trace],
        &run,
        &["logs"],
    ] {
        let (said, well) = head(arguments, folder.path());
        // A build from nothing names crates, some of which have "error" in theirs.
        let failed = said.lines().any(|line| line.starts_with("error"));
        assert!(well && !failed, "{arguments:?}: {said}");
        assert_eq!(names(folder.path()), [""; 0], "{arguments:?}");
    }
}

#[test]
fn whatever_signal_ends_a_run_nothing_stays() {
    let _machine = one_machine();
    for name in ["HUP", "INT", "QUIT", "TERM"] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = vectis();
        command.args([
            "run",
            "--port",
            &free_port().to_string(),
            "--timeout",
            "120",
        ]);
        let mut running = Running::start(command.env("TMPDIR", folder.path()));
        running.wait_for(|line| line.starts_with("ready: "));
        assert_eq!(names(folder.path()).len(), 1, "QEMU's sockets");
        let machines = machines_of(running.id());
        assert_eq!(machines.len(), 1);
        signal(running.id(), name);
        let status = running.wait();
        assert!(status.success(), "SIG{name}: {status}");
        assert_eq!(names(folder.path()), [""; 0], "SIG{name}");
        assert!(!alive(machines[0]), "SIG{name}");
    }
}

/// A run that outlives its terminal.
#[test]
fn under_nohup_a_run_goes_on() {
    let _machine = one_machine();
    let mut command = Command::new("nohup");
    command.current_dir(root()).arg(vectis().get_program());
    command.args([
        "run",
        "--port",
        &free_port().to_string(),
        "--timeout",
        "120",
    ]);
    let mut running = Running::start(&mut command);
    running.wait_for(|line| line.starts_with("ready: "));
    signal(running.id(), "HUP");
    // It still answers after that.
    assert!(!running.counters().is_empty());
    assert!(running.interrupt().status.success());
}

#[test]
fn logs_are_in_the_order_of_time() {
    let _machine = the_only_machine();
    let port = free_port().to_string();
    let end = finish(vectis().args(["run", "--exit-after-ready", "--port", &port]));
    assert!(end.status.success(), "{}", end.text);
    let end = finish(vectis().arg("logs"));
    assert!(end.status.success(), "{}", end.text);
    let stamp = |line: &str| -> Option<f64> {
        let (time, _) = line.strip_prefix('[')?.split_once(" ms]")?;
        time.trim().parse().ok()
    };
    let stamps: Vec<f64> = end.text.lines().filter_map(stamp).collect();
    assert!(stamps.len() > 5, "{}", end.text);
    assert!(stamps.is_sorted(), "{}", end.text);
}

#[test]
fn a_folder_for_temporary_files_that_is_too_deep_is_named() {
    let _machine = one_machine();
    let folder = tempfile::tempdir().expect("a folder");
    let deep = folder.path().join("x".repeat(100));
    fs::create_dir(&deep).expect("the folder is ours");
    let mut command = vectis();
    command.args(["run", "--port", "0", "--timeout", "120"]);
    let end = finish(command.env("TMPDIR", &deep));
    assert!(!end.status.success(), "{}", end.text);
    assert!(end.text.contains("set TMPDIR to another"), "{}", end.text);
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
    // It is the same on each kernel.
    let named = finish(vectis().args(["caps", "--sel4", "bundled"]));
    assert_eq!(named.status.code(), Some(2), "{}", named.text);
    let graph = finish(vectis().arg("graph"));
    assert!(graph.status.success(), "{}", graph.text);
    // The picture in the docs is this one: `vectis graph --out docs/system.svg`.
    let picture = fs::read_to_string(root().join("docs/system.svg")).expect("the picture");
    assert_eq!(graph.text.trim(), picture.trim());
}

#[test]
fn show_prints_the_whole_of_a_file_that_inherits() {
    let shown = finish(vectis().args(["show", "--system", "tests/systems/nvme.toml"]));
    assert!(shown.status.success(), "{}", shown.text);
    for line in [
        "name = \"nvme\"",
        "[component.msix]",
        "image = \"guests/probe\"",
    ] {
        assert!(shown.text.contains(line), "no `{line}` in\n{}", shown.text);
    }
    assert!(!shown.text.contains("inherit"), "{}", shown.text);
    let end = finish(vectis().args(["show", "--system", "tests/systems/probe.toml"]));
    assert!(!end.status.success(), "half a system: {}", end.text);
    assert!(end.text.contains("`system` has no `name`"), "{}", end.text);
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

/// KVM may be missing, or lack what the kernel needs: then that is said. Or it runs no 64-bit
/// kernel, as those in software do; then it does not run the guest by itself either.
#[test]
fn the_host_s_cpu_runs_the_machine_or_what_it_lacks_is_named() {
    let _machine = one_machine();
    let mut run = run_of(&root().join("system.toml"), 300);
    let end = finish(run.args(["--kvm", "--exit-after-ready"]));
    let device = fs::File::options().read(true).write(true).open("/dev/kvm");
    if device.is_ok() && end.status.success() {
        // By the host's CPU, and not QEMU's own.
        let (system, port) = Running::serving(&["--kvm"]);
        let (_, page) = Client::connect(port).request("/").expect("the page");
        assert!(page.contains("KVMKVMKVM"), "{page}");
        assert!(system.interrupt().status.success());
        return;
    }
    if device.is_err() {
        let said = "cannot use KVM by /dev/kvm";
        assert!(end.text.contains(said), "no `{said}` in\n{}", end.text);
        return;
    }
    let unable = "this host's KVM cannot run the machine";
    let named = [unable, "doesn't support requested feature: CPUID"];
    if !named.iter().any(|said| end.text.contains(said)) {
        let mut bare = run_of(&root().join("system.toml"), 300);
        let alone = finish(bare.args(["--bare", "--kvm", "--exit-after-ready"]));
        assert!(alone.text.contains(unable), "{}\n{}", end.text, alone.text);
    }
}
