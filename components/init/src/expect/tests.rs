//! Expected contents of slots, for a small image.

extern crate std;

use std::vec::Vec;

use pci::{BarInfo, BarKind, MsixInfo};
use spec::{Capability, Clock, IommuPlace, Mapping, Rights, UnitInfo};
use zerocopy::FromZeros as _;

use super::*;
use crate::image::*;

fn capability(cnode: u32, slot: u32, object: u32, badge: u64) -> Capability {
    Capability {
        cnode,
        slot,
        object,
        rights: Rights::ALL,
        badge,
    }
}

fn mapping(object: u32, holder: u32, holder_slot: u32) -> Mapping {
    Mapping {
        vspace: SPACE,
        object,
        address: 0x1000,
        rights: Rights::READ,
        cache: spec::Cache::WriteBack,
        holder,
        holder_slot,
    }
}

impl Image {
    /// Asks about the image, with the functions that were found at boot.
    fn ask<V>(&self, found: (&[FunctionInfo], IommuInfo), ask: impl FnOnce(Given<'_>) -> V) -> V {
        let (functions, iommu) = found;
        let places = Places {
            ecam: ECAM,
            ..Places::default()
        };
        self.system(|system| {
            ask(Given {
                system,
                functions,
                places,
                iommu,
            })
        })
    }

    /// Returns the capabilities that some slots of a CNode must hold.
    fn slots(
        &self,
        found: (&[FunctionInfo], IommuInfo),
        cnode: u32,
        slots: &[u32],
    ) -> Vec<Option<Expect>> {
        let all = |given: Given<'_>| slots.iter().map(|&s| given.expected(cnode, s)).collect();
        self.ask(found, all)
    }
}

/// Returns units with these addresses and pages of registers.
fn units(all: &[(u64, u64)]) -> IommuInfo {
    let mut info = IommuInfo {
        unit_count: all.len() as u32,
        ..IommuInfo::default()
    };
    for (unit, &(registers, pages)) in info.units.iter_mut().zip(all) {
        *unit = UnitInfo {
            registers,
            size: pages * PAGE_SIZE,
        };
    }
    info
}

fn nothing() -> (&'static [FunctionInfo], IommuInfo) {
    (&[], IommuInfo::default())
}

fn object(object: u32, index: u64, badge: u64) -> Option<Expect> {
    Some(Expect::Object {
        object,
        index,
        badge,
    })
}

fn page(address: u64) -> Option<Expect> {
    Some(Expect::Page(address))
}

#[test]
fn what_the_machine_does_not_have_fills_no_slot() {
    let image = Image {
        capabilities: [
            capability(VMM, 2, REGISTERS, 0),
            capability(VMM, 5, PORTS, 0),
        ]
        .into(),
        mappings: [mapping(REGISTERS, MSIX, 2)].into(),
        ..Image::default()
    };
    let slots = |cnode, clock| {
        image.ask(nothing(), |mut given| {
            given.places.clock = clock;
            [2, 3, 5].map(|slot| given.expected(cnode, slot))
        })
    };
    let registers = [object(REGISTERS, 0, 0), object(REGISTERS, 1, 0), None];
    assert_eq!(slots(VMM, Clock::Hpet), registers);
    assert_eq!(slots(MSIX, Clock::Hpet), registers);
    assert_eq!(slots(VMM, Clock::Pit), [None, None, object(PORTS, 0, 0)]);
    assert_eq!(slots(MSIX, Clock::Pit), [None; 3]);
}

/// Of a function's configuration space there is a page where there is a window.
#[test]
fn without_a_window_there_is_no_page_of_configuration_space() {
    let image = Image {
        functions: [function()].into(),
        ..Image::default()
    };
    let slot = |ecam| {
        image.ask((&[info()], IommuInfo::default()), |mut given| {
            given.places.ecam = ecam;
            given.expected(CONFIG, 3)
        })
    };
    assert_eq!(slot(ECAM), page(ECAM + 0x11_8000));
    assert_eq!(slot(0), None);
}

#[test]
fn records_fill_a_slot_or_one_for_each_page() {
    let image = Image {
        capabilities: [
            capability(VMM, 2, MONITOR, 7),
            capability(VMM, 4, PAGES, 0),
            capability(VMM, 10, REGISTERS, 0),
            // Its count is the trigger mode.
            capability(VMM, 13, PIN, 0),
            // A CNode's badge is its guard.
            capability(VMM, 15, MSIX, 58),
            capability(MSIX, 3, BELL, 2),
        ]
        .into(),
        ..Image::default()
    };
    let slots: Vec<u32> = (0..17).collect();
    let expected = [
        None,
        None,
        object(MONITOR, 0, 7),
        None,
        object(PAGES, 0, 0),
        object(PAGES, 1, 0),
        object(PAGES, 2, 0),
        None,
        None,
        None,
        object(REGISTERS, 0, 0),
        object(REGISTERS, 1, 0),
        None,
        object(PIN, 0, 0),
        None,
        object(MSIX, 0, 0),
        None,
    ];
    assert_eq!(image.slots(nothing(), VMM, &slots), expected);
    let expected = [None, object(BELL, 0, 2), None];
    assert_eq!(image.slots(nothing(), MSIX, &[2, 3, 4]), expected);
}

#[test]
fn mapped_pages_lie_with_their_holder() {
    let image = Image {
        mappings: [
            mapping(PAGES, VMM, 5),
            mapping(REGISTERS, IOMMU, 6),
            // init holds these.
            mapping(PAGES, NONE, 9),
        ]
        .into(),
        ..Image::default()
    };
    let expected = [
        None,
        object(PAGES, 0, 0),
        object(PAGES, 1, 0),
        object(PAGES, 2, 0),
        None,
    ];
    assert_eq!(
        image.slots(nothing(), VMM, &[4, 5, 6, 7, 8]),
        expected,
        "and not init's"
    );
    let expected = [None, object(REGISTERS, 0, 0), object(REGISTERS, 1, 0), None];
    assert_eq!(image.slots(nothing(), IOMMU, &[5, 6, 7, 8]), expected);
    assert_eq!(image.slots(nothing(), NONE, &[9]), [None]);
}

/// Returns the configuration in slot 3, table pages from 7 on, BAR pages from
/// 20 on.
fn function() -> Function {
    Function {
        info: PAGE,
        config_vspace: SPACE,
        config_cnode: CONFIG,
        config_slot: 3,
        msix_vspace: SPACE,
        msix_cnode: MSIX,
        msix_slot: 7,
        bar_cnode: VMM,
        bar_slot: 20,
        bar_slots: 10,
        ram: PAGES,
        ..Function::new_zeroed()
    }
}

fn bar(address: u64, pages: u64, first_slot: u64) -> BarInfo {
    BarInfo {
        kind: BarKind::Memory32,
        address,
        guest: address,
        size: pages * PAGE_SIZE,
        first_slot,
        ..BarInfo::default()
    }
}

/// Returns a function whose BAR 0 has 4 pages; the table is in the second, the PBA in the last. BAR 1 is
/// given to no component, BAR 3 has one page.
fn info() -> FunctionInfo {
    let mut info = FunctionInfo {
        host_bdf: 0x0118,
        ..FunctionInfo::default()
    };
    info.bars[0] = bar(0xfe80_0000, 4, 20);
    info.bars[1] = bar(0xfe90_0000, 1, 0);
    info.bars[3] = bar(0x10_fea0_0000, 1, 24);
    info.msix = MsixInfo {
        entries: 5,
        page_count: 2,
        ..MsixInfo::default()
    };
    info.msix.pages[0].page = 1;
    info.msix.pages[1].page = 3;
    // Past the count.
    info.msix.pages[2].page = 2;
    info
}

fn with_function() -> Image {
    Image {
        functions: [function()].into(),
        ..Image::default()
    }
}

#[test]
fn a_function_has_its_configuration_page() {
    let infos = [info()];
    let image = with_function();
    let found = image.slots((&infos, IommuInfo::default()), CONFIG, &[2, 3, 4]);
    assert_eq!(found, [None, page(ECAM + 0x11_8000), None]);
}

#[test]
fn claimed_pages_are_with_msix_and_nowhere_else() {
    let infos = [info()];
    let image = with_function();
    let found = (&infos[..], IommuInfo::default());
    let expected = [None, page(0xfe80_1000), page(0xfe80_3000), None];
    assert_eq!(image.slots(found, MSIX, &[6, 7, 8, 9]), expected);
    let slots: Vec<u32> = (19..27).collect();
    let expected = [
        None,
        page(0xfe80_0000),
        page(0xfe80_2000),
        None,
        None,
        page(0x10_fea0_0000),
        None,
        None,
    ];
    assert_eq!(image.slots(found, VMM, &slots), expected);
    // BAR 1 was not given: no slot counts from 0.
    assert_eq!(image.slots(found, VMM, &[0]), [None]);
}

#[test]
fn a_large_bar_has_large_pages() {
    let mut info = info();
    info.bars[0] = bar(0xe000_0000, 1024, 20);
    let infos = [info];
    let image = with_function();
    let found = (&infos[..], IommuInfo::default());
    // The first has two pages of msix, the second is whole.
    let expected = [page(0xe000_4000), page(0xe01f_f000), page(0xe020_0000)];
    assert_eq!(image.slots(found, VMM, &[22, 529, 530]), expected);
}

#[test]
fn ports_have_one_slot() {
    let mut info = info();
    info.bars[4] = BarInfo {
        kind: BarKind::Io,
        size: 0x20,
        ..bar(0xffe0, 0, 25)
    };
    // Not given.
    info.bars[5] = BarInfo {
        first_slot: 0,
        ..info.bars[4]
    };
    let infos = [info];
    let image = with_function();
    let found = (&infos[..], IommuInfo::default());
    let expected = [Some(Expect::Ports(0xffe0, 0xffff)), None, None];
    assert_eq!(image.slots(found, VMM, &[25, 26, 0]), expected);
}

#[test]
fn each_function_has_its_own() {
    let second = Function {
        config_slot: 4,
        msix_slot: 9,
        ..function()
    };
    let mut second_info = info();
    second_info.host_bdf = 0x0020;
    second_info.bars[0] = bar(0xfeb0_0000, 4, 30);
    second_info.bars[3] = BarInfo::default();
    let image = Image {
        functions: [function(), second].into(),
        ..Image::default()
    };
    let infos = [info(), second_info];
    let found = (&infos[..], IommuInfo::default());
    assert_eq!(
        image.slots(found, CONFIG, &[3, 4]),
        [page(ECAM + 0x11_8000), page(ECAM + 0x2_0000)]
    );
    assert_eq!(
        image.slots(found, MSIX, &[8, 9, 10, 11]),
        [
            page(0xfe80_3000),
            page(0xfeb0_1000),
            page(0xfeb0_3000),
            None
        ]
    );
    assert_eq!(
        image.slots(found, VMM, &[21, 31]),
        [page(0xfe80_2000), page(0xfeb0_2000)]
    );
}

/// Where one component is everything, a page of one kind does not hide another.
#[test]
fn one_cnode_for_all() {
    let everywhere = Function {
        config_cnode: VMM,
        msix_cnode: VMM,
        ..function()
    };
    let image = Image {
        capabilities: [capability(VMM, 1, BELL, 1)].into(),
        mappings: [mapping(PAGE, VMM, 5)].into(),
        functions: [everywhere].into(),
        iommu: Some(IommuPlace {
            cnode: VMM,
            slot: 30,
            ..IommuPlace::NONE
        }),
        ..Image::default()
    };
    let infos = [info()];
    let unit = units(&[(0xfed8_0000, 1)]);
    assert_eq!(
        image.slots((&infos, unit), VMM, &[1, 3, 5, 7, 20, 30, 31]),
        [
            object(BELL, 0, 1),
            page(ECAM + 0x11_8000),
            object(PAGE, 0, 0),
            page(0xfe80_1000),
            page(0xfe80_0000),
            page(0xfed8_0000),
            None,
        ]
    );
}

#[test]
fn as_many_registers_of_the_iommu_as_were_given() {
    let image = Image {
        iommu: Some(IommuPlace {
            cnode: IOMMU,
            slot: 40,
            pages: 16,
            ..IommuPlace::NONE
        }),
        ..Image::default()
    };
    let unit = |pages| units(&[(0xfed8_0000, pages)]);
    let slots = [39, 40, 43, 44];
    let expected = [None, page(0xfed8_0000), page(0xfed8_3000), None];
    assert_eq!(image.slots((&[], unit(4)), IOMMU, &slots), expected);
    assert_eq!(image.slots((&[], unit(0)), IOMMU, &slots), [None; 4]);
    assert_eq!(image.slots((&[], unit(4)), VMM, &slots), [None; 4]);
    // Those of a second unit come right behind.
    let two = units(&[(0xfed8_0000, 4), (0xfec8_0000, 2)]);
    let slots = [43, 44, 45, 46];
    let expected = [
        page(0xfed8_3000),
        page(0xfec8_0000),
        page(0xfec8_1000),
        None,
    ];
    assert_eq!(image.slots((&[], two), IOMMU, &slots), expected);
    // Without a component for it no CSpace has any.
    let none = Image::default();
    for cnode in [CONFIG, MSIX, VMM, IOMMU] {
        assert_eq!(none.slots((&[], unit(4)), cnode, &[0, 40]), [None; 2]);
    }
}

/// Numbers at the end of their range make no slot hold what another does.
#[test]
fn slots_do_not_wrap() {
    const LAST: u32 = u32::MAX;
    let function = Function {
        msix_slot: LAST,
        config_slot: LAST - 9,
        ..function()
    };
    let image = Image {
        capabilities: [capability(VMM, LAST, PAGES, 0)].into(),
        mappings: [mapping(PAGES, CONFIG, LAST)].into(),
        functions: [function].into(),
        iommu: Some(IommuPlace {
            cnode: IOMMU,
            slot: LAST,
            ..IommuPlace::NONE
        }),
        ..Image::default()
    };
    let mut info = info();
    // In 32 bits these would be slot 0, and slots from the last on.
    info.bars[0].first_slot = 1 << 32;
    info.bars[3] = bar(0xfea0_0000, 4, u64::from(LAST) - 1);
    info.host_bdf = 0xffff;
    let unit = units(&[(0xfed8_0000, 4)]);
    let infos = [info];
    let found = (&infos[..], unit);
    let around = [0, 1, 2, 3, LAST - 2, LAST - 1, LAST];
    let at_the_end = |last| [None, None, None, None, None, None, last];
    let mut vmm = at_the_end(object(PAGES, 0, 0));
    vmm[5] = page(0xfea0_0000);
    assert_eq!(image.slots(found, VMM, &around), vmm);
    let expected = at_the_end(object(PAGES, 0, 0));
    assert_eq!(image.slots(found, CONFIG, &around), expected);
    let expected = at_the_end(page(0xfe80_1000));
    assert_eq!(image.slots(found, MSIX, &around), expected);
    let expected = at_the_end(page(0xfed8_0000));
    assert_eq!(image.slots(found, IOMMU, &around), expected);
    let expected = [page(ECAM + 0x0fff_f000)];
    assert_eq!(image.slots(found, CONFIG, &[LAST - 9]), expected);
}

#[test]
fn a_table_in_a_bar_that_is_not_there_is_nowhere() {
    let mut info = info();
    info.msix.pages[0].bar = 9;
    let infos = [info];
    let found = (&infos[..], IommuInfo::default());
    let image = with_function();
    assert_eq!(image.slots(found, MSIX, &[7, 8])[0], None);
}

/// A record for a function that was not found stands for no capability.
#[test]
fn functions_without_a_finding() {
    let image = with_function();
    for cnode in [CONFIG, MSIX, VMM] {
        assert_eq!(image.slots(nothing(), cnode, &[3, 7, 20]), [None; 3]);
    }
}
