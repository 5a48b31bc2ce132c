// Interrupt and exception stubs.
//
// An interrupt only counts itself and sends the end of interrupt: everything
// else happens in the guest's loop, which is why no Rust code ever runs
// concurrently with other Rust code here.
//
// It returns with interrupts off, by clearing IF in the frame: the loop wants
// them off next, and a `cli` there would be one more trap on Vectis.

.section .text.interrupts, "ax"

// One stub for each vector, 16 bytes apart. The CPU pushes an error code for
// exceptions 8, 10-14, 17, 21, 29 and 30 (Intel SDM vol. 3, table 6-1; 29 and
// 30 from AMD's APM vol. 2, 8.2); the others get a zero in its place.
.balign 16
.global interrupt_stubs
interrupt_stubs:
.set vector, 0
.rept 256
    .balign 16
    .if !((vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30))
    push 0
    .endif
    push vector
    jmp interrupt_common
    .set vector, vector + 1
.endr

// Stack: vector, error code, RIP, CS, RFLAGS, RSP, SS.
.balign 16
interrupt_common:
    cmp qword ptr [rsp], 32
    jb exception_entry
    push rax
    push rcx
    mov rax, [rsp + 16]
    lea rcx, [rip + interrupt_counts]
    inc qword ptr [rcx + rax * 8]
    mov byte ptr [rip + interrupt_taken], 1
    and dword ptr [rsp + 48], 0xfffffdff    // RFLAGS.IF (bit 9)
    cmp eax, 0xff               // spurious: no end of interrupt (SDM vol. 3, 10.9)
    je 1f
    mov rcx, [rip + lapic_eoi_address]
    test rcx, rcx
    jz 2f
    xor eax, eax
    mov [rcx], eax
1:  pop rcx
    pop rax
    add rsp, 16
    iretq
2:  push rdx
    mov ecx, 0x80b              // IA32_X2APIC_EOI
    xor eax, eax
    xor edx, edx
    wrmsr
    pop rdx
    jmp 1b

// Opens interrupts and halts; returns with interrupts off. STI takes effect
// after the instruction that follows it, so an interrupt that is pending ends
// the halt and is not lost before it. Should the halt end without one, IF is
// still set.
.global interrupt_wait
interrupt_wait:
    mov byte ptr [rip + interrupt_taken], 0
    sti
    hlt
    jmp interrupts_off

// Opens interrupts for one instruction; returns with interrupts off.
.global interrupt_window
interrupt_window:
    mov byte ptr [rip + interrupt_taken], 0
    sti
    nop
interrupts_off:
    cmp byte ptr [rip + interrupt_taken], 0
    jne 1f
    cli
1:  ret

exception_entry:
    mov rdi, rsp
    and rsp, -16
    call guest_exception
    ud2

.section .bss.interrupts, "aw", @nobits
interrupt_taken: .skip 1
