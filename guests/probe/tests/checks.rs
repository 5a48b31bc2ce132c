//! Every check passes on a function that keeps the rules, and fails on the one
//! that breaks its rule.

mod fake;

use fake::{BDF, Fake, Flaw};
use probe::check::Stop;
use probe::interrupts::Delivery;
use probe::tap::Tap;
use probe::target::Target;

/// Returns the TAP output of all checks on a function with `flaw`.
fn run(flaw: Flaw) -> (Vec<String>, bool) {
    let fake = Fake::new(flaw);
    let (mut machine, mut cpu, mut source) = (fake.clone(), fake.clone(), fake);
    let mut lines = Vec::new();
    let mut tap = Tap::new(|line| lines.push(line.to_string()));
    let mut target = Target::new(&mut machine, BDF, true);
    probe::run::run(&mut target, &mut tap);
    let mut delivery = Delivery {
        target: &mut target,
        cpu: &mut cpu,
        source: &mut source,
    };
    delivery.run(|name, verdict| tap.result(BDF, name, verdict));
    let passed = tap.finish();
    (lines, passed)
}

#[test]
fn a_function_that_keeps_the_rules_passes() {
    let (lines, passed) = run(Flaw::None);
    let odd: Vec<_> = lines
        .iter()
        .filter(|line| line.starts_with("not ok") || line.contains("SKIP"))
        .collect();
    assert!(odd.is_empty(), "{odd:#?}");
    assert!(passed);
    assert_eq!(lines[0], "TAP version 13");
    assert_eq!(lines[1], "ok 1 - 00:01.0 p1_registers_at_start");
    assert_eq!(lines[lines.len() - 2], "1..53");
    assert_eq!(lines[lines.len() - 1], "# probe: pass");
}

#[test]
fn each_flaw_is_found_by_its_check() {
    let flaws = [
        (Flaw::ByteReadsShift, "c1_widths_agree"),
        (Flaw::SubsystemWritable, "c1_read_only_registers"),
        (Flaw::GapWritable, "c2_gaps_read_zero"),
        (Flaw::NarrowAddress, "c3_address_port_takes_dwords"),
        (Flaw::EnableIgnored, "c3_disabled_address_reaches_nothing"),
        (Flaw::MisalignedData, "c3_bad_data_port_accesses"),
        (Flaw::EveryBus, "c3_other_functions_read_ones"),
        (Flaw::BarSizeHasHoles, "c4_bar_sizing"),
        (Flaw::RomShown, "c4_no_rom"),
        (Flaw::PortsStay, "c4_ports_move"),
        (Flaw::DecodeIgnored, "c4_decode_off_reads_ones"),
        (Flaw::OtherBarStaysDecoded, "c4_decode_off_hides_every_bar"),
        (Flaw::DecodedBarStays, "c4_decoded_bar_moves"),
        (Flaw::BarIgnored, "c4_bar_moves"),
        (Flaw::NothingAbove4Gib, "c4_64_bit_bar_goes_above_4_gib"),
        (Flaw::CommandTakesAll, "c5_command_bits"),
        (Flaw::ListBitClear, "c5_status_has_list_bit_only_with_list"),
        (Flaw::ListLoops, "c6_list_is_sound"),
        (Flaw::UnsafeCapability, "c6_safe_capabilities_only"),
        (Flaw::LinkWritable, "c6_links_are_read_only"),
        (Flaw::LeavesD0, "c6_power_state_stays_d0"),
        (Flaw::NoReset, "c8_function_level_reset"),
        (Flaw::StartsUnmasked, "m9_entries_masked_and_empty_at_start"),
        (Flaw::StartsEnabled, "m1_control_at_start"),
        (Flaw::ControlTakesAll, "m2_control_bits"),
        (Flaw::ControlFromBytes, "m2_control_by_bytes"),
        (
            Flaw::PlacesWritable,
            "m2_table_and_pba_registers_are_read_only",
        ),
        (Flaw::DisableForgets, "m4_state_survives_enable_and_disable"),
        (Flaw::LowClearsHigh, "m7_fields_by_dwords"),
        (Flaw::QwordHalf, "m7_fields_by_qwords"),
        (Flaw::EntriesAlias, "m7_entries_are_apart"),
        (Flaw::WideVectorControl, "m9_vector_control_has_one_bit"),
        (Flaw::NarrowReads, "m12_bad_reads_give_ones"),
        (Flaw::NarrowWrites, "m12_bad_writes_are_dropped"),
        (Flaw::DecodeForgets, "m13_state_survives_decode_off"),
        (
            Flaw::ControlNeedsDecode,
            "m13_control_acts_while_not_decoded",
        ),
        (Flaw::TableTooLong, "m14_past_the_last_entry"),
        (Flaw::PbaWritable, "m15_pba_is_read_only"),
        (Flaw::PbaNarrow, "m15_pba_bad_widths"),
        (Flaw::HostMessageShows, "m19_bound_entries_read_as_written"),
        (Flaw::NothingDelivered, "m3_enabled_entry_delivers"),
        (Flaw::DeliveredTwice, "m3_enabled_entry_delivers"),
        (Flaw::EnableForgetsBinding, "m4_disable_and_enable_delivers"),
        (Flaw::LateMessageLost, "m10_message_written_after_unmask"),
        (Flaw::MaskIgnored, "m20_masked_event_is_kept"),
        (Flaw::PendingLost, "m20_masked_event_is_kept"),
        (
            Flaw::FunctionMaskIgnored,
            "m20_function_masked_event_is_kept",
        ),
        (Flaw::StaysOnOldVector, "m21_moves_to_another_vector"),
        (
            Flaw::PendingToOldVector,
            "m21_pending_event_goes_to_the_new_vector",
        ),
        (Flaw::MessageStartsOn, "p1_registers_at_start"),
        (Flaw::AddressTakesAll, "p1_registers_hold_what_is_written"),
        (Flaw::MessagesNotBounded, "p2_control_bits"),
        (Flaw::MaskTakesAll, "p2_mask_bits_of_offered_messages"),
        (Flaw::MessageWithMsix, "p3_not_with_msix"),
        (Flaw::MsixWithMessage, "p3_not_with_msix"),
        (Flaw::MessageLatched, "p1_message_moves_at_once"),
    ];
    for (flaw, name) in flaws {
        let (lines, passed) = run(flaw);
        assert!(!passed, "{flaw:?}");
        let found = lines
            .iter()
            .any(|line| line.starts_with("not ok") && line.ends_with(name));
        assert!(found, "{flaw:?} is not found by {name}: {lines:#?}");
        assert_eq!(lines.last().unwrap(), "# probe: fail");
    }
}

#[test]
fn nothing_run_is_no_success() {
    let tap = Tap::new(|_| {});
    assert!(!tap.finish());
    let mut lines = Vec::new();
    let mut tap = Tap::new(|line| lines.push(line.to_string()));
    tap.result("x", "y", Err(Stop::Skip("z")));
    assert!(tap.finish());
    assert_eq!(lines[1], "ok 1 - x y # SKIP z");
}
