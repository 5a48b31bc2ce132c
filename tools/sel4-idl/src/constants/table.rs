//! Every constant that comes from the C headers: its name in Rust, its expression in C.

/// Constants of one Rust type that belong together.
pub(super) struct Group {
    /// The Rust module, empty for none.
    pub module: &'static str,
    /// Its documentation.
    pub doc: &'static str,
    /// The Rust type.
    pub ty: &'static str,
    pub constants: &'static [Constant],
}

/// A constant that a kernel may lack is an `Option` in Rust.
pub(super) struct Constant {
    pub name: &'static str,
    /// C expressions: the first that the headers know counts.
    pub c: &'static [&'static str],
    pub optional: bool,
    pub doc: &'static str,
}

const fn is(name: &'static str, c: &'static [&'static str], doc: &'static str) -> Constant {
    Constant {
        name,
        c,
        optional: false,
        doc,
    }
}

const fn may_be(name: &'static str, c: &'static [&'static str], doc: &'static str) -> Constant {
    Constant {
        name,
        c,
        optional: true,
        doc,
    }
}

/// A field's place in seL4_BootInfo.
macro_rules! at {
    ($field:literal) => {
        &[concat!("__builtin_offsetof(seL4_BootInfo, ", $field, ")")]
    };
}

/// A field's place in seL4_UntypedDesc.
macro_rules! untyped_at {
    ($field:literal) => {
        &[concat!(
            "__builtin_offsetof(seL4_UntypedDesc, ",
            $field,
            ")"
        )]
    };
}

/// A field's place in seL4_IPCBuffer.
macro_rules! buffer_at {
    ($field:literal) => {
        &[concat!("__builtin_offsetof(seL4_IPCBuffer, ", $field, ")")]
    };
}

pub(super) const GROUPS: &[Group] = &[
    Group {
        module: "object_type",
        doc: "Object type numbers for `Untyped_Retype`.",
        ty: "u64",
        constants: &[
            is(
                "UNTYPED",
                &["seL4_UntypedObject"],
                "Memory without a purpose yet.",
            ),
            is("TCB", &["seL4_TCBObject"], "Thread control block."),
            is("ENDPOINT", &["seL4_EndpointObject"], "Endpoint."),
            is(
                "NOTIFICATION",
                &["seL4_NotificationObject"],
                "Notification.",
            ),
            is("CNODE", &["seL4_CapTableObject"], "Table of capabilities."),
            is(
                "PDPT",
                &["seL4_X86_PDPTObject"],
                "Page directory pointer table.",
            ),
            is(
                "PML4",
                &["seL4_X64_PML4Object"],
                "Top level of a virtual address space.",
            ),
            is("HUGE_PAGE", &["seL4_X64_HugePageObject"], "1 GiB page."),
            is("PAGE_4K", &["seL4_X86_4K"], "4 KiB page."),
            is("LARGE_PAGE", &["seL4_X86_LargePageObject"], "2 MiB page."),
            is("PAGE_TABLE", &["seL4_X86_PageTableObject"], "Page table."),
            is(
                "PAGE_DIRECTORY",
                &["seL4_X86_PageDirectoryObject"],
                "Page directory.",
            ),
        ],
    },
    Group {
        module: "size_bits",
        doc: "Object sizes as powers of two in bytes.",
        ty: "usize",
        constants: &[
            is("SLOT", &["seL4_SlotBits"], "One slot of a CNode."),
            is("TCB", &["seL4_TCBBits"], "Thread control block."),
            is("ENDPOINT", &["seL4_EndpointBits"], "Endpoint."),
            is("NOTIFICATION", &["seL4_NotificationBits"], "Notification."),
            is("PAGE", &["seL4_PageBits"], "4 KiB page."),
            is("LARGE_PAGE", &["seL4_LargePageBits"], "2 MiB page."),
            is("HUGE_PAGE", &["seL4_HugePageBits"], "1 GiB page."),
            is("PAGE_TABLE", &["seL4_PageTableBits"], "Page table."),
            is("PAGE_DIRECTORY", &["seL4_PageDirBits"], "Page directory."),
            is("PDPT", &["seL4_PDPTBits"], "Page directory pointer table."),
            is(
                "PML4",
                &["seL4_PML4Bits"],
                "Top level of a virtual address space.",
            ),
            is("ASID_POOL", &["seL4_ASIDPoolBits"], "ASID pool."),
            is("MIN_UNTYPED", &["seL4_MinUntypedBits"], "Smallest untyped."),
            is("MAX_UNTYPED", &["seL4_MaxUntypedBits"], "Largest untyped."),
        ],
    },
    Group {
        module: "initial_cap",
        doc: "Slots of the root task's CNode that the kernel fills.",
        ty: "u64",
        constants: &[
            is("NULL", &["seL4_CapNull"], "Empty."),
            is("TCB", &["seL4_CapInitThreadTCB"], "The root task's thread."),
            is(
                "CNODE",
                &["seL4_CapInitThreadCNode"],
                "The root task's CNode.",
            ),
            is(
                "VSPACE",
                &["seL4_CapInitThreadVSpace"],
                "The root task's address space.",
            ),
            is(
                "IRQ_CONTROL",
                &["seL4_CapIRQControl"],
                "Authority over interrupts.",
            ),
            is(
                "ASID_CONTROL",
                &["seL4_CapASIDControl"],
                "Authority to make ASID pools.",
            ),
            is(
                "ASID_POOL",
                &["seL4_CapInitThreadASIDPool"],
                "The ASID pool that holds the root task's address space.",
            ),
            is(
                "IO_PORT_CONTROL",
                &["seL4_CapIOPortControl", "seL4_CapIOPort"],
                "Authority over I/O ports: it issues capabilities to them, or, in seL4 5.0.0, \
                 is one to all of them.",
            ),
            is(
                "IO_SPACE",
                &["seL4_CapIOSpace"],
                "DMA address spaces; empty without the kernel's IOMMU driver.",
            ),
            is(
                "BOOT_INFO_FRAME",
                &["seL4_CapBootInfoFrame"],
                "The BootInfo frame.",
            ),
            is(
                "IPC_BUFFER",
                &["seL4_CapInitThreadIPCBuffer"],
                "The root task's IPC buffer frame.",
            ),
            is("DOMAIN", &["seL4_CapDomain"], "Authority over domains."),
            is(
                "COUNT",
                &["seL4_NumInitialCaps"],
                "One more than the last of these slots.",
            ),
        ],
    },
    Group {
        module: "error",
        doc: "Error numbers: the label of the reply to a refused invocation.",
        ty: "u64",
        constants: &[
            is("NO_ERROR", &["seL4_NoError"], "Success."),
            is(
                "INVALID_ARGUMENT",
                &["seL4_InvalidArgument"],
                "An argument is not valid.",
            ),
            is(
                "INVALID_CAPABILITY",
                &["seL4_InvalidCapability"],
                "A capability among the arguments is not valid.",
            ),
            is(
                "ILLEGAL_OPERATION",
                &["seL4_IllegalOperation"],
                "Not permitted on this capability.",
            ),
            is(
                "RANGE_ERROR",
                &["seL4_RangeError"],
                "An argument is out of range.",
            ),
            is(
                "ALIGNMENT_ERROR",
                &["seL4_AlignmentError"],
                "An argument is not aligned.",
            ),
            is(
                "FAILED_LOOKUP",
                &["seL4_FailedLookup"],
                "A capability or paging structure is missing on the way.",
            ),
            is(
                "TRUNCATED_MESSAGE",
                &["seL4_TruncatedMessage"],
                "The message is too short, or lacks a capability.",
            ),
            is(
                "DELETE_FIRST",
                &["seL4_DeleteFirst"],
                "The destination must be deleted first.",
            ),
            is(
                "REVOKE_FIRST",
                &["seL4_RevokeFirst"],
                "Something derived must be revoked first.",
            ),
            is(
                "NOT_ENOUGH_MEMORY",
                &["seL4_NotEnoughMemory"],
                "An untyped has too little memory left.",
            ),
            is(
                "COUNT",
                &["seL4_NumErrors"],
                "One more than the last of these numbers.",
            ),
        ],
    },
    Group {
        module: "lookup_failure",
        doc: "Kinds of a failed lookup in the message of a capability fault.",
        ty: "u64",
        constants: &[
            is("INVALID_ROOT", &["seL4_InvalidRoot"], "There is no CSpace."),
            is(
                "MISSING_CAPABILITY",
                &["seL4_MissingCapability"],
                "The slot is empty.",
            ),
            is(
                "DEPTH_MISMATCH",
                &["seL4_DepthMismatch"],
                "The bits do not end where a CNode's do.",
            ),
            is(
                "GUARD_MISMATCH",
                &["seL4_GuardMismatch"],
                "A guard does not match.",
            ),
        ],
    },
    Group {
        module: "fault_message",
        doc: "Words of the fault messages.",
        ty: "usize",
        constants: &[
            is(
                "VM_FAULT_LENGTH",
                &["seL4_VMFault_Length"],
                "Length of a VM fault: IP, address, instruction fetch, FSR.",
            ),
            is(
                "UNKNOWN_SYSCALL_LENGTH",
                &["seL4_UnknownSyscall_Length"],
                "Length of an unknown system call: 18 registers and the number.",
            ),
            is(
                "UNKNOWN_SYSCALL_REPLY_LENGTH",
                &["seL4_UnknownSyscall_Syscall"],
                "Registers that a reply to an unknown system call can set.",
            ),
            is(
                "USER_EXCEPTION_LENGTH",
                &["seL4_UserException_Length"],
                "Length of a user exception: IP, SP, FLAGS, vector, error code.",
            ),
            is(
                "USER_EXCEPTION_REPLY_LENGTH",
                &["seL4_UserException_Number"],
                "Registers that a reply to a user exception can set: IP, SP, FLAGS.",
            ),
            is(
                "CAP_FAULT_MIN_LENGTH",
                &["seL4_CapFault_BitsLeft"],
                "Fixed words of a capability fault: IP, address, receive phase, kind.",
            ),
        ],
    },
    Group {
        module: "vm_attributes",
        doc: "Caching of a mapping.",
        ty: "u64",
        constants: &[
            is(
                "WRITE_BACK",
                &["seL4_X86_WriteBack"],
                "Write back: ordinary memory.",
            ),
            is(
                "WRITE_THROUGH",
                &["seL4_X86_WriteThrough"],
                "Write through.",
            ),
            is(
                "CACHE_DISABLED",
                &["seL4_X86_CacheDisabled"],
                "Caching disabled, may be overridden by an MTRR.",
            ),
            is(
                "UNCACHEABLE",
                &["seL4_X86_Uncacheable"],
                "Uncacheable: device registers.",
            ),
            is(
                "WRITE_COMBINING",
                &["seL4_X86_WriteCombining"],
                "Write combining.",
            ),
        ],
    },
    Group {
        module: "bootinfo_offset",
        doc: "Byte offsets of BootInfo's parts, each a u64 or a slot region (two u64) but for those \
              that say otherwise. The structure may be packed.",
        ty: "usize",
        constants: &[
            is(
                "EXTRA_LEN",
                at!("extraLen"),
                "Length of the additional chunks, in bytes.",
            ),
            is("NUM_NODES", at!("numNodes"), "Cores."),
            is(
                "IPC_BUFFER",
                at!("ipcBuffer"),
                "Virtual address of the root task's IPC buffer.",
            ),
            is("EMPTY", at!("empty"), "Slot region: empty slots."),
            is(
                "SHARED_FRAMES",
                at!("sharedFrames"),
                "Slot region: frames shared between cores.",
            ),
            is(
                "USER_IMAGE_FRAMES",
                at!("userImageFrames"),
                "Slot region: frames of the root task's image, by ascending address.",
            ),
            is(
                "USER_IMAGE_PAGING",
                at!("userImagePaging"),
                "Slot region: paging structures of the root task's image.",
            ),
            is(
                "EXTRA_BI_PAGES",
                at!("extraBIPages"),
                "Slot region: frames of the additional chunks.",
            ),
            is(
                "CNODE_SIZE_BITS",
                at!("initThreadCNodeSizeBits"),
                "The root CNode's radix: the byte here is the whole of it, or its lowest.",
            ),
            may_be(
                "TSC_MHZ",
                at!("archInfo"),
                "The TSC's frequency in MHz, where it has no chunk of its own.",
            ),
            is("UNTYPED", at!("untyped"), "Slot region: untypeds."),
            is(
                "UNTYPED_LIST",
                at!("untypedList"),
                "Array of untyped descriptions, one for each slot of `UNTYPED`.",
            ),
        ],
    },
    Group {
        module: "untyped_desc_offset",
        doc: "An entry of the list of untypeds, in bytes from its start.",
        ty: "usize",
        constants: &[
            is("PADDR", untyped_at!("paddr"), "u64: physical address."),
            is(
                "SIZE_BITS",
                untyped_at!("sizeBits"),
                "u8: size as a power of two, in bytes.",
            ),
            is(
                "IS_DEVICE",
                untyped_at!("isDevice"),
                "u8: not zero for memory that the kernel never touches.",
            ),
            is("LENGTH", &["sizeof(seL4_UntypedDesc)"], "Size of an entry."),
        ],
    },
    Group {
        module: "bootinfo_chunk",
        doc: "Kinds of BootInfo's additional chunks.",
        ty: "u64",
        constants: &[
            may_be(
                "RSDP",
                &["SEL4_BOOTINFO_HEADER_X86_ACPI_RSDP"],
                "ACPI's root pointer, as the boot loader gave it.",
            ),
            may_be(
                "TSC_MHZ",
                &["SEL4_BOOTINFO_HEADER_X86_TSC_FREQ"],
                "u32: the TSC's frequency in MHz.",
            ),
        ],
    },
    Group {
        module: "ipc_buffer_offset",
        doc: "Byte offsets of the IPC buffer's parts.",
        ty: "usize",
        constants: &[
            is("MSG", buffer_at!("msg"), "The message's words."),
            is(
                "USER_DATA",
                buffer_at!("userData"),
                "A word for the program.",
            ),
            is(
                "CAPS_OR_BADGES",
                buffer_at!("caps_or_badges"),
                "Capabilities to send, or badges of received ones.",
            ),
            is(
                "RECEIVE_CNODE",
                buffer_at!("receiveCNode"),
                "CNode for a received capability.",
            ),
            is(
                "RECEIVE_DEPTH",
                buffer_at!("receiveDepth"),
                "Depth of the slot for a received capability.",
            ),
            is(
                "LENGTH",
                &["sizeof(seL4_IPCBuffer)"],
                "Size of the buffer, and its alignment.",
            ),
        ],
    },
    Group {
        module: "",
        doc: "",
        ty: "u32",
        constants: &[
            is("BADGE_BITS", &["seL4_BadgeBits"], "Bits of a badge."),
            is(
                "GUARD_BITS",
                &["seL4_GuardBits"],
                "Bits of a CNode's guard.",
            ),
        ],
    },
    Group {
        module: "",
        doc: "",
        ty: "usize",
        constants: &[
            is(
                "WORD_BITS",
                &["seL4_WordBits"],
                "Bits in a word, which is the depth of a full CSpace address.",
            ),
            is(
                "MAX_RETYPE_OBJECTS",
                &["seL4_UntypedRetypeMaxObjects"],
                "Most objects that one retype makes.",
            ),
            is(
                "MSG_MAX_LENGTH",
                &["seL4_MsgMaxLength"],
                "Most words of a message.",
            ),
            is(
                "MSG_MAX_EXTRA_CAPS",
                &["seL4_MsgMaxExtraCaps"],
                "Most capabilities that a message carries besides the one invoked.",
            ),
            is(
                "MAPPING_LOOKUP_LEVEL",
                &["SEL4_MAPPING_LOOKUP_LEVEL"],
                "Word of an error reply to a mapping call that tells which level is missing.",
            ),
            is(
                "MAX_BOOTINFO_UNTYPEDS",
                &["CONFIG_MAX_NUM_BOOTINFO_UNTYPED_CAPS"],
                "Most untypeds that a BootInfo lists.",
            ),
            may_be(
                "USER_TOP",
                &["seL4_UserTop"],
                "First address at which the kernel maps nothing for user level, where it has \
                 the upper half for itself.",
            ),
            is(
                "BOOTINFO_FRAME_SIZE",
                // seL4 5.0.0 has a comment in place of a constant.
                &["seL4_BootInfoFrameSize", "4096"],
                "Size of the frame that BootInfo fills, in bytes; additional chunks follow it.",
            ),
        ],
    },
];
