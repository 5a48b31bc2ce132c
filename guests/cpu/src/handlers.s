// Handlers of the interrupt table that `main.rs` loads, and code that faults on purpose.

.section .text.handlers, "ax"

// An interrupt: counts, and ends it at the local APIC's page.
.global cpu_interrupt
cpu_interrupt:
    push rax
    inc qword ptr [rip + cpu_interrupts]
    mov eax, 0xfee000b0
    mov dword ptr [rax], 0
    pop rax
    iretq

// A page fault: writes down its frame, and goes on where `cpu_touch` says. Stack: RAX,
// error code, RIP, CS, RFLAGS, RSP, SS.
.global cpu_page_fault
cpu_page_fault:
    push rax
    mov [rip + cpu_frame], rsp
    mov rax, [rsp + 8]
    mov [rip + cpu_frame + 8], rax
    mov rax, [rsp + 24]
    mov [rip + cpu_frame + 16], rax
    mov rax, [rsp + 40]
    mov [rip + cpu_frame + 24], rax
    mov rax, [rsp + 48]
    mov [rip + cpu_frame + 32], rax
    mov rax, [rip + cpu_resume]
    mov [rsp + 16], rax
    pop rax
    add rsp, 8
    iretq

// Reads a byte at RDI with RSI as the stack pointer.
.global cpu_touch
cpu_touch:
    push rbx
    mov rbx, rsp
    lea rax, [rip + 1f]
    mov [rip + cpu_resume], rax
    mov rsp, rsi
    mov al, [rdi]
1:  mov rsp, rbx
    pop rbx
    ret

// Sends itself interrupt 0x40 while interrupts are off, and has them back by the flags
// that were saved while they were on. Returns what was counted before that and right
// after it, in RAX and RDX.
.global cpu_interrupt_by_flags
cpu_interrupt_by_flags:
    sti
    nop
    pushfq
    cli
    mov eax, 0xfee00300         // interrupt command: to itself, fixed, vector 0x40
    mov dword ptr [rax], 0x40040
    mov rax, [rip + cpu_interrupts]
    popfq
    mov rdx, [rip + cpu_interrupts]
    cli
    ret

.section .bss.handlers, "aw", @nobits
.balign 8
cpu_interrupts: .skip 8
cpu_resume: .skip 8
.global cpu_frame
cpu_frame: .skip 40
