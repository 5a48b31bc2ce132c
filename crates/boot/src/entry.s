// From the loader's 32-bit mode to 64-bit code, and back again into the kernel.

.section .multiboot2, "a"
.balign 8
multiboot2_header:
    // Magic, architecture (32-bit protected mode of i386), length, sum of all 0.
    .long 0xe85250d6
    .long 0
    .long multiboot2_header_end - multiboot2_header
    .long -(0xe85250d6 + (multiboot2_header_end - multiboot2_header))
    // A framebuffer, if there is one: of any size, with as many bits as there are.
    .short 5
    .short 1                    // optional
    .long 20
    .long 0, 0, 0
    .balign 8
    // The end of the tags.
    .short 0
    .short 0
    .long 8
multiboot2_header_end:

.section .text.entry, "ax"
.code32
.global boot_start
// EAX: the loader's magic; EBX: its information; flat segments, no paging, no interrupts.
boot_start:
    cli
    cld
    mov esp, offset boot_stack_top
    mov edi, eax
    mov esi, ebx
    push edi
    push esi

    // Long mode: CPUID 8000_0001h EDX bit 29, if there is such a leaf.
    mov eax, 0x80000000
    cpuid
    cmp eax, 0x80000001
    jb no_long_mode
    mov eax, 0x80000001
    cpuid
    bt edx, 29
    jnc no_long_mode

    // Identity map of 4 GiB in pages of 2 MiB: present, writable, large.
    mov edi, offset boot_page_directories
    mov eax, 0x83
    mov ecx, 4 * 512
1:  mov [edi], eax
    mov dword ptr [edi + 4], 0
    add eax, 0x200000
    add edi, 8
    dec ecx
    jnz 1b
    mov edi, offset boot_pdpt
    mov eax, offset boot_page_directories
    or eax, 3
    mov ecx, 4
2:  mov [edi], eax
    mov dword ptr [edi + 4], 0
    add eax, 0x1000
    add edi, 8
    dec ecx
    jnz 2b
    mov eax, offset boot_pdpt
    or eax, 3
    mov edi, offset boot_pml4
    mov [edi], eax
    mov dword ptr [edi + 4], 0
    mov cr3, edi

    // CR4: PAE (5) for long mode; OSFXSR (9) and OSXMMEXCPT (10) because the Rust core
    // library is compiled to use SSE.
    mov eax, cr4
    or eax, 0x620
    mov cr4, eax
    mov ecx, 0xc0000080         // EFER: long mode enable (8)
    rdmsr
    or eax, 0x100
    wrmsr
    // CR0: no EM (2) or TS (3), which would trap SSE; PG (31), NE (5), MP (1), PE (0).
    mov eax, cr0
    and eax, 0xfffffff3
    or eax, 0x80000023
    mov cr0, eax

    pop esi
    pop edi
    lgdt [boot_gdt_pointer]
    push 0x18
    mov eax, offset boot_long_mode
    push eax
    retf

// Says so on the serial port, to a machine of before 2004.
no_long_mode:
    mov edx, dword ptr [VECTIS_BOOT]
    mov esi, offset no_long_mode_text
3:  lodsb
    test al, al
    jz boot_halt
    out dx, al
    jmp 3b
no_long_mode_text:
    .asciz "\r\nboot: this CPU has no 64-bit mode: nothing here runs on it\r\n"
.global boot_halt
boot_halt:
    cli
    hlt
    jmp boot_halt

.code64
boot_long_mode:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    lea rsp, [rip + boot_stack_top]
    xor ebp, ebp                // ends a backtrace
    // EDI: the loader's magic; RSI: its information. Fills `boot_jump`.
    call {main}
    push 0x08
    lea rax, [rip + boot_protected_mode]
    push rax
    retfq

.code32
boot_protected_mode:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    mov ecx, 0xc0000080
    rdmsr
    and eax, 0xfffffeff
    wrmsr
    xor eax, eax
    mov cr4, eax
    mov eax, [boot_jump + 4]
    mov ebx, [boot_jump + 8]
    jmp [boot_jump]

.section .data.boot, "aw"
.balign 8
// Null; 32-bit code, data, 64-bit code, all flat.
boot_gdt:
    .quad 0
    .quad 0x00cf9a000000ffff
    .quad 0x00cf92000000ffff
    .quad 0x00af9a000000ffff
boot_gdt_pointer:
    .short 31
    .long boot_gdt
.balign 4
// The kernel's entry, what it finds in EAX, and in EBX.
.global boot_jump
boot_jump: .long 0, 0, 0

.section .bss.boot, "aw", @nobits
.balign 4096
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_page_directories: .skip 4 * 4096
boot_stack: .skip 0x10000
boot_stack_top:

// What follows in the compiler's own assembly is 64-bit code.
.code64
.text
