//! The kernel's compile-time options.

use std::collections::BTreeMap;
use std::fmt;

use spec::CpuKind;

use crate::Error;

/// Options that a kernel is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// For use: no debug system calls, no printing, no assertions.
    ///
    /// Printing is off because any thread can cause it, a guest included: the
    /// kernel reports each refused invocation and each unhandled fault, byte
    /// by byte with interrupts off.
    Release,
    /// For finding faults: assertions, debug system calls (any thread, so any
    /// guest, can print and halt the machine), messages on COM1.
    Debug,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Profile::Release => "release",
            Profile::Debug => "debug",
        })
    }
}

/// The variable by which `vectis` tells the binding's build script which of the bundled
/// kernels it is for.
pub const CPU: &str = "VECTIS_KERNEL_CPU";

/// Returns the kind of CPU that the environment names, or the default.
///
/// # Errors
/// If it names none of them.
pub fn cpu_from_environment() -> Result<CpuKind, Error> {
    let Some(name) = std::env::var_os(CPU).filter(|name| !name.is_empty()) else {
        return Ok(CpuKind::default());
    };
    let named = CpuKind::ALL.into_iter().find(|cpu| name == cpu.name());
    named.ok_or_else(|| {
        Error::new(
            format!("{CPU} names no kind of CPU"),
            format!("it is {}", name.display()),
            "let `vectis` set it, or leave it out",
        )
    })
}

/// A kernel's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Release or debug.
    pub profile: Profile,
    /// The CPUs that it is for.
    pub cpu: CpuKind,
    /// C macros by name with their values, as the kernel's sources see them.
    pub options: BTreeMap<String, String>,
}

/// The options of every kernel for this machine, with the reason where the
/// value is not the kernel's default.
const X86_64_PC99: &[(&str, &str)] = &[
    ("CONFIG_ARCH_X86", "1"),
    ("CONFIG_ARCH_X86_64", "1"),
    ("CONFIG_CACHE_LN_SZ", "64"),
    ("CONFIG_FASTPATH", "1"),
    ("CONFIG_FPU_MAX_RESTORES_SINCE_SWITCH", "64"),
    // No XSAVE: the guest and the components use SSE, not AVX.
    ("CONFIG_FXSAVE", "1"),
    ("CONFIG_HAVE_FPU", "1"),
    ("CONFIG_IRQ_IOAPIC", "1"),
    ("CONFIG_KERNEL_STACK_BITS", "12"),
    ("CONFIG_MAX_NUM_BOOTINFO_UNTYPED_CAPS", "230"),
    ("CONFIG_MAX_NUM_IOAPIC", "1"),
    ("CONFIG_MAX_NUM_NODES", "1"),
    ("CONFIG_MAX_NUM_WORK_UNITS_PER_PREEMPTION", "100"),
    ("CONFIG_MAX_RMRR_ENTRIES", "32"),
    // A graphics request makes BIOS boot loaders pass VBE pointers, which the
    // 64-bit kernel misreads and crashes on.
    ("CONFIG_MULTIBOOT_GRAPHICS_MODE_NONE", "1"),
    ("CONFIG_NUM_DOMAINS", "1"),
    ("CONFIG_NUM_PRIORITIES", "256"),
    ("CONFIG_PLAT_PC99", "1"),
    // Memory is cleared in pieces of 64 KiB, not of 256 bytes. Between two the kernel
    // looks for interrupts: some microseconds.
    ("CONFIG_RESET_CHUNK_BITS", "16"),
    ("CONFIG_RETYPE_FAN_OUT_LIMIT", "256"),
    // The root task embeds every component and guest: one slot per 4 KiB.
    ("CONFIG_ROOT_CNODE_SIZE_BITS", "16"),
    ("CONFIG_SYSCALL", "1"),
    ("CONFIG_TIMER_TICK_MS", "2"),
    ("CONFIG_TIME_SLICE", "5"),
    ("CONFIG_WORD_SIZE", "64"),
    // Not x2APIC: QEMU's TCG has none before version 9.
    ("CONFIG_XAPIC", "1"),
    ("CONFIG_XSAVE_SIZE", "512"),
    // Left out on purpose:
    // CONFIG_IOMMU: the kernel's VT-d driver does not remap interrupts; without
    // it the units' register pages go to user level, where a component drives
    // them.
    // CONFIG_VTX: such a kernel stops at boot on a CPU without VT-x.
    // CONFIG_SUPPORT_PCID: QEMU's TCG has no INVPCID.
];

const DEBUG: &[(&str, &str)] = &[
    // DEBUG turns assertions on.
    ("DEBUG", "1"),
    ("CONFIG_DEBUG_BUILD", "1"),
    ("CONFIG_IRQ_REPORTING", "1"),
    ("CONFIG_PRINTING", "1"),
    ("CONFIG_USER_STACK_TRACE_LENGTH", "16"),
];

/// Returns the options that differ by CPU.
const fn of_cpu(cpu: CpuKind) -> &'static [(&'static str, &'static str)] {
    match cpu {
        CpuKind::HugePages => &[("CONFIG_FSGSBASE_INST", "1"), ("CONFIG_HUGE_PAGE", "1")],
        CpuKind::Baseline => &[("CONFIG_FSGSBASE_MSR", "1")],
    }
}

impl Config {
    /// Returns the options for a 64-bit PC with one core.
    pub fn x86_64_pc99(profile: Profile, cpu: CpuKind) -> Config {
        let extra = match profile {
            Profile::Release => &[],
            Profile::Debug => DEBUG,
        };
        let options = X86_64_PC99
            .iter()
            .chain(of_cpu(cpu))
            .chain(extra)
            .map(|&(name, value)| (name.to_string(), value.to_string()))
            .collect();
        Config {
            profile,
            cpu,
            options,
        }
    }

    /// Returns the options as `NAME=VALUE` lines in order of name, for display.
    pub fn describe(&self) -> Vec<String> {
        self.options
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }
}
