//! The rows of the table: what is measured, what other monitors add, and the goal.

/// A row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The guest's name for it (guests/bench).
    pub name: &'static str,
    /// What it is, for people.
    pub what: &'static str,
    /// Instructions that KVM with vfio adds, and Xen for a PVH guest with vPCI, on the
    /// same emulated machine; docs/performance.md says how they were had.
    pub others: Option<(u64, u64)>,
    /// Most instructions that we want to add.
    pub goal: Option<u64>,
}

/// Returns a row without others and goal.
const fn plain(name: &'static str, what: &'static str) -> Row {
    Row {
        name,
        what,
        others: None,
        goal: None,
    }
}

/// Returns a row with the goal.
const fn goal(name: &'static str, what: &'static str, goal: u64) -> Row {
    Row {
        goal: Some(goal),
        ..plain(name, what)
    }
}

/// Returns a row with what KVM and Xen add, and the goal.
const fn against(
    name: &'static str,
    what: &'static str,
    kvm: u64,
    xen: u64,
    goal: Option<u64>,
) -> Row {
    Row {
        others: Some((kvm, xen)),
        goal,
        ..plain(name, what)
    }
}

/// Counts that are told and not judged. Between pings that follow each other at once the
/// thread of QEMU that answers has its turn when the host gives it one: beside busy cores
/// they are up to 5 % more. And the kernel's tick falls into a ping with a posted interrupt,
/// or between two: whatever makes the boot longer decides.
pub const UNSTEADY: [&str; 4] = [
    "ping-back-to-back",
    "ping-back-to-back-max",
    "ping-posted-max",
    "ping-posted-mean",
];

/// All rows, in the order of the table.
pub const ROWS: &[Row] = &[
    against(
        "ping",
        "ping, halted until the answer",
        11_521,
        19_584,
        Some(7_000),
    ),
    goal("ping-posted", "the same with interrupts posted", 2_500),
    plain("ping-looking", "ping, looking for the answer"),
    plain("ping-back-to-back", "pings back to back"),
    plain("ping-back-to-back-max", "pings back to back, the longest"),
    plain(
        "device-interrupt",
        "interrupt raised by the device, to its handler",
    ),
    plain("echo-16", "echo in batches of 16, for each packet"),
    plain("echo-32", "echo in batches of 32, for each packet"),
    plain("send-60", "frame of 60 bytes sent"),
    plain("send-1514", "frame of 1,514 bytes sent"),
    against(
        "config-read",
        "configuration read, CF8/CFC",
        13_597,
        2_377,
        Some(5_000),
    ),
    against(
        "config-read-memory",
        "the same as memory (ECAM)",
        9_150,
        15_589,
        Some(3_000),
    ),
    plain("config-read-bar", "the same by CF8/CFC of a BAR"),
    against("config-read-msix", "the same of MSI-X", 12_297, 2_540, None),
    plain("config-write-command", "command register written as it was"),
    plain("config-write-msix", "message control written as it was"),
    against("table-read", "MSI-X table read", 8_344, 18_784, Some(2_800)),
    against(
        "table-write",
        "data of an entry written as it was",
        7_901,
        23_540,
        Some(2_900),
    ),
    plain("table-write-masked", "data of a masked entry written"),
    against(
        "mask-unmask",
        "live entry masked or unmasked",
        57_518,
        23_850,
        Some(4_500),
    ),
    plain(
        "mask-data-unmask",
        "live entry moved: masked, written, unmasked",
    ),
    against("pba-read", "pending bits read", 0, 19_092, None),
    goal("register-read", "register of the device read", 0),
    plain("msix-off-on-3", "MSI-X off and on, 3 entries bound"),
    plain("msix-off-on-5", "the same, 5 bound"),
    plain("function-mask-3", "function mask set and cleared, 3 bound"),
    plain("function-mask-5", "the same, 5 bound"),
    goal("cpuid", "cpuid", 0),
    plain("cli", "cli"),
    plain("sti-cli", "sti, cli"),
    plain("rdmsr", "rdmsr of IA32_APIC_BASE"),
    plain("port-write", "out to a port behind which nothing is"),
    plain("eoi", "end of interrupt"),
    plain("timer-arm", "timer armed"),
    plain("self-interrupt", "interrupt sent to itself, and taken"),
    goal("timer-200us", "timer of 200 us, how late", 4_000),
    plain("timer-1ms", "timer of 1 ms, how late"),
    goal(
        "timer-200us-posted",
        "timer of 200 us with interrupts posted",
        4_000,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_there_once() {
        for (index, row) in ROWS.iter().enumerate() {
            assert!(ROWS[..index].iter().all(|other| other.name != row.name));
        }
    }
}
