//! Which kernel an image is made with: the bundled one, or one that is installed.

use std::path::{Path, PathBuf};

use kernel::{Built, Config, Entry, Installed, Profile, Purpose};
use spec::CpuKind;
use system::{Board, Guest};

use crate::cli;
use crate::error::{Error, Result};
use crate::steps::Steps;

/// The word that stands for the bundled kernel where a folder could.
const BUNDLED: &str = "bundled";

/// A kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Built from the pinned sources, for these CPUs.
    Bundled(CpuKind),
    /// Installed by the user.
    Installed {
        /// Its folder.
        installed: Box<Installed>,
        /// It goes into the image byte for byte.
        untouched: bool,
    },
}

/// Returns the folder of the first that says one: the command line, the environment, the
/// board. `None` for the bundled kernel.
fn prefix<'a>(
    argument: Option<&'a Path>,
    environment: Option<&'a Path>,
    board: Option<&'a Path>,
) -> Option<&'a Path> {
    let named = argument.or(environment).or(board)?;
    Some(named).filter(|_| argument != Some(Path::new(BUNDLED)))
}

/// What an image depends on, and kernels differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Where the kernel's addresses begin, if it has the whole upper half for itself.
    pub user_top: Option<u64>,
    /// Bits of a badge.
    pub badge_bits: u32,
}

impl Limits {
    /// The bundled kernel's.
    pub const BUNDLED: Self = Self {
        user_top: None,
        badge_bits: kernel::BADGE_BITS,
    };
}

impl Kernel {
    /// Chooses the kernel, and checks its folder and its options for this purpose: before
    /// anything is built.
    ///
    /// # Errors
    /// If an installed one cannot be used, or there is none to be left untouched.
    pub fn choose(arguments: &cli::Kernel, board: &Board, profile: Profile) -> Result<Self> {
        let environment = Installed::prefix_from_environment();
        let named = prefix(
            arguments.sel4.as_deref(),
            environment.as_deref(),
            board.kernel.as_deref(),
        );
        let Some(named) = named else {
            if arguments.kernel_untouched {
                return Err(Error::new(
                    "--kernel-untouched is for an installed kernel",
                    "the bundled one is always built with its declared edits",
                    "name an installed seL4 by --sel4, or leave the word out",
                ));
            }
            return Ok(Self::Bundled(board.cpu));
        };
        // A build script works in another folder.
        let named = std::path::absolute(named).map_err(|e| Error::file("find", named, &e))?;
        let installed = Installed::open(&named)?;
        installed.check(purpose(profile))?;
        Ok(Self::Installed {
            installed: Box::new(installed),
            untouched: arguments.kernel_untouched,
        })
    }

    /// Returns the folder of an installed kernel.
    #[must_use]
    pub fn prefix(&self) -> Option<&Path> {
        match self {
            Self::Bundled(_) => None,
            Self::Installed { installed, .. } => Some(installed.prefix()),
        }
    }

    /// Returns what an image depends on. Generated files go below `out`.
    ///
    /// # Errors
    /// If an installed kernel's interface cannot be used: the binding is made of it.
    pub fn limits(&self, out: &Path) -> Result<Limits> {
        match self {
            Self::Bundled(_) => Ok(Limits::BUNDLED),
            Self::Installed { installed, .. } => {
                let scratch = out.join("kernel-installed/interface");
                let interface = kernel::installed_interface(installed, &scratch)?;
                interface.facts()?;
                let get = |name| interface.constants.get("", name);
                Ok(Limits {
                    user_top: get("USER_TOP"),
                    badge_bits: get("BADGE_BITS").unwrap_or_default() as u32,
                })
            }
        }
    }

    /// Returns the kernel's command line.
    #[must_use]
    pub fn command_line(&self) -> &'static str {
        match self {
            // Built without its IOMMU driver, it needs no option about that.
            Self::Bundled(_) => "",
            Self::Installed { installed, .. } => installed.command_line(),
        }
    }

    /// Builds or takes it, below `out`.
    ///
    /// # Errors
    /// If that fails.
    pub fn build(&self, profile: Profile, out: &Path, steps: &mut Steps) -> Result<Built> {
        match self {
            Self::Bundled(cpu) => {
                steps.begin("kernel", &format!("seL4 {}, {profile}", kernel::VERSION));
                let config = Config::x86_64_pc99(profile, *cpu);
                let folder = of_cpu("kernel", *cpu);
                let mut cached = true;
                let built = kernel::build(&config, &out.join(folder), &mut |text| {
                    cached = false;
                    steps.note(text);
                })?;
                if cached {
                    steps.note("unchanged");
                }
                Ok(built)
            }
            Self::Installed {
                installed,
                untouched,
            } => {
                steps.begin(
                    "kernel",
                    &format!("seL4 in {}", installed.prefix().display()),
                );
                let out: PathBuf = out.join("kernel-installed");
                let note = &mut |text: &str| steps.note(text);
                let built = kernel::adopt(installed, purpose(profile), *untouched, &out, note)?;
                steps.note(&built.label);
                Ok(built)
            }
        }
    }
}

/// Returns the name of a folder for what depends on the bundled kernel: what is made for
/// one kind of CPU is not made anew for another.
#[must_use]
pub fn of_cpu(folder: &str, cpu: CpuKind) -> String {
    if cpu == CpuKind::default() {
        folder.to_owned()
    } else {
        format!("{folder}-{}", cpu.name())
    }
}

/// Returns what a profile's kernel is for.
const fn purpose(profile: Profile) -> Purpose {
    match profile {
        Profile::Release => Purpose::Use,
        Profile::Debug => Purpose::Debug,
    }
}

/// Fails if a guest can halt the kernel, and the system file does not say that it may.
///
/// # Errors
/// Names the first such guest.
pub fn check_trust(kernel: &Built, guests: &[Guest]) -> Result<()> {
    let Entry::Open(why) = &kernel.entry else {
        return Ok(());
    };
    match guests.iter().find(|guest| !guest.trusts_kernel) {
        None => Ok(()),
        Some(guest) => Err(Error::new(
            format!(
                "guest {} can halt the machine ({})",
                guest.name, guest.place
            ),
            why,
            "add `kernel = \"trusted\"` to the guest if you trust it with that, or leave \
             --kernel-untouched out",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_that_names_a_folder_wins() {
        let [argument, environment, board] = ["a", "e", "b"].map(|name| Some(Path::new(name)));
        let bundled = Some(Path::new(BUNDLED));
        assert_eq!(prefix(argument, environment, board), argument);
        assert_eq!(prefix(None, environment, board), environment);
        assert_eq!(prefix(None, None, board), board);
        assert_eq!(prefix(None, None, None), None);
        // By its word on the command line only: elsewhere it is a folder.
        assert_eq!(prefix(bundled, environment, board), None);
        assert_eq!(prefix(None, bundled, board), bundled);
    }

    #[test]
    fn init_knows_an_open_kernel_by_its_word() {
        assert_eq!(Entry::Open(String::new()).word(), Some(spec::FLAGS_OPEN));
    }

    #[test]
    fn the_bundled_kernel_is_never_untouched() {
        let arguments = cli::Kernel {
            sel4: Some(BUNDLED.into()),
            kernel_untouched: true,
        };
        let error = Kernel::choose(&arguments, &Board::default(), Profile::Release).unwrap_err();
        assert!(error.to_string().contains("declared edits"), "{error}");
    }

    #[test]
    fn a_folder_without_a_kernel_is_an_error_before_the_build() {
        let arguments = cli::Kernel {
            sel4: Some("/nowhere".into()),
            kernel_untouched: false,
        };
        let error = Kernel::choose(&arguments, &Board::default(), Profile::Release).unwrap_err();
        assert!(
            error.to_string().contains("/nowhere: it is no folder"),
            "{error}"
        );
    }
}
