//! What a trapped instruction does: the decoded operation, carried out on the virtual CPU
//! and the devices.

use pci::Width;
use spec::shim::{CALL_PORTS, REGISTER_PORT};

use super::{GENERAL_PROTECTION, INVALID_OPCODE, Outcome, Shim, Vmm};
use crate::bus::MemoryAccess;
use crate::decode::{self, Decoded, Op, Port, Register};
use crate::descriptors::{self, Table};
use crate::host::{Host, StopReason};
use crate::inject;
use crate::instructions;
use crate::mmio;
use crate::paging;
use crate::privileged;
use crate::registers::{RAX, RDX, Registers};

/// #SS.
const STACK_FAULT: u8 = 12;
/// #PF.
const PAGE_FAULT: u8 = 14;
/// Bit of a page fault's error code: the access was a user's (SDM vol. 3, 4.7).
const USER: u64 = 1 << 2;
/// The one-byte encoding of output of EAX to the port in DX.
const OUT_DX_EAX: u8 = 0xef;
/// The one-byte encoding of HLT.
const HLT: u8 = 0xf4;

impl Vmm<'_> {
    /// Decodes the instruction that the guest is at.
    fn instruction(
        decode: fn(&[u8], &Registers) -> Option<Decoded>,
        regs: &Registers,
        host: &mut impl Host,
    ) -> Option<Decoded> {
        let mut bytes = [0; decode::MAX_INSTRUCTION];
        // Fewer bytes only where RAM ends.
        let length = (1..=bytes.len())
            .rev()
            .find(|&length| host.read_ram(regs.rip, &mut bytes[..length]))?;
        decode(&bytes[..length], regs)
    }

    /// Handles #UD, which ring 3 also gets where ring 0 would not.
    pub(super) fn invalid_opcode(&mut self, regs: &mut Registers, host: &mut impl Host) -> Outcome {
        let rewritten = self
            .rewritten
            .then(|| Self::instruction(decode::rewritten, regs, host));
        let decoded = rewritten
            .flatten()
            .or_else(|| Self::instruction(decode::decode, regs, host));
        let done = decoded.ok_or(INVALID_OPCODE).and_then(|decoded| {
            instructions::carry_out(decoded.op, &mut self.cpu, regs, host)?;
            regs.rip = regs.rip.wrapping_add(decoded.length);
            Ok(Outcome::Resume)
        });
        done.unwrap_or_else(|vector| self.exception(vector, 0, regs, host))
    }

    pub(super) fn privileged(
        &mut self,
        code: u64,
        regs: &mut Registers,
        host: &mut impl Host,
    ) -> Outcome {
        if let Some(outcome) = self.shim_call(regs, host) {
            return outcome;
        }
        let Some(decoded) = Self::instruction(decode::decode, regs, host) else {
            return self.exception(GENERAL_PROTECTION, code, regs, host);
        };
        let mut next = regs.rip.wrapping_add(decoded.length);
        let done = match decoded.op {
            Op::In(port, width) => {
                let port = port_number(port, regs);
                let value = self
                    .devices
                    .port_read(port, width, host, &mut self.counters);
                accumulator(width).write(regs, u64::from(value));
                Some(())
            }
            Op::Out(port, width) => {
                let value = accumulator(width).read(regs) as u32;
                let port = port_number(port, regs);
                let stop = self
                    .devices
                    .port_write(port, width, value, host, &mut self.counters);
                if let Some(reason) = stop {
                    return Outcome::Stop(reason);
                }
                self.release_held(host);
                Some(())
            }
            Op::Cli => {
                self.cpu.interrupts = false;
                Some(())
            }
            Op::Sti => return self.enable_interrupts(next, regs, host),
            Op::Hlt => {
                regs.rip = next;
                return self.halt(host);
            }
            Op::Iretq => inject::interrupt_return(&mut self.cpu, regs, host).map(|rip| next = rip),
            Op::FarReturn => {
                descriptors::far_return(&mut self.cpu, regs, host).map(|rip| next = rip)
            }
            Op::SegmentLoad(segment, source) => {
                descriptors::load(segment, source, &mut self.cpu, regs, host)
            }
            Op::Lidt(address) => Table::load(host, address).map(|table| self.cpu.idt = table),
            Op::Lgdt(address) => Table::load(host, address).map(|table| self.cpu.gdt = Some(table)),
            Op::SwapGs => {
                core::mem::swap(&mut regs.gs_base, &mut self.cpu.kernel_gs_base);
                Some(())
            }
            Op::Maintenance => Some(()),
            Op::Rdmsr => {
                let now = host.now();
                privileged::read_msr(regs, &self.cpu, &self.lapic, now)
                    .map(|value| regs.set_edx_eax(value))
            }
            Op::Wrmsr => {
                let now = host.now();
                privileged::write_msr(regs, &mut self.cpu, &mut self.lapic, now)
            }
            Op::FromControl(register, number) => {
                privileged::read_control(number, &self.cpu, &self.lapic)
                    .map(|value| register.write(regs, value))
            }
            Op::ToControl(number, register) => {
                let value = register.read(regs);
                let cr3 = self.cpu.cr3;
                let done = privileged::write_control(number, value, &mut self.cpu, &mut self.lapic);
                if self.cpu.cr3 != cr3
                    && let Err(bad) = host.in_background(|host| paging::check(value, next, host))
                {
                    return Outcome::Stop(StopReason::PageTable(bad));
                }
                done
            }
            Op::Interrupt(vector) => {
                regs.rip = next;
                return self.deliver(vector, None, regs, host);
            }
            // #UD, or #GP where the privilege is looked at first.
            Op::Xgetbv | Op::Xsetbv => return self.invalid_opcode(regs, host),
            // Not offered, or not privileged.
            _ => None,
        };
        match done {
            Some(()) => {
                regs.rip = next;
                Outcome::Resume
            }
            None => self.exception(GENERAL_PROTECTION, code, regs, host),
        }
    }

    /// Handles `out dx, eax` to the ports of a shim; `None` if it is to another port, or
    /// another instruction, or there is no shim. Calls are frequent, and one byte each: the
    /// decoder would take longer than all the rest here.
    fn shim_call(&mut self, regs: &mut Registers, host: &mut impl Host) -> Option<Outcome> {
        let mut byte = [0];
        if matches!(self.shim, Shim::Absent)
            || !host.read_ram(regs.rip, &mut byte)
            || byte != [OUT_DX_EAX]
        {
            return None;
        }
        let next = regs.rip.wrapping_add(1);
        let port = regs.gpr[RDX] as u16;
        match self.shim {
            Shim::Expected if port == REGISTER_PORT => {
                self.shim = Shim::At(regs.gpr[RAX] & 0xffff_ffff);
                self.cpu.interrupt_table = Some(self.cpu.idt);
                regs.rip = next;
                Some(Outcome::Resume)
            }
            Shim::At(handler) if CALL_PORTS.contains(&port) => {
                self.counters.shim_calls += 1;
                Some(match inject::call(regs, host, handler, next) {
                    Ok(()) => Outcome::Resume,
                    Err(inject::Undeliverable) => self.exception(STACK_FAULT, 0, regs, host),
                })
            }
            _ => None,
        }
    }

    /// Carries out sti, which holds interrupts off for one more instruction. That matters for `sti;
    /// hlt`, the way to sleep without losing a wake-up, so the two are done as
    /// one; elsewhere the guest cannot tell.
    fn enable_interrupts(
        &mut self,
        next: u64,
        regs: &mut Registers,
        host: &mut impl Host,
    ) -> Outcome {
        self.cpu.interrupts = true;
        regs.rip = next;
        let mut byte = [0];
        if host.read_ram(next, &mut byte) && byte[0] == HLT {
            regs.rip = next.wrapping_add(1);
            return self.halt(host);
        }
        Outcome::Resume
    }

    fn halt(&mut self, host: &mut impl Host) -> Outcome {
        if !self.cpu.interrupts {
            return Outcome::Stop(StopReason::HaltForever);
        }
        self.cpu.halted = true;
        self.halted_at = host.now();
        self.counters.halts += 1;
        Outcome::Wait
    }

    pub(super) fn memory(
        &mut self,
        address: u64,
        fetch: bool,
        code: u64,
        regs: &mut Registers,
        host: &mut impl Host,
    ) -> Outcome {
        let page_fault = |vmm: &mut Self, regs: &mut Registers, host: &mut _| {
            vmm.cpu.cr2 = address;
            vmm.exception(PAGE_FAULT, code, regs, host)
        };
        // QEMU 7.2 reads what an iretq or a far return pops as the supervisor would, which
        // SMAP (SDM vol. 3, 4.6) then refuses: it is the trap of a return to ring 0, come
        // early.
        if code & USER == 0
            && Self::instruction(decode::decode, regs, host)
                .is_some_and(|decoded| matches!(decoded.op, Op::Iretq | Op::FarReturn))
        {
            return self.privileged(0, regs, host);
        }
        // Below 4 GiB the boot protocol's identity map covers everything, so
        // that an access where nothing is reads all ones; above it there is no
        // page. RAM that faults is the page at 0, or read-only.
        if fetch || address >> 32 != 0 || host.read_ram(address, &mut [0]) {
            return page_fault(self, regs, host);
        }
        let Some(decoded) = Self::instruction(decode::decode, regs, host) else {
            return page_fault(self, regs, host);
        };
        let Op::Memory { address, width, op } = decoded.op else {
            return page_fault(self, regs, host);
        };
        self.counters.memory_accesses += 1;
        let mut bus = MemoryAccess {
            devices: &mut self.devices,
            lapic: &mut self.lapic,
            xapic: !self.cpu.x2apic,
            held: self.slots.held(),
            host,
            counters: &mut self.counters,
        };
        mmio::access(regs, address, width, op, &mut bus);
        self.release_held(host);
        regs.rip = regs.rip.wrapping_add(decoded.length);
        Outcome::Resume
    }
}

fn port_number(port: Port, regs: &Registers) -> u16 {
    match port {
        Port::Immediate(port) => u16::from(port),
        Port::Dx => regs.gpr[RDX] as u16,
    }
}

const fn accumulator(width: Width) -> Register {
    Register {
        index: RAX,
        width,
        high: false,
    }
}
