//! Installed kernels whose folders were made by hand: what is missing, what does not fit.

use std::collections::BTreeMap;
use std::path::Path;

use kernel::{Configuration, Error, Installed, Purpose, Setting};

/// The files of an installed kernel, whose content nobody reads here.
const FILES: &[&str] = &[
    "bin/kernel.elf",
    "libsel4/include/interfaces/object-api.xml",
    "libsel4/include/interfaces/object-api-arch.xml",
    "libsel4/include/interfaces/object-api-sel4-arch.xml",
    "libsel4/include/api/syscall.xml",
    "libsel4/include/sel4/shared_types.pbf",
    "libsel4/include/sel4/sel4_arch/types.pbf",
    "libsel4/include/sel4/bootinfo_types.h",
];
const OPTIONS: &str = "libsel4/include/kernel/gen_config.json";
const USER_OPTIONS: &str = "libsel4/include/sel4/gen_config.json";

/// Options that fit, in JSON.
const GOOD: &[(&str, &str)] = &[
    ("ARCH_X86_64", "true"),
    ("SEL4_ARCH", "\"x86_64\""),
    ("PLAT_PC99", "true"),
    ("KERNEL_MCS", "false"),
    ("MAX_NUM_NODES", "\"1\""),
    ("HUGE_PAGE", "true"),
    ("FSGSBASE_INST", "true"),
    ("SYSCALL", "true"),
    ("IRQ_IOAPIC", "true"),
    ("MULTIBOOT1_HEADER", "true"),
    ("NUM_PRIORITIES", "\"256\""),
    ("ROOT_CNODE_SIZE_BITS", "\"16\""),
    ("MAX_NUM_BOOTINFO_UNTYPED_CAPS", "\"230\""),
    ("KERNEL_SKIM_WINDOW", "true"),
    ("DEBUG_BUILD", "false"),
    ("IOMMU", "false"),
];

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// Makes a folder whose kernel has these options beside, or instead of, good ones.
fn folder(changes: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in FILES {
        write(folder.path(), name, "");
    }
    let options: BTreeMap<_, _> = GOOD.iter().chain(changes).copied().collect();
    let options: Vec<String> = options
        .iter()
        .map(|(name, value)| format!("\"{name}\": {value}"))
        .collect();
    write(
        folder.path(),
        OPTIONS,
        &format!("{{{}}}", options.join(", ")),
    );
    write(folder.path(), USER_OPTIONS, "{ \"LIB\": true }");
    folder
}

fn opened(changes: &[(&str, &str)]) -> Result<Installed, Error> {
    Installed::open(folder(changes).path())
}

fn checked(changes: &[(&str, &str)], purpose: Purpose) -> Result<Vec<String>, Error> {
    opened(changes)?.check(purpose)
}

#[test]
fn a_kernel_that_fits_is_taken_with_its_options() {
    let folder = folder(&[("VERIFICATION_BUILD", "true")]);
    let installed = Installed::open(folder.path()).unwrap();
    assert_eq!(installed.check(Purpose::Use), Ok(Vec::new()));
    assert_eq!(installed.kernel(), folder.path().join("bin/kernel.elf"));
    assert!(installed.configuration().is_on("VERIFICATION_BUILD"));
    // The user-level library's options are among them.
    assert!(installed.configuration().is_on("LIB"));
    assert_eq!(installed.command_line(), "");
}

#[test]
fn a_folder_that_lacks_a_file_is_refused_by_its_name() {
    for name in FILES.iter().chain(&[OPTIONS, USER_OPTIONS]) {
        let folder = folder(&[]);
        std::fs::remove_file(folder.path().join(name)).unwrap();
        let error = Installed::open(folder.path()).unwrap_err();
        assert_eq!(error.cause, format!("there is no {name}"));
        assert!(error.help.contains("ninja install"), "{error}");
    }
    let error = Installed::open(Path::new("/nowhere")).unwrap_err();
    assert_eq!(
        error.to_string().lines().next(),
        Some("cannot use the seL4 in /nowhere: it is no folder")
    );
}

#[test]
fn a_kernel_before_13_is_told_by_its_headers() {
    for name in ["autoconf.h", "kernel/gen_config.h", "sel4/gen_config.h"] {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "bin/kernel.elf", "");
        write(folder.path(), &format!("libsel4/include/{name}"), "");
        let error = Installed::open(folder.path()).unwrap_err();
        assert!(error.cause.contains("from 13.0.0 on"), "{error}");
        assert!(error.cause.contains("gen_config.json"), "{error}");
    }
}

#[test]
fn options_that_cannot_be_read_are_an_error_of_their_file() {
    for (name, text, word) in [
        (OPTIONS, "{", "EOF"),
        (OPTIONS, "{ \"A\": 1 }", "A is neither"),
        (USER_OPTIONS, "{ \"HUGE_PAGE\": false }", "HUGE_PAGE is 1"),
    ] {
        let folder = folder(&[]);
        write(folder.path(), name, text);
        let error = Installed::open(folder.path()).unwrap_err();
        assert!(error.cause.starts_with(name), "{error}");
        assert!(error.cause.contains(word), "{error}");
    }
}

/// Each option that matters: the value that does not fit, and what the error says.
const REFUSED: &[(&str, &str, &str, &str)] = &[
    ("KERNEL_MCS", "true", "is on", "KernelIsMCS=OFF"),
    ("MAX_NUM_NODES", "\"2\"", "is 2", "KernelMaxNumNodes=1"),
    ("SYSCALL", "false", "is off", "KernelSyscall=syscall"),
    (
        "IRQ_IOAPIC",
        "false",
        "is off",
        "KernelIRQController=IOAPIC",
    ),
    (
        "MULTIBOOT1_HEADER",
        "false",
        "is off",
        "KernelMultiboot1Header=ON",
    ),
    (
        "NUM_PRIORITIES",
        "\"255\"",
        "is 255",
        "KernelNumPriorities=256",
    ),
    (
        "ROOT_CNODE_SIZE_BITS",
        "\"15\"",
        "is 15",
        "KernelRootCNodeSizeBits=16",
    ),
    (
        "MAX_NUM_BOOTINFO_UNTYPED_CAPS",
        "\"99\"",
        "is 99",
        "KernelMaxNumBootinfoUntypedCaps=230",
    ),
    ("DEBUG_BUILD", "true", "is on", "KernelDebugBuild=OFF"),
    ("PRINTING", "true", "is on", "KernelPrinting=OFF"),
    (
        "DANGEROUS_CODE_INJECTION",
        "true",
        "is on",
        "KernelDangerousCodeInjection=OFF",
    ),
    (
        "KERNEL_X86_DANGEROUS_MSR",
        "true",
        "is on",
        "KernelX86DangerousMSR=OFF",
    ),
    (
        "ENABLE_BENCHMARKS",
        "true",
        "is on",
        "KernelBenchmarks=none",
    ),
    (
        "HARDWARE_DEBUG_API",
        "true",
        "is on",
        "HardwareDebugAPI=OFF",
    ),
];

#[test]
fn an_option_that_does_not_fit_is_refused_with_what_to_set() {
    for (option, value, is, set) in REFUSED {
        let error = checked(&[(option, value)], Purpose::Use).unwrap_err();
        let text = format!("{option} {is}: set {set} (");
        assert!(error.cause.contains(&text), "{error}");
        assert!(error.cause.contains(OPTIONS), "{error}");
        // It is the only one.
        assert_eq!(error.cause.lines().count(), 2, "{error}");
    }
}

#[test]
fn all_that_does_not_fit_is_said_at_once() {
    let all: Vec<_> = REFUSED
        .iter()
        .map(|(name, value, ..)| (*name, *value))
        .collect();
    let error = checked(&all, Purpose::Use).unwrap_err();
    assert_eq!(error.cause.lines().count(), 1 + REFUSED.len(), "{error}");
}

#[test]
fn an_option_that_is_needed_and_missing_does_not_count_as_set() {
    let installed = opened(&[("MAX_NUM_NODES", "true"), ("NUM_PRIORITIES", "\"many\"")]).unwrap();
    let error = installed.check(Purpose::Use).unwrap_err();
    assert!(error.cause.contains("MAX_NUM_NODES is on"), "{error}");
    assert!(error.cause.contains("NUM_PRIORITIES is many"), "{error}");
    let folder = folder(&[]);
    let text = "{ \"ARCH_X86_64\": true, \"PLAT_PC99\": true }";
    write(folder.path(), OPTIONS, text);
    let installed = Installed::open(folder.path()).unwrap();
    let error = installed.check(Purpose::Use).unwrap_err();
    assert!(error.cause.contains("SYSCALL is missing"), "{error}");
}

#[test]
fn another_architecture_is_told_before_its_files_are_missed() {
    let changes = [
        ("ARCH_X86_64", "false"),
        ("PLAT_PC99", "false"),
        ("SEL4_ARCH", "\"aarch64\""),
        ("PLAT", "\"qemu-arm-virt\""),
    ];
    let folder = folder(&changes);
    std::fs::remove_file(folder.path().join(FILES[3])).unwrap();
    let error = Installed::open(folder.path()).unwrap_err();
    for text in [
        "ARCH_X86_64 is off, SEL4_ARCH is aarch64: set KernelSel4Arch=x86_64",
        "PLAT_PC99 is off, PLAT is qemu-arm-virt: set KernelPlatform=pc99",
    ] {
        assert!(error.cause.contains(text), "{error}");
    }
}

#[test]
fn what_is_for_finding_faults_passes_there_with_a_warning() {
    let debug = [("DEBUG_BUILD", "true"), ("PRINTING", "true")];
    let warned = checked(&debug, Purpose::Debug).unwrap();
    assert_eq!(warned.len(), 2, "{warned:?}");
    // What gives a guest the machine does not.
    let msr = [("KERNEL_X86_DANGEROUS_MSR", "true")];
    assert!(checked(&msr, Purpose::Debug).is_err());
}

#[test]
fn what_is_no_hole_but_unwise_is_warned_of() {
    for (option, value, set) in [
        ("EXPORT_PMC_USER", "true", "KernelExportPMCUser=OFF"),
        ("SUPPORT_PCID", "true", "KernelSupportPCID=OFF"),
        ("VTX", "true", "KernelVTX=OFF"),
        ("X2APIC", "true", "KernelLAPICMode=XAPIC"),
        ("KERNEL_SKIM_WINDOW", "false", "KernelSkimWindow=ON"),
    ] {
        let warned = checked(&[(option, value)], Purpose::Use).unwrap();
        assert_eq!(warned.len(), 1, "{warned:?}");
        assert!(warned[0].contains(&format!("set {set} (")), "{warned:?}");
    }
}

#[test]
fn the_kernel_s_own_iommu_driver_is_switched_off() {
    let installed = opened(&[("IOMMU", "true")]).unwrap();
    assert_eq!(installed.command_line(), "disable_iommu");
}

#[test]
fn options_have_the_values_that_c_sees() {
    let options = [
        ("A".to_owned(), Setting::Flag(true)),
        ("B".to_owned(), Setting::Flag(false)),
    ];
    let configuration: Configuration = options.into_iter().collect();
    assert!(configuration.macros().contains_key("CONFIG_A"));
    assert!(!configuration.macros().contains_key("CONFIG_B"));
}
