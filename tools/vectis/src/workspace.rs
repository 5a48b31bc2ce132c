//! Where the project and its results are.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use kernel::Profile;

use crate::error::{Error, Result};
use crate::output::progress;

/// The project's folder and the folder for everything that is built.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// The folder with system.toml.
    pub root: PathBuf,
    /// Cargo's target folder.
    pub target: PathBuf,
}

impl Workspace {
    /// Finds both. `CARGO_TARGET_DIR` is respected as cargo does.
    ///
    /// # Errors
    /// If the project that this program was built from is gone.
    pub fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .nth(2)
            .unwrap_or(Path::new("/"))
            .to_path_buf();
        if !root.join("system.toml").is_file() {
            return Err(Error::new(
                "cannot find the project",
                format!("no system.toml in {}", root.display()),
                "run `cargo run` in the project's folder, so that vectis is built for it",
            ));
        }
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(folder) => std::path::absolute(&folder)
                .map_err(|e| Error::file("find", Path::new(&folder), &e))?,
            None => root.join("target"),
        };
        Ok(Self { root, target })
    }

    /// Locks the project against other builds until the returned file is dropped.
    ///
    /// # Errors
    /// If the lock file cannot be made.
    pub fn lock(&self) -> Result<File> {
        let folder = self.target.join("vectis");
        std::fs::create_dir_all(&folder).map_err(|e| Error::file("make", &folder, &e))?;
        let path = folder.join("lock");
        let file = File::create(&path).map_err(|e| Error::file("make", &path, &e))?;
        if file.try_lock().is_err() {
            progress("waiting for another vectis that builds");
            file.lock().map_err(|e| Error::file("lock", &path, &e))?;
        }
        Ok(file)
    }

    /// Returns the system file that the user named, or the project's.
    #[must_use]
    pub fn system_file(&self, named: Option<&Path>) -> PathBuf {
        named.map_or_else(|| self.root.join("system.toml"), Path::to_path_buf)
    }

    /// Returns where the results of a profile go.
    #[must_use]
    pub fn output(&self, profile: Profile) -> PathBuf {
        self.target.join("vectis").join(profile.to_string())
    }

    /// Returns where the last run left its log.
    #[must_use]
    pub fn run_folder(&self) -> PathBuf {
        self.target.join("vectis").join("run")
    }
}

/// Reads a file, or says which one cannot be read.
///
/// # Errors
/// If it cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::file("read", path, &e))
}

/// Writes a file, and its folders.
///
/// # Errors
/// If it cannot be written.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|e| Error::file("make", folder, &e))?;
    }
    std::fs::write(path, bytes).map_err(|e| Error::file("write", path, &e))
}

/// An open file, which stays what it is when a later build gives its name to another.
#[derive(Debug)]
pub struct Opened(File);

impl Opened {
    /// Opens a file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn new(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::file("read", path, &e))?;
        Ok(Self(file))
    }

    /// Returns a path to it, for as long as this lives, of this process and of others of
    /// the same user (proc(5)). It has no blank and no comma.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let number = self.0.as_raw_fd();
        PathBuf::from(format!("/proc/{}/fd/{number}", std::process::id()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opened_file_stays_whatever_becomes_of_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a checkout, of mine");
        std::fs::write(&path, "image").unwrap();
        let opened = Opened::new(&path).unwrap();
        let taken = opened.path();
        assert!(
            !taken.display().to_string().contains([' ', ',']),
            "{taken:?}"
        );
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "another").unwrap();
        assert_eq!(std::fs::read(&taken).unwrap(), b"image");
        assert!(Opened::new(Path::new("/no such file")).is_err());
    }
}
