//! Compares the constants written here by hand with the kernel's C headers.

use std::fmt::Write;
use std::process::Command;

use kernel::{Config, Profile};
use sel4_sys::{
    MSG_MAX_EXTRA_CAPS, MSG_MAX_LENGTH, bootinfo_offset as at, error, fault_message, initial_cap,
    object_type, size_bits, untyped_desc_offset as untyped,
};

#[test]
fn constants_are_those_of_the_c_headers() {
    let bootinfo = |field: &str| format!("__builtin_offsetof(seL4_BootInfo, {field})");
    let desc = |field: &str| format!("__builtin_offsetof(seL4_UntypedDesc, {field})");
    let named = |name: &str| name.to_string();
    let pairs: Vec<(String, u64)> = vec![
        (named("seL4_UntypedObject"), object_type::UNTYPED),
        (named("seL4_TCBObject"), object_type::TCB),
        (named("seL4_EndpointObject"), object_type::ENDPOINT),
        (named("seL4_NotificationObject"), object_type::NOTIFICATION),
        (named("seL4_CapTableObject"), object_type::CNODE),
        (named("seL4_X86_PDPTObject"), object_type::PDPT),
        (named("seL4_X64_PML4Object"), object_type::PML4),
        (named("seL4_X64_HugePageObject"), object_type::HUGE_PAGE),
        (named("seL4_X86_4K"), object_type::PAGE_4K),
        (named("seL4_X86_LargePageObject"), object_type::LARGE_PAGE),
        (named("seL4_X86_PageTableObject"), object_type::PAGE_TABLE),
        (
            named("seL4_X86_PageDirectoryObject"),
            object_type::PAGE_DIRECTORY,
        ),
        (named("seL4_SlotBits"), size_bits::SLOT as u64),
        (named("seL4_TCBBits"), size_bits::TCB as u64),
        (named("seL4_EndpointBits"), size_bits::ENDPOINT as u64),
        (
            named("seL4_NotificationBits"),
            size_bits::NOTIFICATION as u64,
        ),
        (named("seL4_PageBits"), size_bits::PAGE as u64),
        (named("seL4_LargePageBits"), size_bits::LARGE_PAGE as u64),
        (named("seL4_HugePageBits"), size_bits::HUGE_PAGE as u64),
        (named("seL4_PML4Bits"), size_bits::PAGING_STRUCTURE as u64),
        (named("seL4_ASIDPoolBits"), size_bits::ASID_POOL as u64),
        (named("seL4_MinUntypedBits"), size_bits::MIN_UNTYPED as u64),
        (named("seL4_MaxUntypedBits"), size_bits::MAX_UNTYPED as u64),
        (named("seL4_CapInitThreadTCB"), initial_cap::TCB),
        (named("seL4_CapInitThreadCNode"), initial_cap::CNODE),
        (named("seL4_CapInitThreadVSpace"), initial_cap::VSPACE),
        (named("seL4_CapIRQControl"), initial_cap::IRQ_CONTROL),
        (named("seL4_CapASIDControl"), initial_cap::ASID_CONTROL),
        (named("seL4_CapInitThreadASIDPool"), initial_cap::ASID_POOL),
        (named("seL4_CapIOPort"), initial_cap::IO_PORT),
        (named("seL4_CapBootInfoFrame"), initial_cap::BOOT_INFO_FRAME),
        (
            named("seL4_CapInitThreadIPCBuffer"),
            initial_cap::IPC_BUFFER,
        ),
        (named("seL4_CapDomain"), initial_cap::DOMAIN),
        (named("seL4_InvalidArgument"), error::INVALID_ARGUMENT),
        (named("seL4_FailedLookup"), error::FAILED_LOOKUP),
        (named("seL4_NumErrors - 1"), error::NOT_ENOUGH_MEMORY),
        (
            named("seL4_VMFault_Length"),
            fault_message::VM_FAULT_LENGTH as u64,
        ),
        (
            named("seL4_UnknownSyscall_Length"),
            fault_message::UNKNOWN_SYSCALL_LENGTH as u64,
        ),
        (
            named("seL4_UserException_Length"),
            fault_message::USER_EXCEPTION_LENGTH as u64,
        ),
        (named("seL4_MsgMaxLength"), MSG_MAX_LENGTH as u64),
        (named("seL4_MsgMaxExtraCaps"), MSG_MAX_EXTRA_CAPS as u64),
        (bootinfo("extraLen"), at::EXTRA_LEN as u64),
        (bootinfo("nodeID"), at::NODE_ID as u64),
        (bootinfo("numNodes"), at::NUM_NODES as u64),
        (bootinfo("numIOPTLevels"), at::NUM_IOPT_LEVELS as u64),
        (bootinfo("ipcBuffer"), at::IPC_BUFFER as u64),
        (bootinfo("empty"), at::EMPTY as u64),
        (bootinfo("sharedFrames"), at::SHARED_FRAMES as u64),
        (bootinfo("userImageFrames"), at::USER_IMAGE_FRAMES as u64),
        (bootinfo("userImagePaging"), at::USER_IMAGE_PAGING as u64),
        (bootinfo("ioSpaceCaps"), at::IO_SPACE_CAPS as u64),
        (bootinfo("extraBIPages"), at::EXTRA_BI_PAGES as u64),
        (
            bootinfo("initThreadCNodeSizeBits"),
            at::CNODE_SIZE_BITS as u64,
        ),
        (bootinfo("initThreadDomain"), at::DOMAIN as u64),
        (bootinfo("archInfo"), at::ARCH_INFO as u64),
        (bootinfo("untyped"), at::UNTYPED as u64),
        (bootinfo("untypedList"), at::UNTYPED_LIST as u64),
        (desc("paddr"), untyped::PADDR as u64),
        (desc("sizeBits"), untyped::SIZE_BITS as u64),
        (desc("isDevice"), untyped::IS_DEVICE as u64),
        (named("sizeof(seL4_UntypedDesc)"), untyped::LENGTH as u64),
    ];
    let mut program = String::from(
        "#include <autoconf.h>\n#include <sel4/simple_types.h>\n#include <sel4/macros.h>\n#include <sel4/sel4_arch/types.h>\n\
         #include <sel4/objecttype.h>\n#include <sel4/sel4_arch/objecttype.h>\n\
         #include <sel4/arch/objecttype.h>\n#include <sel4/errors.h>\n\
         #include <sel4/constants.h>\n#include <sel4/sel4_arch/constants.h>\n\
         typedef void seL4_IPCBuffer;\n#include <sel4/bootinfo_types.h>\n",
    );
    for (expression, value) in &pairs {
        writeln!(
            program,
            "_Static_assert(({expression}) == {value}, \"{expression}\");"
        )
        .unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let config = Config::x86_64_pc99(Profile::Release);
    let macros = config
        .options
        .iter()
        .map(|(name, value)| format!("#define {name} {value}\n"));
    std::fs::write(folder.path().join("autoconf.h"), macros.collect::<String>()).unwrap();
    std::fs::write(folder.path().join("test.c"), program).unwrap();
    let root = kernel::locate()
        .unwrap_or_else(|e| panic!("{e}"))
        .root
        .join("libsel4");
    let output = Command::new("gcc")
        .current_dir(folder.path())
        .args(["-std=gnu11", "-w", "-fsyntax-only", "-I", ".", "test.c"])
        .arg("-I")
        .arg(root.join("include"))
        .arg("-I")
        .arg(root.join("arch_include/x86"))
        .arg("-I")
        .arg(root.join("sel4_arch_include/x86_64"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
