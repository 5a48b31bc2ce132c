//! Message control: enable, function mask, and what they bind (M1 to M6).

use super::*;

#[test]
fn m1_control_is_never_the_hardwares() {
    let mut rig = rig();
    assert_eq!(rig.msix.read_control(CONTROL, 0), Ok(69));
    rig.control(ENABLE | FUNCTION_MASK);
    assert_eq!(rig.msix.read_control(CONTROL, 0), Ok(0xc000 | 69));
    assert_eq!(MsixDump::state(&mut rig.msix, VMM, 0), Ok(0xc000 | 69));
    rig.control(FUNCTION_MASK);
    assert_eq!(rig.msix.read_control(CONTROL, 0), Ok(0x4000 | 69));
}

#[test]
fn m2_other_bits_do_not_count_and_no_change_is_nothing() {
    let mut rig = Rig::live(&[3]);
    rig.write(at(3, 8), Width::Dword, 0x99);
    assert_eq!(rig.control(ENABLE | 0x3fff), ControlEffect::default());
    assert_eq!(rig.log(), []);
}

#[test]
fn m3_enable_updates_what_is_due_in_order() {
    let mut rig = rig();
    for entry in [65, 2, 9, 4] {
        rig.program(entry, 0xfee0_0000, 0x30 + u32::from(entry));
    }
    for entry in [65, 2, 9, 0] {
        rig.mask(entry, false);
    }
    assert_eq!(rig.log(), []);
    let effect = rig.control(ENABLE);
    assert!(effect.routes);
    assert_eq!(rig.routed(), [bound(2), bound(9), bound(65)]);
}

#[test]
fn m3_clearing_the_function_mask_updates_what_is_due() {
    let mut rig = Rig::live(&[1, 2]);
    rig.control(ENABLE | FUNCTION_MASK);
    rig.write(at(2, 8), Width::Dword, 0x77);
    rig.log();
    assert!(rig.control(ENABLE).routes);
    let expected = [FunctionMask(false), Unbind(2), Bind(2, 0xfee0_0000, 0x77)];
    assert_eq!(rig.routed(), expected);
}

#[test]
fn m4_disable_unbinds_in_order_and_enable_binds_again() {
    let mut rig = Rig::live(&[8, 1, 69]);
    let effect = rig.control(0);
    assert_eq!(effect.write, Some(69));
    assert!(effect.routes && !effect.disable_intx);
    assert_eq!(rig.routed(), [Unbind(1), Unbind(8), Unbind(69)]);
    rig.control(ENABLE);
    assert_eq!(rig.routed(), [bound(1), bound(8), bound(69)]);
}

#[test]
fn m4_an_unbind_error_stops_and_keeps_control() {
    let mut rig = Rig::live(&[1, 4, 8]);
    rig.fail(&[], &[4]);
    let effect = rig.control(FUNCTION_MASK);
    assert_eq!(effect.write, None);
    assert!(effect.routes);
    assert_eq!(rig.routed(), [Unbind(1)]);
    assert_eq!(rig.msix.read_control(CONTROL, 0), Ok(ENABLE | 69));
    assert!(rig.entry(1).updated && rig.entry(1).bound.is_none());
    assert!(!rig.entry(4).updated && rig.entry(4).bound.is_some());
    assert_eq!(rig.entry(4).error, Some(Error::Failed));
    assert_eq!(rig.device(4, 12), 0);
    assert_eq!(rig.device(1, 12), 1);
    assert_eq!(rig.msix.counters.unbind_failures, 1);
    rig.fail(&[], &[]);
    assert_eq!(rig.control(0).write, Some(69));
    assert_eq!(rig.routed(), [Unbind(4), Unbind(8)]);
}

#[test]
fn m4_the_function_mask_binds_and_unbinds_nothing() {
    let mut rig = Rig::live(&[1]);
    let effect = rig.control(ENABLE | FUNCTION_MASK);
    assert_eq!(effect.write, Some(0xc000 | 69));
    assert_eq!(rig.routed(), [FunctionMask(true)]);
    let mut rig = self::rig();
    rig.program(1, 0xfee0_0000, 0x31);
    rig.mask(1, false);
    rig.control(ENABLE | FUNCTION_MASK);
    assert_eq!(rig.routed(), [FunctionMask(true)]);
}

#[test]
fn m5_bind_error_keeps_updated() {
    let mut rig = rig();
    for entry in [1, 2] {
        rig.program(entry, 0xfee0_0000, 0x30 + u32::from(entry));
        rig.mask(entry, false);
    }
    rig.fail(&[1], &[]);
    assert_eq!(rig.control(ENABLE).write, Some(ENABLE | 69));
    assert_eq!(rig.routed(), [bound(2)]);
    let entry = rig.entry(1);
    assert!(entry.updated && !entry.masked && entry.bound.is_none());
    assert_eq!(entry.error, Some(Error::Failed));
    assert_eq!(rig.device(1, 12), 1);
    assert_eq!(rig.msix.counters.bind_failures, 1);
    rig.fail(&[], &[]);
    rig.mask(1, true);
    assert!(rig.mask(1, false));
    assert_eq!(rig.routed(), [bound(1)]);
    assert_eq!(rig.entry(1).error, None);
    assert!(!rig.entry(1).updated);
}

#[test]
fn m5_a_failed_bind_is_retried_at_mask_clear_and_enable() {
    let mut rig = rig();
    rig.program(1, 0xfee0_0000, 0x31);
    rig.mask(1, false);
    rig.fail(&[1], &[]);
    rig.control(ENABLE);
    rig.fail(&[], &[]);
    rig.control(ENABLE | FUNCTION_MASK);
    rig.log();
    rig.control(ENABLE);
    assert_eq!(rig.routed(), [FunctionMask(false), bound(1)]);
}

#[test]
fn m5_unbind_error_keeps_the_old_binding() {
    let mut rig = Rig::live(&[1]);
    rig.mask(1, true);
    rig.write(at(1, 8), Width::Dword, 0x77);
    rig.fail(&[], &[1]);
    rig.log();
    assert!(!rig.mask(1, false));
    assert_eq!(rig.routed(), []);
    let entry = rig.entry(1);
    assert!(entry.updated && entry.bound.is_some() && !entry.masked);
    assert_eq!(rig.device(1, 12), 1, "as masked in the device as before");
    rig.fail(&[], &[]);
    rig.mask(1, true);
    rig.mask(1, false);
    let expected = [Mask(1, true), Unbind(1), Bind(1, 0xfee0_0000, 0x77)];
    assert_eq!(rig.routed(), expected);
}

#[test]
fn m5_the_entry_is_written_while_masked() {
    let mut rig = Rig::live(&[]);
    rig.program(1, 0xfee0_1000, 0x55);
    assert_eq!(rig.log(), []);
    rig.mask(1, false);
    let dword = |field, value| Write(at(1, field), Width::Dword, value);
    let written = [
        dword(0, HOST & 0xffff_ffff),
        dword(4, HOST >> 32),
        dword(8, 0x1001),
        dword(12, 0),
    ];
    let log = rig.log();
    assert_eq!(log[0], Bind(1, 0xfee0_1000, 0x55));
    assert_eq!(log[1..], written);
}

#[test]
fn m6_enable_tells_to_disable_intx_and_to_write_last() {
    let mut rig = rig();
    let effect = rig.control(ENABLE);
    assert_eq!(effect.write, Some(ENABLE | 69));
    assert!(effect.disable_intx && !effect.routes);
    let effect = rig.control(ENABLE | FUNCTION_MASK);
    assert!(!effect.disable_intx);
}
