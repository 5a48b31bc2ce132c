//! What a file inherits: how tables are merged, from where paths count, and that
//! the whole can be printed and read again. Mistakes are in tests/bad.

mod common;

use std::path::Path;

use system::{GuestImage, Model};
use tempfile::TempDir;

/// A project whose system.toml is this text, beside the good systems.
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
         channel = [
             { interface = \"PciConfig\", client = \"aa\", server = \"pci-config\" },
             { interface = \"MsixTable\", client = \"aa\", server = \"msix\" },
             { interface = \"Timer\", client = \"aa\", server = \"timer\" },
         ]",
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
    let count = base.channels.len();
    assert_eq!(model.channels[..count], base.channels);
    let added = model.channels[count..].iter();
    let added: Vec<_> = added.map(|c| (c.interface.as_str(), c.client)).collect();
    let expected = [
        ("Timer", 0),
        ("PciConfig", 6),
        ("MsixTable", 6),
        ("Timer", 6),
    ];
    assert_eq!(added, expected);
}

#[test]
fn a_channel_of_a_program_is_one_of_each_component_that_runs_it() {
    let root = project(
        "system.inherit = \"parts.toml\"
         channel = [{ interface = \"Timer\", client = \"vmm\", server = \"timer\" }]
         device.nic0 = { match = \"8086:10d3\", dma = \"trusted\" }
         guest.a = { image = \"guest.elf\", vmm = \"vmm-a\", memory = \"2M\", priority = 100 }
         guest.b = {
             image = \"guest.elf\", vmm = \"vmm-b\", memory = \"2M\", priority = 100, devices = [\"nic0\"],
         }",
    );
    let parts = std::fs::read_to_string(root.path().join("parts.toml")).unwrap();
    let vmm = "component.vmm = {";
    let two = "component.vmm-a = { program = \"vmm\", priority = 200, stack = \"16K\" }\n\
               component.vmm-b = { program = \"vmm\",";
    assert!(parts.contains(vmm));
    put(&root, "parts.toml", &parts.replace(vmm, two));
    let model = read(&root);
    let channels: Vec<_> = model
        .channels
        .iter()
        .map(|c| {
            (
                c.interface.as_str(),
                model.components[c.client].name.as_str(),
            )
        })
        .collect();
    let expected = [
        ("PciConfig", "vmm-a"),
        ("PciConfig", "vmm-b"),
        ("MsixTable", "vmm-a"),
        ("MsixTable", "vmm-b"),
        ("MsixControl", "pci-config"),
        ("IrqRouter", "msix"),
        ("MsiRouter", "pci-config"),
        ("Timer", "vmm-a"),
        ("Timer", "vmm-b"),
    ];
    assert_eq!(channels, expected);
    // Where a component has the program's name, it is the component.
    let own = "component.vmm-b = {";
    let named = parts.replace(vmm, &format!("{two}\n").replace(own, vmm));
    put(&root, "parts.toml", &named);
    let text = common::read(&root).unwrap_err().to_string();
    assert!(
        text.contains("`vmm-a` has no channel `PciConfig`"),
        "{text}"
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
    assert!(text.contains("  --> 7.toml:10:11\n"), "eight files: {text}");
    put(&root, "7.toml", "system.inherit = \"8.toml\"");
    put(&root, "8.toml", &good);
    let text = common::read(&root).unwrap_err().to_string();
    assert!(text.contains("  --> 7.toml:1:18\n"), "{text}");
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
