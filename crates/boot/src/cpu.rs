//! What the CPU must have. seL4 looks for little of it: without the rest it faults where
//! nobody hears it.

/// A register of CPUID's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// EAX.
    Eax,
    /// EBX.
    Ebx,
    /// ECX.
    Ecx,
    /// EDX.
    Edx,
}

/// Something that a CPU has or has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name, with the one that QEMU and Linux give it.
    pub name: &'static str,
    /// Where it is to be found.
    pub remedy: &'static str,
    /// The options of a kernel that needs it; none: every kernel does.
    pub options: &'static [&'static str],
    leaf: u32,
    subleaf: u32,
    register: Register,
    bit: u32,
}

const MAX: &str = "QEMU has it with `-cpu max`";

/// The features, in the order of a [`crate::Handoff`]'s bits (SDM vol. 2A, CPUID; AMD64
/// APM vol. 3, appendix E).
pub const FEATURES: &[Feature] = &[
    Feature {
        name: "pages of 1 GiB (pdpe1gb)",
        remedy: "Intel's Xeons since 2010 and Cores since 2013 have them, AMD's CPUs since 2007, \
                 QEMU with `-cpu max` or `+pdpe1gb`; or build for a board with `cpu = \"baseline\"` \
                 in [kernel], an installed seL4 with KernelHugePage=OFF",
        options: &["HUGE_PAGE"],
        leaf: 0x8000_0001,
        subleaf: 0,
        register: Register::Edx,
        bit: 26,
    },
    Feature {
        name: "instructions for the FS and GS base (fsgsbase)",
        remedy: "Intel's CPUs since 2012 have them, AMD's since 2014, QEMU with `-cpu max` or \
                 `+fsgsbase`; or build for a board with `cpu = \"baseline\"` in [kernel], an \
                 installed seL4 with KernelFSGSBase=msr",
        options: &["FSGSBASE_INST"],
        leaf: 7,
        subleaf: 0,
        register: Register::Ebx,
        bit: 0,
    },
    Feature {
        name: "a local APIC (apic)",
        remedy: "every PC of today has one; look whether the firmware has switched it off",
        options: &[],
        leaf: 1,
        subleaf: 0,
        register: Register::Edx,
        bit: 9,
    },
    Feature {
        name: "SYSCALL and SYSRET (syscall)",
        remedy: "every CPU with a 64-bit mode has them",
        options: &["SYSCALL"],
        leaf: 0x8000_0001,
        subleaf: 0,
        register: Register::Edx,
        bit: 11,
    },
    Feature {
        name: "process-context identifiers (pcid)",
        remedy: "build seL4 with KernelSupportPCID=OFF: QEMU's TCG has none",
        options: &["SUPPORT_PCID"],
        leaf: 1,
        subleaf: 0,
        register: Register::Ecx,
        bit: 17,
    },
    Feature {
        name: "the instruction INVPCID (invpcid)",
        remedy: "build seL4 with KernelSupportPCID=OFF: QEMU's TCG has none",
        options: &["SUPPORT_PCID"],
        leaf: 7,
        subleaf: 0,
        register: Register::Ebx,
        bit: 10,
    },
    Feature {
        name: "XSAVE (xsave)",
        remedy: MAX,
        options: &["XSAVE"],
        leaf: 1,
        subleaf: 0,
        register: Register::Ecx,
        bit: 26,
    },
    Feature {
        name: "XSAVEOPT (xsaveopt)",
        remedy: "build seL4 with KernelXSave=XSAVE, or KernelFPU=FXSAVE; QEMU has it with \
                 `-cpu max` or `+xsaveopt`, if at all",
        options: &["XSAVE_XSAVEOPT"],
        leaf: 0xd,
        subleaf: 1,
        register: Register::Eax,
        bit: 0,
    },
    Feature {
        name: "XSAVEC (xsavec)",
        remedy: "build seL4 with KernelXSave=XSAVE, or KernelFPU=FXSAVE; QEMU has it with \
                 `-cpu max` or `+xsavec`, if at all",
        options: &["XSAVE_XSAVEC"],
        leaf: 0xd,
        subleaf: 1,
        register: Register::Eax,
        bit: 1,
    },
    Feature {
        name: "XSAVES (xsaves)",
        remedy: "build seL4 with KernelXSave=XSAVE, or KernelFPU=FXSAVE; QEMU has it with \
                 `-cpu max` or `+xsaves`, if at all",
        options: &["XSAVE_XSAVES"],
        leaf: 0xd,
        subleaf: 1,
        register: Register::Eax,
        bit: 3,
    },
    Feature {
        name: "an x2APIC (x2apic)",
        remedy: "build seL4 with KernelLAPICMode=XAPIC",
        options: &["X2APIC"],
        leaf: 1,
        subleaf: 0,
        register: Register::Ecx,
        bit: 21,
    },
    Feature {
        name: "VT-x (vmx)",
        remedy: "build seL4 with KernelVTX=OFF: nothing here needs it",
        options: &["VTX"],
        leaf: 1,
        subleaf: 0,
        register: Register::Ecx,
        bit: 5,
    },
];

/// Returns the bits of the features that a kernel with these options needs. `is_on` tells
/// of an option.
pub fn needed(is_on: impl Fn(&str) -> bool) -> u64 {
    let needs = |feature: &Feature| {
        feature.options.is_empty() || feature.options.iter().any(|option| is_on(option))
    };
    let bits = FEATURES.iter().enumerate();
    bits.fold(0, |bits, (position, feature)| {
        bits | u64::from(needs(feature)) << position
    })
}

/// Returns the features of `needed` that this CPU lacks. `cpuid` returns EAX, EBX, ECX and
/// EDX of a leaf and its subleaf.
pub fn missing(
    needed: u64,
    cpuid: impl Fn(u32, u32) -> [u32; 4] + Copy,
) -> impl Iterator<Item = &'static Feature> {
    FEATURES
        .iter()
        .enumerate()
        .filter(move |(position, _)| needed & 1 << position != 0)
        .map(|(_, feature)| feature)
        .filter(move |feature| !has(feature, cpuid))
}

/// Returns the names that QEMU and Linux give the features of `needed`.
pub fn flags(needed: u64) -> impl Iterator<Item = &'static str> {
    let features = FEATURES.iter().enumerate();
    let needed = features.filter(move |(position, _)| needed & 1 << position != 0);
    needed
        .filter_map(|(_, feature)| feature.name.strip_suffix(')')?.rsplit_once('('))
        .map(|(_, flag)| flag)
}

fn has(feature: &Feature, cpuid: impl Fn(u32, u32) -> [u32; 4]) -> bool {
    // The first of each kind of leaf tells the last one.
    let [last, ..] = cpuid(feature.leaf & 0x8000_0000, 0);
    if last < feature.leaf {
        return false;
    }
    let [eax, ebx, ecx, edx] = cpuid(feature.leaf, feature.subleaf);
    let register = match feature.register {
        Register::Eax => eax,
        Register::Ebx => ebx,
        Register::Ecx => ecx,
        Register::Edx => edx,
    };
    register & 1 << feature.bit != 0
}
