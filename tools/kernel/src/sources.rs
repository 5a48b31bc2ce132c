//! Which files make up the kernel for an x86_64 PC, and where headers are searched.

/// C files compiled as one unit, in this order. They are listed rather than
/// globbed: a folder also holds files that belong to other configurations.
pub(crate) const C: &[&str] = &[
    "src/api/faults.c",
    "src/api/syscall.c",
    "src/arch/x86/64/c_traps.c",
    "src/arch/x86/64/kernel/elf.c",
    "src/arch/x86/64/kernel/ipi.c",
    "src/arch/x86/64/kernel/thread.c",
    "src/arch/x86/64/kernel/vspace.c",
    "src/arch/x86/64/machine/registerset.c",
    "src/arch/x86/64/model/smp.c",
    "src/arch/x86/64/model/statedata.c",
    "src/arch/x86/64/object/objecttype.c",
    "src/arch/x86/api/faults.c",
    "src/arch/x86/benchmark/benchmark.c",
    "src/arch/x86/c_traps.c",
    "src/arch/x86/idle.c",
    "src/arch/x86/kernel/apic.c",
    "src/arch/x86/kernel/boot.c",
    "src/arch/x86/kernel/boot_sys.c",
    "src/arch/x86/kernel/cmdline.c",
    "src/arch/x86/kernel/ept.c",
    "src/arch/x86/kernel/ipi.c",
    "src/arch/x86/kernel/smp_sys.c",
    "src/arch/x86/kernel/vspace.c",
    "src/arch/x86/kernel/x2apic.c",
    "src/arch/x86/kernel/xapic.c",
    "src/arch/x86/machine/breakpoint.c",
    "src/arch/x86/machine/cpu_identification.c",
    "src/arch/x86/machine/fpu.c",
    "src/arch/x86/machine/hardware.c",
    "src/arch/x86/machine/registerset.c",
    "src/arch/x86/model/statedata.c",
    "src/arch/x86/object/interrupt.c",
    "src/arch/x86/object/ioport.c",
    "src/arch/x86/object/iospace.c",
    "src/arch/x86/object/objecttype.c",
    "src/arch/x86/object/tcb.c",
    "src/arch/x86/object/vcpu.c",
    "src/assert.c",
    "src/benchmark/benchmark_track.c",
    "src/benchmark/benchmark_utilisation.c",
    "src/fastpath/fastpath.c",
    "src/inlines.c",
    "src/kernel/boot.c",
    "src/kernel/cspace.c",
    "src/kernel/faulthandler.c",
    "src/kernel/stack.c",
    "src/kernel/thread.c",
    "src/machine/fpu.c",
    "src/machine/io.c",
    "src/machine/registerset.c",
    "src/model/preemption.c",
    "src/model/statedata.c",
    "src/object/cnode.c",
    "src/object/endpoint.c",
    "src/object/interrupt.c",
    "src/object/notification.c",
    "src/object/objecttype.c",
    "src/object/tcb.c",
    "src/object/untyped.c",
    "src/plat/pc99/machine/acpi.c",
    "src/plat/pc99/machine/hardware.c",
    "src/plat/pc99/machine/intel-vtd.c",
    "src/plat/pc99/machine/io.c",
    "src/plat/pc99/machine/ioapic.c",
    "src/plat/pc99/machine/pic.c",
    "src/plat/pc99/machine/pit.c",
    "src/smp/lock.c",
    "src/string.c",
    "src/util.c",
    "src/config/default_domain.c",
];

/// The state dump that only a debug kernel (`DEBUG`) calls.
pub(crate) const C_DEBUG: &[&str] = &["src/arch/x86/machine/capdl.c"];

/// Assembly files; the multiboot header comes first in the image by its section.
pub(crate) const ASM: &[&str] = &[
    "src/arch/x86/64/head.S",
    "src/arch/x86/64/machine_asm.S",
    "src/arch/x86/64/traps.S",
    "src/arch/x86/multiboot.S",
];

/// The linker script.
pub(crate) const LINKER_SCRIPT: &str = "src/plat/pc99/linker.lds";

/// Where headers are searched, in order.
pub(crate) const INCLUDES: &[&str] = &[
    "include",
    "include/64",
    "include/arch/x86",
    "include/arch/x86/arch/64",
    "include/plat/pc99",
    "include/plat/pc99/plat/64",
];
