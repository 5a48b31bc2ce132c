// From a Multiboot 1 loader to the kit's 64-bit entry: page tables, a descriptor table and
// long mode of the guest's own.

// Pages, memory sizes; loaded as the ELF file says.
.section .multiboot, "a"
.balign 4
    .long 0x1badb002
    .long 3
    .long -(0x1badb002 + 3)

.section .text.multiboot, "ax"
.code32
.global multiboot_start
multiboot_start:
    cld
    mov esp, offset guest_stack_top
    mov [multiboot_magic], eax
    mov [multiboot_information], ebx

    // The command line asks by its first letter for a way to fail here.
    // It stands behind the file's name and a space.
    mov esi, [ebx + 16]
5:  lodsb
    cmp al, ' '
    jne 5b
    lodsb
    cmp al, 'b'
    jne 1f
    fld1                        // nothing of the x87 FPU is interpreted
1:  cmp al, 'o'
    jne 1f
    mov eax, 0x70000000
    jmp eax
1:
    // Identity map of 4 GiB in 2 MiB pages: present, writable, large.
    mov edi, offset multiboot_directories
    xor ebx, ebx
1:  mov eax, ebx
    shl eax, 21
    or eax, 0x83
    stosd
    xor eax, eax
    stosd
    inc ebx
    cmp ebx, 4 * 512
    jne 1b
    mov ecx, 4
    mov edx, offset multiboot_directories + 3
    mov edi, offset multiboot_pointers
2:  mov [edi], edx
    add edi, 8
    add edx, 0x1000
    loop 2b
    mov eax, offset multiboot_pointers + 3
    mov [multiboot_tables], eax
    lgdt [multiboot_gdt_pointer]
    // The 32-bit segments of that table first.
    push 0x18
    mov eax, offset multiboot_flat
    push eax
    retf
multiboot_flat:
    mov eax, 0x20
    mov ds, eax
    mov es, eax
    mov ss, eax

    mov eax, cr4
    bts eax, 5                  // PAE
    or eax, 0x600               // OSFXSR, OSXMMEXCPT
    mov cr4, eax
    mov ecx, 0xc0000080         // EFER: LME
    rdmsr
    or ah, 1
    wrmsr
    mov eax, offset multiboot_tables
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80010022          // PG, WP, NE, MP
    and eax, 0xfffffff3
    mov cr0, eax
    // jmp 0x10:multiboot_long
    .byte 0xea
    .long multiboot_long
    .short 0x10

.code64
multiboot_long:
    lea rsp, [rip + guest_stack_top]
    xor ebp, ebp
    // The kit copies a page of boot parameters: an empty one.
    lea rsi, [rip + multiboot_parameters]
    jmp _start

.section .data.multiboot, "aw"
.balign 8
multiboot_gdt:
    .quad 0
    .quad 0
    .quad 0x00af9a000000ffff    // 64-bit code
    .quad 0x00cf9a000000ffff    // 32-bit code
    .quad 0x00cf92000000ffff    // data
multiboot_gdt_pointer:
    .short 39
    .long multiboot_gdt
.balign 4
.global multiboot_magic
multiboot_magic: .long 0
.global multiboot_information
multiboot_information: .long 0

.section .bss.multiboot, "aw", @nobits
.balign 4096
multiboot_tables: .skip 4096
multiboot_pointers: .skip 4096
multiboot_directories: .skip 4 * 4096
multiboot_parameters: .skip 4096
