//! A system file with something changed, for one test.

use std::fs;
use std::path::PathBuf;

use crate::harness::{Finished, finish, root, run_of};

/// The file, which goes when this does.
pub struct Changed(pub PathBuf);

impl Changed {
    /// The project's system file with one thing changed; `name` is the test's.
    pub fn new(name: &str, from: &str, to: &str) -> Self {
        Self::of("system.toml", name, from, to)
    }

    /// The same of another file, where `from` is changed wherever it stands.
    pub fn of(file: &str, name: &str, from: &str, to: &str) -> Self {
        let path = root().join(format!("target-test-{name}-{}.toml", std::process::id()));
        fs::copy(root().join(file), &path).expect("a file in the project");
        Self(path).also(from, to)
    }

    /// One more thing changed.
    pub fn also(self, from: &str, to: &str) -> Self {
        let text = fs::read_to_string(&self.0).expect("the file is ours");
        assert!(text.contains(from), "the system file has no `{from}`");
        fs::write(&self.0, text.replace(from, to)).expect("the file is ours");
        self
    }

    /// Runs it to its end on a machine with this IOMMU.
    pub fn run_on(&self, iommu: &str) -> Finished {
        finish(run_of(&self.0, 300).args(["--iommu", iommu]))
    }

    /// Runs it to its end.
    pub fn run(&self) -> Finished {
        finish(&mut run_of(&self.0, 300))
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
