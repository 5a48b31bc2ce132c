//! From the process's arguments to its exit status.

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::{commands, inspect, output, replay};

/// Runs the command that the process was given.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.command {
        None => commands::run(&cli.run),
        Some(Command::Run(run)) => commands::run(run),
        Some(Command::Soak(soak)) => commands::soak(soak),
        Some(Command::Bench(bench)) => commands::bench(bench),
        Some(Command::Build(build)) => commands::build(build),
        Some(Command::Test { arguments }) => commands::test(arguments),
        Some(Command::Graph { system, out }) => commands::graph(system, out.as_deref()),
        Some(Command::Show { system }) => commands::show(system.as_deref()),
        Some(Command::Caps {
            system,
            kernel,
            live: true,
        }) => commands::audit(system, kernel),
        Some(Command::Caps { system, kernel, .. }) => commands::caps(system, kernel),
        Some(Command::Logs(logs)) => commands::logs(logs),
        Some(Command::Dump { keys }) => commands::dump(keys),
        Some(Command::Metrics { console, image }) => {
            commands::metrics(console.as_deref(), image.as_deref())
        }
        Some(Command::Probe(probe)) => commands::probe(probe),
        Some(Command::Inspect(arguments)) => inspect::inspect(arguments),
        Some(Command::Replay { files, summary }) => replay::replay(files, *summary),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.quiet {
                output::progress(&format!("error: {error}"));
            }
            ExitCode::from(error.status)
        }
    }
}
