//! What is said of each function of a dump, and of files that are none. The dumps in
//! tests/dumps are made by hand; ids and register layouts of the first and the NVMe
//! controller are those of Intel's 82574 datasheet and of QEMU.

use inspect::{Input, Start, Verdict, inspect, parse};

fn text(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/dumps");
    std::fs::read_to_string(format!("{folder}/{name}")).expect("the file is there")
}

fn verdicts(text: &str) -> Vec<Verdict> {
    let Input::Tables(tables) = parse(self::text("acpidump.txt").as_bytes()).expect("tables")
    else {
        panic!("no tables");
    };
    match parse(text.as_bytes()) {
        Ok(Input::Functions(functions)) => inspect(&functions, &tables),
        other => panic!("{other:?}"),
    }
}

fn of(address: &str) -> Verdict {
    let all = verdicts(&text("machine.txt"));
    let found = all.into_iter().find(|verdict| verdict.address == address);
    found.expect("the function is there")
}

fn error(text: &str) -> String {
    match parse(text.as_bytes()) {
        Err(error) => error.to_string(),
        Ok(input) => panic!("{input:?}"),
    }
}

fn shown(verdict: &Verdict, shown: bool) -> Vec<&str> {
    let those = verdict.capabilities.iter().filter(|c| c.shown == shown);
    those.map(|c| c.name).collect()
}

#[test]
fn an_82574l_works_with_its_ports() {
    let nic = of("00:02.0");
    assert_eq!((nic.vendor, nic.device), (0x8086, 0x10d3));
    assert_eq!((nic.starts, nic.reason.as_deref()), (Start::Yes, None));
    let bars: Vec<_> = nic
        .bars
        .iter()
        .map(|b| (b.index, b.kind, b.size, b.works))
        .collect();
    let expected = [
        (0, "mem32", 0x2_0000, true),
        (1, "mem32", 0x2_0000, true),
        (2, "io", 0x20, true),
        (3, "mem32", 0x4000, true),
    ];
    assert_eq!(bars, expected);
    assert_eq!(
        nic.reset,
        ["D3hot and back to D0", "the reset of its model"]
    );
    let msix = nic.msix.as_ref().expect("it has MSI-X");
    assert_eq!((msix.vectors, msix.reason), (5, None));
    assert_eq!(nic.trapped.len(), 2);
    assert_eq!(nic.trapped[0].shared, vec![0x50..0x1000; 1]);
    assert_eq!(nic.msi, 1);
    let all = ["power management", "MSI", "PCI Express", "MSI-X"];
    assert_eq!(shown(&nic, true), all);
    assert_eq!(nic.iommu.as_deref(), Some("VT-d unit at 0xfed90000"));
    assert!(
        nic.needs[0].contains("measurement at boot"),
        "{:?}",
        nic.needs
    );
}

/// Returns a virtio network as QEMU has it, with all that it needs of `lspci -vvxxxx`.
fn virtio() -> String {
    let mut dwords = Vec::new();
    let mut put = |at: usize, values: &[u32]| {
        dwords.extend((at..).step_by(4).zip(values.iter().copied()));
    };
    put(0x00, &[0x1041_1af4, 0x0010_0007, 0x0200_0001, 0]);
    put(0x14, &[0xfebd_1000, 0, 0, 0xfe00_000c, 0, 0]);
    put(0x34, &[0x98, 0, 0x010b]);
    put(0x98, &[0x8002_8411, 1, 0x801]);
    put(0x84, &[0x0514_7009, 0, 0, 0, 0]);
    put(0x70, &[0x0214_6009, 4, 0x3000, 0x1000, 4]);
    put(0x60, &[0x0410_5009, 4, 0x2000, 0x1000]);
    put(0x50, &[0x0310_4009, 4, 0x1000, 0x1000]);
    put(0x40, &[0x0110_0009, 4, 0x0000, 0x1000]);
    dump(
        "00:02.0 Ethernet controller: Red Hat, Inc. Virtio network device\n\
         \tRegion 1: Memory at febd1000 (32-bit, non-prefetchable) [size=4K]\n\
         \tRegion 4: Memory at fe000000 (64-bit, prefetchable) [size=16K]",
        &dwords,
    )
}

/// Returns a function with these dwords as `lspci -vvxxx` prints it.
fn dump(title: &str, dwords: &[(usize, u32)]) -> String {
    let mut config = [0u8; 256];
    for &(at, dword) in dwords {
        config[at..at + 4].copy_from_slice(&dword.to_le_bytes());
    }
    let mut text = format!("{title}\n");
    for (line, bytes) in config.chunks(16).enumerate() {
        text += &format!("{:02x}:", 16 * line);
        for byte in bytes {
            text += &format!(" {byte:02x}");
        }
        text += "\n";
    }
    text + "\n"
}

#[test]
fn a_bar_without_an_address_gets_one_in_the_window_of_its_bridge() {
    let told = |window: u32| {
        let port = dump(
            "00:1c.0 PCI bridge: a root port",
            &[
                (0x00, 0x9d10_8086),
                (0x04, 7),
                (0x08, 0x0604_0000),
                (0x0c, 0x1_0000),
                (0x18, 0x1_0100),
                (0x20, window),
            ],
        );
        let header = [
            (0x00, 0x10fb_8086),
            (0x04, 0),
            (0x08, 0x0200_0001),
            // One of several.
            (0x0c, 0x80_0000),
        ];
        let mut nic = header.to_vec();
        nic.push((0x10, 0xc));
        let nic = dump(
            "01:00.0 Ethernet controller: 82599\n\
             \tRegion 0: Memory at <unassigned> (64-bit, prefetchable) [disabled] [size=512K]",
            &nic,
        );
        let mut beside = header.to_vec();
        beside.push((0x10, 0xfe88_0000));
        let beside = dump(
            "01:00.1 Ethernet controller: beside it\n\
             \tRegion 0: Memory at fe880000 (32-bit, non-prefetchable) [size=512K]",
            &beside,
        );
        let all = verdicts(&(port + &nic + &beside));
        let found = all.into_iter().find(|verdict| verdict.address == "01:00.0");
        found.expect("the function is there")
    };
    let given = told(0xfe80_fe80);
    assert_eq!((given.starts, given.reason), (Start::Yes, None));
    let bar = &given.bars[0];
    assert_eq!(
        (bar.address, bar.size, bar.works),
        (0xfe80_0000, 512 << 10, true)
    );
    assert_eq!(
        bar.reason,
        "the firmware gave it no address, it has one in a window of the bridge 00:1c.0; the \
         guest has it there"
    );
    let closed = told(0x0000_fff0);
    assert_eq!((closed.starts, closed.bars[0].works), (Start::No, false));
    let why = "the firmware gave BAR 0 no address, and the bridge 00:1c.0 above it has no open \
               window for it";
    assert_eq!(closed.reason.as_deref(), Some(why));
    assert_eq!(closed.bars[0].reason, why);
}

#[test]
fn a_virtio_function_is_found_by_its_capabilities_but_for_its_window() {
    let all = verdicts(&virtio());
    let [nic] = &all[..] else {
        panic!("{all:?}");
    };
    assert_eq!((nic.starts, nic.reason.as_deref()), (Start::Yes, None));
    let names = [
        "MSI-X",
        "virtio notifications",
        "virtio device registers",
        "virtio interrupt status",
        "virtio common registers",
    ];
    assert_eq!(shown(nic, true), names);
    assert_eq!(shown(nic, false), ["virtio window to BARs"]);
    let needs = nic.needs.join("\n");
    assert!(needs.contains("passes an IOMMU by"), "{needs}");
    assert_eq!(nic.reset, ["its device status (virtio)"]);
    assert!(!needs.contains("reset ="), "{needs}");
}

/// Returns the dump of a function: header type, the port type if it is PCI Express, the buses
/// behind it, and what its ACS can do, if the dump has all 4096 bytes.
fn function(at: &str, header: u8, port: u16, buses: [u8; 2], acs: Option<u8>) -> String {
    let mut config = vec![0u8; if acs.is_some() { 4096 } else { 256 }];
    config[..8].copy_from_slice(&[0x86, 0x80, 0x21, 0x15, 0, 0, 0x10, 0]);
    config[0x0e] = header;
    config[0x34] = 0x40;
    config[0x40..0x44].copy_from_slice(&[0x10, 0, port.to_le_bytes()[0] << 4 | 2, 0]);
    if header & 0x7f == 1 {
        config[0x19..0x1b].copy_from_slice(&buses);
    }
    if let Some(acs) = acs {
        config[0x100..0x105].copy_from_slice(&[0x0d, 0, 1, 0, acs]);
    }
    let mut text = format!("{at} made by hand\n");
    for (line, bytes) in config.chunks(16).enumerate() {
        text += &format!("{:02x}:", 16 * line);
        bytes
            .iter()
            .for_each(|byte| text += &format!(" {byte:02x}"));
        text += "\n";
    }
    text
}

#[test]
fn functions_that_reach_each_other_are_a_group() {
    let machine = |acs: Option<u8>| {
        let dump = [
            function("00:02.0", 0x80, 9, [0; 2], acs),
            function("00:02.3", 0x80, 9, [0; 2], acs),
            function("00:1c.0", 0x81, 4, [1; 2], acs),
            function("00:1c.1", 0x81, 4, [2; 2], acs),
            function("01:00.0", 0, 0, [0; 2], Some(0)),
            function("02:00.0", 0, 0, [0; 2], Some(0)),
        ];
        verdicts(&dump.concat())
    };
    let group = |all: &[Verdict], at: &str| {
        let verdict = all.iter().find(|verdict| verdict.address == at);
        let verdict = verdict.expect("the function is there");
        let reason = verdict.group_reason.clone().unwrap_or_default();
        (verdict.group.join(" "), reason)
    };
    // Request redirect is missing.
    let open = machine(Some(0x1b));
    let (others, why) = group(&open, "00:02.0");
    assert_eq!(others, "00:02.3");
    let told = "00:02.0 is one of several functions of a device without ACS";
    assert_eq!(why, told);
    assert_eq!(group(&open, "01:00.0").0, "02:00.0");
    assert_eq!(group(&open, "00:1c.0").0, "");
    let line = format!("    group       00:02.3: {told}\n");
    let text = inspect::table(&open[0]);
    assert!(text.contains(&line), "{text}");
    let apart = machine(Some(0x1f));
    assert!(apart.iter().all(|verdict| verdict.group.is_empty()));
    // Boot looks at what the dump lacks.
    let unknown = machine(None);
    let (others, why) = group(&unknown, "02:00.0");
    assert_eq!(others, "01:00.0");
    assert!(
        why.contains("does not tell whether 00:1c.1 has it"),
        "{why}"
    );
}

#[test]
fn requests_from_behind_a_conventional_bridge_carry_its_id() {
    let dump = [
        function("00:1c.0", 1, 4, [1, 2], Some(0x1f)),
        function("01:00.0", 1, 7, [2; 2], None),
        function("02:00.0", 0, 9, [0; 2], None),
        function("02:01.0", 0, 9, [0; 2], None),
    ];
    let all = verdicts(&dump.concat());
    let iommu = |at: &str| {
        let verdict = all.iter().find(|verdict| verdict.address == at);
        verdict
            .and_then(|verdict| verdict.iommu.clone())
            .unwrap_or_default()
    };
    assert_eq!(iommu("02:00.0"), "VT-d unit at 0xfed90000");
    let carried = "VT-d unit at 0xfed90000; its requests carry the id 02:00.0 of a conventional \
                   bridge, and reach nothing where a unit is in force";
    assert_eq!(iommu("02:01.0"), carried);
}

/// Returns an MCFG with one window (PCI Firmware Specification 3.3, section 4.1.2).
fn mcfg(segment: u8, buses: [u8; 2]) -> Vec<u8> {
    let mut table = b"MCFG\x3c\0\0\0\x01\0VECTIS".to_vec();
    table.resize(44, 0);
    table.extend([
        0, 0, 0, 0xe0, 0, 0, 0, 0, segment, 0, buses[0], buses[1], 0, 0, 0, 0,
    ]);
    let sum = table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    table[9] = sum.wrapping_neg();
    table
}

#[test]
fn the_configuration_window_is_the_machine_s_own() {
    let dump = function("00:02.0", 0, 0, [0; 2], None) + &function("40:00.0", 0, 0, [0; 2], None);
    let Ok(Input::Functions(functions)) = parse(dump.as_bytes()) else {
        panic!("no functions");
    };
    let look = |table: Vec<u8>| {
        let Ok(Input::Tables(tables)) = parse(&table) else {
            panic!("no table");
        };
        inspect(&functions, &tables)
    };
    let all = look(mcfg(0, [0, 63]));
    let window = "0xe0000000, buses 0 to 63 (MCFG)";
    assert_eq!(all[0].window.as_deref(), Some(window));
    assert!(inspect::table(&all[0]).contains(window));
    assert_eq!((all[0].starts, all[1].starts), (Start::Yes, Start::No));
    let outside = "it is outside the board's ECAM window";
    assert_eq!(all[1].reason.as_deref(), Some(outside));
    // It tells of no IOMMU, nor that there is none.
    assert_eq!(all[0].iommu, None);
    assert_eq!(look(mcfg(0, [0, 255]))[1].starts, Start::Yes);
    // One of another segment is no window here.
    let all = look(mcfg(1, [0, 255]));
    assert_eq!((all[0].starts, all[1].starts), (Start::Yes, Start::Yes));
    let window = all[0].window.clone().unwrap_or_default();
    assert!(window.contains("reached by ports"), "{window}");
    let mut broken = mcfg(0, [0, 255]);
    broken[9] ^= 1;
    for (table, why) in [
        (mcfg(0, [1, 255]), "from bus 1 on only"),
        (broken, "this machine has no ACPI tables"),
    ] {
        let all = look(table);
        let reason = all[0].reason.clone().unwrap_or_default();
        assert!(
            all[0].starts == Start::No && reason.contains(why),
            "{reason}"
        );
    }
}

/// Returns a DMAR (VT-d 4.x section 8.1) with these structures, which remaps interrupts.
fn dmar(structures: &[Vec<u8>]) -> Vec<u8> {
    let mut table = b"DMAR\0\0\0\0\x01\0VECTIS".to_vec();
    table.resize(36, 0);
    table.extend([38, 1]);
    table.resize(48, 0);
    table.extend(structures.concat());
    table[4] = u8::try_from(table.len()).expect("short");
    let sum = table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    table[9] = sum.wrapping_neg();
    table
}

/// Returns a unit at 0xfed00000 and this, with the functions on the ways from bus 0: each
/// the kind of the scope, device and function.
fn drhd(flags: u8, registers: u16, scopes: &[[u8; 3]]) -> Vec<u8> {
    let length = 16 + 8 * scopes.len() as u8;
    let [low, high] = registers.to_le_bytes();
    let mut unit = vec![
        0, 0, length, 0, flags, 0, 0, 0, low, high, 0xd0, 0xfe, 0, 0, 0, 0,
    ];
    for [kind, device, function] in scopes {
        unit.extend([*kind, 8, 0, 0, 0, 0, *device, *function]);
    }
    unit
}

#[test]
fn which_of_several_units_a_function_has() {
    let Ok(Input::Functions(functions)) = parse(text("machine.txt").as_bytes()) else {
        panic!("no functions");
    };
    let units = |rest: u8| {
        let graphics = drhd(0, 0x1000, &[[1, 6, 0]]);
        let bridge = drhd(0, 0x2000, &[[2, 0x1c, 0]]);
        let rest = drhd(rest, 0x3000, &[[3, 0x1e, 7]]);
        inspect(&functions, &[dmar(&[graphics, bridge, rest])])
    };
    let all = units(1);
    let unit = |all: &[Verdict], address: &str| {
        let function = all.iter().find(|verdict| verdict.address == address);
        function
            .and_then(|function| function.iommu.clone())
            .unwrap_or_default()
    };
    for (address, at) in [
        ("00:06.0", "0xfed01000"),
        ("01:00.0", "0xfed02000"),
        ("00:02.0", "0xfed03000"),
    ] {
        let told = format!("VT-d unit at {at}, of 3 units");
        assert_eq!(unit(&all, address), told);
    }
    // Nobody has the rest.
    let told = unit(&units(0), "00:02.0");
    let why = "cannot be used: no unit has an assigned function (00:02.0)";
    assert_eq!(told, why);
    assert_eq!(unit(&units(0), "00:06.0"), unit(&all, "00:06.0"));
}

#[test]
fn msi_only_and_advanced_features() {
    let audio = of("00:03.0");
    assert_eq!((audio.msi, audio.msix.is_none()), (1, true));
    assert_eq!(audio.reset, ["function-level reset (Advanced Features)"]);
    assert_eq!(shown(&audio, false), ["Advanced Features"]);
    // The firmware wants memory for it.
    assert_eq!(audio.iommu.as_deref(), Some("VT-d unit at 0xfed90000"));
    assert!(audio.needs[0].contains("not measured"), "{:?}", audio.needs);
    let need = "firmware-memory = \"withhold\" or \"map\": firmware wants it to reach 0x7d000000 to \
                0x7d0fffff";
    assert_eq!(audio.needs[1..], [need]);
}

#[test]
fn nothing_resets_it_and_it_has_ports_and_a_small_bar() {
    let ports = of("00:04.0");
    assert_eq!(ports.starts, Start::Yes);
    assert!(ports.reset.is_empty() && ports.msix.is_none() && ports.msi == 0);
    assert!(ports.bars.iter().all(|bar| bar.works), "{:?}", ports.bars);
    assert!(ports.bars[1].reason.contains("each access traps"));
    assert_eq!(
        (ports.trapped[0].bar, &ports.trapped[0].shared),
        (1, &vec![0..0x100; 1])
    );
    assert!(ports.needs[0].starts_with("reset = \"optional\""));
}

#[test]
fn a_table_beside_registers_in_a_bar_above_4_gib() {
    let nvme = of("00:05.0");
    assert_eq!(
        (nvme.bars[0].address, nvme.bars[0].works),
        (0x38_0000_0000, true)
    );
    // Not that of its virtual functions.
    assert_eq!((nvme.bars[0].size, nvme.bars[0].size_known), (0x4000, true));
    assert!(
        nvme.bars[0]
            .reason
            .contains("the guest has it at 0xfebfc000")
    );
    assert_eq!(nvme.trapped[0].offset, 0x3000);
    assert_eq!(nvme.trapped[0].shared, [0x3410..0x3800, 0x3810..0x4000]);
    assert_eq!(nvme.reset, ["function-level reset"], "no soft reset is 1");
}

#[test]
fn a_large_bar_works_as_far_as_there_are_pages() {
    let display = of("00:06.0");
    assert_eq!((display.starts, display.bars[0].works), (Start::Yes, true));
    // The same as a 64-bit BAR of 32 GiB.
    let machine = text("machine.txt")
        .replace(
            "fc000000 (32-bit, prefetchable) [size=32M]",
            "800000000 [size=32G]",
        )
        .replace("10: 08 00 00 fc 00 00 00 00", "10: 0c 00 00 00 08 00 00 00");
    let all = verdicts(&machine);
    let larger = all.iter().find(|verdict| verdict.address == "00:06.0");
    let larger = larger.expect("the function is there");
    assert_eq!((larger.starts, larger.bars[0].works), (Start::Yes, false));
    let reason = &larger.bars[0].reason;
    let told = "it needs 16384 capabilities, more than are left of the 4096";
    assert!(reason.contains(told), "{reason}");
}

#[test]
fn what_does_not_start_is_named() {
    for (address, starts, reason) in [
        ("00:1c.0", Start::Bridge, "a bridge cannot be assigned"),
        ("01:00.0", Start::Unknown, "run lspci -vvxxxx as root"),
        ("01:10.0", Start::No, "SR-IOV virtual function"),
        ("e1:00.0", Start::No, "another PCI segment"),
    ] {
        let verdict = of(address);
        assert_eq!(verdict.starts, starts, "{address}");
        let said = verdict.reason.unwrap_or_default();
        assert!(said.contains(reason), "{address}: {said}");
    }
}

#[test]
fn without_the_text_sizes_are_guessed_and_that_is_said() {
    let bytes_only: String = text("machine.txt")
        .lines()
        .filter(|line| !line.starts_with('\t'))
        .flat_map(|line| [line, "\n"])
        .collect();
    let all = verdicts(&bytes_only);
    let nic = &all[0];
    assert!(nic.bars.iter().all(|bar| !bar.size_known));
    // As large as the PBA asks for at least.
    assert_eq!((nic.bars[3].size, nic.trapped.len()), (0x4000, 2));
    assert!(inspect::table(nic).contains("? (lspci -vv tells the size)"));
}

#[test]
fn line_ends_and_the_order_of_lines_change_nothing() {
    let machine = text("machine.txt");
    let expected = format!("{:?}", verdicts(&machine));
    assert_eq!(
        format!("{:?}", verdicts(&machine.replace('\n', "\r\n"))),
        expected
    );
    let reversed: Vec<String> = machine
        .split("\n\n")
        .map(|block| {
            let (head, rest) = block.split_once('\n').expect("several lines");
            let rest: Vec<&str> = rest.lines().rev().collect();
            format!("{head}\n{}", rest.join("\n"))
        })
        .collect();
    assert_eq!(format!("{:?}", verdicts(&reversed.join("\n\n"))), expected);
}

#[test]
fn two_small_bars_on_one_page_share_it() {
    let block = |at: &str, low: u32| {
        let mut bytes = [0u8; 256];
        bytes[..8].copy_from_slice(&[0xf4, 0x1a, 0, 0x10, 6, 0, 0x10, 0]);
        bytes[0x10..0x14].copy_from_slice(&low.to_le_bytes());
        bytes[0x34] = 0x40;
        // Two entries at 0, the PBA at 0x80.
        bytes[0x40..0x4c].copy_from_slice(&[0x11, 0, 1, 0, 0, 0, 0, 0, 0x80, 0, 0, 0]);
        let mut text = format!("{at} a device\n\tRegion 0: Memory at {low:x} [size=256]\n");
        for (row, bytes) in bytes.chunks(16).enumerate() {
            let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            text += &format!("{:02x}: {}\n", row * 16, bytes.join(" "));
        }
        text
    };
    let alone = verdicts(&block("00:01.0", 0xfebd_1000));
    assert_eq!(
        alone[0].msix.as_ref().map(|m| (m.vectors, m.reason)),
        Some((2, None))
    );
    assert!(alone[0].bars[0].works);
    let both = block("00:01.0", 0xfebd_1000) + &block("00:02.0", 0xfebd_1100);
    let why = "another function's BAR lies on the page of its table or PBA";
    for verdict in verdicts(&both) {
        let msix = verdict.msix.expect("it has the capability");
        assert_eq!((msix.vectors, msix.reason), (0, Some(why)));
        assert!(verdict.bars[0].reason.contains("stays unmapped"));
        assert!(!verdict.bars[0].works);
    }
}

#[test]
fn a_file_that_is_no_dump_is_an_error_with_its_line() {
    let row = "00: 86 80 d3 10 06 00 10 00 01 00 00 02 00 00 00 00";
    let head = "00:02.0 a device";
    for (text, expected) in [
        (String::new(), "0: there is neither"),
        ("hello\n".to_owned(), "0: there is neither"),
        (format!("{row}\n"), "1: bytes before the first function"),
        (
            format!("{head}\n{row}\n"),
            "2: the bytes of 00:02.0 end at 0x10",
        ),
        (
            format!("{head}\n{row}\n{}\n", row.replace("00:", "20:")),
            "3: the bytes of 00:02.0 have a gap at 0x10",
        ),
        (format!("{head}\n{row}\n{row}\n"), "3: a second row at 0x0"),
        (
            format!("{head}\n{}\n", &row[..30]),
            "2: a row does not have 16 bytes",
        ),
        (
            format!("{head}\n{}\n", row.replace("86", "8g")),
            "2: a row does not have 16 bytes",
        ),
        (
            format!("{head}\n{}\n", row.replacen("00:", "08:", 1)),
            "2: no row begins at 0x8",
        ),
        (
            format!("{head}\n\tRegion 0: Memory at fe000000 [size=3K]\n"),
            "2: the size of a BAR",
        ),
        (
            format!("{head}\n\tRegion x: Memory at fe000000 [size=4K]\n"),
            "2: `Region x",
        ),
        (
            "DMAR @ 0x0\n    0000: 44 4D 41 52 30 00 00 00  DMAR0...\n".to_owned(),
            "1: the table says 48 bytes, and 8 are there",
        ),
        (
            "DMAR @ 0x0\n    0010: 44 4D 41 52\n".to_owned(),
            "2: offset 0x10, where 0x0 comes",
        ),
        ("DMAR @ 0x0\n    what\n".to_owned(), "2: no row of a table"),
    ] {
        let error = error(&text);
        assert!(error.starts_with(expected), "{text:?}: {error}");
    }
    // The same machine cut anywhere is a dump or an error, never a panic.
    let machine = text("machine.txt");
    for end in (0..machine.len()).step_by(97) {
        if let Ok(Input::Functions(functions)) = parse(&machine.as_bytes()[..end]) {
            let _ = inspect(&functions, &[]);
        }
    }
}

#[test]
fn hostile_bytes_end_without_a_panic() {
    let machine = text("machine.txt").into_bytes();
    let digits = b"0123456789abcdef";
    let mut seed = 1u32;
    let mut next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as usize
    };
    for _ in 0..2000 {
        let mut bytes = machine.clone();
        for _ in 0..40 {
            let at = next() % bytes.len();
            bytes[at] = if bytes[at].is_ascii_hexdigit() {
                digits[next() % 16]
            } else {
                bytes[at]
            };
        }
        if let Ok(Input::Functions(functions)) = parse(&bytes) {
            for verdict in inspect(&functions, &[]) {
                assert!(!inspect::table(&verdict).is_empty());
            }
        }
    }
}

#[test]
fn the_answers_are_json_and_a_table() {
    let all = verdicts(&text("machine.txt"));
    let json = serde_json::to_value(&all).expect("JSON");
    assert_eq!(json[0]["starts"], "yes");
    assert_eq!(json[0]["bars"][3]["address"], 0xfebc_0000u32);
    assert_eq!(json[3]["trapped"][0]["shared"][0]["start"], 0x3410);
    let table = inspect::table(&all[0]);
    assert!(
        table.contains("MSI-X with 5, table in BAR 3 at 0x0"),
        "{table}"
    );
    let mut odd = all[0].clone();
    odd.title = "\u{1b}[2J".to_owned();
    assert!(!inspect::table(&odd).contains('\u{1b}'));
}
