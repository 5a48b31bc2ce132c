//! The interface of an installed kernel, read from a folder made by hand, and what its
//! readers say of what they do not know.

use std::path::Path;

use kernel::{Config, Installed, Interface, Profile};
use sel4_idl::{facts, invocation_rust};
use spec::CpuKind;
use tempfile::TempDir;

const INCLUDE: &str = "libsel4/include";

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Returns an install folder whose `file` has `to` in place of `from`.
fn folder(file: &str, from: &str, to: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let include = folder.path().join(INCLUDE);
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interface");
    copy(&made, &include);
    std::fs::create_dir_all(folder.path().join("bin")).unwrap();
    std::fs::write(folder.path().join("bin/kernel.elf"), "").unwrap();
    let path = include.join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{file} has no {from}");
    std::fs::write(path, text.replacen(from, to, 1)).unwrap();
    folder
}

/// Returns the interface of a folder, or the error's text; both name files below the
/// folder's headers.
fn read(folder: &TempDir) -> Result<Interface, String> {
    let installed = Installed::open(folder.path()).map_err(|e| e.to_string())?;
    let scratch = tempfile::tempdir().unwrap();
    let include = format!("{}/", installed.include().display());
    let interface = kernel::installed_interface(&installed, scratch.path());
    let found = interface.and_then(|interface| interface.facts().map(|_| interface));
    found.map_err(|e| e.to_string().replace(&include, ""))
}

fn unchanged() -> Interface {
    read(&folder("autoconf.h", "", "")).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn numbers_are_those_of_the_folder() {
    let interface = unchanged();
    for (module, name, value) in [
        ("object_type", "TCB", 21),
        ("size_bits", "TCB", 13),
        ("size_bits", "PML4", 13),
        ("initial_cap", "IO_PORT_CONTROL", 8),
        ("initial_cap", "COUNT", 18),
        ("bootinfo_offset", "EMPTY", 24),
        ("untyped_desc_offset", "PADDR", 8),
        ("untyped_desc_offset", "SIZE_BITS", 1),
        ("untyped_desc_offset", "LENGTH", 16),
        ("bootinfo_chunk", "RSDP", 33),
        ("ipc_buffer_offset", "LENGTH", 1024),
        ("", "BADGE_BITS", 63),
        // More than 32 bits, as the value of an instruction seldom has.
        ("", "USER_TOP", 0x7fff_ffff_f000),
        ("", "MAX_BOOTINFO_UNTYPEDS", 77),
        ("", "BOOTINFO_FRAME_SIZE", 8192),
    ] {
        let found = interface.constants.get(module, name);
        assert_eq!(found, Some(value), "{module} {name}");
    }
    // What this kernel does not have.
    let tsc = |module| interface.constants.get(module, "TSC_MHZ");
    assert_eq!(
        (tsc("bootinfo_offset"), tsc("bootinfo_chunk")),
        (None, None)
    );
    let rust = interface.constants.emit();
    assert!(rust.contains("pub const TSC_MHZ: Option<usize> = None;"));
    assert!(rust.contains("pub const RSDP: Option<u64> = Some(33);"));
    assert!(rust.contains("pub const TCB: usize = 13;"));
}

#[test]
fn conditions_decide_which_labels_there_are() {
    let interface = unchanged();
    let apis: Vec<_> = interface.invocations.iter().collect();
    let labels = invocation_rust::labels(&apis, &interface.options).unwrap();
    let labels: Vec<_> = labels
        .iter()
        .map(|(method, number)| (method.label.as_str(), *number))
        .collect();
    assert_eq!(
        labels,
        [
            ("TCBOne", 1),
            ("TCBSetPriority", 2),
            ("TCBLast", 3),
            ("X86PDPTMap", 4),
            ("X86IOPortControlIssue", 5),
        ]
    );
}

#[test]
fn facts_are_told_by_form() {
    let modern = [
        facts::IO_PORT_CONTROL,
        facts::PRIORITY_AUTHORITY,
        facts::GRANT_REPLY,
        facts::GS_BASE,
    ];
    assert_eq!(unchanged().facts().unwrap(), modern);
    // The bundled kernel is older than all of these.
    let scratch = tempfile::tempdir().unwrap();
    let source = kernel::locate().unwrap_or_else(|e| panic!("{e}"));
    let config = Config::x86_64_pc99(Profile::Release, CpuKind::HugePages);
    let bundled = kernel::interface(&source, &config, scratch.path());
    let bundled = bundled.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(bundled.facts().unwrap(), [facts::CAP_DATA]);
    let tsc = bundled.constants.get("bootinfo_offset", "TSC_MHZ");
    assert_eq!(tsc, Some(145));
    let badge_bits = bundled.constants.get("", "BADGE_BITS");
    assert_eq!(badge_bits, Some(kernel::BADGE_BITS.into()));
    // Objects behind one that a kernel does not have move up.
    let config = Config::x86_64_pc99(Profile::Release, CpuKind::Baseline);
    let baseline = kernel::interface(&source, &config, scratch.path());
    let baseline = baseline.unwrap_or_else(|e| panic!("{e}"));
    for (name, with, without) in [
        ("PML4", 6, 6),
        ("PAGE_4K", 8, 7),
        ("PAGE_DIRECTORY", 11, 10),
    ] {
        let number = |of: &Interface| of.constants.get("object_type", name);
        assert_eq!(
            (number(&bundled), number(&baseline)),
            (Some(with), Some(without))
        );
    }
}

/// File, its text, text instead, and what the error says: the file and, but for headers as
/// a whole, the place.
#[test]
fn what_is_not_known_is_an_error_with_its_place() {
    let api = "interfaces/object-api.xml";
    let cases = [
        (api, "<brief>", "<brief/><xor>", "expected 'xor'"),
        (
            api,
            "<or>",
            "<xor/><or>",
            "object-api.xml:20: unexpected `xor` in a condition",
        ),
        (
            api,
            "<not>",
            "<not/><not>",
            "object-api.xml:4: `<not>` must hold one condition",
        ),
        (
            api,
            "var=\"CONFIG_VTX\"",
            "value=\"3\"",
            "object-api.xml:20: expected `<config var",
        ),
        (
            api,
            "<or>",
            "unless <or>",
            "object-api.xml:20: condition `unless` is not understood",
        ),
        (
            api,
            "name=\"Last\"",
            "name=\"Last\" condition=\"CONFIG_A == 1\"",
            "object-api.xml:27: condition `CONFIG_A == 1` is not understood",
        ),
        (
            api,
            "<brief>Does one thing.</brief>",
            "<condition><config var=\"A\"/></condition>",
            "object-api.xml:3: more than one condition",
        ),
        (
            api,
            "<brief>Does one thing.</brief>",
            "<only_if/>",
            "object-api.xml:5: unexpected element `only_if`",
        ),
        (
            api,
            "name=\"Last\"",
            "name=\"Last\" number=\"9\"",
            "object-api.xml:27: unexpected attribute `number` of `<method>`",
        ),
        (
            api,
            "type=\"seL4_TCB\"",
            "type=\"seL4_New\"",
            "object-api.xml:16: unknown type `seL4_New`",
        ),
        (
            api,
            "<interface",
            "<import/><interface",
            "object-api.xml:2: unexpected element `import`",
        ),
        (
            api,
            "id=\"TCBLast\"",
            "id=\"TCBOne\"",
            "two methods have the label `TCBOne`",
        ),
        (
            api,
            "name=\"priority\"",
            "name=\"urgency\"",
            "TCBSetPriority takes [\"authority\", \"urgency\"]",
        ),
        (
            "interfaces/object-api-sel4-arch.xml",
            "gs_base",
            "ss_base",
            "seL4_UserContext has the members",
        ),
        (
            "interfaces/object-api-sel4-arch.xml",
            "<member name=\"rip\"/>",
            "<pad/>",
            "object-api-sel4-arch.xml:3: unexpected element `pad`",
        ),
        (
            "api/syscall.xml",
            "api-mcs",
            "api-new",
            "expected 'api-new'",
        ),
        (
            "api/syscall.xml",
            "<debug>",
            "<api-next/><debug>",
            "api/syscall.xml:4: unexpected element `api-next`",
        ),
        (
            "api/syscall.xml",
            "<condition>",
            "<condition><config var=\"CONFIG_PRINTING\"/>",
            "api/syscall.xml:6: `<condition>` must hold one condition",
        ),
        (
            "sel4/shared_types.pbf",
            "padding 60",
            "padding word_size - 4",
            "shared_types.pbf:9: unexpected character `-`",
        ),
        (
            "sel4/shared_types.pbf",
            "padding 60",
            "padding canonical_size",
            "shared_types.pbf:9: expected a width in bits, found `canonical_size`",
        ),
        (
            "sel4/shared_types.pbf",
            "field guard 58",
            "field_ptr guard 58",
            "shared_types.pbf:16: expected `field`, `field_high`, `padding` or `}`",
        ),
        (
            "sel4/shared_types.pbf",
            "capAllowGrant 1",
            "capAllowCopy 1",
            "seL4_CapRights has the fields",
        ),
        (
            "sel4/shared_types.pbf",
            "seL4_CNode_CapData",
            "seL4_CNode_Guard",
            "a CNode's guard is in neither",
        ),
        (
            "sel4/sel4_arch/types.pbf",
            "tag VMFault 5",
            "mask 4 VMFault 5",
            "types.pbf:4: tags of several widths",
        ),
        // Headers that lack a number, or have another than the descriptions.
        (
            "sel4/types.h",
            "seL4_SlotBits",
            "seL4_SlotLog",
            "seL4_SlotBits",
        ),
        (
            "sel4/bootinfo_types.h",
            "extraBIPages",
            "extraPages",
            "extraBIPages",
        ),
        (
            "sel4/bootinfo_types.h",
            "seL4_CapIOPortControl",
            "seL4_CapPorts",
            "none of seL4_CapIOPortControl, seL4_CapIOPort is there",
        ),
        (
            "sel4/invocation.h",
            "TCBLast",
            "TCBNever, TCBLast",
            "TCBLast is not the 3 of the interface description",
        ),
        (
            "sel4/syscall.h",
            "-2",
            "-6",
            "seL4_SysReply is not the -2 of the interface description",
        ),
    ];
    for (file, from, to, expected) in cases {
        let error = read(&folder(file, from, to)).map(|_| ()).unwrap_err();
        assert!(error.contains(expected), "{file}: {from} -> {to}: {error}");
    }
}
