//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use kernel::Profile;

use crate::error::Result;
use crate::image;
use crate::steps::Steps;
use crate::workspace::Workspace;

/// Builds and runs Vectis systems.
#[derive(Debug, Parser)]
#[command(name = "vectis", version)]
struct Cli {
    /// The system file [default: the project's system.toml]
    #[arg(long, value_name = "FILE", global = true)]
    system: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build everything that boots into one folder
    Build(Build),
}

#[derive(Debug, Args)]
struct Build {
    /// Kernel without debug system calls and messages (the default)
    #[arg(long, conflicts_with = "debug")]
    release: bool,
    /// Kernel with assertions and messages, components with all their logs
    #[arg(long)]
    debug: bool,
    /// The folder [default: target/vectis/PROFILE/image]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the kernel's options
    #[arg(short, long)]
    verbose: bool,
}

const fn profile(debug: bool) -> Profile {
    if debug {
        Profile::Debug
    } else {
        Profile::Release
    }
}

/// Runs the command that the process was given.
#[must_use]
pub fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.status)
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let workspace = Workspace::find()?;
    let file = workspace.system_file(cli.system.as_deref());
    match cli.command {
        None => Ok(()),
        Some(Command::Build(options)) => {
            let model = system::read(&workspace.root, &file)?;
            let profile = profile(options.debug);
            let folder = options
                .out
                .unwrap_or_else(|| workspace.output(profile).join("image"));
            let mut steps = Steps::new(image::STEPS);
            let built = image::build(&workspace, &model, profile, &folder, &mut steps)?;
            if options.verbose {
                for (name, value) in &built.kernel_options {
                    println!("{name}={value}");
                }
            }
            Ok(())
        }
    }
}
