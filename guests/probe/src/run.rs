//! Runs the checks of a function.

use core::fmt;

use crate::machine::Machine;
use crate::tap::Tap;
use crate::target::Target;
use crate::{config, message, table};

/// Runs all checks on one function.
pub fn run<M: Machine, F: FnMut(fmt::Arguments)>(target: &mut Target<M>, tap: &mut Tap<F>) {
    // Taking a function back to how it should have been hides how it was: these
    // come first, and change nothing.
    for check in [
        message::check_at_start(),
        table::check_control_at_start(),
        table::check_entries_at_start(),
    ] {
        let verdict = check.verdict(target);
        tap.result(target.bdf, check.name, verdict);
    }
    target.restore();
    let checks = message::checks()
        .into_iter()
        .chain(config::checks())
        .chain(table::checks());
    for check in checks {
        let verdict = check.verdict(target);
        target.restore();
        tap.result(target.bdf, check.name, verdict);
    }
}
