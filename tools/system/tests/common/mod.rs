//! A project for tests: the boards of this folder, and crates and guests of
//! which only the names count.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

const PROGRAMS: [&str; 8] = [
    "console",
    "init",
    "iommu",
    "irq-router",
    "msix",
    "pci-config",
    "timer",
    "vmm",
];

/// The folder with the tests' files.
pub fn files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// Makes a project whose system.toml is `file`.
pub fn project(file: &Path) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &[u8]| {
        let path = root.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    for program in PROGRAMS {
        put(&format!("components/{program}/Cargo.toml"), b"");
    }
    for board in std::fs::read_dir(files().join("boards")).unwrap() {
        let board = board.unwrap();
        let name = board.file_name().into_string().unwrap();
        let text = std::fs::read(board.path().join("board.toml")).unwrap();
        put(&format!("board/{name}/board.toml"), &text);
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
