// Entered by the Linux 64-bit boot protocol, at its virtual address.

.set BASE, 0xffff800000000000
.set COM1, 0x3f8
.set EXIT_PORT, 0xf4
.set SUCCESS, 0x10
.set CODE, 0x10             // the boot protocol's code selector

.section .text.start, "ax"
.global _start
_start:
    lea rsp, [rip + stack_top]
    lea rsi, [rip + entered]
    call print

    // The gate of #BP, and the table's pointer, whose parts are addresses up here.
    lea rax, [rip + breakpoint]
    lea rdi, [rip + gates + 3 * 16]
    mov [rdi], ax
    mov word ptr [rdi + 2], CODE
    mov word ptr [rdi + 4], 0x8e00
    shr rax, 16
    mov [rdi + 6], ax
    shr rax, 16
    mov [rdi + 8], eax
    lea rax, [rip + gates]
    mov [rip + gates_pointer + 2], rax
    lidt [rip + gates_pointer]
    int3
    cmp byte ptr [rip + taken], 1
    jne failed

    // A table that maps 4 GiB to itself and 32 MiB of RAM up here too.
    movabs r8, BASE
    lea rbx, [rip + low_directory]
    xor ecx, ecx
1:  mov rax, rcx
    shl rax, 30
    or rax, 0x83
    mov [rbx + 8 * rcx], rax
    inc ecx
    cmp ecx, 4
    jne 1b
    lea rbx, [rip + high_pages]
    xor ecx, ecx
2:  mov rax, rcx
    shl rax, 21
    or rax, 0x83
    mov [rbx + 8 * rcx], rax
    inc ecx
    cmp ecx, 16
    jne 2b
    sub rbx, r8
    or rbx, 3
    mov [rip + high_directory], rbx
    lea rax, [rip + low_directory]
    sub rax, r8
    or rax, 3
    mov [rip + root], rax
    lea rax, [rip + high_directory]
    sub rax, r8
    or rax, 3
    mov [rip + root + 8 * 256], rax
    lea rax, [rip + root]
    sub rax, r8
    mov cr3, rax

    // What is written up here is read below.
    mov dword ptr [rip + value], 0x600d
    lea rax, [rip + value]
    sub rax, r8
    cmp dword ptr [rax], 0x600d
    jne failed
    lea rsi, [rip + passed]
    call print
    mov eax, SUCCESS
    mov edx, EXIT_PORT
    out dx, eax

failed:
    lea rsi, [rip + bad]
    call print
    mov eax, SUCCESS + 1
    mov edx, EXIT_PORT
    out dx, eax
    hlt

breakpoint:
    mov byte ptr [rip + taken], 1
    iretq

// Writes the text at RSI, which ends with a zero.
print:
    mov edx, COM1
3:  lodsb
    test al, al
    jz 4f
    out dx, al
    jmp 3b
4:  ret

entered: .asciz "# upper: entered\n"
passed: .asciz "# upper: pass\n"
bad: .asciz "# upper: fail\n"

.section .data.upper, "aw"
.balign 16
gates_pointer:
    .short 4 * 16 - 1
    .quad 0
taken: .byte 0
.balign 4
value: .long 0

.section .bss.upper, "aw", @nobits
.balign 4096
root: .skip 4096
low_directory: .skip 4096
high_directory: .skip 4096
high_pages: .skip 4096
gates: .skip 4 * 16
.balign 16
stack: .skip 4096
stack_top:
