//! Each mistake in a system or board file and the exact text that it brings:
//! tests/bad holds the files, tests/snapshots the texts.

mod common;

use std::path::PathBuf;

fn bad_files() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(common::files().join("bad"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

#[test]
fn every_mistake_is_explained() {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for file in bad_files() {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let root = common::project(&file);
        let report = match common::read(&root) {
            Ok(model) => panic!("{name} was taken: {model:?}"),
            Err(report) => report.to_string(),
        };
        settings.bind(|| insta::assert_snapshot!(name, report));
    }
}

#[test]
fn every_snapshot_has_its_file() {
    let files = bad_files();
    for entry in std::fs::read_dir(common::files().join("snapshots")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap();
        assert!(
            files.iter().any(|file| file.file_stem() == Some(name)),
            "{} is left over",
            path.display()
        );
    }
}

#[test]
fn the_system_that_the_bad_ones_are_made_from_is_good() {
    let root = common::project(&common::files().join("good.toml"));
    if let Err(report) = common::read(&root) {
        panic!("{report}");
    }
}

/// Each value beside a bad one, or at the end of what there is.
#[test]
fn values_at_their_bounds_are_taken() {
    let file = common::files().join("good.toml");
    let root = common::project(&file);
    let good = system::expand(root.path(), &root.path().join("system.toml"), None).unwrap();
    for (from, to) in [
        ("memory = \"32M\"", "memory = \"64M\""),
        ("priority = 100", "priority = 199"),
        (
            "[component.vmm]\npriority = 200\nstack = \"16K\"",
            "[component.vmm]\npriority = 200\nstack = \"512K\"",
        ),
        ("[guest.web]", "[guest.just-20-characters-x]"),
        ("board = \"pc\"", "board = \"side-by-side\""),
        ("board = \"pc\"", "board = \"no-qemu\""),
        ("board = \"pc\"", "board = \"open\""),
    ] {
        assert!(good.contains(from), "{from}");
        let text = good.replace(from, to);
        std::fs::write(root.path().join("system.toml"), text).unwrap();
        if let Err(report) = common::read(&root) {
            panic!("{to}: {report}");
        }
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let root = common::project(&common::files().join("good.toml"));
    let file = root.path().join("absent.toml");
    let text = system::read(root.path(), &file, None)
        .unwrap_err()
        .to_string();
    assert!(text.contains("absent.toml"), "{text}");
    assert!(text.contains("--system FILE"), "{text}");
}

/// One that can be read without end, and one at which reading waits for ever.
#[test]
fn a_file_that_is_no_regular_file_is_not_read() {
    let root = common::project(&common::files().join("good.toml"));
    let pipe = root.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    for file in [std::path::Path::new("/dev/zero"), &pipe] {
        let text = system::read(root.path(), file, None)
            .unwrap_err()
            .to_string();
        let said = format!("cannot read {}: it is not a regular file", file.display());
        assert!(text.contains(&said), "{text}");
    }
    let board = root.path().join("board/pc/board.toml");
    std::fs::remove_file(&board).unwrap();
    std::fs::rename(&pipe, &board).unwrap();
    let text = common::read(&root).unwrap_err().to_string();
    let said = format!("cannot read {}: it is not", board.display());
    assert!(text.contains(&said), "{text}");
    // A board's folder without its file.
    std::fs::remove_file(&board).unwrap();
    let text = common::read(&root).unwrap_err().to_string();
    let said = format!("cannot read {}: No such file", board.display());
    assert!(text.contains(&said), "{text}");
    // A guest's crate.
    let root = common::project(&common::files().join("bad/guest-folder-without-crate.toml"));
    let manifest = root.path().join("guests/hollow/Cargo.toml");
    let made = std::process::Command::new("mkfifo").arg(&manifest).status();
    assert!(made.unwrap().success());
    let text = common::read(&root).unwrap_err().to_string();
    assert!(text.contains("folder without a crate"), "{text}");
}

/// Only a folder without a manifest is passed over.
#[test]
fn a_manifest_that_cannot_be_read_is_an_error() {
    let root = common::project(&common::files().join("good.toml"));
    let manifest = root.path().join("components/timer/component.toml");
    std::fs::remove_file(&manifest).unwrap();
    std::fs::create_dir(&manifest).unwrap();
    let report = common::read(&root)
        .expect_err("a folder was taken")
        .to_string();
    assert!(report.contains("a manifest is a text file"), "{report}");
}
