// The two ways into a guest image. Both end in `guest_start` with RDI =
// boot_params, on our own stack, with interrupts off.
//
// The stack lies at the very beginning of the guest's RAM (guest.ld), where a
// loader has left boot_params and command line: they are copied first. Below it
// there is nothing: on Vectis no memory of this guest, on a bare machine 1 MiB that is
// left out of the page tables here.

// PVH note (Xen public/elfnote.h: XEN_ELFNOTE_PHYS32_ENTRY = 18). QEMU reads
// the descriptor of an ELF64 note as 8 bytes.
.section .note.Xen, "a", @note
.balign 4
    .long 4                     // name size
    .long 8                     // descriptor size
    .long 18                    // type
    .asciz "Xen"
    .quad pvh_start

// Entry on bare hardware, by the PVH boot protocol: 32-bit protected mode,
// flat segments, paging off, EBX = hvm_start_info.
.section .text.pvh, "ax"
.code32
.global pvh_start
pvh_start:
    cld
    mov esi, ebx
    mov esp, offset guest_stack_top

    // Identity map of 4 GiB in 2 MiB pages: present, writable, large. The last
    // GiB holds device registers (PCI window, APICs): uncached (PWT and PCD).
    mov edi, offset boot_page_directories
    mov eax, 0x83
    mov ecx, 3 * 512
1:  mov [edi], eax
    mov dword ptr [edi + 4], 0
    add eax, 0x200000
    add edi, 8
    dec ecx
    jnz 1b
    or eax, 0x18
    mov ecx, 512
2:  mov [edi], eax
    mov dword ptr [edi + 4], 0
    add eax, 0x200000
    add edi, 8
    dec ecx
    jnz 2b

    // The guard: of the 2 MiB below RAM the second one is left out. The first may hold
    // what the loader passes. A directory entry's offset is its address / 2 MiB * 8.
    mov eax, offset guest_ram
    sub eax, 0x200000
    mov edi, eax
    shr edi, 18
    add edi, offset boot_page_directories
    mov dword ptr [edi], offset boot_guard_table + 3
    mov edi, offset boot_guard_table
    or eax, 3
    mov ecx, 256
4:  mov [edi], eax
    add eax, 0x1000
    add edi, 8
    dec ecx
    jnz 4b

    mov edi, offset boot_pdpt
    mov eax, offset boot_page_directories
    or eax, 3
    mov ecx, 4
3:  mov [edi], eax
    mov dword ptr [edi + 4], 0
    add eax, 0x1000
    add edi, 8
    dec ecx
    jnz 3b
    mov eax, offset boot_pdpt
    or eax, 3
    mov edi, offset boot_pml4
    mov [edi], eax
    mov dword ptr [edi + 4], 0
    mov cr3, edi

    // CR4: PAE (5) for long mode; OSFXSR (9) and OSXMMEXCPT (10) because the
    // Rust core library is compiled to use SSE.
    mov eax, cr4
    or eax, 0x620
    mov cr4, eax
    mov ecx, 0xc0000080         // EFER: long mode enable (8)
    rdmsr
    or eax, 0x100
    wrmsr
    // CR0: no EM (2) or TS (3), which would trap SSE; PG (31), WP (16),
    // NE (5), MP (1), PE (0).
    mov eax, cr0
    and eax, 0xfffffff3
    or eax, 0x80010023
    mov cr0, eax

    lgdt [boot_gdt_pointer]
    push 0x10
    mov eax, offset pvh_long_mode
    push eax
    retf

.code64
pvh_long_mode:
    mov eax, 0x18
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    // A page fault needs a stack that is there, which only a task state segment
    // can say (Intel SDM vol. 3, 8.2.3 and 8.7): its descriptor's base, then it.
    lea rax, [rip + boot_task_state]
    lea rcx, [rip + boot_gdt_task_state]
    mov [rcx + 2], ax
    shr rax, 16
    mov [rcx + 4], al
    mov [rcx + 7], ah
    shr rax, 16
    mov [rcx + 8], eax
    lea rax, [rip + fault_stack_top]
    lea rcx, [rip + boot_task_state]
    mov [rcx + 36], rax         // IST 1
    mov eax, 0x20
    ltr ax
    mov byte ptr [rip + boot_has_fault_stack], 1

    mov edi, esi
    lea rsp, [rip + guest_stack_top]
    xor ebp, ebp
    call boot_params_from_pvh
    mov rsi, rax
    // Falls into the 64-bit entry, as any other loader would enter it.
    jmp _start

// Entry by the Linux 64-bit boot protocol: long mode, identity mapped,
// interrupts off, RSI = boot_params. No descriptor table, page table or
// segment is touched from here on: on Vectis they are not ours.
.section .text.start, "ax"
.global _start
_start:
    cld
    lea rdi, [rip + boot_params_copy]
    mov ecx, 4096 / 8
    rep movsq
    // The command line's address (zero-page.rst: cmd_line_ptr, ext_cmd_line_ptr).
    lea rdi, [rip + boot_params_copy]
    mov esi, [rdi + 0x228]
    mov eax, [rdi + 0xc8]
    shl rax, 32
    or rsi, rax
    jz 1f
    lea rax, [rip + boot_command_line]
    mov [rdi + 0x228], eax
    shr rax, 32
    mov [rdi + 0xc8], eax
    lea rdi, [rip + boot_command_line]
    mov ecx, 2048 / 8           // command_line::MAX_LENGTH
    rep movsq
1:  lea rsp, [rip + guest_stack_top]
    xor ebp, ebp                // ends a frame-pointer backtrace
    lea rdi, [rip + boot_params_copy]
    call guest_start
    ud2

// Selectors by the Linux boot protocol: 0x10 = code (__BOOT_CS), 0x18 = data.
// Written to: LTR marks the task state segment as busy.
.section .data.boot, "aw"
.balign 8
boot_gdt:
    .quad 0
    .quad 0
    .quad 0x00af9a000000ffff
    .quad 0x00cf92000000ffff
boot_gdt_task_state:            // 104 bytes, available 64-bit TSS, present
    .quad 0x0000890000000067
    .quad 0
boot_gdt_pointer:
    .short 47
    .long boot_gdt
// Whether IST 1 is a stack: on a bare machine, where the task state is ours.
.global boot_has_fault_stack
boot_has_fault_stack: .byte 0

.section .bss.boot, "aw", @nobits
.balign 4096
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_page_directories: .skip 4 * 4096
boot_guard_table: .skip 4096
boot_params_copy: .skip 4096
boot_command_line: .skip 2048
.balign 16
boot_task_state: .skip 104
.balign 16
fault_stack: .skip 8192
fault_stack_top:
