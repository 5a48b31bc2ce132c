//! The edits to the kernel's sources: each one declared, explained and checked.

use crate::Error;

/// A replacement of one piece of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The file, from the kernel's root.
    pub file: &'static str,
    /// The text that must be there exactly once.
    pub expect: &'static str,
    /// Replacement text.
    pub becomes: &'static str,
    /// Why the kernel cannot be used as it is.
    pub why: &'static str,
}

/// Why a paging structure is refused in the canonical hole.
const NO_ADDRESS: &str = "an address in the canonical hole is taken for the one whose upper bits \
                          it lacks: what it names is in no thread's address space";

/// Why faults carry all general registers.
const FAULT_REGISTERS: &str = "a guest's trap is emulated by its registers, and two system calls \
                               for each, to read and to write them, cost more than all the rest: \
                               the message of a page fault or an exception has them too, behind \
                               what it has anyway, in the order of seL4_UserContext, and the \
                               reply may set as many of the first as it has words. Who receives \
                               faults may read and write these registers by the thread's \
                               capability anyway, or gets a few words that it does not look at";

/// Why the rates of the clocks are measured otherwise.
const CLOCK_RATES: &str = "two clocks were measured by four periods of the 8254 of 50 ms, which was \
                           seven eighths of the boot. Each now is by 5 ms: at both ends the closest \
                           of eight readings counts, so that neither a slow port nor a pause of a \
                           virtual machine is in the result; a pause of more than the counter's 55 \
                           ms shows at its output, and it is measured again";

/// Every edit made before compiling.
pub const EDITS: &[Edit] = &[
    Edit {
        file: "include/arch/x86/arch/64/mode/kernel/stack.h",
        expect: "#define KERNEL_STACK_ALIGNMENT 16\n",
        becomes: "#define KERNEL_STACK_ALIGNMENT 4096\n",
        why: "with an interrupt pending at kernel exit the stack pointer is set to the end of \
              the aligned 4 KiB block around the stack; unless the stack is such a block, the \
              kernel then runs over what lies next to it, its IDT among others",
    },
    Edit {
        file: "src/util.c",
        expect: "    while (n != 0) {\n        *(ulong_alias *)p = 0;\n        \
                 p += sizeof(ulong_alias);\n        n -= sizeof(ulong_alias);\n    }\n",
        becomes: "    n /= sizeof(ulong_alias);\n    \
                  asm volatile(\"rep stosq\" : \"+D\"(p), \"+c\"(n) : \"a\"(0UL) : \"memory\");\n",
        why: "all memory that user level gets is cleared at boot, which is most of the boot; \
              word by word that takes six instructions for each, and one here. The direction \
              flag is clear in the kernel by the edits below",
    },
    Edit {
        file: "include/plat/pc99/plat/machine/pit.h",
        expect: "/* ms after which a wraparound occurs (max. 54) */\n#define PIT_WRAPAROUND_MS 50\n\n\
                 void pit_init(void);\nvoid pit_wait_wraparound(void);\n",
        becomes: "uint32_t pit_measure_khz(uint64_t (*clock)(void));\n",
        why: CLOCK_RATES,
    },
    Edit {
        file: "src/plat/pc99/machine/pit.c",
        expect: "BOOT_CODE void\npit_init(void)\n{\n    \
                 uint16_t divisor = (PIT_HZ * PIT_WRAPAROUND_MS) / 1000;\n\n    \
                 out8(PIT_MODE, 0x34);          /* Set mode 2 and wait for divisor bytes */\n    \
                 out8(PIT_CH0, divisor & 0xff); /* Set low byte of divisor */\n    \
                 out8(PIT_CH0, divisor >> 8);   /* Set high byte of divisor */\n}\n\n\
                 BOOT_CODE void\npit_wait_wraparound(void)\n{\n    \
                 uint16_t count;\n    uint16_t count_old;\n\n    \
                 out8(PIT_MODE, 0x00);\n    \
                 count = in8(PIT_CH0);\n    count |= (in8(PIT_CH0) << 8);\n    \
                 count_old = count;\n\n    \
                 while (count <= count_old) {\n        count_old = count;\n        \
                 out8(PIT_MODE, 0x00);\n        count = in8(PIT_CH0);\n        \
                 count |= (in8(PIT_CH0) << 8);\n    }\n}\n",
        becomes: "/* Longest that is measured, in periods of the PIT: 5 ms. */\n\
                  #define PIT_WINDOW (PIT_HZ / 200)\n\n\
                  /* Returns how far the PIT has counted, from 0, and at which time of the clock;\n \
                  * more than 16 bits if it is past its end. */\n\
                  static BOOT_CODE uint32_t\n\
                  pit_counted(uint64_t (*clock)(void), uint64_t *time)\n{\n    \
                  uint64_t least = ~0ull;\n    uint32_t counted = 0;\n    int i;\n\n    \
                  for (i = 0; i < 8; i++) {\n        \
                  uint64_t before = clock();\n        uint64_t took;\n        \
                  uint8_t status;\n        uint32_t left;\n\n        \
                  out8(PIT_MODE, 0xc2);      /* Latch status and count of channel 0 */\n        \
                  took = clock() - before;\n        \
                  status = in8(PIT_CH0);\n        \
                  left = in8(PIT_CH0);\n        left |= in8(PIT_CH0) << 8;\n        \
                  if (status & 0x80) {       /* Its output: the end was reached */\n            \
                  return 0x10000;\n        }\n        \
                  if (took < least && !(status & 0x40)) {\n            \
                  least = took;\n            *time = before + took / 2;\n            \
                  counted = 0xffff - left;\n        }\n    }\n    return counted;\n}\n\n\
                  BOOT_CODE uint32_t\n\
                  pit_measure_khz(uint64_t (*clock)(void))\n{\n    \
                  for (;;) {\n        \
                  uint64_t first_time = 0, time = 0;\n        uint32_t first, now;\n\n        \
                  out8(PIT_MODE, 0x30);      /* Mode 0: count down once */\n        \
                  out8(PIT_CH0, 0xff);\n        out8(PIT_CH0, 0xff);\n        \
                  first = pit_counted(clock, &first_time);\n        \
                  do {\n            now = pit_counted(clock, &time);\n        \
                  } while (now < first + PIT_WINDOW);\n        \
                  if (now <= 0xffff && time > first_time) {\n            \
                  return (time - first_time) * PIT_HZ / (now - first) / 1000;\n        }\n    \
                  }\n}\n",
        why: CLOCK_RATES,
    },
    Edit {
        file: "src/arch/x86/kernel/apic.c",
        expect: "static BOOT_CODE uint32_t\napic_measure_freq(void)\n{\n    \
                 pit_init();\n    /* wait for 1st PIT wraparound */\n    \
                 pit_wait_wraparound();\n\n",
        becomes: "static BOOT_CODE uint64_t\napic_counted(void)\n{\n    \
                  return 0xffffffff - apic_read_reg(APIC_TIMER_CURRENT);\n}\n\n\
                  static BOOT_CODE uint32_t\napic_measure_freq(void)\n{\n",
        why: CLOCK_RATES,
    },
    Edit {
        file: "src/arch/x86/kernel/apic.c",
        expect: "    /* wait for 2nd PIT wraparound */\n    pit_wait_wraparound();\n\n    \
                 /* calculate APIC/bus cycles per ms = frequency in kHz */\n    \
                 return (0xffffffff - apic_read_reg(APIC_TIMER_CURRENT)) / PIT_WRAPAROUND_MS;\n",
        becomes: "    return pit_measure_khz(apic_counted);\n",
        why: CLOCK_RATES,
    },
    Edit {
        file: "src/plat/pc99/machine/hardware.c",
        expect: "    for (int i = 0; i < TSC_FREQ_RETRIES; i++) {\n\n        \
                 /* read tsc */\n        uint64_t old_ticks = x86_rdtsc();\n\n        \
                 /* measure how many tsc cycles pass while PIT wraps around */\n        \
                 pit_wait_wraparound();\n\n        \
                 uint64_t new_ticks = x86_rdtsc();\n\n        \
                 uint64_t diff = new_ticks - old_ticks;\n\n        \
                 if ((uint32_t)diff == diff && new_ticks > old_ticks) {\n            \
                 return (uint32_t)diff / PIT_WRAPAROUND_MS;\n        }\n\n        \
                 printf(\"warning: TSC frequency too high (%d retries remaining)\\n\",\n               \
                 TSC_FREQ_RETRIES - i - 1);\n    }\n\n    \
                 fail(\"TSC frequency too high\");\n\n    \
                 /* should never get here */\n    return 0;\n",
        becomes: "    return pit_measure_khz(x86_rdtsc);\n",
        why: CLOCK_RATES,
    },
    Edit {
        file: "src/plat/pc99/machine/hardware.c",
        expect: "    pit_init();\n\n    /* wait for pit to wraparound */\n    \
                 pit_wait_wraparound();\n\n",
        becomes: "",
        why: CLOCK_RATES,
    },
    Edit {
        file: "src/plat/pc99/machine/hardware.c",
        expect: "    return tsc_khz / 1000u;\n",
        becomes: "    return (tsc_khz + 500u) / 1000u;\n",
        why: "a rate cut to whole MHz is too low by half of one in the mean, by which a guest's \
              clock runs fast",
    },
    Edit {
        file: "include/plat/pc99/plat/machine/devices.h",
        expect: "#define MAX_NUM_DRHU    ((-PPTR_DRHU_START) >> PAGE_BITS)\n",
        becomes: "#ifdef CONFIG_HUGE_PAGE\n\
                  #define MAX_NUM_DRHU    ((-PPTR_DRHU_START) >> PAGE_BITS)\n\
                  #else\n#define MAX_NUM_DRHU    64\n#endif\n",
        why: "lists of IOMMUs, which this kernel leaves alone, have a quarter of a million places, \
              or 6 MiB. With the tables that take the place of pages of 1 GiB the kernel would \
              reach past 8 MiB, where UEFI keeps memory",
    },
    Edit {
        file: "src/arch/x86/kernel/vspace.c",
        expect: "    uint32_t addr;\n    uint32_t fault;\n\n    addr = getFaultAddr();\n",
        becomes: "    word_t addr;\n    uint32_t fault;\n\n    addr = getFaultAddr();\n",
        why: "the address in a fault message would be cut to 32 bits",
    },
    Edit {
        file: "src/api/faults.c",
        expect: "bool_t\nhandleFaultReply(tcb_t *receiver, tcb_t *sender)\n{\n",
        becomes: "static inline word_t\n\
                  copyRegistersFault(tcb_t *sender, word_t *receiveIPCBuffer, word_t length,\n                   \
                  word_t first)\n{\n    word_t i;\n\n    \
                  if (receiveIPCBuffer) {\n#pragma GCC unroll 32\n        \
                  for (i = first; i < n_frameRegisters; i++) {\n            \
                  length++;\n            \
                  receiveIPCBuffer[length] = getRegister(sender, frameRegisters[i]);\n        \
                  }\n    }\n    return length;\n}\n\n\
                  static inline void\n\
                  copyRegistersFaultReply(tcb_t *sender, tcb_t *receiver, word_t length)\n{\n    \
                  word_t i;\n    word_t *sendBuf;\n\n\
                  #pragma GCC unroll 4\n    \
                  for (i = 0; i < n_msgRegisters && i < length; i++) {\n        \
                  setRegister(receiver, frameRegisters[i],\n                    \
                  sanitiseRegister(frameRegisters[i], getRegister(sender, msgRegisters[i]), receiver));\n    \
                  }\n    \
                  if (i < length && (sendBuf = lookupIPCBuffer(false, sender))) {\n        \
                  for (; i < length; i++) {\n            \
                  setRegister(receiver, frameRegisters[i],\n                        \
                  sanitiseRegister(frameRegisters[i], sendBuf[i + 1], receiver));\n        \
                  }\n    }\n}\n\n\
                  bool_t\nhandleFaultReply(tcb_t *receiver, tcb_t *sender)\n{\n",
        why: FAULT_REGISTERS,
    },
    Edit {
        file: "src/api/faults.c",
        expect: "    case seL4_Fault_UserException:\n        \
                 copyMRsFaultReply(sender, receiver, MessageID_Exception, MIN(length, n_exceptionMessage));\n",
        becomes: "    case seL4_Fault_VMFault:\n    case seL4_Fault_UserException:\n        \
                  copyRegistersFaultReply(sender, receiver, MIN(length, n_frameRegisters));\n",
        why: FAULT_REGISTERS,
    },
    Edit {
        file: "src/api/faults.c",
        expect: "        return setMR(receiver, receiveIPCBuffer, n_exceptionMessage + 1u,\n                     \
                 seL4_Fault_UserException_get_code(sender->tcbFault));\n",
        becomes: "        setMR(receiver, receiveIPCBuffer, n_exceptionMessage + 1u,\n              \
                  seL4_Fault_UserException_get_code(sender->tcbFault));\n        \
                  return copyRegistersFault(sender, receiveIPCBuffer, n_exceptionMessage + 2u,\n                                  \
                  n_exceptionMessage);\n",
        why: FAULT_REGISTERS,
    },
    Edit {
        file: "src/api/faults.c",
        expect: "        return Arch_setMRs_fault(sender, receiver, receiveIPCBuffer,\n                                 \
                 seL4_Fault_get_seL4_FaultType(sender->tcbFault));\n",
        becomes: "        return copyRegistersFault(sender, receiveIPCBuffer,\n                                  \
                  Arch_setMRs_fault(sender, receiver, receiveIPCBuffer,\n                                                    \
                  seL4_Fault_get_seL4_FaultType(sender->tcbFault)), 1);\n",
        why: FAULT_REGISTERS,
    },
    Edit {
        file: "src/plat/pc99/machine/acpi.c",
        expect: "    char* addr;\n\n    for (addr = (char*)BIOS_PADDR_START; addr < (char*)BIOS_PADDR_END; addr += 16) {\n",
        becomes: "    char* addr;\n    char* ebda = (char*)((word_t)*(volatile uint16_t*)0x40e << 4);\n\n    \
                  for (addr = ebda; ebda != NULL && addr < ebda + 1024; addr += 16) {\n        \
                  if (strncmp(addr, acpi_str_rsd, 8) == 0 && acpi_calc_checksum(addr, 20) == 0) {\n            \
                  return (acpi_rsdp_t*)addr;\n        }\n    }\n    \
                  for (addr = (char*)BIOS_PADDR_START; addr < (char*)BIOS_PADDR_END; addr += 16) {\n",
        why: "ACPI's root pointer may be at the beginning of the extended BIOS data area (ACPI 6.5 \
              section 5.2.5.1). From UEFI, which has none for the kernel, crates/boot puts it there: \
              nothing else below 1 MiB can be written",
    },
    Edit {
        file: "src/arch/x86/kernel/boot_sys.c",
        expect: "    ui_p_regs.start = boot_state.ki_p_reg.end;\n    \
                 ui_p_regs.end = ui_p_regs.start + load_paddr - mods_end_paddr;\n",
        becomes: "    ui_p_regs.start = find_load_paddr(boot_state.ki_p_reg.end, load_paddr - mods_end_paddr);\n    \
                  if (!ui_p_regs.start) {\n        return false;\n    }\n    \
                  ui_p_regs.end = ui_p_regs.start + load_paddr - mods_end_paddr;\n",
        why: "init was put right behind the kernel, whatever is there. UEFI keeps pieces of that: \
              it goes to the first place behind the kernel that is memory and large enough, which \
              is the same one where nothing is kept",
    },
    Edit {
        file: "src/arch/x86/64/kernel/vspace.c",
        expect: "    x86_wrmsr(IA32_FMASK_MSR, FLAGS_TF | FLAGS_IF);\n",
        becomes: "    x86_wrmsr(IA32_FMASK_MSR, FLAGS_TF | FLAGS_IF | BIT(10) | BIT(14) | BIT(18));\n    \
                  x86_wrmsr(IA32_SYSENTER_CS_MSR, 0);\n",
        why: "SYSCALL keeps every flag that this does not mask. NT (bit 14) makes the kernel's \
              next iretq raise #GP in ring 0, which halts the machine; with DF (bit 10) its \
              string instructions run backwards; AC (bit 18) would switch SMAP off. And \
              SYSENTER must fault whatever a boot loader left: with a selector here it would \
              enter ring 0 with all flags but IF, VM and RF as the caller has them",
    },
    Edit {
        file: "src/arch/x86/64/traps.S",
        expect: "BEGIN_FUNC(handle_interrupt)\n    # push the rest of the registers\n    \
                 INT_SAVE_STATE\n",
        becomes: "BEGIN_FUNC(handle_interrupt)\n    # push the rest of the registers\n    \
                  INT_SAVE_STATE\n    cld\n",
        why: "an interrupt gate clears TF, NT, RF and VM but leaves DF, which compiled code \
              takes for clear (System V ABI, section 3.2.1)",
    },
    Edit {
        file: "src/arch/x86/64/machine/registerset.c",
        expect: "    if (reg == FaultIP || reg == NextIP) {\n",
        becomes: "    if (reg == FaultIP || reg == NextIP || reg == TLS_BASE) {\n",
        why: "a TLS base that is not canonical would fault in the kernel's own wrfsbase",
    },
    Edit {
        file: "src/arch/x86/kernel/vspace.c",
        expect: "    if (!IS_ALIGNED(vptr, 9)) {\n",
        becomes: "    if (!IS_ALIGNED(vptr, 9) || vptr >= PPTR_USER_TOP ||\n            \
                  (vptr > 0x00007fffffffffff && vptr < 0xffff800000000000)) {\n",
        why: "the IPC buffer's address becomes the GS base: one that is not canonical would \
              fault in the kernel's own wrgsbase",
    },
    Edit {
        file: "src/object/tcb.c",
        expect: "    if (cptr_bufferPtr == 0) {\n        bufferSlot = NULL;\n    } else {\n        \
                 exception_t e;\n        deriveCap_ret_t dc_ret;\n",
        becomes: "    if (cptr_bufferPtr == 0 ||\n            \
                  (cap_get_capType(bufferCap) == cap_null_cap &&\n             \
                  (cptr_bufferPtr <= 0x00007fffffffffff || cptr_bufferPtr >= 0xffff800000000000))) {\n        \
                  bufferSlot = NULL;\n    } else {\n        \
                  exception_t e;\n        deriveCap_ret_t dc_ret;\n",
        why: "the GS base of a thread is the address of its IPC buffer, and a guest needs one of \
              its own: without a page the address is only that. It must be canonical, since the \
              kernel's own wrgsbase takes it",
    },
    Edit {
        file: "include/arch/x86/arch/machine.h",
        expect: "    if (base != ARCH_NODE_STATE_ON_CORE(x86KSCurrentFSBase, cpu)) {\n",
        becomes: "    {\n",
        why: "a thread changes its FS base by wrfsbase, of which the kernel's record knows nothing: \
              the next thread would run with that base if its own is the recorded one",
    },
    Edit {
        file: "include/arch/x86/arch/machine.h",
        expect: "    if (likely(base != ARCH_NODE_STATE_ON_CORE(x86KSCurrentGSBase, cpu))) {\n",
        becomes: "    {\n",
        why: "the same by wrgsbase",
    },
    Edit {
        file: "src/arch/x86/kernel/vspace.c",
        expect: "        if (vtop > PPTR_USER_TOP) {\n",
        becomes: "        if (vtop > PPTR_USER_TOP || vaddr >= PPTR_USER_TOP ||\n                \
                  (vtop > 0x00007ffffffff000 && vaddr < 0xffff800000000000)) {\n",
        why: "a frame at the top of the address space passes, since the sum wraps, and lands in \
              the kernel's tables. Nor may the last page below the canonical hole be mapped: \
              the return address of a SYSCALL in its last two bytes is not canonical, on which \
              Intel's SYSRET faults in ring 0 (SDM vol. 2B, SYSRET)",
    },
    Edit {
        file: "src/arch/x86/kernel/vspace.c",
        expect: "    if (vaddr >= PPTR_USER_TOP) {\n        \
                 userError(\"X86PageTable: Mapping address too high.\");\n",
        becomes: "    if (vaddr >= PPTR_USER_TOP ||\n            \
                  (vaddr > 0x00007fffffffffff && vaddr < 0xffff800000000000)) {\n        \
                  userError(\"X86PageTable: Mapping address too high.\");\n",
        why: NO_ADDRESS,
    },
    Edit {
        file: "src/arch/x86/64/kernel/vspace.c",
        expect: "    if (vaddr >= PPTR_USER_TOP) {\n        \
                 userError(\"X64PageDirectory: Mapping address too high.\");\n",
        becomes: "    if (vaddr >= PPTR_USER_TOP ||\n            \
                  (vaddr > 0x00007fffffffffff && vaddr < 0xffff800000000000)) {\n        \
                  userError(\"X64PageDirectory: Mapping address too high.\");\n",
        why: NO_ADDRESS,
    },
    Edit {
        file: "src/arch/x86/64/kernel/vspace.c",
        expect: "    if (vaddr >= PPTR_USER_TOP) {\n        \
                 userError(\"X64PDPT: Mapping address too high.\");\n",
        becomes: "    if (vaddr >= PPTR_USER_TOP ||\n            \
                  (vaddr > 0x00007fffffffffff && vaddr < 0xffff800000000000)) {\n        \
                  userError(\"X64PDPT: Mapping address too high.\");\n",
        why: NO_ADDRESS,
    },
];

impl Edit {
    /// Applies the edit to `text`, the content of its file.
    ///
    /// # Errors
    /// If the expected text is not there exactly once.
    pub fn apply(&self, text: &str) -> Result<String, Error> {
        match text.matches(self.expect).count() {
            1 => Ok(text.replacen(self.expect, self.becomes, 1)),
            found => Err(Error::new(
                format!("cannot edit the kernel's {}", self.file),
                format!(
                    "expected this text once, found it {found} times:\n{}",
                    self.expect
                ),
                "the kernel's sources are not those this edit was written for; check the pinned \
                 version and whether the edit is still needed",
            )),
        }
    }
}

/// Returns the content of `file` (from the kernel's root) with its edits
/// applied.
pub(crate) fn edited(file: &str, text: String) -> Result<String, Error> {
    EDITS
        .iter()
        .filter(|e| e.file == file)
        .try_fold(text, |text, edit| edit.apply(&text))
}

/// The edits that a build makes: the files that they change, and a file's text
/// with them.
pub(crate) struct Edited<'a> {
    pub files: &'a [&'static str],
    pub apply: &'a dyn Fn(&str, String) -> Result<String, Error>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDIT: Edit = Edit {
        file: "f",
        expect: "one\n",
        becomes: "two\n",
        why: "test",
    };

    #[test]
    fn replaces_the_one_place() {
        assert_eq!(EDIT.apply("a\none\nb\n").unwrap(), "a\ntwo\nb\n");
    }

    #[test]
    fn refuses_missing_and_repeated_text() {
        assert!(
            EDIT.apply("a\nb\n")
                .unwrap_err()
                .cause
                .contains("found it 0 times")
        );
        assert!(
            EDIT.apply("one\none\n")
                .unwrap_err()
                .cause
                .contains("found it 2 times")
        );
    }
}
