//! What a trapped instruction does: the decoded operation, carried out on the virtual CPU
//! and the devices.

use pci::{PAGE_SIZE, Width};
use spec::posted;
use spec::shim::REGISTER_PORT;

use super::{GENERAL_PROTECTION, INVALID_OPCODE, Outcome, Vmm};
use crate::bus::MemoryAccess;
use crate::decode::{self, Op, Port, Register};
use crate::descriptors::{self, Table};
use crate::host::{Host, StopReason};
use crate::inject;
use crate::instruction_cache::uncached;
use crate::instructions;
use crate::mmio;
use crate::paging;
use crate::privileged;
use crate::registers::{RAX, RDX, Trapped};

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
    /// Handles #UD, which ring 3 also gets where ring 0 would not.
    pub(super) fn invalid_opcode(
        &mut self,
        regs: &mut Trapped<'_>,
        host: &mut impl Host,
    ) -> Outcome {
        let rewritten = self
            .rewritten
            .then(|| uncached(decode::rewritten, regs.rip(), host));
        let decoded = rewritten
            .flatten()
            .or_else(|| self.instructions.decode(regs.rip(), host).copied());
        let done = decoded.ok_or(INVALID_OPCODE).and_then(|decoded| {
            instructions::carry_out(decoded.op, &mut self.cpu, regs, host)?;
            regs.set_rip(regs.rip().wrapping_add(decoded.length.into()));
            Ok(Outcome::Resume)
        });
        done.unwrap_or_else(|vector| self.exception(vector, 0, regs, host))
    }

    pub(super) fn privileged(
        &mut self,
        code: u64,
        regs: &mut Trapped<'_>,
        host: &mut impl Host,
    ) -> Outcome {
        let Some(decoded) = self.instructions.decode(regs.rip(), host) else {
            return self.exception(GENERAL_PROTECTION, code, regs, host);
        };
        let mut next = regs.rip().wrapping_add(decoded.length.into());
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
                let port = port_number(port, regs);
                let value = accumulator(width).read(regs) as u32;
                if port == REGISTER_PORT
                    && width == Width::Dword
                    && let Some(start) = self.shim_start.take()
                {
                    self.shim = Some((start, value.into()));
                    self.cpu.interrupt_table = Some(self.cpu.idt);
                    regs.set_rip(next);
                    return Outcome::Resume;
                }
                if port == posted::PORT
                    && width == Width::Dword
                    && self.devices.pc.is_none()
                    && self.post_at(value.into(), host)
                {
                    regs.set_rip(next);
                    return Outcome::Resume;
                }
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
                regs.set_rip(next);
                return self.halt(host);
            }
            Op::Iretq => inject::interrupt_return(&mut self.cpu, regs, host).map(|rip| next = rip),
            Op::FarReturn => {
                descriptors::far_return(&mut self.cpu, regs, host).map(|rip| next = rip)
            }
            Op::SegmentLoad(segment, source) => {
                descriptors::load(segment, source, &mut self.cpu, regs, host)
            }
            Op::Lidt(address) => {
                Table::load(host, address.of(regs)).map(|table| self.cpu.idt = table)
            }
            Op::Lgdt(address) => {
                Table::load(host, address.of(regs)).map(|table| self.cpu.gdt = Some(table))
            }
            Op::SwapGs => {
                let base = core::mem::replace(&mut self.cpu.kernel_gs_base, regs.base(true));
                regs.set_base(true, base);
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
                regs.set_rip(next);
                return self.deliver(vector, None, regs, host);
            }
            // #UD, or #GP where the privilege is looked at first.
            Op::Xgetbv | Op::Xsetbv => return self.invalid_opcode(regs, host),
            // Not offered, or not privileged.
            _ => None,
        };
        match done {
            Some(()) => {
                regs.set_rip(next);
                Outcome::Resume
            }
            None => self.exception(GENERAL_PROTECTION, code, regs, host),
        }
    }

    /// Handles `out dx, eax` of an image to its shim, which tells by itself what is a call;
    /// `None` if it is another instruction, or the shim's. Calls are frequent: what the fault
    /// message tells of the registers is enough for one.
    pub(super) fn shim_call(
        &mut self,
        regs: &mut Trapped<'_>,
        host: &mut impl Host,
    ) -> Option<Outcome> {
        let (start, handler) = self.shim?;
        let mut byte = [0];
        if regs.rip() >= start || !host.read_ram(regs.rip(), &mut byte) || byte != [OUT_DX_EAX] {
            return None;
        }
        self.counters.shim_calls += 1;
        let next = regs.rip().wrapping_add(1);
        Some(match inject::call(regs, host, handler, next) {
            Ok(()) => Outcome::Resume,
            Err(inject::Undeliverable) => self.exception(STACK_FAULT, 0, regs, host),
        })
    }

    /// Carries out sti, which holds interrupts off for one more instruction. That matters for `sti;
    /// hlt`, the way to sleep without losing a wake-up, so the two are done as
    /// one; elsewhere the guest cannot tell.
    fn enable_interrupts(
        &mut self,
        next: u64,
        regs: &mut Trapped<'_>,
        host: &mut impl Host,
    ) -> Outcome {
        self.cpu.interrupts = true;
        regs.set_rip(next);
        let mut byte = [0];
        if host.read_ram(next, &mut byte) && byte[0] == HLT {
            regs.set_rip(next.wrapping_add(1));
            return self.halt(host);
        }
        Outcome::Resume
    }

    fn halt(&mut self, host: &mut impl Host) -> Outcome {
        if !self.cpu.interrupts {
            return Outcome::Stop(StopReason::HaltForever);
        }
        self.take_deadline(host);
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
        regs: &mut Trapped<'_>,
        host: &mut impl Host,
    ) -> Outcome {
        let page_fault = |vmm: &mut Self, regs: &mut Trapped<'_>, host: &mut _| {
            vmm.cpu.cr2 = address;
            vmm.exception(PAGE_FAULT, code, regs, host)
        };
        // QEMU 7.2 reads what an iretq or a far return pops as the supervisor would, which
        // SMAP (SDM vol. 3, 4.6) then refuses: it is the trap of a return to ring 0, come
        // early.
        if code & USER == 0
            && self
                .instructions
                .decode(regs.rip(), host)
                .is_some_and(|decoded| matches!(decoded.op, Op::Iretq | Op::FarReturn))
        {
            return self.privileged(0, regs, host);
        }
        // Below 4 GiB the boot protocol's identity map covers everything, so
        // that an access where nothing is reads all ones; above it there are pages where
        // BARs are. RAM that faults is the page at 0, or read-only.
        let is_there = address >> 32 == 0 || self.devices.decodes(address);
        if fetch || !is_there || host.read_ram(address, &mut [0]) {
            return page_fault(self, regs, host);
        }
        let Some(decoded) = self.instructions.decode(regs.rip(), host) else {
            return page_fault(self, regs, host);
        };
        let Op::Memory {
            address: operand,
            width,
            op,
        } = decoded.op
        else {
            return page_fault(self, regs, host);
        };
        let length = decoded.length;
        // The CPU says where the operand is, and no registers are needed for it. Only at a
        // page's start it may have begun on the page before.
        let address = if address.is_multiple_of(PAGE_SIZE) {
            operand.of(regs)
        } else {
            address
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
        regs.set_rip(regs.rip().wrapping_add(length.into()));
        Outcome::Resume
    }
}

fn port_number(port: Port, regs: &Trapped<'_>) -> u16 {
    match port {
        Port::Immediate(port) => u16::from(port),
        Port::Dx => regs.get(RDX) as u16,
    }
}

const fn accumulator(width: Width) -> Register {
    Register {
        index: RAX as u8,
        width,
        high: false,
    }
}
