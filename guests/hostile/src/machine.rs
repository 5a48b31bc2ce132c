//! The machine under attack: runs instructions and reports how they ended.

use core::fmt;
use core::ops::Range;

use dma_probe::Stuck;

/// General registers of a piece of code, before and after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Registers {
    /// RAX.
    pub rax: u64,
    /// RCX.
    pub rcx: u64,
    /// RDX.
    pub rdx: u64,
    /// RSI.
    pub rsi: u64,
    /// RDI.
    pub rdi: u64,
    /// R8.
    pub r8: u64,
    /// R9.
    pub r9: u64,
    /// R10.
    pub r10: u64,
    /// R15.
    pub r15: u64,
}

/// How a piece of code ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It came to its end.
    Returned,
    /// It took an exception, and was left there.
    Exception(u8),
}

impl Ended {
    /// Returns its number in a message: the vector, or 0x100 for none.
    pub fn number(self) -> u64 {
        match self {
            Self::Returned => 0x100,
            Self::Exception(vector) => vector.into(),
        }
    }
}

/// Bytes of RAM at [`Machine::scratch`].
pub const SCRATCH: u64 = 0x4000;

/// Longest piece of code.
pub const CODE: usize = 60;

/// A CPU that runs any instructions and survives them.
pub trait Machine {
    /// Runs `code`, at most [`CODE`] bytes, with these registers and with RBX =
    /// RSP. It may leave every register and flag but RSP changed.
    fn run(&mut self, code: &[u8], registers: &mut Registers) -> Ended;
    /// Sets whether exceptions of the attack's code are expected. If not, an exception
    /// ends the guest.
    fn tolerate(&mut self, exceptions: bool);
    /// Returns the interrupts taken on `vector` so far.
    fn taken(&self, vector: u8) -> u64;
    /// Opens interrupts until one was taken, or for some milliseconds.
    fn rest(&mut self);
    /// Takes an interrupt that is pending, without waiting.
    fn window(&mut self);
    /// Ends an interrupt whose handler did not.
    fn end_of_interrupt(&mut self);
    /// Returns the address of [`SCRATCH`] bytes of RAM that nothing else uses,
    /// on a page boundary.
    fn scratch(&self) -> u64;
    /// Returns the guest's RAM, of which the last page is free.
    fn ram(&self) -> Range<u64>;
    /// Sets up the console again, whatever was done to it.
    fn reset_console(&mut self);
    /// Writes a line.
    fn line(&mut self, text: fmt::Arguments);
    /// Returns the function as a copy engine, in a working state; `None` if it
    /// is none.
    fn dma(&mut self) -> Option<&mut dyn Dma>;
}

/// DMA to and from any bus address.
pub trait Dma {
    /// Takes the device over, whatever was done with it.
    ///
    /// # Errors
    /// As `dma_probe::Engine::start`.
    fn start(&mut self) -> Result<(), Stuck>;
    /// Reads from bus address `from`.
    ///
    /// # Errors
    /// As `dma_probe::Engine::read`.
    fn read(&mut self, from: u64, bytes: &mut [u8]) -> Result<(), Stuck>;
    /// Writes to bus address `to`.
    ///
    /// # Errors
    /// As `dma_probe::Engine::write`.
    fn write(&mut self, to: u64, bytes: &[u8]) -> Result<(), Stuck>;
    /// Sends a message-signalled interrupt.
    ///
    /// # Errors
    /// As `dma_probe::Engine::forge_interrupt`.
    fn forge(&mut self, address: u64, data: u32) -> Result<(), Stuck>;
    /// Ends it: the device is as after a reset.
    ///
    /// # Errors
    /// As `dma_probe::Engine::quiesce`.
    fn quiesce(&mut self) -> Result<(), Stuck>;
}

impl<R: dma_probe::Registers, M: dma_probe::Memory> Dma for dma_probe::Engine<R, M> {
    fn start(&mut self) -> Result<(), Stuck> {
        Self::start(self)
    }

    fn read(&mut self, from: u64, bytes: &mut [u8]) -> Result<(), Stuck> {
        Self::read(self, from, bytes)
    }

    fn write(&mut self, to: u64, bytes: &[u8]) -> Result<(), Stuck> {
        Self::write(self, to, bytes)
    }

    fn forge(&mut self, address: u64, data: u32) -> Result<(), Stuck> {
        self.forge_interrupt(address, data)
    }

    fn quiesce(&mut self) -> Result<(), Stuck> {
        Self::quiesce(self)
    }
}

/// The machine with all its ports and memory reached by instructions that are
/// run: no access can end the guest.
#[derive(Debug)]
pub struct Reach<M>(pub M);

impl<M: Machine> Reach<M> {
    /// Reads a port; how it ended, and the value.
    pub fn input(&mut self, port: u16, bytes: u8) -> (Ended, u32) {
        let mut registers = Registers {
            rdx: port.into(),
            ..Registers::default()
        };
        let code: &[u8] = match bytes {
            1 => &[0xec],       // in al, dx
            2 => &[0x66, 0xed], // in ax, dx
            _ => &[0xed],       // in eax, dx
        };
        (self.0.run(code, &mut registers), registers.rax as u32)
    }

    /// Writes a port.
    pub fn output(&mut self, port: u16, bytes: u8, value: u32) -> Ended {
        let mut registers = Registers {
            rax: value.into(),
            rdx: port.into(),
            ..Registers::default()
        };
        let code: &[u8] = match bytes {
            1 => &[0xee],       // out dx, al
            2 => &[0x66, 0xef], // out dx, ax
            _ => &[0xef],       // out dx, eax
        };
        self.0.run(code, &mut registers)
    }

    /// Reads memory; how it ended, and the value.
    pub fn load(&mut self, address: u64, bytes: u8) -> (Ended, u64) {
        let mut registers = Registers {
            rdi: address,
            ..Registers::default()
        };
        let code: &[u8] = match bytes {
            1 => &[0x8a, 0x07],       // mov al, [rdi]
            2 => &[0x66, 0x8b, 0x07], // mov ax, [rdi]
            4 => &[0x8b, 0x07],       // mov eax, [rdi]
            _ => &[0x48, 0x8b, 0x07], // mov rax, [rdi]
        };
        (self.0.run(code, &mut registers), registers.rax)
    }

    /// Writes memory.
    pub fn store(&mut self, address: u64, bytes: u8, value: u64) -> Ended {
        let mut registers = Registers {
            rax: value,
            rdi: address,
            ..Registers::default()
        };
        let code: &[u8] = match bytes {
            1 => &[0x88, 0x07],       // mov [rdi], al
            2 => &[0x66, 0x89, 0x07], // mov [rdi], ax
            4 => &[0x89, 0x07],       // mov [rdi], eax
            _ => &[0x48, 0x89, 0x07], // mov [rdi], rax
        };
        self.0.run(code, &mut registers)
    }

    /// Writes bytes into RAM.
    pub fn place(&mut self, address: u64, bytes: &[u8]) {
        for (at, byte) in (address..).zip(bytes) {
            self.store(at, 1, (*byte).into());
        }
    }
}

impl<M: Machine> probe::machine::Machine for Reach<M> {
    fn port_read(&mut self, port: u16, bytes: u8) -> u32 {
        self.input(port, bytes).1
    }

    fn port_write(&mut self, port: u16, bytes: u8, value: u32) {
        self.output(port, bytes, value);
    }

    fn memory_read(&mut self, address: u64, bytes: u8) -> Option<u64> {
        let (ended, value) = self.load(address, bytes);
        (ended == Ended::Returned).then_some(value)
    }

    fn memory_write(&mut self, address: u64, bytes: u8, value: u64) -> bool {
        self.store(address, bytes, value) == Ended::Returned
    }
}

/// Returns all ones of `bytes` bytes.
pub fn ones(bytes: u8) -> u64 {
    u64::MAX >> (64 - 8 * u32::from(bytes))
}
