//! A kernel that the user has installed: the folder that seL4's own `ninja install`
//! writes, and that `SEL4_PREFIX` names for other tools as well.

use std::path::{Path, PathBuf};

use crate::check::{self, Purpose};
use crate::{Configuration, Error};

/// The variable that names the folder.
pub const PREFIX: &str = "SEL4_PREFIX";

/// Where the kernel is below the folder, and where the headers are.
const KERNEL: &str = "bin/kernel.elf";
const INCLUDE: &str = "libsel4/include";
/// The options, below the headers' folder: the kernel's and the user-level library's.
const OPTIONS: [&str; 2] = ["kernel/gen_config.json", "sel4/gen_config.json"];
/// What kernels before 13.0.0 have there instead.
const OLD_OPTIONS: [&str; 3] = ["autoconf.h", "kernel/gen_config.h", "sel4/gen_config.h"];
/// What a binding is made from, below the headers' folder.
const INTERFACE: &[&str] = &[
    "interfaces/object-api.xml",
    "interfaces/object-api-arch.xml",
    "interfaces/object-api-sel4-arch.xml",
    "api/syscall.xml",
    "sel4/shared_types.pbf",
    "sel4/sel4_arch/types.pbf",
    "sel4/bootinfo_types.h",
];

/// An installed kernel whose folder is whole, and whose options were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    prefix: PathBuf,
    configuration: Configuration,
}

impl Installed {
    /// Returns the folder that the environment names: a variable that is empty names
    /// none.
    #[must_use]
    pub fn prefix_from_environment() -> Option<PathBuf> {
        std::env::var_os(PREFIX)
            .filter(|prefix| !prefix.is_empty())
            .map(PathBuf::from)
    }

    /// Reads the folder `prefix`, and its options, which are not judged yet.
    ///
    /// # Errors
    /// If a file is missing or cannot be read: says which.
    pub fn open(prefix: &Path) -> Result<Self, Error> {
        let what = || format!("cannot use the seL4 in {}", prefix.display());
        let include = prefix.join(INCLUDE);
        if !prefix.is_dir() {
            return Err(Error::new(what(), "it is no folder", HELP));
        }
        let old = OLD_OPTIONS.iter().any(|name| include.join(name).is_file());
        if old && !include.join(OPTIONS[0]).is_file() {
            return Err(Error::new(
                what(),
                format!(
                    "there is no {INCLUDE}/{}, which seL4 has from 13.0.0 on",
                    OPTIONS[0]
                ),
                "install seL4 13.0.0 or newer, or name none: the bundled 5.0.0 is taken then",
            ));
        }
        let options = OPTIONS.map(|name| format!("{INCLUDE}/{name}"));
        let interface = INTERFACE.iter().map(|name| format!("{INCLUDE}/{name}"));
        let mut configuration = Configuration::default();
        for name in std::iter::once(KERNEL.to_owned()).chain(options.clone()) {
            missing(prefix, &name)?;
        }
        for name in options {
            let path = prefix.join(&name);
            let add = |text: String| configuration.add(Configuration::parse(&text)?);
            std::fs::read_to_string(&path)
                .map_err(|e| e.to_string())
                .and_then(add)
                .map_err(|e| Error::new(what(), format!("{name}: {e}"), HELP))?;
        }
        let installed = Self {
            prefix: prefix.to_path_buf(),
            configuration,
        };
        // Before the interface's files: those of another architecture lie elsewhere.
        check::architecture(&installed.configuration).map_err(|found| installed.refused(&found))?;
        for name in interface {
            missing(prefix, &name)?;
        }
        Ok(installed)
    }

    /// Checks each option that matters by its name. Returns what is worth a warning.
    ///
    /// # Errors
    /// If an option is not as it has to be: says all that are not, and what to set.
    pub fn check(&self, purpose: Purpose) -> Result<Vec<String>, Error> {
        check::options(&self.configuration, purpose).map_err(|found| self.refused(&found))
    }

    fn refused(&self, found: &[String]) -> Error {
        Error::new(
            format!("cannot use the seL4 in {}", self.prefix.display()),
            format!(
                "its options ({INCLUDE}/{}) do not fit:\n    {}",
                OPTIONS[0],
                found.join("\n    ")
            ),
            "build and install seL4 with these CMake options (docs/kernels.md)",
        )
    }

    /// Returns the folder.
    #[must_use]
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// Returns the kernel's file, a 64-bit ELF file.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.prefix.join(KERNEL)
    }

    /// Returns the folder with the headers, interface descriptions and bit fields.
    #[must_use]
    pub fn include(&self) -> PathBuf {
        self.prefix.join(INCLUDE)
    }

    /// Returns the options of kernel and user-level library.
    #[must_use]
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// Returns the words that the kernel's command line needs.
    #[must_use]
    pub fn command_line(&self) -> &'static str {
        // A component drives the units: the kernel must leave their registers alone.
        if self.configuration.is_on("IOMMU") {
            "disable_iommu"
        } else {
            ""
        }
    }
}

const HELP: &str = "name the folder that seL4's `ninja install` wrote \
                    (CMAKE_INSTALL_PREFIX), with bin/ and libsel4/ in it";

/// Fails if a file of the folder is not there.
fn missing(prefix: &Path, name: &str) -> Result<(), Error> {
    if prefix.join(name).is_file() {
        return Ok(());
    }
    Err(Error::new(
        format!("cannot use the seL4 in {}", prefix.display()),
        format!("there is no {name}"),
        HELP,
    ))
}
