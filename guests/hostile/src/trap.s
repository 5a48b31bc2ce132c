// Runs a piece of code and survives it.
//
// An exception inside it does not return there: the stack is taken back to where
// it was, so it does not matter what the code did to its own.

// hostile_run(code: rdi, registers: rsi): the vector of the exception that ended
// it, or 0x100. RBX = RSP where the code begins.
.section .text.trap, "ax"
.global hostile_run
hostile_run:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    push rsi
    mov [rip + hostile_stack], rsp
    mov r11, rdi
    mov rax, [rsi]
    mov rcx, [rsi + 8]
    mov rdx, [rsi + 16]
    mov rdi, [rsi + 32]
    mov r8, [rsi + 40]
    mov r9, [rsi + 48]
    mov r10, [rsi + 56]
    mov r15, [rsi + 64]
    mov rsi, [rsi + 24]
    lea rbx, [rsp - 8]          // after the call's own push
    call r11
    mov r11d, 0x100
hostile_end:
    mov rsp, [rip + hostile_stack]
    mov rbx, [rsp]
    mov [rbx], rax
    mov [rbx + 8], rcx
    mov [rbx + 16], rdx
    mov [rbx + 24], rsi
    mov [rbx + 32], rdi
    mov [rbx + 40], r8
    mov [rbx + 48], r9
    mov [rbx + 56], r10
    mov [rbx + 64], r15
    // Flags, x87 and SSE as compiled code expects them. The flags are the hardware's: with
    // a prefix (REX.W) the build tool leaves the popfq as it is.
    push 2
    .byte 0x48
    popfq
    fninit
    push 0x1f80
    ldmxcsr [rsp]
    add rsp, 16                 // that, and the registers' address
    mov eax, r11d
    mov qword ptr [rip + hostile_stack], 0
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

// Gates of the exceptions. Outside of hostile_run they are the kit's.
.balign 32
.global hostile_stubs
hostile_stubs:
.set vector, 0
.rept 32
    .balign 32
    cmp qword ptr [rip + hostile_stack], 0
    je interrupt_stubs + 16 * vector
    mov r11d, vector
    jmp hostile_end
    .set vector, vector + 1
.endr

.section .bss.trap, "aw", @nobits
.balign 8
hostile_stack: .skip 8
