//! The guest's bases, descriptors and flags, and its page table.

use super::*;
use crate::paging::BadTable;

const GDT: u64 = RAM + 0x5000;
const TASK: u64 = RAM + 0x5800;
const FAULT_STACK: u64 = RAM + 0x7000;
const DATA: u64 = RAM + 0x6000;
/// Selectors in the table that `load_gdt` makes.
const CODE_64: u16 = 0x08;
const DATA_SELECTOR: u16 = 0x10;
const CODE_32: u16 = 0x18;
const ABSENT: u16 = 0x20;
const TSS: u16 = 0x28;
const WITH_BASE: u16 = 0x38;

const FS_BASE: u64 = 0xc000_0100;
const GS_BASE: u64 = 0xc000_0101;
const KERNEL_GS_BASE: u64 = 0xc000_0102;
/// Not canonical, each at an edge.
const ODD: [u64; 4] = [
    0x8000_0000_0000,
    0xffff_7fff_ffff_ffff,
    1 << 63,
    0x7fff_ffff_ffff_ffff,
];

const WRMSR: &[u8] = &[0x0f, 0x30];
const RDMSR: &[u8] = &[0x0f, 0x32];
const LRETQ: &[u8] = &[0x48, 0xcb];
const IRETQ: &[u8] = &[0x48, 0xcf];
const LTR_AX: &[u8] = &[0x0f, 0x00, 0xd8];
const PUSHF: &[u8] = &[0x06];
const POPF: &[u8] = &[0x07];

impl<'a> Machine<'a> {
    /// A guest whose image was rewritten.
    fn rewritten(functions: &'a [FunctionInfo]) -> Self {
        let mut m = Self::new(functions);
        m.vmm.rewritten = true;
        m
    }

    fn write_msr(&mut self, msr: u64, value: u64) -> bool {
        self.regs.gpr[RCX] = msr;
        self.regs.set_edx_eax(value);
        assert_eq!(self.privileged(WRMSR), Outcome::Resume);
        let taken = self.regs.rip == CODE + 2;
        assert!(taken || self.interrupted_with(13));
        taken
    }

    fn read_msr(&mut self, msr: u64) -> u64 {
        self.regs.gpr[RCX] = msr;
        assert_eq!(self.privileged(RDMSR), Outcome::Resume);
        assert_eq!(self.regs.rip, CODE + 2);
        self.regs.edx_eax()
    }

    fn invalid_opcode(&mut self, bytes: &[u8]) -> Outcome {
        self.code(bytes);
        self.fault(Fault::Exception { vector: 6, code: 0 })
    }

    fn set(&mut self, address: u64, word: u64) {
        assert!(self.host.write_ram(address, &word.to_le_bytes()));
    }

    fn put(&mut self, rsp: u64, words: &[u64]) {
        for (at, word) in (rsp..).step_by(8).zip(words) {
            self.set(at, *word);
        }
        self.regs.gpr[RSP] = rsp;
    }

    fn load_table(&mut self, code: &[u8], base: u64, limit: u16) -> Outcome {
        assert!(self.host.write_ram(DATA, &limit.to_le_bytes()));
        self.set(DATA + 2, base);
        self.regs.gpr[RAX] = DATA;
        self.privileged(code)
    }

    /// Loads a GDT with the descriptors of the constants above, and a task state
    /// segment whose IST 2 is `FAULT_STACK`.
    fn load_gdt(&mut self) {
        let task = 0x0000_8900_0000_0067 | (TASK & 0xff_ffff) << 16 | (TASK >> 24 & 0xff) << 56;
        let descriptors = [
            0,
            0x00af_9a00_0000_ffff,
            0x00cf_9200_0000_ffff,
            0x00cf_9a00_0000_ffff,
            0x00cf_1200_0000_ffff,
            task,
            TASK >> 32,
            0x12cf_9034_5678_ffff,
        ];
        for (index, word) in (0..).zip(descriptors) {
            self.set(GDT + 8 * index, word);
        }
        self.set(TASK + 36 + 8, FAULT_STACK + 8);
        // lgdt [rax]
        assert_eq!(
            self.load_table(&[0x0f, 0x01, 0x10], GDT, 63),
            Outcome::Resume
        );
        assert_eq!(self.regs.rip, CODE + 3);
    }

    fn load_task(&mut self, selector: u16) -> Outcome {
        self.regs.gpr[RAX] = selector.into();
        self.privileged(LTR_AX)
    }

    /// Checks that the last trap ended in this exception, with error code 0: the
    /// hardware's in these tests.
    fn raised(&self, vector: u64) {
        assert!(self.interrupted_with(vector), "{:#x}", self.regs.rip);
        assert_eq!(self.host.word(self.regs.gpr[RSP]), 0);
    }

    fn set_gate_ist(&mut self, vector: u64, ist: u64) {
        let low = self.host.word(IDT + 16 * vector);
        self.set(IDT + 16 * vector, low & !(7 << 32) | ist << 32);
    }
}

#[test]
fn bases_are_kept_if_they_are_canonical() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    for (msr, value) in [
        (FS_BASE, 0x1234),
        (GS_BASE, 0x7fff_ffff_ffff),
        (KERNEL_GS_BASE, 0xffff_8000_0000_0000),
    ] {
        assert!(m.write_msr(msr, value));
        assert_eq!(m.read_msr(msr), value);
    }
    assert_eq!((m.regs.fs_base, m.regs.gs_base), (0x1234, 0x7fff_ffff_ffff));
    // swapgs
    assert_eq!(m.privileged(&[0x0f, 0x01, 0xf8]), Outcome::Resume);
    assert_eq!(m.regs.gs_base, 0xffff_8000_0000_0000);
    assert_eq!(m.read_msr(KERNEL_GS_BASE), 0x7fff_ffff_ffff);
    let before = m.regs;
    for msr in [FS_BASE, GS_BASE, KERNEL_GS_BASE, 0xc000_0082, 0xc000_0083] {
        for value in ODD {
            assert!(!m.write_msr(msr, value), "{msr:#x} {value:#x}");
        }
    }
    assert_eq!(
        (m.regs.fs_base, m.regs.gs_base),
        (before.fs_base, before.gs_base)
    );
    assert_eq!(m.read_msr(KERNEL_GS_BASE), 0x7fff_ffff_ffff);
}

#[test]
fn entry_points_of_system_calls_are_kept() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    for msr in 0xc000_0081..=0xc000_0084 {
        assert!(m.write_msr(msr, msr << 8));
    }
    for msr in 0xc000_0081..=0xc000_0084 {
        assert_eq!(m.read_msr(msr), msr << 8);
    }
}

#[test]
fn an_access_by_fs_or_gs_has_its_base() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    // mov eax, [rcx]
    m.regs.gpr[RCX] = 0xfee0_0030;
    m.memory(0xfee0_0030, &[0x8b, 0x01]);
    let version = m.regs.gpr[RAX];
    m.regs.fs_base = 0xfee0_0000;
    m.regs.gs_base = 0xfee0_0020;
    // mov eax, fs:[0x30]; mov eax, gs:[0x10]: the version register
    for code in [
        &[0x64, 0x8b, 0x04, 0x25, 0x30, 0, 0, 0],
        &[0x65, 0x8b, 0x04, 0x25, 0x10, 0, 0, 0],
    ] {
        m.regs.gpr[RAX] = 0;
        assert_eq!(m.memory(0xfee0_0030, code), Outcome::Resume);
        assert_eq!(m.regs.gpr[RAX], version);
    }
}

#[test]
fn rewritten_instructions_set_bases() {
    let functions = functions();
    let mut m = Machine::rewritten(&functions);
    m.regs.gpr[RAX] = 0xffff_ffff_0000_1000;
    m.regs.gpr[9] = 0x2000;
    let steps: [(&[u8], u64, u64); 4] = [
        // wrfsbase rax, wrgsbase r9, wrfsbase r9, wrgsbase eax
        (&[0x66, 0x48, 0x0f, 0xae, 0xd0], 0xffff_ffff_0000_1000, 0),
        (
            &[0x66, 0x49, 0x0f, 0xae, 0xd9],
            0xffff_ffff_0000_1000,
            0x2000,
        ),
        (&[0x66, 0x49, 0x0f, 0xae, 0xd1], 0x2000, 0x2000),
        (&[0x66, 0x0f, 0xae, 0xd8], 0x2000, 0x1000),
    ];
    for (code, fs, gs) in steps {
        assert_eq!(m.invalid_opcode(code), Outcome::Resume);
        assert_eq!(m.regs.rip, CODE + code.len() as u64);
        assert_eq!((m.regs.fs_base, m.regs.gs_base), (fs, gs));
    }
    // rdgsbase rbx, rdfsbase ecx, and wrfsbase rax as it was, where the CPU or the kernel has
    // them not.
    m.regs.gpr[RAX] = 0x1_0000_3000;
    for code in [
        &[0xf3, 0x48, 0x0f, 0xae, 0xcb][..],
        &[0xf3, 0x48, 0x0f, 0xae, 0xd0],
        &[0xf3, 0x0f, 0xae, 0xc1],
    ] {
        assert_eq!(m.invalid_opcode(code), Outcome::Resume);
    }
    assert_eq!((m.regs.gpr[3], m.regs.gpr[RCX]), (0x1000, 0x3000));
    m.regs.fs_base = 0x2000;
    for value in ODD {
        m.regs.gpr[RAX] = value;
        m.invalid_opcode(&[0x66, 0x48, 0x0f, 0xae, 0xd8]);
        m.raised(13);
        assert_eq!((m.regs.fs_base, m.regs.gs_base), (0x2000, 0x1000));
    }
}

#[test]
fn bytes_are_rewritten_ones_only_where_the_tool_says_so() {
    let functions = functions();
    for code in [PUSHF, POPF, &[0x66, 0x48, 0x0f, 0xae, 0xd0]] {
        let mut m = Machine::new(&functions);
        m.invalid_opcode(code);
        assert!(m.interrupted_with(6));
        let mut m = Machine::rewritten(&functions);
        m.invalid_opcode(code);
        assert_eq!(m.regs.rip, CODE + code.len() as u64);
    }
    // push es with a prefix, rdfsbase, and what is in no table
    for code in [
        &[0x66, 0x06][..],
        &[0x66, 0x48, 0x0f, 0xae, 0xc0],
        &[0x66, 0x0f, 0xae, 0xe0],
        &[0x0f, 0x0b],
        &[0x66],
    ] {
        let mut m = Machine::rewritten(&functions);
        m.invalid_opcode(code);
        assert!(m.interrupted_with(6), "{code:x?}");
    }
}

#[test]
fn the_interrupt_flag_is_kept_over_nested_pushf_and_popf() {
    let functions = functions();
    let mut m = Machine::rewritten(&functions);
    let word = |m: &Machine<'_>| m.host.word(m.regs.gpr[RSP]);
    m.regs.rflags = 0x202 | 1 | 1 << 10;
    m.privileged(&[0xfb]);
    m.invalid_opcode(PUSHF);
    assert_eq!((m.regs.rip, m.regs.gpr[RSP]), (CODE + 1, STACK - 8));
    assert_eq!(word(&m), 0x202 | 1 | 1 << 10);
    m.privileged(&[0xfa]);
    m.invalid_opcode(PUSHF);
    assert_eq!(word(&m), 2 | 1 | 1 << 10);
    m.regs.rflags = 0x202;
    m.invalid_opcode(POPF);
    assert!(!m.vmm.cpu.interrupts);
    assert_eq!(m.regs.rflags, 0x202 | 1 | 1 << 10);
    // An interrupt that waits comes with the flag.
    m.host.routes[1] = Some(route(0x41, false));
    m.vmm.events(slot_badge(1), &mut m.host);
    m.invalid_opcode(POPF);
    assert!(m.interrupted_with(0x41));
    assert_eq!(m.host.word(m.regs.gpr[RSP]), CODE + 1);
    assert_eq!(m.host.word(m.regs.gpr[RSP] + 24), STACK);
}

#[test]
fn popf_gives_no_flag_that_ring_3_may_not_have() {
    let functions = functions();
    let mut m = Machine::rewritten(&functions);
    for flags in [u64::MAX, 1 << 8, 3 << 12, 1 << 14, 1 << 16, 1 << 17] {
        m.put(STACK - 0x100, &[flags]);
        m.invalid_opcode(POPF);
        assert_eq!(m.regs.rflags, flags & 0x0024_0cd5 | 0x202, "{flags:#x}");
    }
}

#[test]
fn flags_need_a_stack_in_ram() {
    let functions = functions();
    for (code, end) in [(PUSHF, RAM + 4), (POPF, RAM + RAM_SIZE - 4)] {
        for rsp in [0, 4, end, u64::MAX, 1 << 63] {
            let mut m = Machine::rewritten(&functions);
            m.load_gdt();
            m.load_task(TSS);
            m.set_gate_ist(13, 2);
            m.regs.gpr[RSP] = rsp;
            assert_eq!(m.invalid_opcode(code), Outcome::Resume);
            m.raised(13);
            assert_eq!(m.host.word(m.regs.gpr[RSP] + 32), rsp);
        }
    }
}

#[test]
fn frames_have_the_guest_s_own_selectors() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    let selectors = |m: &Machine<'_>| {
        let frame = m.regs.gpr[RSP];
        (m.host.word(frame + 8), m.host.word(frame + 32))
    };
    // Those of the boot protocol.
    m.privileged(&[0xcd, 0x40]);
    assert_eq!(selectors(&m), (0x10, 0x18));
    m.load_gdt();
    // mov ss, eax
    m.regs.gpr[RAX] = DATA_SELECTOR.into();
    m.privileged(&[0x8e, 0xd0]);
    assert_eq!(m.regs.rip, CODE + 2);
    m.put(STACK, &[CODE + 0x20, CODE_64.into()]);
    m.privileged(LRETQ);
    assert_eq!((m.regs.rip, m.regs.gpr[RSP]), (CODE + 0x20, STACK + 16));
    m.privileged(&[0xcd, 0x40]);
    assert_eq!(selectors(&m), (CODE_64.into(), DATA_SELECTOR.into()));
    // The handler's own are those of the gate, 0x10.
    m.privileged(&[0xcd, 0x41]);
    assert_eq!(selectors(&m), (0x10, DATA_SELECTOR.into()));
    // A gate with what `mov eax, cs` shows in ring 3.
    let low = m.host.word(IDT + 16 * 0x42);
    m.set(IDT + 16 * 0x42, low & !(0xffff << 16) | 0x2b << 16);
    m.vmm.cpu.cs = CODE_64;
    m.privileged(&[0xcd, 0x42]);
    assert_eq!(m.vmm.cpu.cs, CODE_64);
    // And with what `mov eax, ss` shows in its frame.
    let frame = m.regs.gpr[RSP];
    m.set(frame + 32, 0x33);
    m.privileged(IRETQ);
    assert_eq!((m.regs.rip, m.vmm.cpu.cs), (CODE + 2, CODE_64));
    assert_eq!(m.vmm.cpu.ss, DATA_SELECTOR);
}

#[test]
fn a_far_return_needs_a_64_bit_code_segment() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    // Whatever the boot protocol's table is, 0 is no segment.
    m.put(STACK, &[CODE + 0x20, 0]);
    m.privileged(LRETQ);
    m.raised(13);
    m.load_gdt();
    for selector in [
        0,
        DATA_SELECTOR,
        CODE_32,
        TSS,
        // Ring 3, a local descriptor, the end of the table and past it.
        CODE_64 | 3,
        CODE_64 | 4,
        64,
        0xfff8,
    ] {
        m.put(STACK, &[CODE + 0x20, selector.into()]);
        m.privileged(LRETQ);
        m.raised(13);
        let before = m.vmm.cpu.cs;
        m.put(STACK, &[CODE + 0x20, selector.into(), 2, STACK, 0]);
        m.privileged(IRETQ);
        m.raised(13);
        assert_eq!(m.vmm.cpu.cs, before);
    }
    // Both 32-bit and 64-bit code is neither.
    let code = m.host.word(GDT + 8);
    m.set(GDT + 8, code | 1 << 54);
    m.put(STACK, &[CODE + 0x20, CODE_64.into()]);
    m.privileged(LRETQ);
    m.raised(13);
    m.set(GDT + 8, code);
    for odd in ODD {
        m.put(STACK, &[odd, CODE_64.into()]);
        m.privileged(LRETQ);
        m.raised(13);
        m.put(STACK, &[odd, CODE_64.into(), 2, STACK, 0]);
        m.privileged(IRETQ);
        m.raised(13);
    }
    m.regs.gpr[RSP] = RAM + RAM_SIZE - 8;
    m.privileged(LRETQ);
    m.raised(13);
    // retf with 32-bit operands, and retfq 0x20, which nothing asks for
    m.put(STACK, &[u64::from(CODE_64) << 32 | (CODE + 0x20)]);
    m.privileged(&[0xcb]);
    m.raised(13);
    m.put(STACK, &[CODE + 0x20, CODE_64.into()]);
    m.privileged(&[0x48, 0xca, 0x20, 0]);
    m.raised(13);
}

#[test]
fn a_segment_that_is_absent_is_refused() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    m.load_gdt();
    m.regs.gpr[RAX] = ABSENT.into();
    m.privileged(&[0x8e, 0xd0]);
    m.raised(13);
    m.set(GDT + 8, 0x00af_1a00_0000_ffff);
    m.put(STACK, &[CODE, CODE_64.into()]);
    m.privileged(LRETQ);
    m.raised(13);
    m.set(GDT + u64::from(TSS), 0x0000_0900_0000_0067);
    m.load_task(TSS);
    m.raised(13);
}

#[test]
fn segment_registers_take_data_and_nothing() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    m.load_gdt();
    // es, ss, ds, fs, gs
    for register in [0xc0, 0xd0, 0xd8, 0xe0, 0xe8] {
        for selector in [0, DATA_SELECTOR, ABSENT, TSS, 0x40, DATA_SELECTOR | 4] {
            m.regs.gpr[RAX] = selector.into();
            m.privileged(&[0x8e, register]);
            let good = [0, DATA_SELECTOR].contains(&selector);
            let taken = m.regs.rip == CODE + 2;
            assert_eq!(taken, good, "{register:#x} {selector:#x}");
        }
    }
    // FS and GS take the descriptor's base; pop fs, pop gs; mov ss, [rax]
    m.regs.fs_base = 7;
    m.put(STACK, &[WITH_BASE.into(), WITH_BASE.into()]);
    m.privileged(&[0x0f, 0xa1]);
    m.regs.gpr[RAX] = STACK + 8;
    m.privileged(&[0x8e, 0x28]);
    assert_eq!((m.regs.fs_base, m.regs.gs_base), (0x1234_5678, 0x1234_5678));
    assert_eq!(m.regs.gpr[RSP], STACK + 8);
    m.regs.gpr[RAX] = 0xfee0_0000;
    m.privileged(&[0x8e, 0x10]);
    m.raised(13);
}

#[test]
fn the_task_register_takes_a_task_that_is_available() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    // Before there is a table.
    m.load_task(TSS);
    m.raised(13);
    m.load_gdt();
    for selector in [0, CODE_64, 0x3c, 0x38, 0x40] {
        m.load_task(selector);
        m.raised(13);
    }
    m.set(GDT + u64::from(TSS) + 8, 1);
    m.load_task(TSS);
    assert_eq!(m.regs.rip, CODE + 3);
    let base = 1 << 32 | TASK;
    assert_eq!(m.vmm.cpu.task, Table { base, limit: 0x67 });
    // It is busy now.
    assert_eq!(m.host.word(GDT + u64::from(TSS)) >> 40 & 0xf, 0xb);
    m.load_task(TSS);
    m.raised(13);
    // One whose second half is past the limit.
    m.set(GDT + 0x38, 0x0000_8900_0000_0067);
    m.load_task(0x38);
    m.raised(13);
}

#[test]
fn a_gate_s_stack_is_that_of_the_task() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    let exception = Fault::Exception { vector: 3, code: 0 };
    m.set_gate_ist(3, 2);
    // There is no task yet, and #DF has no stack of its own.
    m.regs.gpr[RSP] = 0;
    assert_eq!(
        m.fault(exception),
        Outcome::Stop(StopReason::TripleFault(3))
    );
    m.load_gdt();
    m.load_task(TSS);
    m.regs.gpr[RSP] = 0x123;
    assert_eq!(m.fault(exception), Outcome::Resume);
    assert!(m.interrupted_with(3));
    // Aligned, and without a red zone.
    assert_eq!(m.regs.gpr[RSP], FAULT_STACK - 40);
    assert_eq!(m.host.word(FAULT_STACK - 16), 0x123);
    // Stacks where nothing is, and a task that ends within the stack's place.
    for stack in [0, 0xfee0_0000, 1 << 63, RAM + 32, u64::MAX] {
        m.set(TASK + 36 + 8, stack);
        m.regs.gpr[RSP] = 0;
        assert_eq!(
            m.fault(exception),
            Outcome::Stop(StopReason::TripleFault(3))
        );
    }
    m.set(TASK + 36 + 8, FAULT_STACK);
    for (limit, delivered) in [(36 + 15, true), (36 + 14, false), (0, false)] {
        m.vmm.cpu.task.limit = limit;
        m.regs.gpr[RSP] = 0;
        assert_eq!(m.fault(exception) == Outcome::Resume, delivered);
    }
    for base in [0, 0xfee0_0000, u64::MAX - 16, RAM + RAM_SIZE - 40] {
        m.vmm.cpu.task = Table { base, limit: 0x67 };
        m.regs.gpr[RSP] = 0;
        assert_eq!(
            m.fault(exception),
            Outcome::Stop(StopReason::TripleFault(3))
        );
    }
}

#[test]
fn a_double_fault_has_its_own_stack() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    m.load_gdt();
    m.load_task(TSS);
    m.set_gate_ist(8, 2);
    m.regs.gpr[RSP] = 0x80;
    m.fault(Fault::Exception { vector: 3, code: 0 });
    m.raised(8);
    assert_eq!(m.regs.gpr[RSP], FAULT_STACK - 48);
    // It ends there.
    m.set(TASK + 36 + 8, 0x80);
    assert_eq!(
        m.fault(Fault::Exception { vector: 8, code: 0 }),
        Outcome::Stop(StopReason::TripleFault(8))
    );
}

#[test]
fn descriptor_tables_lie_at_canonical_addresses() {
    let functions = functions();
    // lgdt [rax]; lidt [rax]
    for code in [&[0x0f, 0x01, 0x10], &[0x0f, 0x01, 0x18]] {
        for base in ODD {
            let mut m = Machine::new(&functions);
            m.load_table(code, base, 0xfff);
            m.raised(13);
        }
        let mut m = Machine::new(&functions);
        m.regs.gpr[RAX] = RAM + RAM_SIZE - 9;
        m.privileged(code);
        m.raised(13);
    }
    // Where nothing is: nothing can be loaded from there.
    for base in [0, 0xfee0_0000, 0xffff_ffff_ffff_fff8] {
        let mut m = Machine::new(&functions);
        m.load_table(&[0x0f, 0x01, 0x10], base, 0xffff);
        m.load_task(TSS);
        m.raised(13);
        m.put(STACK, &[CODE, CODE_64.into()]);
        m.privileged(LRETQ);
        m.raised(13);
    }
}

#[test]
fn extended_control_is_there_once_it_is_switched_on() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    let (xgetbv, xsetbv) = (&[0x0f, 0x01, 0xd0], &[0x0f, 0x01, 0xd1]);
    m.regs.gpr[RCX] = 0;
    for code in [xgetbv, xsetbv] {
        m.invalid_opcode(code);
        assert!(m.interrupted_with(6));
    }
    // mov cr4, rax
    m.regs.gpr[RAX] = 0x40620;
    m.privileged(&[0x0f, 0x22, 0xe0]);
    m.invalid_opcode(xgetbv);
    assert_eq!((m.regs.rip, m.regs.edx_eax()), (CODE + 3, 1));
    for value in [7, 3, 1] {
        m.regs.set_edx_eax(value);
        m.invalid_opcode(xsetbv);
        assert_eq!(m.regs.rip, CODE + 3);
        m.regs.set_edx_eax(0);
        m.invalid_opcode(xgetbv);
        assert_eq!(m.regs.edx_eax(), value);
    }
    for value in [0, 2, 9, 1 << 63 | 3] {
        m.regs.set_edx_eax(value);
        m.invalid_opcode(xsetbv);
        m.raised(13);
    }
    m.regs.gpr[RCX] = 1;
    m.invalid_opcode(xgetbv);
    m.raised(13);
    // As QEMU's translator reports it.
    m.regs.gpr[RCX] = 0;
    m.privileged(xgetbv);
    assert_eq!((m.regs.rip, m.regs.edx_eax()), (CODE + 3, 1));
}

#[test]
fn five_levels_of_page_tables_cannot_be() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    m.regs.gpr[RAX] = 0x1620;
    m.privileged(&[0x0f, 0x22, 0xe0]);
    m.raised(13);
    assert_eq!(m.vmm.cpu.cr4 & 1 << 12, 0);
}

#[test]
fn a_page_table_that_maps_elsewhere_stops_the_guest() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    // Tables at RAM: 1 GiB pages are at RAM + 0x1000.
    let pages = RAM + 0x1000;
    m.set(RAM, pages | 3);
    m.set(pages, 0x83);
    let load = |m: &mut Machine<'_>, value| {
        m.regs.gpr[RAX] = value;
        m.privileged(&[0x0f, 0x22, 0xd8])
    };
    assert_eq!(load(&mut m, RAM | 0x18), Outcome::Resume);
    assert_eq!((m.regs.rip, m.vmm.cpu.cr3), (CODE + 3, RAM | 0x18));
    assert_eq!(m.host.long_work, 1);
    // The same value again is not looked at.
    m.set(pages + 8, 0x83);
    assert_eq!(load(&mut m, RAM | 0x18), Outcome::Resume);
    assert_eq!(m.host.long_work, 1);
    let bad = BadTable::Elsewhere(1 << 30, 0);
    assert_eq!(load(&mut m, RAM), Outcome::Stop(StopReason::PageTable(bad)));
    assert_eq!(m.regs.rip, CODE);
    // Reserved bits.
    for bit in [52, 62, 63] {
        load(&mut m, RAM | 1 << bit);
        m.raised(13);
    }
}
