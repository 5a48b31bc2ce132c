//! A project for tests: the boards of this folder, the manifests of the project and
//! of a test, and guests of which only the names count.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Returns the folder with the tests' files.
pub fn files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// Makes a project whose system.toml is `file`; what it may inherit lies beside it,
/// and programs of its own in the folder of its name in components/.
pub fn project(file: &Path) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &[u8]| {
        let path = root.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let own = files().join("components").join(file.file_stem().unwrap());
    for folder in [files().join("../../../components"), own] {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let program = entry.unwrap().path();
            let name = program.file_name().unwrap().to_str().unwrap().to_owned();
            for file in ["Cargo.toml", "component.toml"] {
                if let Ok(text) = std::fs::read(program.join(file)) {
                    put(&format!("components/{name}/{file}"), &text);
                }
            }
        }
    }
    let names = |folder: &str| {
        let entries = std::fs::read_dir(files().join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap())
    };
    for board in names("boards") {
        for file in names(&format!("boards/{board}")) {
            let text = std::fs::read(files().join(format!("boards/{board}/{file}"))).unwrap();
            put(&format!("board/{board}/{file}"), &text);
        }
    }
    let bases = names("bases").map(|name| format!("bases/{name}"));
    for name in names("")
        .filter(|name| name.ends_with(".toml"))
        .chain(bases)
    {
        put(&name, &std::fs::read(files().join(&name)).unwrap());
    }
    put("guest.elf", b"image");
    put("guests/hollow/README", b"");
    put("guests/pretender/Cargo.toml", b"");
    put("system.toml", &std::fs::read(file).unwrap());
    root
}

/// Reads a project's system.
pub fn read(root: &TempDir) -> Result<system::Model, system::Report> {
    system::read(root.path(), &root.path().join("system.toml"), None)
}
