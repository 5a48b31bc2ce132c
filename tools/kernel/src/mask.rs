//! The flags that SYSCALL clears, read from a kernel's instructions and completed there.
//!
//! SYSCALL clears the flags whose bits IA32_FMASK has (SDM vol. 2B, SYSCALL). What a
//! kernel leaves out a guest brings into ring 0. With NT the kernel's next IRETQ raises
//! #GP there, which halts the machine; with DF its string instructions run backwards; with AC
//! SMAP is off. A kernel sets the register by WRMSR with a constant.
//!
//! Here instructions are followed, not bytes. Whatever cannot be followed is an error:
//! each WRMSR must be known by its register, each one of IA32_FMASK by its value, and each
//! place that names IA32_FMASK must be one of these.

use std::collections::BTreeSet;
use std::ops::Range;

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, OpAccess,
    OpKind, Register,
};
use object::LittleEndian;
use object::elf::{FileHeader64, PF_X, PT_LOAD, SHF_EXECINSTR, SHT_PROGBITS, SHT_SYMTAB, STT_FUNC};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, Sym};

/// IA32_FMASK (SDM vol. 4, table 2-2).
const FMASK: u32 = 0xc000_0084;
/// TF, IF, DF, NT and AC (SDM vol. 1, 3.4.3).
const NEEDED: u32 = 1 << 8 | 1 << 9 | 1 << 10 | 1 << 14 | 1 << 18;

/// An instruction that loads a mask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The address of the WRMSR.
    pub address: u64,
    /// The mask.
    pub value: u32,
    /// Where the mask is in the file; `None` where nothing else may be written, since
    /// other instructions could use it as well.
    offset: Option<usize>,
}

impl Site {
    /// Returns whether it masks every flag that has to be.
    #[must_use]
    pub const fn is_masked(&self) -> bool {
        self.value & NEEDED == NEEDED
    }

    /// Returns the mask with every flag that has to be in it.
    #[must_use]
    pub const fn completed(&self) -> u32 {
        self.value | NEEDED
    }
}

/// A piece of the file that is in memory when the kernel runs.
struct Segment<'a> {
    address: u64,
    offset: usize,
    bytes: &'a [u8],
    executable: bool,
}

/// Code in one piece, entered at its start.
struct Function {
    code: Vec<Instruction>,
    /// Where each instruction's immediate is in the file, if it has one.
    immediates: Vec<usize>,
}

/// What a register holds.
#[derive(Clone, Copy)]
struct Constant {
    value: u64,
    /// The instruction that has it as an immediate, among its function's; none for a
    /// register that was cleared.
    loaded: Option<usize>,
    /// That instruction loaded the register itself, and not another from which it was
    /// copied.
    direct: bool,
}

/// Finds the instructions that set IA32_FMASK in a kernel's 64-bit ELF file, in the
/// order of their addresses.
///
/// # Errors
/// A message if there are none, or one cannot be followed.
pub(crate) fn sites(file: &[u8]) -> Result<Vec<Site>, String> {
    let layout = Layout::read(file)?;
    let functions = layout.functions();
    let targets = layout.targets(&functions);
    let mut factory = InstructionInfoFactory::new();
    let mut found = Vec::new();
    // Where the file names IA32_FMASK and it was understood why.
    let mut understood = BTreeSet::new();
    for function in &functions {
        for (index, instruction) in function.code.iter().enumerate() {
            if instruction.code() != Code::Wrmsr {
                continue;
            }
            let address = instruction.ip();
            let mut known = |register| function.constant(index, register, &targets, &mut factory);
            let Some(register) = known(Register::RCX) else {
                return Err(format!(
                    "which register the wrmsr at {address:#x} writes is not to be told"
                ));
            };
            if register.value as u32 != FMASK {
                continue;
            }
            let Some(mask) = known(Register::RAX) else {
                return Err(format!(
                    "the mask that the wrmsr at {address:#x} writes is not to be told"
                ));
            };
            understood.extend(register.loaded.map(|loaded| function.immediates[loaded]));
            let loaded = mask.loaded.filter(|_| mask.direct);
            let only = loaded.filter(|&at| function.is_only_use(at, index, &mut factory));
            found.push(Site {
                address,
                value: mask.value as u32,
                offset: only.map(|loaded| function.immediates[loaded]),
            });
        }
    }
    for segment in layout.segments.iter().filter(|segment| segment.executable) {
        let names = segment.bytes.windows(4).enumerate();
        for (at, _) in names.filter(|(_, bytes)| *bytes == FMASK.to_le_bytes()) {
            if !understood.contains(&(segment.offset + at)) {
                return Err(format!(
                    "what names IA32_FMASK at {:#x} is no wrmsr that could be followed",
                    segment.address + at as u64
                ));
            }
        }
    }
    if found.is_empty() {
        return Err("no wrmsr of IA32_FMASK was found".to_owned());
    }
    Ok(found)
}

/// Returns the address of a kernel's first string instruction, whose direction DF tells.
///
/// # Errors
/// A message if it is no 64-bit ELF file.
pub(crate) fn string_instruction(file: &[u8]) -> Result<Option<u64>, String> {
    let functions = Layout::read(file)?.functions();
    let mut all = functions.iter().flat_map(|function| &function.code);
    let found = all.find(|instruction| instruction.is_string_instruction());
    Ok(found.map(Instruction::ip))
}

/// Returns the file with a mask of every flag at each site that lacks one, and the sites
/// that were changed.
///
/// # Errors
/// A message if a mask cannot be changed by itself, or the result is not as it must be.
pub(crate) fn complete(file: &[u8], sites: &[Site]) -> Result<(Vec<u8>, Vec<Site>), String> {
    let mut copy = file.to_vec();
    let mut changed = Vec::new();
    for site in sites.iter().filter(|site| !site.is_masked()) {
        let (value, address) = (site.value, site.address);
        let place = site.offset.and_then(|at| copy.get_mut(at..at + 4));
        match place {
            Some(bytes) if *bytes == value.to_le_bytes() => {
                bytes.copy_from_slice(&(site.completed()).to_le_bytes());
            }
            _ => {
                return Err(format!(
                    "the mask {value:#x} of the wrmsr at {address:#x} cannot be changed by itself"
                ));
            }
        }
        changed.push(site.clone());
    }
    // Read anew: nothing but the masks may differ, and each must be whole.
    let after = self::sites(&copy)?;
    let as_wanted = after.len() == sites.len()
        && after
            .iter()
            .zip(sites)
            .all(|(new, old)| new.address == old.address && new.value == old.completed());
    if as_wanted {
        Ok((copy, changed))
    } else {
        Err("the changed file is not understood as it was meant".to_owned())
    }
}

/// Where a file's parts are.
struct Layout<'a> {
    segments: Vec<Segment<'a>>,
    /// Addresses of code.
    code: Vec<Range<u64>>,
    /// Where functions start, by the file's symbols.
    starts: BTreeSet<u64>,
}

impl<'a> Layout<'a> {
    fn read(file: &'a [u8]) -> Result<Self, String> {
        let text = |error: object::Error| error.to_string();
        let header = FileHeader64::<LittleEndian>::parse(file).map_err(text)?;
        let endian = header.endian().map_err(text)?;
        let mut segments = Vec::new();
        for program in header.program_headers(endian, file).map_err(text)? {
            if program.p_type(endian) != PT_LOAD {
                continue;
            }
            let bytes = program.data(endian, file);
            segments.push(Segment {
                address: program.p_vaddr(endian),
                offset: program.file_range(endian).0 as usize,
                bytes: bytes.map_err(|()| "a segment reaches beyond the file")?,
                executable: program.p_flags(endian).contains(PF_X),
            });
        }
        let sections = header.sections(endian, file).map_err(text)?;
        let symbols = sections.symbols(endian, file, SHT_SYMTAB).map_err(text)?;
        let functions = symbols.iter().filter(|s| s.st_type() == STT_FUNC);
        let starts = functions.map(|symbol| symbol.st_value(endian)).collect();
        // Constants lie in the same segment as code: sections tell the two apart.
        let mut code: Vec<Range<u64>> = sections
            .iter()
            .filter(|s| s.sh_flags(endian).contains(SHF_EXECINSTR))
            .filter(|s| s.sh_type(endian) == SHT_PROGBITS)
            .map(|s| s.sh_addr(endian)..s.sh_addr(endian).saturating_add(s.sh_size(endian)))
            .collect();
        if code.is_empty() {
            let executable = segments.iter().filter(|segment| segment.executable);
            code = executable.map(Segment::addresses).collect();
        }
        Ok(Self {
            segments,
            code,
            starts,
        })
    }

    /// Decodes all code. Code between two starts counts as one function.
    fn functions(&self) -> Vec<Function> {
        let mut functions = Vec::new();
        for range in &self.code {
            let starts = self.starts.range(range.clone()).copied();
            let starts: BTreeSet<u64> = starts.chain([range.start]).collect();
            let ends = starts.iter().copied().skip(1).chain([range.end]);
            for (start, end) in starts.iter().copied().zip(ends) {
                functions.extend(self.function(start, end));
            }
        }
        functions
    }

    fn function(&self, start: u64, end: u64) -> Option<Function> {
        let executable = self.segments.iter().filter(|segment| segment.executable);
        let (segment, first) = executable.into_iter().find_map(|segment| {
            let addresses = segment.addresses();
            let first = addresses
                .contains(&start)
                .then(|| start - addresses.start)?;
            Some((segment, first as usize))
        })?;
        let length = (end - start).min((segment.bytes.len() - first) as u64) as usize;
        let bytes = &segment.bytes[first..first + length];
        let mut decoder = Decoder::with_ip(64, bytes, start, DecoderOptions::NONE);
        let (mut code, mut immediates) = (Vec::new(), Vec::new());
        while decoder.can_decode() {
            let at = segment.offset + first + decoder.position();
            let instruction = decoder.decode();
            let offsets = decoder.get_constant_offsets(&instruction);
            immediates.push(at + offsets.immediate_offset());
            code.push(instruction);
        }
        Some(Function { code, immediates })
    }

    /// Returns the addresses where code may be entered other than from the instruction
    /// before: targets of branches, and every address that is written down somewhere, such
    /// as in the table of a `switch`.
    fn targets(&self, functions: &[Function]) -> BTreeSet<u64> {
        let all = functions.iter().flat_map(|function| &function.code);
        let branches = all.filter(|i| i.op_count() > 0 && i.op0_kind() == OpKind::NearBranch64);
        let mut targets: BTreeSet<u64> = branches.map(Instruction::near_branch_target).collect();
        for segment in &self.segments {
            let skip = segment.address.next_multiple_of(8) - segment.address;
            let words = segment.bytes.get(skip as usize..).unwrap_or_default();
            let words = words.as_chunks::<8>().0.iter().copied();
            let words = words.map(u64::from_le_bytes);
            targets.extend(words.filter(|word| self.code.iter().any(|range| range.contains(word))));
        }
        targets
    }
}

impl Segment<'_> {
    fn addresses(&self) -> Range<u64> {
        self.address..self.address.saturating_add(self.bytes.len() as u64)
    }
}

/// Returns whether an instruction uses any part of a 64-bit register otherwise than by
/// `harmless` accesses.
fn uses(
    instruction: &Instruction,
    register: Register,
    harmless: [OpAccess; 2],
    factory: &mut InstructionInfoFactory,
) -> bool {
    let used = factory.info(instruction).used_registers().iter();
    used.filter(|used| used.register().full_register() == register)
        .any(|used| !harmless.contains(&used.access()))
}

/// Returns whether an instruction writes any part of a 64-bit register.
fn writes(
    instruction: &Instruction,
    register: Register,
    factory: &mut InstructionInfoFactory,
) -> bool {
    let reads = [OpAccess::Read, OpAccess::CondRead];
    uses(instruction, register, reads, factory)
}

/// Returns whether an instruction reads any part of a 64-bit register.
fn reads(
    instruction: &Instruction,
    register: Register,
    factory: &mut InstructionInfoFactory,
) -> bool {
    let writes = [OpAccess::Write, OpAccess::CondWrite];
    uses(instruction, register, writes, factory)
}

impl Function {
    /// Returns what a 64-bit register holds before an instruction, if that is a constant
    /// however the instruction was reached.
    fn constant(
        &self,
        before: usize,
        register: Register,
        targets: &BTreeSet<u64>,
        factory: &mut InstructionInfoFactory,
    ) -> Option<Constant> {
        let mut at = before;
        loop {
            if targets.contains(&self.code[at].ip()) {
                return None;
            }
            at = at.checked_sub(1)?;
            let instruction = &self.code[at];
            let passed = [FlowControl::Next, FlowControl::ConditionalBranch];
            if !passed.contains(&instruction.flow_control()) {
                return None;
            }
            if writes(instruction, register, factory) {
                break;
            }
        }
        let instruction = &self.code[at];
        let registers = [0, 1].map(|operand| {
            let is =
                instruction.op_count() == 2 && instruction.op_kind(operand) == OpKind::Register;
            is.then(|| instruction.op_register(operand))
        });
        match instruction.code() {
            Code::Mov_r32_imm32
            | Code::Mov_rm32_imm32
            | Code::Mov_rm64_imm32
            | Code::Mov_r64_imm64 => Some(Constant {
                value: instruction.immediate(1),
                loaded: Some(at),
                direct: true,
            }),
            Code::Xor_r32_rm32 | Code::Xor_rm32_r32 if registers[0] == registers[1] => {
                Some(Constant {
                    value: 0,
                    loaded: None,
                    direct: false,
                })
            }
            Code::Mov_r32_rm32 | Code::Mov_rm32_r32 | Code::Mov_r64_rm64 | Code::Mov_rm64_r64 => {
                let from = registers[1]?.full_register();
                Some(Constant {
                    direct: false,
                    ..self.constant(at, from, targets, factory)?
                })
            }
            _ => None,
        }
    }

    /// Returns whether what the instruction `loaded` puts into RAX is used by the WRMSR
    /// and nothing else.
    fn is_only_use(
        &self,
        loaded: usize,
        wrmsr: usize,
        factory: &mut InstructionInfoFactory,
    ) -> bool {
        let between = &self.code[loaded + 1..wrmsr];
        if between.iter().any(|i| reads(i, Register::RAX, factory)) {
            return false;
        }
        for instruction in &self.code[wrmsr + 1..] {
            if instruction.flow_control() != FlowControl::Next
                || reads(instruction, Register::RAX, factory)
            {
                return false;
            }
            let used = factory.info(instruction).used_registers().iter();
            let mut whole = used.filter(|used| used.access() == OpAccess::Write);
            if whole.any(|used| [Register::RAX, Register::EAX].contains(&used.register())) {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
pub(crate) mod tests;
