// The way into the image and back: two sets of registers on one CPU.
//
// The image calls by output of EAX to the port in DX, which the vmm turns into a jump to
// `image_call` with every register as the image had it but RSP: that is 136 bytes lower (the
// red zone, spec::shim::RED_ZONE, and the address to return to). An output to a port that is
// no call's arrives here too, and is made here. Interrupts are off on both sides.

.section .text.image, "ax"

// fn image_run() -> u64: lets the image run until its next call. Returns RDX of the call,
// which is the port, in the upper half, and EAX, which is the argument, in the lower one.
.global image_run
image_run:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov [rip + shim_stack], rsp
    fxrstor64 [rip + image_fx]
image_go_on:
    push qword ptr [rip + image_flags]
    popfq
    // No instruction from here on changes flags.
    lea r15, [rip + image_registers]
    mov rax, [r15]
    mov rcx, [r15 + 8]
    mov rdx, [r15 + 16]
    mov rbx, [r15 + 24]
    mov rsp, [r15 + 32]
    mov rbp, [r15 + 40]
    mov rsi, [r15 + 48]
    mov rdi, [r15 + 56]
    mov r8, [r15 + 64]
    mov r9, [r15 + 72]
    mov r10, [r15 + 80]
    mov r11, [r15 + 88]
    mov r12, [r15 + 96]
    mov r13, [r15 + 104]
    mov r14, [r15 + 112]
    mov r15, [r15 + 120]
    ret 128                     // and the red zone

// Where the image's calls arrive.
.global image_call
image_call:
    mov [rip + image_registers + 120], r15
    lea r15, [rip + image_registers]
    mov [r15], rax
    mov [r15 + 8], rcx
    mov [r15 + 16], rdx
    mov [r15 + 24], rbx
    mov [r15 + 32], rsp
    mov [r15 + 40], rbp
    mov [r15 + 48], rsi
    mov [r15 + 56], rdi
    mov [r15 + 64], r8
    mov [r15 + 72], r9
    mov [r15 + 80], r10
    mov [r15 + 88], r11
    mov [r15 + 96], r12
    mov [r15 + 104], r13
    mov [r15 + 112], r14
    mov rsp, [rip + shim_stack]
    pushfq
    pop qword ptr [rip + image_flags]
    push 2                      // direction, alignment check and the rest: clear
    popfq
    lea ecx, [rdx - 0x501]      // spec::shim::CALL_PORTS
    cmp cx, 8
    jae 1f
    lea rcx, [rip + again_frame]
    mov [rip + shim_stack], rcx
    fxsave64 [rip + image_fx]
    mov eax, eax
    shl rdx, 32
    or rax, rdx
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret
1:  out dx, eax
    jmp image_go_on

// Where a call arrives that was made while the shim runs: an exception of the shim's led to
// the image's handler. The shim's own frame is no more to be returned to.
called_again:
    lea rsp, [rip + again_stack_end]
    call image_called_again
    ud2

.section .data.image, "aw"
.balign 16
// State of the x87 and of SSE as at reset: control words with every exception masked
// (Intel SDM vol. 1, table 10-2).
image_fx:
    .short 0x37f
    .skip 22
    .long 0x1f80
    .skip 484
image_flags: .quad 2
// A stack for `image_call` from which it returns to `called_again`.
    .skip 16
again_frame: .quad 0, 0, 0, 0, 0, 0, called_again

.section .bss.image, "aw", @nobits
.balign 8
// In the order of their encoding: RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
.global image_registers
image_registers: .skip 128
shim_stack: .skip 8
.balign 16
.skip 8192
again_stack_end:
