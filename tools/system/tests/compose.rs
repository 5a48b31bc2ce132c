//! What composing promises: the same image every time, slots used once, and a
//! table that says exactly what is handed out.

mod common;

use std::collections::BTreeMap;

use spec::{
    BY_TABLES, IommuKind, KernelLabel, NONE, ObjectKind, PIN_BY_MACHINE, Requires, Resources,
    Start, System, names,
};
use system::{
    ComposeError, Image, Model, OnExit, Options, Program, Programs, Segment, capability_table,
    compose,
};
use zerocopy::IntoBytes;

fn composed(model: &Model, programs: &Programs) -> Result<Image, ComposeError> {
    compose(model, programs, Options::default())
}

fn good() -> (Model, Image) {
    let root = common::project(&common::files().join("good-iommu.toml"));
    let model = common::read(&root).unwrap_or_else(|report| panic!("{report}"));
    let program = Program {
        entry: 0x40_0010,
        stack: 16 << 10,
        segments: vec![Segment {
            address: 0x40_0000,
            size: 0x2345,
            bytes: vec![0xc3; 0x1234],
            writable: false,
            executable: true,
        }],
    };
    let programs = Programs {
        components: model
            .components
            .iter()
            .map(|component| (component.program.name.clone(), program.clone()))
            .collect(),
        guests: BTreeMap::from([("web".to_owned(), vec![1; 5000])]),
        ..Programs::default()
    };
    let image = composed(&model, &programs).unwrap();
    (model, image)
}

/// Returns the image with the alignment that reading it needs.
fn aligned(image: &Image) -> Vec<u64> {
    let mut words = vec![0; image.bytes.len().div_ceil(8)];
    words.as_mut_bytes()[..image.bytes.len()].copy_from_slice(&image.bytes);
    words
}

/// Returns the slots that a record fills: CNode, first slot, how many, what for.
fn used(model: &Model, image: &Image) -> Vec<(u32, u32, u32, String)> {
    let mut used = Vec::new();
    for capability in &image.capabilities {
        let object = &image.objects[capability.object as usize];
        let count = match object.kind {
            ObjectKind::Memory => object.pages as u32,
            _ => 1,
        };
        used.push((
            capability.cnode,
            capability.slot,
            count,
            object.name.as_str().to_owned(),
        ));
    }
    for mapping in image.mappings.iter().filter(|m| m.holder != NONE) {
        let object = &image.objects[mapping.object as usize];
        let what = format!("pages of {}", object.name.as_str());
        used.push((
            mapping.holder,
            mapping.holder_slot,
            object.pages as u32,
            what,
        ));
    }
    for function in &image.functions {
        let name = function.name.as_str();
        let pages = pci::MAX_MSIX_PAGES as u32;
        for (cnode, slot, count, what) in [
            (function.config_cnode, function.config_slot, 1, "config"),
            (
                function.config_cnode,
                function.registers_slot,
                pci::RESET_PAGES as u32,
                "reset",
            ),
            (function.msix_cnode, function.msix_slot, pages, "msix"),
        ] {
            used.push((cnode, slot, count, format!("{what} of {name}")));
        }
        // The functions of a guest share these.
        let shared = |range: &&(u32, u32, u32, String)| range.3.starts_with("BARs");
        let bars = (function.bar_cnode, function.bar_slot, function.bar_slots);
        let same = |range: &(u32, u32, u32, String)| (range.0, range.1, range.2) == bars;
        if !used.iter().filter(shared).any(same) {
            used.push((bars.0, bars.1, bars.2, "BARs".to_owned()));
        }
    }
    let unit = &image.iommu;
    used.push((unit.cnode, unit.slot, unit.pages, "the IOMMU".to_owned()));
    let words = aligned(image);
    let system = System::parse(words.as_bytes()).unwrap();
    for component in &model.components {
        let thread = thread(image, &component.name);
        let resources = resources(&system, &component.name);
        for key in [names::HANDLER_SLOTS, names::TABLE_SLOTS] {
            if let Some(free) = resources.find(key) {
                used.push((
                    image.threads[thread].cnode,
                    free.first as u32,
                    free.count as u32,
                    "free".to_owned(),
                ));
            }
        }
    }
    used
}

fn thread(image: &Image, name: &str) -> usize {
    let found = image.threads.iter().position(|t| t.name.as_str() == name);
    found.unwrap_or_else(|| panic!("no thread {name}"))
}

fn resources<'a>(system: &System<'a>, component: &str) -> Resources<'a> {
    let name = format!("{component}:resources");
    let fill = system
        .fills
        .iter()
        .find(|fill| system.objects[fill.object as usize].name.as_str() == name)
        .unwrap_or_else(|| panic!("no {name}"));
    Resources::parse(system.source(fill))
}

#[test]
fn a_stack_holds_its_programs_calls() {
    let (model, _) = good();
    let program = |stack| Program {
        entry: 0,
        segments: Vec::new(),
        stack,
    };
    let programs = |stack| Programs {
        components: BTreeMap::from([("msix".to_owned(), program(stack))]),
        ..Programs::default()
    };
    assert!(composed(&model, &programs(16 << 10)).is_ok());
    let error = composed(&model, &programs((16 << 10) + 1)).unwrap_err();
    let text = "msix has a stack of 16K, but msix's calls take 20K";
    assert_eq!(error.to_string(), text);
    let options = Options {
        inject_faults: true,
        ..Options::default()
    };
    assert!(compose(&model, &programs(1 << 20), options).is_ok());
}

#[test]
fn equal_systems_give_equal_images() {
    let (one, two) = (good().1, good().1);
    assert!(!one.bytes.is_empty());
    assert_eq!(one.bytes, two.bytes);
    assert_eq!(one.log_writers, two.log_writers);
}

#[test]
fn init_can_read_the_image() {
    let (model, image) = good();
    let words = aligned(&image);
    let system = System::parse(words.as_bytes()).unwrap();
    assert_eq!(system.threads.len(), model.components.len() + 1);
    let contents: Vec<&[u8]> = system
        .fills
        .iter()
        .filter(|fill| {
            let object = &system.objects[fill.object as usize];
            object.name.as_str() == "guest:web:image"
        })
        .map(|fill| system.source(fill))
        .collect();
    assert_eq!(contents, [&[1; 5000][..]]);
}

#[test]
fn a_vmm_is_told_of_rewritten_instructions() {
    let (model, _) = good();
    for rewritten in [false, true] {
        let guests = if rewritten { &["web"][..] } else { &["other"] };
        let programs = Programs {
            rewritten: guests.iter().map(|name| (*name).to_owned()).collect(),
            ..Programs::default()
        };
        let image = composed(&model, &programs).unwrap();
        let words = aligned(&image);
        let system = System::parse(words.as_bytes()).unwrap();
        let told = resources(&system, "vmm").find(names::REWRITTEN);
        assert_eq!(told, Some(rewritten));
    }
}

#[test]
fn every_slot_is_used_once() {
    let (model, image) = good();
    let mut taken = BTreeMap::new();
    for (cnode, first, count, what) in used(&model, &image) {
        let bits = image.objects[cnode as usize].size_bits;
        assert!(first > 0, "{what} is in the null slot");
        assert!(first + count <= 1 << bits, "{what} is past the end");
        for slot in first..first + count {
            if let Some(other) = taken.insert((cnode, slot), what.clone()) {
                panic!("slot {slot} of CNode {cnode} holds {other} and {what}");
            }
        }
    }
    assert!(!taken.is_empty());
}

#[test]
fn mappings_do_not_overlap() {
    let (_, image) = good();
    let mut spaces: BTreeMap<u32, Vec<(u64, u64)>> = BTreeMap::new();
    for mapping in &image.mappings {
        let object = &image.objects[mapping.object as usize];
        let size = object.pages << object.size_bits;
        spaces
            .entry(mapping.vspace)
            .or_default()
            .push((mapping.address, mapping.address + size));
    }
    for function in &image.functions {
        for (space, address, pages) in [
            (function.config_vspace, function.config_address, 1),
            (
                function.config_vspace,
                function.registers_address,
                pci::RESET_PAGES,
            ),
            (
                function.msix_vspace,
                function.msix_address,
                pci::MAX_MSIX_PAGES as u64,
            ),
        ] {
            let range = (address, address + pages * 4096);
            spaces.entry(space).or_default().push(range);
        }
    }
    for ranges in spaces.values_mut() {
        ranges.sort_unstable();
        for pair in ranges.windows(2) {
            assert!(pair[0].1 <= pair[1].0, "{:x?}", pair);
        }
    }
}

/// Returns the lines of the table about one thread.
fn block<'t>(table: &'t str, name: &str) -> Vec<&'t str> {
    table
        .lines()
        .skip_while(|line| *line != name)
        .skip(1)
        .take_while(|line| !line.is_empty())
        .collect()
}

#[test]
fn the_table_names_exactly_what_is_handed_out() {
    let (model, image) = good();
    let table = capability_table(&model, &image);
    for thread in &image.threads {
        let lines = block(&table, thread.name.as_str());
        let mut shown: Vec<u32> = lines
            .iter()
            .filter_map(|line| line.strip_prefix("  slot "))
            .map(|line| line.split_whitespace().next().unwrap().parse().unwrap())
            .collect();
        let mut held: Vec<u32> = image
            .capabilities
            .iter()
            .filter(|capability| capability.cnode == thread.cnode)
            .map(|capability| capability.slot)
            .collect();
        for function in &image.functions {
            for (cnode, slot) in [
                (function.config_cnode, function.config_slot),
                (function.config_cnode, function.registers_slot),
                (function.msix_cnode, function.msix_slot),
                (function.bar_cnode, function.bar_slot),
            ] {
                if cnode == thread.cnode {
                    held.push(slot);
                }
            }
        }
        if image.iommu.cnode == thread.cnode {
            held.push(image.iommu.slot);
        }
        shown.sort_unstable();
        held.sort_unstable();
        assert_eq!(shown, held, "{}", thread.name.as_str());

        let mut shown: Vec<u64> = lines
            .iter()
            .filter_map(|line| line.strip_prefix("  map "))
            .map(|line| {
                let address = line.split_whitespace().nth(1).unwrap();
                u64::from_str_radix(address.trim_start_matches("0x"), 16).unwrap()
            })
            .collect();
        let mut mapped: Vec<u64> = image
            .mappings
            .iter()
            .filter(|mapping| mapping.vspace == thread.vspace)
            .map(|mapping| mapping.address)
            .collect();
        shown.sort_unstable();
        mapped.sort_unstable();
        assert_eq!(shown, mapped, "{}", thread.name.as_str());
        let other = lines
            .iter()
            .filter(|line| !line.starts_with("  slot ") && !line.starts_with("  map "));
        assert_eq!(other.count(), 0, "{}", thread.name.as_str());
    }
}

#[test]
fn who_must_never_hold_what() {
    let (model, image) = good();
    let table = capability_table(&model, &image);
    let holders = |what: &str| -> Vec<&str> {
        image
            .threads
            .iter()
            .map(|thread| thread.name.as_str())
            .filter(|name| block(&table, name).iter().any(|line| line.contains(what)))
            .collect()
    };
    assert_eq!(holders("IRQControl"), ["irq-router"]);
    assert_eq!(holders("configuration page of"), ["pci-config"]);
    assert_eq!(holders("MSI-X table and PBA pages of"), ["msix"]);
    assert_eq!(holders("BAR pages of"), ["vmm"]);
    assert_eq!(holders("I/O ports"), ["console"]);
    assert_eq!(holders("registers of hpet"), ["timer"]);
    assert_eq!(holders("registers of the IOMMU"), ["iommu"]);
    assert_eq!(holders("memory iommu-tables"), ["iommu"]);
    assert_eq!(holders("pages of memory guest:web"), ["iommu"]);
    assert_eq!(
        holders("IRQ handler, pin"),
        [""; 0],
        "the I/O APIC is blocked"
    );
    assert_eq!(holders("IRQ handler, user vector"), ["timer"]);
    assert_eq!(holders("TCB of"), ["vmm"]);
    let guest = block(&table, "guest:web");
    let slots: Vec<_> = guest.iter().filter(|l| l.starts_with("  slot")).collect();
    let [fault] = slots[..] else {
        panic!("{slots:?}");
    };
    assert!(fault.contains("endpoint of vmm"), "{fault}");
}

/// What a restart does not renew: everything but a program's writable segments.
#[test]
fn a_component_that_keeps_its_state_has_memory_of_its_own_for_it() {
    let (_, image) = good();
    for program in ["irq-router", "msix", "pci-config"] {
        let name = format!("{program}:kept");
        let mut objects = image.objects.iter();
        let object = objects.position(|o| o.name.as_str() == name).unwrap();
        assert!(!image.objects[object].renewed, "{name} is renewed");
        let mapped: Vec<_> = image
            .mappings
            .iter()
            .filter(|mapping| mapping.object as usize == object)
            .map(|mapping| mapping.vspace)
            .collect();
        assert_eq!(mapped, [image.threads[thread(&image, program)].vspace]);
    }
}

/// Returns the start and length of each guest's turn, by its vmm.
fn turns(shares: &[(u64, u8)]) -> Vec<(u64, u64)> {
    let (mut model, _) = good();
    let guest = model.guests[0].clone();
    let vmm = model.components[guest.vmm].clone();
    model.guests.clear();
    for (index, &(share, priority)) in shares.iter().enumerate() {
        let mut guest = guest.clone();
        (guest.share, guest.priority) = (share, priority);
        guest.name = format!("g{index}");
        if index > 0 {
            guest.vmm = model.components.len();
            let mut vmm = vmm.clone();
            vmm.name = format!("vmm-{index}");
            model.components.push(vmm);
            guest.devices.clear();
            guest.address += guest.memory * index as u64;
        }
        model.guests.push(guest);
    }
    let image = composed(&model, &Programs::default()).unwrap();
    let words = aligned(&image);
    let system = System::parse(words.as_bytes()).unwrap();
    let vmms = model
        .guests
        .iter()
        .map(|guest| &model.components[guest.vmm]);
    vmms.map(|vmm| {
        let found = resources(&system, &vmm.name);
        let share = found.find(names::SHARE).unwrap();
        (share.start, share.length)
    })
    .collect()
}

#[test]
fn guests_of_one_priority_share_the_period() {
    assert_eq!(turns(&[(1, 100)]), [(0, 10_000)]);
    assert_eq!(turns(&[(7, 100), (7, 100)]), [(0, 5000), (5000, 5000)]);
    // What does not divide evenly leaves no gap.
    assert_eq!(
        turns(&[(1, 100), (1, 100), (1, 100)]),
        [(0, 3333), (3333, 3333), (6666, 3334)]
    );
    // One of another priority has all of its own.
    assert_eq!(
        turns(&[(1, 100), (5, 50), (3, 100)]),
        [(0, 2500), (0, 10_000), (2500, 7500)]
    );
}

#[test]
fn only_the_vmm_sets_priorities_and_ends_the_system_for_its_guest() {
    let (mut model, _) = good();
    for (on_exit, ends) in [(OnExit::Stop, 1), (OnExit::Halt, 0), (OnExit::Restart, 0)] {
        model.guests[0].on_exit = on_exit;
        let image = composed(&model, &Programs::default()).unwrap();
        for thread in &image.threads {
            let name = thread.name.as_str();
            let is_vmm = u32::from(name == "vmm");
            assert_eq!(thread.max_priority, is_vmm * thread.priority, "{name}");
            assert_eq!(thread.may_stop, is_vmm * ends, "{name}");
        }
    }
}

#[test]
fn a_component_gets_what_its_manifest_asks_for() {
    let (mut model, _) = good();
    model.components[1].program.kept_words = 513;
    model.components[1].program.cnode_bits = 10;
    let image = composed(&model, &Programs::default()).unwrap();
    let objects = image.objects.iter();
    for component in &model.components {
        let (name, program) = (&component.name, &component.program);
        let thread = &image.threads[thread(&image, name)];
        let cnode = &image.objects[thread.cnode as usize];
        assert_eq!(cnode.size_bits, program.cnode_bits, "{name}");
        assert_eq!(
            (thread.start == Start::First),
            program.starts_first,
            "{name}"
        );
        let kept = format!("{name}:kept");
        let mut kept = objects.clone().filter(|o| o.name.as_str() == kept);
        let pages = (program.kept_words * 8).div_ceil(4096);
        assert_eq!(kept.next().map_or(0, |kept| kept.pages), pages, "{name}");
    }
    let first: Vec<_> = image
        .threads
        .iter()
        .filter(|t| t.start == Start::First)
        .collect();
    assert_eq!(first.len(), 1);
    // Its own, and the one that reads all logs.
    let logs = |image: &Image| {
        let name = |object: u32| image.objects[object as usize].name.as_str().to_owned();
        let logs = image.mappings.iter().map(|mapping| name(mapping.object));
        logs.filter(|name| name == "log:vmm").count()
    };
    assert_eq!(logs(&image), 2);
    model.components[0].program.reads_logs = false;
    assert_eq!(logs(&composed(&model, &Programs::default()).unwrap()), 1);
}

/// Returns what the timer has with these devices on a board, and the image.
fn clocks(devices: &str, board: &str, iommu: IommuKind) -> (Vec<String>, Image) {
    let root = common::project(&common::files().join("good-iommu.toml"));
    let file = root.path().join("clock.toml");
    let keys = format!(
        "system = {{ inherit = \"system.toml\", board = \"{board}\" }}\n\
         component.timer.devices = {devices}\ndevice.nic0.dma = \"trusted\"\n"
    );
    std::fs::write(&file, keys).unwrap();
    let model = system::read(root.path(), &file, Some(iommu));
    let model = model.unwrap_or_else(|report| panic!("{report}"));
    let image = composed(&model, &Programs::default()).unwrap();
    let table = capability_table(&model, &image);
    let has = |what: &&str| {
        block(&table, "timer")
            .iter()
            .any(|line| line.contains(what))
    };
    let all = ["registers of hpet", "(hpet)", "0x40-0x43 (pit)", "(pit)"];
    let has = all.into_iter().filter(has).map(str::to_owned).collect();
    (has, image)
}

#[test]
fn of_devices_of_which_one_will_do_a_component_has_one() {
    let (hpet, pit) = (
        ["registers of hpet", "(hpet)"],
        ["0x40-0x43 (pit)", "(pit)"],
    );
    let both = [hpet, pit].concat();
    let none = IommuKind::None;
    for (devices, board, iommu, expected) in [
        ("[\"hpet\", \"pit\"]", "pit", none, &hpet[..]),
        ("[\"pit\", \"hpet\"]", "pit", none, &pit),
        ("[\"pit\"]", "pit", none, &pit),
        // The board has no 8254.
        ("[\"hpet\", \"pit\"]", "pc", none, &hpet),
        // Whether there is an HPET shows at boot.
        ("[\"hpet\", \"pit\"]", "any-clock", none, &both),
        ("[\"pit\", \"hpet\"]", "any-clock", none, &pit),
        // No pin arrives.
        ("[\"hpet\", \"pit\"]", "any-clock", IommuKind::Amd, &hpet),
        ("[\"pit\", \"hpet\"]", "any-clock", IommuKind::Amd, &hpet),
    ] {
        let (has, _) = clocks(devices, board, iommu);
        assert_eq!(has, expected, "{devices} on {board} with {iommu:?}");
    }
    let (_, image) = clocks("[\"hpet\", \"pit\"]", "any-clock", none);
    for object in &image.objects {
        let requires = match (object.kind, object.name.as_str()) {
            (ObjectKind::Device | ObjectKind::IoApicIrq, "hpet") => Requires::Hpet,
            (ObjectKind::IoPorts | ObjectKind::IoApicIrq, "pit") => Requires::Pit,
            _ => Requires::Nothing,
        };
        assert_eq!(object.requires, requires, "{object:?}");
        if requires != Requires::Nothing && object.kind == ObjectKind::IoApicIrq {
            assert_eq!(object.pin, PIN_BY_MACHINE, "{object:?}");
        }
    }
}

/// The ports of configuration space are pci-config's where there may be no window, and nobody's
/// else; and init is told what such a board leaves to the tables.
#[test]
fn one_component_has_the_ports_of_configuration_space() {
    for (board, given, ecam) in [
        ("pc", false, 0xb000_0000),
        ("open", true, BY_TABLES),
        ("ports", true, 0),
    ] {
        let root = common::project(&common::files().join("good.toml"));
        let file = root.path().join("ports.toml");
        let keys = format!("system = {{ inherit = \"system.toml\", board = \"{board}\" }}\n");
        std::fs::write(&file, keys).unwrap();
        let model = system::read(root.path(), &file, None);
        let model = model.unwrap_or_else(|report| panic!("{report}"));
        let image = composed(&model, &Programs::default()).unwrap();
        let table = capability_table(&model, &image);
        let has = |thread: &&str| {
            let ports = "I/O ports 0xcf8-0xcff (configuration), without a window";
            block(&table, thread)
                .iter()
                .any(|line| line.contains(ports))
        };
        let all = image.threads.iter().map(|thread| thread.name.as_str());
        let holders: Vec<&str> = all.filter(has).collect();
        let expected = if given { &["pci-config"][..] } else { &[] };
        assert_eq!(holders, expected, "{board}");
        let bytes = aligned(&image);
        let system = System::parse(bytes.as_bytes()).unwrap();
        assert_eq!(system.header.ecam, ecam, "{board}");
        let open = u64::from(board == "open");
        assert_eq!(system.header.console_by_tables, open, "{board}");
        let resources = resources(&system, "pci-config");
        assert_eq!(
            resources.find(names::CONFIG_PORTS).is_some(),
            given,
            "{board}"
        );
    }
}

#[test]
fn init_is_told_the_kernel() {
    let root = common::project(&common::files().join("good-iommu.toml"));
    let model = common::read(&root).unwrap_or_else(|report| panic!("{report}"));
    let options = Options {
        kernel: KernelLabel::new("installed,fast-path"),
        ..Options::default()
    };
    let image = compose(&model, &Programs::default(), options).unwrap();
    let words = aligned(&image);
    let system = System::parse(words.as_bytes()).unwrap();
    assert_eq!(system.header.kernel.as_str(), "installed,fast-path");
}

/// Returns the image of a system with these guests' `slots`, 0 for none said.
fn with_slots(slots: &[u64], badge_bits: u32) -> Result<Image, ComposeError> {
    let root = common::project(&common::files().join("good-iommu.toml"));
    let mut model = common::read(&root).unwrap_or_else(|report| panic!("{report}"));
    let guest = model.guests.remove(0);
    for (index, &slots) in slots.iter().enumerate() {
        let mut guest = guest.clone();
        guest.name = format!("{}{index}", guest.name);
        guest.slots = (slots > 0).then_some(slots);
        if index > 0 {
            guest.devices.clear();
        }
        model.guests.push(guest);
    }
    let options = Options {
        badge_bits,
        ..Options::default()
    };
    compose(&model, &Programs::default(), options)
}

#[test]
fn slots_are_as_many_as_the_kernels_badges_have() {
    // The board's timer has one of the 108 vectors.
    for (badge_bits, slots, expected, bits) in [
        (28, &[0][..], &[26][..], 5),
        (64, &[0], &[62], 6),
        (28, &[26], &[26], 5),
        (64, &[62], &[62], 6),
        (64, &[40], &[40], 6),
        (28, &[1], &[1], 1),
        (28, &[0, 0, 0], &[26, 26, 26], 5),
        (64, &[60, 0], &[60, 47], 6),
    ] {
        let image = with_slots(slots, badge_bits).unwrap_or_else(|e| panic!("{e}"));
        let words = aligned(&image);
        let system = System::parse(words.as_bytes()).unwrap();
        let router = resources(&system, "irq-router");
        let told = |index: usize| {
            let name = format!("web{index}");
            router.find(names::SLOT_COUNT_OF.of(&name)).expect("told")
        };
        let found: Vec<u64> = (0..slots.len()).map(told).collect();
        assert_eq!(found, expected, "{slots:?} on badges of {badge_bits} bits");
        let cnode = router.find(names::SLOTS_OF.of("web0")).expect("a CNode");
        assert_eq!(cnode.bits, bits);
    }
}

#[test]
fn slots_that_are_not_there_are_an_error() {
    for (badge_bits, slots, expected) in [
        (28, &[27][..], "guest web0 asks for 27 slots"),
        (
            28,
            &[27],
            "this kernel has 26 for one guest: its badges have 28 bits",
        ),
        (
            64,
            &[62, 62],
            "the guests ask for 124 slots together, and the board's",
        ),
        (64, &[62, 45, 0], "and 1 more of them need one at least"),
        (2, &[0], "leaves no slot for a guest"),
    ] {
        let error = with_slots(slots, badge_bits).err();
        let error = error.map_or_else(String::new, |error| error.to_string());
        assert!(error.contains(expected), "{error}");
    }
}
