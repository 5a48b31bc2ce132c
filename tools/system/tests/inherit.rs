//! What a file inherits: how tables are merged, from where paths count, and that
//! the whole can be printed and read again. Mistakes are in tests/bad.

mod common;

use std::path::Path;

use system::{GuestImage, Model};
use tempfile::TempDir;

/// Returns a project whose system.toml is this text, beside the good systems.
fn project(text: &str) -> TempDir {
    let root = common::project(&common::files().join("good.toml"));
    put(&root, "system.toml", text);
    root
}

fn put(root: &TempDir, file: &str, text: &str) {
    let file = root.path().join(file);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, text).unwrap();
}

fn read(root: &TempDir) -> Model {
    common::read(root).unwrap_or_else(|report| panic!("{report}"))
}

fn expand(root: &Path, file: &Path) -> String {
    system::expand(root, file, None).unwrap_or_else(|report| panic!("{report}"))
}

/// Reads what a system is printed as, written where none of its paths leads, and
/// prints it again.
fn assert_same_again(root: &Path, file: &Path) {
    let text = expand(root, file);
    assert!(!text.contains("inherit"), "{text}");
    let elsewhere = tempfile::tempdir().unwrap();
    let copy = elsewhere.path().join("copy.toml");
    std::fs::write(&copy, &text).unwrap();
    let models = [file, &copy].map(|file| system::read(root, file, None));
    assert_eq!(models[0], models[1], "{}", file.display());
    assert_eq!(text, expand(root, &copy), "{}", file.display());
}

#[test]
fn keys_replace_and_keep_their_place() {
    let good = read(&project("system.inherit = \"good.toml\""));
    let mut changed = read(&project(
        "system = { inherit = \"good.toml\", name = \"child\" }
         guest.web = { memory = \"16M\", command-line = \"a=b\" }
         component.timer.priority = 201
         component.console.devices = [\"com2\", \"com1\"]",
    ));
    assert_eq!(changed.name, "child");
    assert_eq!(changed.guests[0].memory, 16 << 20);
    assert_eq!(changed.guests[0].command_line, "a=b");
    assert_eq!(changed.components[1].priority, 201);
    assert_eq!(changed.components[0].devices, [1, 0], "a list is replaced");
    changed.name.clone_from(&good.name);
    changed.guests.clone_from(&good.guests);
    changed.components[1].priority = 200;
    changed.components[0].devices = vec![0, 1];
    assert_eq!(changed, good, "nothing else is changed");
}

#[test]
fn what_a_child_adds_comes_after_its_bases() {
    let root = project(
        "system.inherit = \"second.toml\"
         component = {
             aa = { program = \"vmm\", priority = 200, stack = \"16K\" },
             msix.stack = \"32K\",
         }
         device = { aa = { match = \"8086:10d3\", dma = \"trusted\" }, nic0.intx = 20 }
         guest.aa = {
             image = \"guest.elf\", vmm = \"aa\", memory = \"2M\", priority = 100, devices = [\"aa\"],
         }
         channel = [{ interface = \"MsixTable\", client = \"aa\", server = \"msix\" }]",
    );
    put(
        &root,
        "second.toml",
        "system.inherit = \"good.toml\"
         [[channel]]
         interface = \"Timer\"
         client = \"console\"
         server = \"timer\"",
    );
    let base = read(&project("system.inherit = \"good.toml\""));
    let model = read(&root);
    let names = |model: &Model| -> Vec<String> {
        let components = model.components.iter().map(|c| c.name.clone());
        components
            .chain(model.devices.iter().map(|d| d.name.clone()))
            .chain(model.guests.iter().map(|g| g.name.clone()))
            .collect()
    };
    let mut known = names(&base);
    for (at, name) in [(6, "aa"), (8, "aa"), (10, "aa")] {
        known.insert(at, name.to_owned());
    }
    assert_eq!(names(&model), known);
    // Those that are written come first, and then what each component still needs.
    let channels = channels(&model);
    assert_eq!(channels[..2], [("Timer", "console"), ("MsixTable", "aa")]);
    assert_eq!(
        channels[channels.len() - 2..],
        [("PciConfig", "aa"), ("Timer", "aa")]
    );
    assert_eq!(channels.len(), base.channels.len() + 3);
}

/// Returns the interface and client of each channel.
fn channels(model: &Model) -> Vec<(&str, &str)> {
    let channels = model.channels.iter();
    channels
        .map(|c| {
            (
                c.interface.as_str(),
                model.components[c.client].name.as_str(),
            )
        })
        .collect()
}

#[test]
fn what_a_program_calls_is_its_channels() {
    let model = read(&project("system.inherit = \"good.toml\""));
    let without = [
        ("Timer", "console"),
        ("MsixDump", "console"),
        ("IrqDump", "console"),
        ("IrqRouter", "msix"),
        ("MsixControl", "pci-config"),
        ("MsiRouter", "pci-config"),
        ("PciConfig", "vmm"),
        ("MsixTable", "vmm"),
        ("Timer", "vmm"),
    ];
    assert_eq!(channels(&model), without);
    // What can be done without is there as soon as a component serves it.
    let model = read(&project("system.inherit = \"good-iommu.toml\""));
    let more: Vec<_> = channels(&model)
        .into_iter()
        .filter(|channel| !without.contains(channel))
        .collect();
    let expected = [
        ("IommuDump", "console"),
        ("InterruptRemap", "irq-router"),
        ("DmaControl", "vmm"),
        ("Timer", "iommu"),
    ];
    assert_eq!(more, expected);
    for channel in &model.channels {
        let server = &model.components[channel.server].program;
        assert!(server.serves.contains(&channel.interface), "{channel:?}");
    }
}

/// A program that a user adds: its crate is not looked at, and the tool has no word
/// of it.
#[test]
fn a_program_is_what_its_manifest_says() {
    let root = project(
        "system.inherit = \"good.toml\"
         component.clock = { priority = 200, stack = \"16K\", on-fault = \"restart\" }",
    );
    put(
        &root,
        "components/clock/component.toml",
        "serves = [\"Clock\"]
         calls = [\"Timer\"]
         optional-calls = [\"IrqDump\", \"IommuDump\"]
         restartable = true
         kept-words = 513
         cnode-bits = 10",
    );
    let model = read(&root);
    let clock = &model.components[6].program;
    assert_eq!((clock.kept_words, clock.cnode_bits), (513, 10));
    let channels = channels(&model);
    assert_eq!(
        channels[channels.len() - 2..],
        [("Timer", "clock"), ("IrqDump", "clock")]
    );
}

#[test]
fn a_path_with_a_dot_counts_from_the_file_that_says_it() {
    let root = project("system.inherit = \"deep/er/base.toml\"");
    put(&root, "deep/guest.elf", "image");
    put(
        &root,
        "deep/er/base.toml",
        "system = { inherit = \"../../good.toml\", board = \"./own.toml\" }
         guest.web.image = \"../guest.elf\"",
    );
    put(
        &root,
        "deep/er/own.toml",
        "board = { inherit = \"../../board/pc/board.toml\", name = \"own\", memory = \"1G\" }",
    );
    let model = read(&root);
    let image = root.path().join("deep/guest.elf");
    assert_eq!(model.guests[0].image, GuestImage::File(image));
    assert_eq!(model.board.name, "own");
    assert_eq!(model.board.file, "deep/er/own.toml");
    assert_eq!(model.board.memory, 1 << 30);
    assert_same_again(root.path(), &root.path().join("system.toml"));
    // Any other counts from the project's root, wherever it stands.
    put(
        &root,
        "deep/er/base.toml",
        "system = { inherit = \"../../good.toml\", board = \"deep/er/own.toml\" }
         guest.web.image = \"deep/guest.elf\"",
    );
    assert_eq!(read(&root), model);
}

#[test]
fn a_chain_has_a_bound() {
    let root = project("system.inherit = \"1.toml\"");
    for file in 1..8 {
        let text = format!("system.inherit = \"{}.toml\"", file + 1);
        put(&root, &format!("{file}.toml"), &text);
    }
    let good = std::fs::read_to_string(common::files().join("parts.toml")).unwrap();
    put(&root, "7.toml", &good);
    let text = common::read(&root).unwrap_err().to_string();
    assert!(text.contains(" --> 7.toml:10:11\n"), "eight files: {text}");
    put(&root, "7.toml", "system.inherit = \"8.toml\"");
    put(&root, "8.toml", &good);
    let text = common::read(&root).unwrap_err().to_string();
    assert!(text.contains(" --> 7.toml:1:18\n"), "{text}");
    let said = "more than 8 files inherit: system.toml -> 1.toml";
    assert!(text.contains(said), "{text}");
}

#[test]
fn what_is_printed_is_the_same_system() {
    for name in ["good.toml", "good-iommu.toml"] {
        let root = common::project(&common::files().join(name));
        assert_same_again(root.path(), &root.path().join("system.toml"));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let root = std::fs::canonicalize(root).unwrap();
    assert_same_again(&root, &root.join("system.toml"));
    let whole = |file: &Path| system::read(&root, file, None).is_ok();
    let systems = std::fs::read_dir(root.join("tests/systems")).unwrap();
    let systems: Vec<_> = systems
        .map(|entry| entry.unwrap().path())
        .filter(|file| file.extension().is_some_and(|e| e == "toml") && whole(file))
        .collect();
    assert!(systems.len() >= 16, "{systems:?}");
    for file in systems {
        assert_same_again(&root, &file);
    }
}

#[test]
fn a_board_s_kernel_counts_from_the_board_s_file() {
    let root = project("system = { inherit = \"good.toml\", board = \"boards/one.toml\" }");
    let board = |prefix: &str| {
        format!("board.inherit = \"../board/pc/board.toml\"\nkernel.prefix = \"{prefix}\"")
    };
    for (prefix, expected) in [
        ("../sel4", root.path().join("sel4")),
        ("./sel4", root.path().join("boards/sel4")),
        ("sel4", root.path().join("sel4")),
        ("/opt/sel4", "/opt/sel4".into()),
    ] {
        put(&root, "boards/one.toml", &board(prefix));
        assert_eq!(read(&root).board.kernel, Some(expected), "{prefix}");
    }
    // Another board's file that inherits it, elsewhere.
    put(&root, "boards/one.toml", &board("./sel4"));
    put(
        &root,
        "system.toml",
        "system = { inherit = \"good.toml\", board = \"other/two.toml\" }",
    );
    put(
        &root,
        "other/two.toml",
        "board.inherit = \"../boards/one.toml\"",
    );
    let kernel = read(&root).board.kernel;
    assert_eq!(kernel, Some(root.path().join("boards/sel4")));
}

#[test]
fn only_a_guest_that_is_said_to_be_trusted_with_the_kernel_is() {
    let root = project("system.inherit = \"good.toml\"");
    assert!(!read(&root).guests[0].trusts_kernel);
    let trusted = "system.inherit = \"good.toml\"\nguest.web.kernel = \"trusted\"";
    put(&root, "system.toml", trusted);
    assert!(read(&root).guests[0].trusts_kernel);
}
