//! A system file with something changed, for one test.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::{Finished, finish, root, run_of};

/// The file, which goes when this does.
pub struct Changed(pub PathBuf);

impl Changed {
    /// Creates a system that inherits the project's and has these keys; `name`
    /// is the test's.
    pub fn new(name: &str, keys: &str) -> Self {
        Self::of("system.toml", name, keys)
    }

    /// Returns the same of another file in the project.
    pub fn of(base: &str, name: &str, keys: &str) -> Self {
        // Tests run side by side, and two may have a name in common.
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let (process, number) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let path = root().join(format!("target-test-{name}-{process}-{number}.toml"));
        let text = format!("system.inherit = \"{base}\"\n{keys}\n");
        fs::write(&path, text).expect("a file in the project");
        Self(path)
    }

    /// Adds keys.
    pub fn also(self, keys: &str) -> Self {
        let text = fs::read_to_string(&self.0).expect("the file is ours");
        fs::write(&self.0, format!("{text}{keys}\n")).expect("the file is ours");
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
