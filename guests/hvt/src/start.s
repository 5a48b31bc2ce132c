// Entry of the image, by Solo5's hvt ABI: long mode, RDI = boot information, RSP at the
// end of memory and 8 bytes off a multiple of 16. Sets up what C code of such images has:
// descriptors of its own, a task state with a stack for exceptions, and FS for thread
// local storage.

.section .text.start, "ax"
.global _start
_start:
    mov rbx, rdi
    // The task state's descriptor: its base, then the stack IST 1.
    lea rax, [rip + task_state]
    lea rcx, [rip + gdt]
    mov [rcx + 26], ax
    shr rax, 16
    mov [rcx + 28], al
    mov [rcx + 31], ah
    shr rax, 16
    mov [rcx + 32], eax
    lea rax, [rip + exception_stack_end]
    mov [rip + task_state + 36], rax
    lea rax, [rip + gdt]
    mov [rip + gdt_pointer + 2], rax
    lgdt [rip + gdt_pointer]
    push 0x08
    lea rax, [rip + 1f]
    push rax
    retfq
1:  mov eax, 0x10
    mov ss, eax
    mov ds, eax
    mov es, eax
    mov eax, 0x18
    ltr ax
    // FS base: the variable's address is in the variable, as the ABI for threads has it.
    lea rax, [rip + thread]
    mov [rax], rax
    mov rdx, rax
    shr rdx, 32
    mov ecx, 0xc0000100
    wrmsr
    mov rdi, rbx
    sub rsp, 8
    xor ebp, ebp
    call image_main
    ud2

// One stub for each exception, 16 bytes apart. The CPU pushes an error code for 8, 10 to
// 14, 17 and 21 (Intel SDM vol. 3, table 6-1); the others get a zero in its place.
.balign 16
.global exception_stubs
exception_stubs:
.set vector, 0
.rept 32
    .balign 16
    .if !((vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21))
    push 0
    .endif
    push vector
    jmp exception
    .set vector, vector + 1
.endr

exception:
    pop rdi
    pop rsi
    mov rdx, [rsp]
    mov rcx, rsp
    and rsp, -16
    call image_exception
    ud2

// fn call_with_marks(port: u16, argument: u32) -> u64: makes a hypercall with a mark in
// every other register, the carry flag and the red zone. Returns how many are gone.
.macro compare register, value
    mov rdx, \value
    cmp \register, rdx
    setne dl
    movzx edx, dl
    add rax, rdx
.endm
.global call_with_marks
call_with_marks:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov edx, edi
    mov eax, esi
    mov rcx, 0x1111111111111111
    mov rbx, 0x2222222222222222
    mov rbp, 0x3333333333333333
    mov rsi, 0x4444444444444444
    mov rdi, 0x5555555555555555
    mov r8, 0x6666666666666666
    mov r9, 0x7777777777777777
    mov r10, 0x8888888888888888
    mov r11, 0x9999999999999999
    mov r12, 0xaaaaaaaaaaaaaaaa
    mov r13, 0xbbbbbbbbbbbbbbbb
    mov r14, 0xcccccccccccccccc
    mov r15, 0xdddddddddddddddd
    mov [rsp - 8], rbx
    mov [rsp - 128], rbp
    movq xmm0, rcx
    movq xmm15, rbx
    stc
    out dx, eax
    setnc al
    movzx eax, al
    compare rcx, 0x1111111111111111
    compare rbx, 0x2222222222222222
    compare rbp, 0x3333333333333333
    compare rsi, 0x4444444444444444
    compare rdi, 0x5555555555555555
    compare r8, 0x6666666666666666
    compare r9, 0x7777777777777777
    compare r10, 0x8888888888888888
    compare r11, 0x9999999999999999
    compare r12, 0xaaaaaaaaaaaaaaaa
    compare r13, 0xbbbbbbbbbbbbbbbb
    compare r14, 0xcccccccccccccccc
    compare r15, 0xdddddddddddddddd
    mov rcx, [rsp - 8]
    compare rcx, 0x2222222222222222
    mov rcx, [rsp - 128]
    compare rcx, 0x3333333333333333
    movq rcx, xmm0
    compare rcx, 0x1111111111111111
    movq rcx, xmm15
    compare rcx, 0x2222222222222222
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

.section .data.start, "aw"
.balign 8
gdt:
    .quad 0
    .quad 0x00af9a000000ffff    // 0x08: code
    .quad 0x00cf92000000ffff    // 0x10: data
    .quad 0x0000890000000067    // 0x18: task state, 104 bytes
    .quad 0
gdt_pointer:
    .short 39
    .quad 0

.section .bss.start, "aw", @nobits
.balign 16
task_state: .skip 104
.balign 16
thread: .skip 16
exception_stack: .skip 8192
exception_stack_end:
