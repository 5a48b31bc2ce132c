//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use kernel::Profile;
use spec::IommuKind;

use crate::logs::Level;

/// Builds and runs Vectis systems: isolated components and guests on seL4.
///
/// Without a command: `run`.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// The command; `run` if there is none.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Arguments of `run`.
    #[command(flatten)]
    pub run: Run,
}

/// A command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build the system and run it in QEMU; this is the default
    ///
    /// Standard input goes to the system's console, line by line: h lists its
    /// keys. The log of the run stays for `vectis logs`.
    Run(Run),
    /// Crash components and guests under load for a while; count what is lost
    ///
    /// Boots a system, keeps HTTP requests going to its guest that serves, and
    /// crashes at random moments every component that is restarted and every
    /// guest. Only requests that were cut by a restart of that guest may be lost,
    /// and components must hold as much at the end as before. Otherwise the status
    /// is 1, and the last lines name the loss.
    Soak(Soak),
    /// Count the instructions that the monitor adds to a guest's work
    ///
    /// A guest that measures (guests/bench) runs without a monitor and on Vectis, on
    /// machines whose clock counts instructions: the counts repeat exactly. The table
    /// has the committed counts beside them (tests/bench-baseline.json).
    Bench(Bench),
    /// Build everything that boots into one folder, and into media for a PC
    ///
    /// The folder has the kernel and init as QEMU's -kernel and -initrd take them. A PC boots
    /// from the others (docs/boot.md), by BIOS or UEFI.
    Build(Build),
    /// Run `cargo test --workspace` with these arguments
    Test {
        /// Arguments for cargo
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Draw the system as SVG
    Graph {
        #[command(flatten)]
        system: System,
        /// The file [default: standard output]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Print the whole system file, with what it inherits
    ///
    /// The output is a system file of the same system: its paths count from the
    /// project's root.
    Show {
        /// The system file [default: the project's system.toml]
        #[arg(long, value_name = "FILE")]
        system: Option<PathBuf>,
    },
    /// Print which component holds which capability and memory
    Caps {
        #[command(flatten)]
        system: System,
        #[command(flatten)]
        kernel: Kernel,
        /// Boot the system, compare every slot of every component with the
        /// table, print what differs, and end with status 1 if anything does
        #[arg(long)]
        live: bool,
    },
    /// Decode the log of a run
    Logs(Logs),
    /// Ask the console of a running system for a report
    ///
    /// KEYS are the console's keys, one report for each: M is the MSI and MSI-X
    /// state of every function, MM all of it, R the routes, I the memory and
    /// vectors of each function with refused accesses, S every component's counters.
    Dump {
        /// Keys
        #[arg(default_value = "M")]
        keys: String,
    },
    /// Print the running system's counters for Prometheus
    ///
    /// In its text format, by component (docs/fleet.md): of the last `vectis run`, or of
    /// any machine whose COM1 is a socket. The web guest serves its own at /metrics.
    Metrics {
        /// The socket of its COM1 [default: the last run's]
        #[arg(long, value_name = "SOCKET", requires = "image")]
        console: Option<PathBuf>,
        /// The folder of its image, which `vectis build` made [default: the last run's]
        #[arg(long, value_name = "FOLDER", requires = "console")]
        image: Option<PathBuf>,
    },
    /// Say what a machine has, by an image that looks at it
    ///
    /// The image prints on COM1 a board's file of the machine that it boots, to be copied as
    /// it is; in comments, the CPU's features, the IOMMU, and what each function could do
    /// (docs/boot.md). With --iso, --disk or --boot it is written for a PC; without, QEMU
    /// runs it on the system's board, with its functions.
    Probe(Probe),
    /// Say what a machine's functions could do here, from dumps of it
    ///
    /// Reads the output of `lspci -vvxxxx` (as root) or `lspci -xxxx`, and that of
    /// `acpidump`. For each function: its BARs and whether each works, how it is reset,
    /// its messages, what is trapped and hidden, the IOMMU, and whether a system with it
    /// starts (docs/devices.md). The exit status is 0 if every endpoint would, 1 if not,
    /// and 2 for a file that is no dump.
    Inspect(Inspect),
    /// Play recorded guest accesses against the components' logic
    ///
    /// A file has a JSON object on each line (docs/replay.md). For each
    /// operation a line of JSON is printed: line, value read, events. A result that
    /// differs from the file's expectation is reported with its line, and the exit
    /// status is 1; it is 2 for a file that is not a trace.
    Replay {
        /// Traces
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Print totals only
        #[arg(long)]
        summary: bool,
    },
}

/// Which system a command is about.
#[derive(Clone, Debug, Args)]
pub struct System {
    /// The system file [default: the project's system.toml]
    #[arg(long = "system", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The machine's IOMMU: amd, intel or none [default: the board's]
    #[arg(long, value_name = "KIND", value_parser = iommu)]
    pub iommu: Option<IommuKind>,
}

fn iommu(text: &str) -> std::result::Result<IommuKind, String> {
    let known = IommuKind::ALL
        .into_iter()
        .find(|known| known.name() == text);
    known.ok_or_else(|| {
        format!(
            "there is {}",
            IommuKind::ALL.map(IommuKind::name).join(", ")
        )
    })
}

/// Which kernel a command builds with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Kernel {
    /// The folder of an installed seL4, 13.0.0 or newer, or `bundled`
    /// [default: SEL4_PREFIX, else the board's, else the bundled 5.0.0]
    #[arg(long, value_name = "PATH")]
    pub sel4: Option<PathBuf>,
    /// Take an installed kernel byte for byte, also if a guest's flags can halt it: each
    /// guest then needs `kernel = "trusted"`
    #[arg(long)]
    pub kernel_untouched: bool,
}

/// Arguments of `vectis run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Which system.
    #[command(flatten)]
    pub system: System,
    /// Which kernel.
    #[command(flatten)]
    pub kernel: Kernel,
    /// TCP port of this host that leads to the first guest's port 80; those that
    /// follow lead to the other guests. 0: any free ones
    #[arg(long, value_name = "N", default_value_t = 8080)]
    pub port: u16,
    /// Show all logs and the kernel's options, not only warnings and errors
    #[arg(short, long)]
    pub verbose: bool,
    /// Run the guest on bare QEMU, without seL4: the baseline of performance
    #[arg(long)]
    pub bare: bool,
    /// Kernel with assertions and messages, components with all their logs
    #[arg(long, conflicts_with = "bare")]
    pub debug: bool,
    /// Count the instructions of the boot up to an address lease, print a
    /// table, and end
    #[arg(long)]
    pub bench_boot: bool,
    /// Let the machine's clock count instructions, one a nanosecond: a run that does
    /// not wait for a network then repeats exactly
    #[arg(long)]
    pub icount: bool,
    /// Let the host's CPU run the machine, by /dev/kvm; it needs what the kernel needs
    #[arg(long, conflicts_with_all = ["icount", "bench_boot"])]
    pub kvm: bool,
    /// Crash this component once all guests serve, to see what follows; F and a
    /// component's position in the system file (1 to 9, a to z) crash one again
    #[arg(long, value_name = "COMPONENT", conflicts_with = "bare")]
    pub inject_fault: Option<String>,
    /// Record the guest's accesses to configuration space and MSI-X pages, for
    /// `vectis replay`
    #[arg(long, value_name = "FILE", conflicts_with = "bare")]
    pub trace: Option<PathBuf>,
    /// End with status 124 after this time, in seconds
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// End with status 0 as soon as all guests serve
    #[arg(long)]
    pub exit_after_ready: bool,
}

/// Arguments of `vectis soak`.
#[derive(Debug, Args)]
pub struct Soak {
    /// How long crashes go on; 0.5 is half a minute
    #[arg(long, value_name = "N", default_value = "3", value_parser = minutes)]
    pub minutes: f64,
    /// Where random choices start [default: a random one, which is printed]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// The system file [default: tests/systems/soak.toml]
    #[arg(long, value_name = "FILE")]
    pub system: Option<PathBuf>,
    /// Which kernel.
    #[command(flatten)]
    pub kernel: Kernel,
    /// Show every line of the system
    #[arg(short, long)]
    pub verbose: bool,
}

/// Returns a time that is not negative, and at most a week.
fn minutes(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(minutes) if (0.0..=10_080.0).contains(&minutes) => Ok(minutes),
        _ => Err("there are 0 to 10080 minutes".to_owned()),
    }
}

/// Arguments of `vectis bench`.
#[derive(Debug, Args)]
pub struct Bench {
    /// Which kernel.
    #[command(flatten)]
    pub kernel: Kernel,
    /// The machine's IOMMU: amd, intel or none [default: the board's]
    #[arg(long, value_name = "KIND", value_parser = iommu)]
    pub iommu: Option<IommuKind>,
    /// Guests that measure at the same time, each with a NIC of its own; more than
    /// one measure packets only
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u8).range(1..=16))]
    pub guests: u8,
    /// Instructions for HTTP requests to the project's web guest, and for bulk TCP, instead:
    /// told and not judged, since the client's pace is in them
    #[arg(long, conflicts_with_all = ["guests", "check", "update"])]
    pub http: bool,
    /// Print JSON instead of tables
    #[arg(long)]
    pub json: bool,
    /// End with status 1 where a count is more than 2 % above the committed one
    #[arg(long, conflicts_with_all = ["iommu", "guests", "update"])]
    pub check: bool,
    /// Write the counts to tests/bench-baseline.json and docs/performance.md
    #[arg(long, conflicts_with_all = ["iommu", "guests"])]
    pub update: bool,
    /// Show every line of the machines
    #[arg(short, long)]
    pub verbose: bool,
}

/// Arguments of `vectis build`.
#[derive(Debug, Args)]
pub struct Build {
    /// Which system.
    #[command(flatten)]
    pub system: System,
    /// Which kernel.
    #[command(flatten)]
    pub kernel: Kernel,
    /// Kernel without debug system calls and messages; this is the default
    #[arg(long, conflicts_with = "debug")]
    release: bool,
    /// Kernel with assertions and messages, components with all their logs
    #[arg(long)]
    pub debug: bool,
    /// The folder [default: target/vectis/PROFILE/image]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// What else is written.
    #[command(flatten)]
    pub media: Media,
    /// Print the kernel's options
    #[arg(short, long)]
    pub verbose: bool,
}

/// Arguments of `vectis probe`.
#[derive(Debug, Args)]
pub struct Probe {
    /// Which system: its board is what QEMU runs, and says where COM1 is.
    #[command(flatten)]
    pub system: System,
    /// Which kernel.
    #[command(flatten)]
    pub kernel: Kernel,
    /// What is written.
    #[command(flatten)]
    pub media: Media,
}

/// Files that a PC boots from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Media {
    /// Write an image of a CD, which is that of a USB stick as well
    #[arg(long, value_name = "FILE")]
    pub iso: Option<PathBuf>,
    /// Write an image of a disk: raw, or qcow2 if the name ends in that
    #[arg(long, value_name = "FILE")]
    pub disk: Option<PathBuf>,
    /// Write one file for a Multiboot 2 loader, such as GRUB's `multiboot2`
    #[arg(long, value_name = "FILE")]
    pub boot: Option<PathBuf>,
}

/// Arguments of `vectis logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// A recorded log, beside its manifest [default: the last run's]
    pub file: Option<PathBuf>,
    /// Wait for more, until Ctrl-C
    #[arg(long)]
    pub follow: bool,
    /// Least urgent level to show
    #[arg(long, value_enum, default_value = "trace")]
    pub level: Level,
    /// Show one component only
    #[arg(long, value_name = "NAME")]
    pub component: Option<String>,
}

/// Arguments of `vectis inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// Dumps of one machine; ACPI tables count for the functions of all files
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// This function only, as `lspci` writes its address; may be repeated
    #[arg(long = "device", value_name = "ADDRESS", value_parser = address)]
    pub devices: Vec<pci::Bdf>,
    /// For people or for scripts
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
}

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// For scripts
    Json,
}

fn address(text: &str) -> std::result::Result<pci::Bdf, String> {
    let address = pci::Bdf::parse(text);
    address.ok_or_else(|| "write it as lspci does, such as 00:02.0".to_owned())
}

/// Returns the profile that `--debug` chooses.
#[must_use]
pub const fn profile(debug: bool) -> Profile {
    if debug {
        Profile::Debug
    } else {
        Profile::Release
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_is_the_default() {
        let cli = Cli::try_parse_from(["vectis", "--port", "9000"]).unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.run.port, 9000);
        let cli = Cli::try_parse_from(["vectis", "run", "--bare"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Run(run)) if run.bare));
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for arguments in [
            &["vectis", "nonsense"][..],
            &["vectis", "--port", "70000"],
            &["vectis", "build", "--release", "--debug"],
            &["vectis", "run", "--bare", "--debug"],
            &["vectis", "run", "--kvm", "--icount"],
            &["vectis", "--port", "1", "caps"],
            &["vectis", "bench", "--check", "--guests", "2"],
            &["vectis", "bench", "--update", "--iommu", "intel"],
            &["vectis", "soak", "--minutes", "-1"],
            &["vectis", "soak", "--minutes", "nan"],
        ] {
            assert!(Cli::try_parse_from(arguments).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn test_passes_its_arguments_on() {
        let cli = Cli::try_parse_from(["vectis", "test", "-p", "spec", "--", "--list"]).unwrap();
        let Some(Command::Test { arguments }) = cli.command else {
            panic!("{cli:?}");
        };
        assert_eq!(arguments, ["-p", "spec", "--", "--list"]);
    }
}
