//! Configuration space, by its ports and as memory.

use super::*;

#[test]
fn configuration_mechanism_one() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    m.outl(0xcf8, 0x8000_1844);
    // in ax, dx at 0xcfe
    m.regs.gpr[RDX] = 0xcfe;
    m.regs.gpr[RAX] = 0xffff_ffff_ffff_ffff;
    m.privileged(&[0x66, 0xed]);
    assert_eq!(m.regs.gpr[RAX], 0xffff_ffff_ffff_0046);
    m.outl(0xcfc, 7);
    let device = Bdf::new(0, 3, 0).unwrap();
    assert_eq!(m.host.config_writes, [(device, 0x44, Width::Dword, 7)]);
    // Past the last data port, and with the enable bit off: no device answers.
    m.regs.gpr[RDX] = 0xcfe;
    m.privileged(&[0xed]);
    assert_eq!(m.regs.gpr[RAX], 0xffff_ffff);
    m.outl(0xcf8, 0x1844);
    m.outl(0xcfc, 7);
    assert_eq!(m.host.config_writes.len(), 1);
}

#[test]
fn configuration_space_as_memory() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    let device = Bdf::new(0, 3, 0).unwrap();
    let at = |offset: u64| spec::CONFIG_WINDOW.start + (3 << 15) + offset;
    let load = |m: &mut Machine<'_>, offset, code: &[u8]| {
        (m.regs.gpr[RAX], m.regs.gpr[RCX]) = (0, at(offset));
        assert_eq!(m.memory(at(offset), code), Outcome::Resume);
        m.regs.gpr[RAX]
    };
    // mov al, ax, eax, rax from [rcx]: function and offset, as the fake answers.
    let function = 0x18 << 16;
    assert_eq!(load(&mut m, 0x45, &[0x8a, 0x01]), 0x45);
    assert_eq!(load(&mut m, 0x46, &[0x66, 0x8b, 0x01]), 0x46);
    assert_eq!(load(&mut m, 0x44, &[0x8b, 0x01]), function | 0x44);
    // Extended space too, to the end of the function's page.
    assert_eq!(load(&mut m, 0xffc, &[0x8b, 0x01]), function | 0xffc);
    let both = |low: u64| (function | (low + 4)) << 32 | function | low;
    assert_eq!(load(&mut m, 0x40, &[0x48, 0x8b, 0x01]), both(0x40));
    assert_eq!(load(&mut m, 0xff8, &[0x48, 0x8b, 0x01]), both(0xff8));
    // mov [rcx], rax; then one access as it is, which pci-config drops, in place of two.
    (m.regs.gpr[RAX], m.regs.gpr[RCX]) = (7 << 32 | 5, at(0x10));
    assert_eq!(m.memory(at(0x10), &[0x48, 0x89, 0x01]), Outcome::Resume);
    m.regs.gpr[RCX] = at(0x14);
    assert_eq!(m.memory(at(0x14), &[0x48, 0x89, 0x01]), Outcome::Resume);
    assert_eq!(
        m.host.config_writes,
        [
            (device, 0x10, Width::Dword, 5),
            (device, 0x14, Width::Dword, 7),
            (device, 0x14, Width::Qword, 5),
        ]
    );
    // All ones above what it could have read.
    let odd = load(&mut m, 0x3c + 2, &[0x48, 0x8b, 0x01]);
    assert_eq!(odd >> 32, 0xffff_ffff);
    // The last function's last register is there, and what lies around the window is not.
    let (start, end) = (spec::CONFIG_WINDOW.start, spec::CONFIG_WINDOW.end);
    m.regs.gpr[RCX] = end - 4;
    m.memory(end - 4, &[0x8b, 0x01]);
    assert_eq!(m.regs.gpr[RAX], 0xff << 16 | 0xffc);
    for outside in [start - 4, end] {
        m.regs.gpr[RCX] = outside;
        m.memory(outside, &[0x8b, 0x01]);
        assert_eq!(m.regs.gpr[RAX], 0xffff_ffff);
    }
    assert_eq!(m.host.unclaimed.len(), 2);
}

/// A BAR that a write moves is mapped before the guest goes on (C4), here as by ports.
#[test]
fn a_write_to_the_window_maps_what_it_decodes() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    m.host.decode_changes = true;
    m.host.bar = None;
    let command = spec::CONFIG_WINDOW.start + (3 << 15) + 4;
    (m.regs.gpr[RAX], m.regs.gpr[RCX]) = (2, command);
    m.memory(command, &[0x66, 0x89, 0x01]);
    assert_eq!(m.host.maps.last(), Some(&(0, 3, None)));
}
