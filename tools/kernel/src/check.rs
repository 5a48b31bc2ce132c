//! Which options an installed kernel needs and which it must not have: one table.

use crate::{Configuration, Setting};

/// What an image is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Use: guests are hostile.
    Use,
    /// Finding faults, where the user said that the kernel may print and halt.
    Debug,
}

/// What an option has to be.
#[derive(Clone, Copy, Debug)]
enum Wants {
    On,
    Off,
    Number(u64),
    AtLeast(u64),
}

/// What follows if an option is not as it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Else {
    /// Nothing works, or a guest can harm others.
    Refuse,
    /// The same, but not for finding faults.
    RefuseInUse,
    Warn,
}

struct Rule {
    option: &'static str,
    wants: Wants,
    otherwise: Else,
    /// The CMake option that sets it.
    set: &'static str,
    why: &'static str,
}

const fn rule(
    option: &'static str,
    wants: Wants,
    otherwise: Else,
    set: &'static str,
    why: &'static str,
) -> Rule {
    Rule {
        option,
        wants,
        otherwise,
        set,
        why,
    }
}

/// What makes it a kernel for this kind of machine.
const ARCHITECTURE: &[Rule] = &[
    rule(
        "ARCH_X86_64",
        Wants::On,
        Else::Refuse,
        "KernelSel4Arch=x86_64",
        "this hypervisor is for 64-bit PCs",
    ),
    rule(
        "PLAT_PC99",
        Wants::On,
        Else::Refuse,
        "KernelPlatform=pc99",
        "this hypervisor is for 64-bit PCs",
    ),
];

/// Fewest descriptions of untyped memory: some more than the pieces of memory
/// that QEMU's q35 with 512 MiB has, 95 to 97 by the sizes of kernel and root CNode.
const UNTYPEDS: u64 = 100;

const RULES: &[Rule] = &[
    rule(
        "KERNEL_MCS",
        Wants::Off,
        Else::Refuse,
        "KernelIsMCS=OFF",
        "the interface of MCS kernels is another one, and not supported yet",
    ),
    rule(
        "MAX_NUM_NODES",
        Wants::Number(1),
        Else::Refuse,
        "KernelMaxNumNodes=1",
        "components and guests run on one core",
    ),
    rule(
        "SYSCALL",
        Wants::On,
        Else::Refuse,
        "KernelSyscall=syscall",
        "the binding calls by SYSCALL; an entry by SYSENTER keeps NT and cannot be closed",
    ),
    rule(
        "IRQ_IOAPIC",
        Wants::On,
        Else::Refuse,
        "KernelIRQController=IOAPIC",
        "devices interrupt by messages and I/O APIC pins",
    ),
    rule(
        "MULTIBOOT1_HEADER",
        Wants::On,
        Else::Refuse,
        "KernelMultiboot1Header=ON",
        "QEMU loads it by Multiboot 1",
    ),
    rule(
        "NUM_PRIORITIES",
        Wants::AtLeast(256),
        Else::Refuse,
        "KernelNumPriorities=256",
        "system.toml gives priorities up to 253",
    ),
    rule(
        "ROOT_CNODE_SIZE_BITS",
        Wants::AtLeast(16),
        Else::Refuse,
        "KernelRootCNodeSizeBits=16",
        "init's file holds every component and guest, with a slot for each 4 KiB of it",
    ),
    rule(
        "MAX_NUM_BOOTINFO_UNTYPED_CAPS",
        Wants::AtLeast(UNTYPEDS),
        Else::Refuse,
        "KernelMaxNumBootinfoUntypedCaps=230",
        "device memory fills the list first, and what has no place in it is lost: \
         no memory would be left",
    ),
    rule(
        "DEBUG_BUILD",
        Wants::Off,
        Else::RefuseInUse,
        "KernelDebugBuild=OFF",
        "its debug system calls let any thread, so any guest, print and halt the machine",
    ),
    rule(
        "PRINTING",
        Wants::Off,
        Else::RefuseInUse,
        "KernelPrinting=OFF",
        "any thread, so any guest, makes the kernel print with interrupts off",
    ),
    rule(
        "DANGEROUS_CODE_INJECTION",
        Wants::Off,
        Else::Refuse,
        "KernelDangerousCodeInjection=OFF",
        "a system call of any thread, so of any guest, runs code in the kernel",
    ),
    rule(
        "KERNEL_X86_DANGEROUS_MSR",
        Wants::Off,
        Else::Refuse,
        "KernelX86DangerousMSR=OFF",
        "a system call of any thread, so of any guest, writes the CPU's registers",
    ),
    rule(
        "ENABLE_BENCHMARKS",
        Wants::Off,
        Else::Refuse,
        "KernelBenchmarks=none",
        "its system calls are anybody's, so any guest's: they flush caches and clear logs",
    ),
    rule(
        "HARDWARE_DEBUG_API",
        Wants::Off,
        Else::Refuse,
        "HardwareDebugAPI=OFF",
        "a guest's breakpoints and single steps come as faults of another form",
    ),
    rule(
        "EXPORT_PMC_USER",
        Wants::Off,
        Else::Warn,
        "KernelExportPMCUser=OFF",
        "a guest reads performance counters, which tell it of others",
    ),
    rule(
        "SUPPORT_PCID",
        Wants::Off,
        Else::Warn,
        "KernelSupportPCID=OFF",
        "it stops at boot on a CPU without PCID and INVPCID, as QEMU's TCG is",
    ),
    rule(
        "VTX",
        Wants::Off,
        Else::Warn,
        "KernelVTX=OFF",
        "it stops at boot on a CPU without VT-x, and nothing here uses it",
    ),
    rule(
        "X2APIC",
        Wants::Off,
        Else::Warn,
        "KernelLAPICMode=XAPIC",
        "it stops at boot on a CPU without x2APIC, as QEMU's TCG was before version 9",
    ),
    rule(
        "FSGSBASE_INST",
        Wants::On,
        Else::Warn,
        "KernelFSGSBase=inst",
        "a guest that loads a null selector into FS or GS takes the base from another guest that \
         has the same one and runs next: the kernel sets a base only where its record differs",
    ),
    rule(
        "KERNEL_SKIM_WINDOW",
        Wants::On,
        Else::Warn,
        "KernelSkimWindow=ON",
        "the kernel's memory is mapped while guests run: Meltdown reads it on CPUs that have \
         that fault",
    ),
];

/// Checks whether the kernel is for this kind of machine at all.
///
/// # Errors
/// What does not fit.
pub(crate) fn architecture(configuration: &Configuration) -> Result<(), Vec<String>> {
    let broken = ARCHITECTURE
        .iter()
        .filter(|rule| !rule.holds(configuration));
    let found: Vec<String> = broken.map(|rule| rule.text(configuration)).collect();
    if found.is_empty() { Ok(()) } else { Err(found) }
}

/// Checks all options. Returns what is worth a warning.
///
/// # Errors
/// What does not fit.
pub(crate) fn options(
    configuration: &Configuration,
    purpose: Purpose,
) -> Result<Vec<String>, Vec<String>> {
    let broken = RULES.iter().filter(|rule| !rule.holds(configuration));
    let (warned, refused): (Vec<_>, Vec<_>) = broken.partition(|rule| match rule.otherwise {
        Else::Refuse => false,
        Else::RefuseInUse => purpose == Purpose::Debug,
        Else::Warn => true,
    });
    let texts = |rules: Vec<&Rule>| rules.iter().map(|rule| rule.text(configuration)).collect();
    if refused.is_empty() {
        Ok(texts(warned))
    } else {
        Err(texts(refused))
    }
}

impl Rule {
    fn holds(&self, configuration: &Configuration) -> bool {
        match self.wants {
            Wants::On => configuration.is_on(self.option),
            Wants::Off => !configuration.is_on(self.option),
            Wants::Number(wanted) => configuration.number(self.option) == Some(wanted),
            Wants::AtLeast(least) => configuration
                .number(self.option)
                .is_some_and(|number| number >= least),
        }
    }

    fn text(&self, configuration: &Configuration) -> String {
        let is = match configuration.get(self.option) {
            None => "is missing".to_owned(),
            Some(Setting::Flag(true)) => "is on".to_owned(),
            Some(Setting::Flag(false)) => "is off".to_owned(),
            Some(Setting::Text(text)) => format!("is {text}"),
        };
        // Which machine it is for stands in an option of its own.
        let instead = match self.option {
            "ARCH_X86_64" => "SEL4_ARCH",
            "PLAT_PC99" => "PLAT",
            _ => return format!("{} {is}: set {} ({})", self.option, self.set, self.why),
        };
        let other = configuration
            .get(instead)
            .map_or(String::new(), |setting| format!(", {instead} is {setting}"));
        format!(
            "{} {is}{other}: set {} ({})",
            self.option, self.set, self.why
        )
    }
}
