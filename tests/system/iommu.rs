//! Confinement of devices, measured at boot, by each kind of IOMMU and without one;
//! and the capabilities of the running system.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::changed::Changed;
use crate::client::Client;
use crate::harness::{
    Finished, Running, finish, free_port, one_machine, root, run_of, the_only_machine, vectis,
};

const CONFINED: &str = "reaches its guest's memory only, raises its own interrupts only (measured)";

/// Returns the project's system with a NIC that is trusted.
fn trusted(name: &str) -> Changed {
    Changed::new(name, "device.nic0.dma = \"trusted\"")
}

fn serving_on(changed: &Changed, iommu: &str) -> (Running, u16) {
    let file = changed.0.display().to_string();
    Running::serving(&["--system", &file, "--iommu", iommu, "--timeout", "120"])
}

#[test]
fn amd_vi_confines_dma_and_interrupts() {
    let _machine = the_only_machine();
    let (mut system, port) = Running::serving(&[]);
    let (status, _) = Client::connect(port).request("/").expect("an answer");
    assert_eq!(status, 200);
    let dump = finish(vectis().args(["dump", "I"])).text;
    let shown = "I nic0 (web): AMD-Vi, attached, 8192 pages, 3 vectors, 0 refused";
    assert!(dump.contains(shown), "{dump}");
    // The timer comes by message, and the keys are looked for by the timer.
    let counters = system.counters();
    assert!(counters["timer.interrupts"] > 0, "{counters:?}");
    assert!(system.text().contains(CONFINED), "{}", system.text());
    assert!(system.interrupt().status.success());
}

#[test]
fn what_is_not_confined_needs_its_owner_s_word() {
    let _machine = one_machine();
    // QEMU's VT-d confines DMA, but lets interrupts in compatibility format
    // through although they are off.
    let port = free_port().to_string();
    let end = finish(vectis().args(["run", "--port", &port, "--iommu", "intel"]));
    assert!(!end.status.success(), "{}", end.text);
    for words in [
        "reaches its guest's memory only, raises any interrupt (measured)",
        "device nic0 (8086:10d3) is not assigned",
        "`dma = \"trusted\"` in [device.nic0]",
        "vectis run --iommu amd",
    ] {
        assert!(end.text.contains(words), "no `{words}` in\n{}", end.text);
    }
    assert!(!end.text.contains("[web]"), "the guest ran:\n{}", end.text);
    // Without an IOMMU there is nothing to measure: the tool refuses.
    let end = finish(vectis().args(["run", "--port", &port, "--iommu", "none"]));
    assert!(!end.status.success(), "{}", end.text);
    let line = "error: [device.nic0] can reach all memory by DMA: \
                nothing on this board confines it";
    assert!(end.text.lines().any(|found| found == line), "{}", end.text);
}

/// Returns a system with the probe guest and a function, with these keys of its.
fn probed(name: &str, qemu: &str, keys: &str) -> Changed {
    Changed::of(
        "tests/systems/probe.toml",
        name,
        &format!(
            "system.name = \"{name}\"
             guest.probe.devices = [\"device0\"]
             [device.device0]
             qemu = [\"{qemu}\"]
             {keys}"
        ),
    )
}

#[test]
fn an_nvme_controller_is_measured() {
    let _machine = one_machine();
    let id = "match = \"1b36:0010\"";
    // Confined, it needs no word of its owner's.
    let confined = probed("nvme-confined", "nvme,serial=vectis", id).run_on("amd");
    assert!(confined.text.contains(CONFINED), "{}", confined.text);
    assert!(confined.text.contains("# probe: pass"), "{}", confined.text);
    let trusted = format!("{id}\ndma = \"trusted\"");
    for (iommu, found) in [
        (
            "intel",
            "reaches its guest's memory only, raises any interrupt (measured)",
        ),
        (
            "none",
            "reaches all memory, raises any interrupt (measured)",
        ),
    ] {
        let end = probed("nvme-open", "nvme,serial=vectis", &trusted).run_on(iommu);
        assert!(end.text.contains(found), "{iommu}: {}", end.text);
        assert!(end.text.contains("# probe: pass"), "{iommu}: {}", end.text);
    }
}

#[test]
fn virtio_functions_are_measured() {
    let _machine = one_machine();
    let drive = "qemu-drives = [\"if=none,id=d0,driver=null-co,size=1M\"]";
    let disk = format!("match = \"1af4:1042\"\ndma = \"trusted\"\n{drive}");
    let behind = "virtio-blk-pci,disable-legacy=on,iommu_platform=on,drive=d0";
    let network = "match = \"1af4:1041\"\ndma = \"trusted\"";
    let net_behind = "virtio-net-pci,disable-legacy=on,iommu_platform=on,netdev=net0";
    for (iommu, behind, keys) in [
        ("amd", behind, &*disk),
        ("amd", net_behind, network),
        ("intel", net_behind, network),
    ] {
        let end = probed("virtio-behind", behind, keys).run_on(iommu);
        let found =
            "reaches its guest's memory only (measured), may raise any interrupt (not measured)";
        assert!(end.text.contains(found), "{iommu}: {}", end.text);
        assert!(end.text.contains("# probe: pass"), "{iommu}: {}", end.text);
    }
    let open = "virtio-blk-pci,disable-legacy=on,drive=d0";
    let end = probed("virtio-open", open, &disk).run_on("none");
    let found = "reaches all memory (measured), may raise any interrupt (not measured)";
    assert!(end.text.contains(found), "{}", end.text);
}

#[test]
fn a_virtio_function_that_passes_the_iommu_by_is_named() {
    let _machine = one_machine();
    let plain = "virtio-net-pci,disable-legacy=on,netdev=net0";
    let end = probed("virtio-past", plain, "match = \"1af4:1041\"").run_on("amd");
    assert!(!end.status.success(), "{}", end.text);
    for words in [
        "is not measured: it does not offer VIRTIO_F_ACCESS_PLATFORM",
        "QEMU: iommu_platform=on",
        "device device0 (1af4:1041) is not assigned",
    ] {
        assert!(end.text.contains(words), "no `{words}` in\n{}", end.text);
    }
}

#[test]
fn with_that_word_it_serves_on_vt_d() {
    let _machine = the_only_machine();
    let (mut system, port) = serving_on(&trusted("intel"), "intel");
    let (status, _) = Client::connect(port).request("/").expect("an answer");
    assert_eq!(status, 200);
    let dump = finish(vectis().args(["dump", "I"])).text;
    let shown = "I nic0 (web): VT-d, attached, 8192 pages, 3 vectors";
    assert!(dump.contains(shown), "{dump}");
    // The measurement's own attempts are on record.
    assert!(dump.contains("I refused 0: "), "{dump}");
    assert!(system.counters()["timer.interrupts"] > 0);
    assert!(system.interrupt().status.success());
}

#[test]
fn with_that_word_it_serves_without_an_iommu() {
    let _machine = one_machine();
    let (mut system, port) = serving_on(&trusted("none"), "none");
    let mut client = Client::connect(port);
    let (status, _) = client.request("/").expect("an answer");
    assert_eq!(status, 200);
    let text = system.text();
    // The measurement finds the open paths.
    let open = "reaches all memory, raises any interrupt (measured); assigned, since it is trusted";
    assert!(text.contains(open), "{text}");
    // Timer and keys by the I/O APIC's pins. The guest's timer fires at the
    // latest when it closes a connection that has long been idle; if it never
    // does, the run ends at its own bound.
    while system.counters()["timer.interrupts"] == 0 {}
    drop(client);
    assert!(system.interrupt().status.success());
}

/// Returns the slots that the table lists as filled for one thread.
fn filled(caps: &str, name: &str) -> Vec<String> {
    caps.lines()
        .skip_while(|line| *line != name)
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter(|line| line.starts_with("  slot"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_running_system_s_capabilities_are_those_of_the_table() {
    let _machine = one_machine();
    let end = finish(vectis().args(["caps", "--live"]));
    assert!(end.status.success(), "{}", end.text);
    assert!(end.text.contains("audit: 0 differences"), "{}", end.text);
    let caps = finish(vectis().arg("caps")).text;
    // Components without device pages or memory: a line a slot.
    for (name, slots) in [("console", 512), ("timer", 512), ("irq-router", 512)] {
        let pages = usize::from(name == "timer");
        let count = filled(&caps, name).len() + pages;
        let line = format!("audit: {name}: {count} of {slots} slots filled");
        assert!(end.text.contains(&line), "no `{line}` in\n{}", end.text);
    }
    assert!(
        end.text.contains("audit: guest:web: 1 of 4 slots filled"),
        "{}",
        end.text
    );
    // Device pages by holder: the unit's and the function's, and nothing in the
    // range of interrupt messages.
    let holders = |from: u64, to: u64| -> Vec<String> {
        let hex = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
        let lines = end.text.lines().filter_map(|line| {
            let (name, pages) = line
                .strip_prefix("audit: ")?
                .split_once(": device pages ")?;
            let (first, last) = pages.split_once('-')?;
            let inside = hex(first)? < to && hex(last)? >= from;
            inside.then(|| name.to_owned())
        });
        lines.collect()
    };
    assert_eq!(holders(0xfed8_0000, 0xfed8_4000), ["iommu"]);
    assert_eq!(holders(0xb000_0000, 0xc000_0000), ["pci-config"]);
    assert_eq!(holders(0xfee0_0000, 0xfef0_0000), [""; 0]);
}

/// A board like the usual one, whose firmware has one more ACPI table and QEMU
/// no IOMMU; it goes when this does.
struct Board(std::path::PathBuf);

impl Board {
    fn new(table: &[u8]) -> Self {
        // Tests run side by side.
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let (process, number) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let board = Self(root().join(format!("board/test-{process}-{number}")));
        fs::create_dir(&board.0).expect("a folder of the test's own");
        let file = board.0.join("table.bin");
        fs::write(&file, table).expect("the folder is ours");
        let file = file.display().to_string().replace(',', ",,");
        let text = format!(
            "board = {{ inherit = \"../qemu-q35/board.toml\", name = \"{}\" }}
             qemu.iommu.intel = [\"-acpitable\", \"file={file}\", \"-global\", \"hpet.msi=on\"]",
            board.name()
        );
        fs::write(board.0.join("board.toml"), text).expect("the folder is ours");
        board
    }

    fn name(&self) -> String {
        let name = self.0.file_name().and_then(|name| name.to_str());
        name.expect("the name is ours").to_owned()
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Returns a DMAR with one unit for all, whose registers are at `base` (VT-d
/// specification, sections 8.1 and 8.3), and the I/O APIC of QEMU's q35; with `more`
/// structures behind.
fn dmar(base: u64, more: &[u8]) -> Vec<u8> {
    let mut table = b"DMAR\0\0\0\0\x01\0VECTISTESTTEST\x01\0\0\0TEST\x01\0\0\0".to_vec();
    table.extend([38, 1]);
    table.resize(48, 0);
    table.extend([0, 0, 24, 0, 1, 0, 0, 0]);
    table.extend(base.to_le_bytes());
    table.extend([3, 8, 0, 0, 0, 0xff, 0, 0]);
    table.extend(more);
    table[4] = u8::try_from(table.len()).expect("short");
    let sum = table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    table[9] = sum.wrapping_neg();
    table
}

/// With `dma = "trusted"` a function is assigned all the same, whatever the firmware's
/// tables say about an IOMMU.
#[test]
fn a_unit_that_is_not_where_firmware_says_is_named_and_left_alone() {
    let _machine = one_machine();
    let malformed = "the IOMMU cannot be used: its ACPI table is malformed";
    for (base, said) in [
        (0, malformed),
        // Not aligned.
        (0xfed9_1008, malformed),
        // The local APIC.
        (0xfee0_0000, malformed),
        // RAM, the I/O APIC, the HPET, configuration space.
        (0x100_0000, malformed),
        (0xfec0_0000, malformed),
        (0xfed0_0000, malformed),
        (0xb001_0000, malformed),
        // Nothing.
        (
            0xfed9_1000,
            "cannot be used: nothing answers at its address",
        ),
    ] {
        let board = Board::new(&dmar(base, &[]));
        let key = format!("system.board = \"{}\"", board.name());
        let system = Changed::of("tests/systems/nvme.toml", "acpi", &key);
        let mut run = run_of(&system.0, 120);
        let end = finish(run.args(["--iommu", "intel", "-v", "--exit-after-ready"]));
        let text = &end.text;
        assert!(text.contains(said), "{base:#x}: no `{said}` in\n{text}");
        assert!(
            text.contains("assigned, since it is trusted"),
            "{base:#x}: {text}"
        );
        assert!(!text.contains("fatal"), "{base:#x}: {text}");
    }
}

/// No such table is QEMU's, so that there is no unit here to map it; what init makes of it
/// comes before that.
#[test]
fn memory_that_firmware_wants_for_a_function_is_its_owner_s_word() {
    let _machine = one_machine();
    let free = 0xe000_0000u64;
    for (start, word, said, starts) in [
        (
            free,
            "",
            "firmware wants it to reach memory of its own at 0xe0000000 to 0xe000ffff",
            false,
        ),
        (
            free,
            "withhold",
            "device disk0: it does not reach the firmware's memory at 0xe0000000",
            true,
        ),
        (
            free,
            "map",
            " reaches the firmware's memory at 0xe0000000 to 0xe000ffff",
            true,
        ),
        (0x400_0000, "map", "it is RAM of the kernel's", false),
        (
            0x20_0000,
            "map",
            "its guest has RAM at these addresses",
            false,
        ),
        (0xb000_0000, "map", "configuration space is there", false),
    ] {
        // 64 KiB for each of the first functions on bus 0 (section 8.4).
        let mut memory = vec![1, 0, 24 + 4 * 8, 0, 0, 0, 0, 0];
        memory.extend(start.to_le_bytes());
        memory.extend((start + 0xffff).to_le_bytes());
        for device in 1..5 {
            memory.extend([1, 8, 0, 0, 0, 0, device, 0]);
        }
        let board = Board::new(&dmar(0xfed9_1000, &memory));
        let mut keys = format!("system.board = \"{}\"\n", board.name());
        if !word.is_empty() {
            keys += &format!("device.disk0.firmware-memory = \"{word}\"");
        }
        let system = Changed::of("tests/systems/nvme.toml", "acpi", &keys);
        let mut run = run_of(&system.0, 120);
        let end = finish(run.args(["--iommu", "intel", "-v", "--exit-after-ready"]));
        let text = &end.text;
        assert!(text.contains(said), "{word}: no `{said}` in\n{text}");
        assert_eq!(!text.contains("fatal"), starts, "{word}: {text}");
    }
}

#[test]
fn a_function_behind_a_conventional_bridge_is_named() {
    let _machine = one_machine();
    let keys = "device.disk0.qemu = [\"pcie-pci-bridge,id=old\", \
                \"nvme,serial=vectis,bus=old,addr=1\"]";
    let system = Changed::of("tests/systems/nvme.toml", "conventional", keys);
    let mut run = run_of(&system.0, 120);
    let end = finish(run.args(["--iommu", "intel", "-v", "--exit-after-ready"]));
    let text = &end.text;
    // Device 0 of the bridge's bus.
    let said = "device disk0: its requests carry the id 0x0100 of the bridge above it, and reach \
                nothing";
    assert!(text.contains(said), "no `{said}` in\n{text}");
}

/// Returns a system of two web guests whose NICs are these, and trusted.
fn two_guests(name: &str, nics: [&[&str]; 2], key: &str) -> Changed {
    let system = Changed::of("tests/systems/two-guests.toml", name, "");
    nics.into_iter()
        .enumerate()
        .fold(system, |system, (number, qemu)| {
            system.also(&format!(
                "[device.nic{number}]\nqemu = {qemu:?}\ndma = \"trusted\"\n{key}"
            ))
        })
}

fn ready_on(system: &Changed, iommu: &str) -> Finished {
    finish(run_of(&system.0, 120).args(["--iommu", iommu, "-v", "--exit-after-ready"]))
}

#[test]
fn functions_of_one_device_go_to_one_guest() {
    let _machine = one_machine();
    let nics: [&[&str]; 2] = [
        &["e1000e,netdev=net0,addr=8.0,multifunction=on"],
        &["e1000e,netdev=net1,addr=8.1"],
    ];
    let end = ready_on(&two_guests("group", nics, ""), "amd");
    assert!(!end.status.success(), "{}", end.text);
    for words in [
        "devices nic0 (00:08.0) and nic1 (00:08.1) go to two guests",
        "00:08.0 is one of several functions of a device without ACS",
        "`group = \"shared\"` in [device.nic0] and [device.nic1]",
    ] {
        assert!(end.text.contains(words), "no `{words}` in\n{}", end.text);
    }
    let shared = two_guests("shared", nics, "group = \"shared\"");
    let end = ready_on(&shared, "amd");
    assert!(end.status.success(), "{}", end.text);
}

#[test]
fn ports_that_send_requests_up_keep_functions_apart() {
    let _machine = one_machine();
    for acs in ["", ",disable-acs=on"] {
        let port = |number, more| {
            format!("pcie-root-port,id=rp{number},chassis={number},addr=9.{number}{acs}{more}")
        };
        let ports = [port(0, ",multifunction=on"), port(1, "")];
        let nics: [&[&str]; 2] = [
            &[&ports[0], "e1000e,netdev=net0,bus=rp0"],
            &[&ports[1], "e1000e,netdev=net1,bus=rp1"],
        ];
        // QEMU's AMD-Vi has nothing behind bridges.
        let end = ready_on(&two_guests("ports", nics, ""), "intel");
        let told = "00:09.0 is one of several functions of a device without ACS";
        assert_eq!(end.status.success(), acs.is_empty(), "{}", end.text);
        assert_eq!(end.text.contains(told), !acs.is_empty(), "{}", end.text);
    }
}

#[test]
fn what_is_nobody_s_in_a_group_sends_nothing() {
    let _machine = one_machine();
    // The firmware uses the disk controller, and leaves it on.
    let system = Changed::new(
        "stray",
        "device.nic0.qemu = [
             \"e1000e,netdev=net0,addr=8.0,multifunction=on\",
             \"nvme,serial=vectis,addr=8.1\",
         ]",
    );
    let end = ready_on(&system, "amd");
    let told = "00:08.1 is in the group of nic0 and no guest's: its bus mastering is switched off";
    assert!(end.text.contains(told), "{}", end.text);
    assert!(end.status.success(), "{}", end.text);
}
