//! The list of attacks, and how they are run one after the other.

use core::fmt;

use probe::check::{Mismatch, Stop};

use crate::attack::{Attack, Group, Hostile};
use crate::machine::Machine;
use crate::{
    bars, calls, churn, config, config_memory, cpu, dma, ends, exceptions, flood, kernel, message,
    nic,
};
use crate::{ports, random, segments, table};

/// Returns all attacks, in the order in which `all` runs them: those after
/// which less of the guest's own machine is whole come later.
pub fn attacks<M: Machine>() -> impl Iterator<Item = Attack<M>> {
    table::attacks()
        .into_iter()
        .chain(bars::attacks())
        .chain(config::attacks())
        .chain(config_memory::attacks())
        .chain(message::attacks())
        .chain(ports::attacks())
        .chain(exceptions::attacks())
        .chain(segments::attacks())
        .chain(cpu::attacks())
        .chain(calls::attacks())
        .chain(kernel::attacks())
        .chain(random::attacks())
        .chain(dma::attacks())
        .chain(churn::attacks())
        .chain(flood::attacks())
        .chain(ends::attacks())
}

/// Runs the attacks that `names` asks for, `NAME` or `NAME:COUNT` each; whether
/// each was repelled. A name that nothing has fails.
pub fn run<M: Machine>(hostile: &mut Hostile<M>, names: &str) -> bool {
    let mut all = true;
    let count = hostile.count;
    for wanted in names.split(',').filter(|name| !name.is_empty()) {
        let (wanted, own) = wanted.split_once(':').unwrap_or((wanted, ""));
        hostile.count = own.parse().ok().or(count);
        let mut found = false;
        for attack in attacks::<M>() {
            let group = match attack.group {
                Group::Common => "all",
                Group::Dma => "dma",
                Group::Mode | Group::Last | Group::End => "",
            };
            if attack.name != wanted && group != wanted {
                continue;
            }
            found = true;
            all &= one(hostile, &attack);
        }
        if !found {
            all = false;
            hostile.machine().line(format_args!(
                "not ok {wanted}: expected an attack of that name found none"
            ));
        }
    }
    all
}

fn one<M: Machine>(hostile: &mut Hostile<M>, attack: &Attack<M>) -> bool {
    let name = attack.name;
    hostile.machine().line(format_args!("# {name}"));
    let verdict = (attack.run)(hostile);
    if !matches!(attack.group, Group::Last | Group::End) {
        nic::stop(hostile);
        hostile.target.restore();
    }
    hostile.machine().reset_console();
    let write = |hostile: &mut Hostile<M>, text: fmt::Arguments| hostile.machine().line(text);
    match verdict {
        Ok(()) => write(hostile, format_args!("ok {name}")),
        Err(Stop::Skip(reason)) => write(hostile, format_args!("ok {name} # SKIP {reason}")),
        Err(Stop::Fail(Mismatch {
            what,
            at,
            expected,
            got,
        })) => {
            write(
                hostile,
                format_args!(
                    "not ok {name}: expected {expected:#x} found {got:#x}: {what} at {at:#x}"
                ),
            );
            return false;
        }
    }
    true
}
