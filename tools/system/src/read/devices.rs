//! Functions: which, whose, and what they may reach.

use pci::Bdf;
use spec::{FirmwareMemory, IommuKind, Selector};

use crate::manifest::Authority;
use crate::model::{Device, Model, Policy};
use crate::reader::{Context, Located, Section, choice, room};

/// Reads the functions into `model`, and returns the names of those that are there
/// but have errors of their own.
pub fn read(top: &Section<'_, '_>, model: &mut Model) -> Vec<String> {
    let mut broken = Vec::new();
    let devices = top.named("device");
    room(top.context, "device", &devices, spec::FUNCTIONS);
    for (index, (name, section)) in devices.iter().enumerate() {
        match device(name, section, index, model) {
            Some(device) => {
                shared(top.context, name, &device, model);
                model.devices.push(device);
            }
            None => broken.push(name.value.clone()),
        }
    }
    broken
}

fn device(
    name: &Located<String>,
    section: &Section<'_, '_>,
    index: usize,
    model: &Model,
) -> Option<Device> {
    let context = section.context;
    let selector = selector(section);
    let policies = [
        ("strict", Policy::Strict),
        ("permissive", Policy::Permissive),
    ];
    let policy = choice(section, "policy", "policy", &policies);
    let guest_address = guest_address(section, index);
    let trusted = dma(section, model);
    let words = [("count", false), ("stop-guest", true)];
    let policy_name = "policy for refused accesses";
    let stop_on_dma_fault = choice(section, "on-dma-fault", policy_name, &words);
    let words = [("required", false), ("optional", true)];
    let reset_optional = choice(section, "reset", "policy for resets", &words);
    let words = [("own", false), ("shared", true)];
    let shares_group = choice(section, "group", "policy for groups", &words);
    let words = [
        ("refuse", FirmwareMemory::Refuse),
        ("map", FirmwareMemory::Map),
        ("withhold", FirmwareMemory::Withhold),
    ];
    let policy_name = "policy for firmware's memory";
    let firmware_memory = choice(section, "firmware-memory", policy_name, &words);
    let intx = section.number("intx", 16..24);
    check_intx(context, intx.as_ref(), model);
    let qemu = section.texts("qemu");
    let qemu_drives = section.texts("qemu-drives");
    section.finish();
    let (selector, value) = selector?;
    Some(Device {
        name: name.value.clone(),
        selector,
        value,
        guest_address: guest_address?,
        policy,
        intx: intx.map(|pin| pin.value as u8),
        trusted,
        stop_on_dma_fault,
        reset_optional,
        shares_group,
        firmware_memory,
        qemu,
        qemu_drives,
    })
}

/// Reads how a function is found at boot.
fn selector(section: &Section<'_, '_>) -> Option<(Selector, u32)> {
    let context = section.context;
    let ways = [
        ("address", section.string("address")),
        ("match", section.string("match")),
        ("class", section.string("class")),
    ];
    let given: Vec<_> = ways
        .iter()
        .filter_map(|(way, text)| Some((*way, text.as_ref()?)))
        .collect();
    let (text, found, what, help) = match given[..] {
        [("address", text)] => (
            text,
            Bdf::parse(&text.value).map(|bdf| (Selector::Address, bdf.requester_id().into())),
            "PCI address",
            "write bus:device.function as lspci does, such as \"00:02.0\"",
        ),
        [("match", text)] => (
            text,
            hex_pair(&text.value).map(|value| (Selector::VendorDevice, value)),
            "pair of vendor and device id",
            "write four and four hexadecimal digits, such as \"8086:10d3\"",
        ),
        [("class", text)] => (
            text,
            hex(&text.value, 6).map(|value| (Selector::Class, value)),
            "class code",
            "write six hexadecimal digits, such as \"020000\" for Ethernet",
        ),
        _ => {
            context.error(
                &section.span,
                format!("{} must say which function it is, in one way", section.name),
                "give one of `address = \"00:02.0\"`, `match = \"8086:10d3\"`, `class = \"020000\"`",
            );
            return None;
        }
    };
    if found.is_none() {
        context.error(
            &text.span,
            format!("`{}` is not a {what}", text.value),
            help,
        );
    }
    found
}

/// Reads where the guest sees a function, the first address that is left by default.
fn guest_address(section: &Section<'_, '_>, index: usize) -> Option<Bdf> {
    let context = section.context;
    match section.string("guest-address") {
        None => {
            let device = u8::try_from(index + 1).ok();
            let bdf = device.and_then(|device| Bdf::new(0, device, 0));
            if bdf.is_none() {
                context.error(
                    &section.span,
                    format!("no address on bus 00 is left for {}", section.name),
                    "a bus has 32 devices: give some of them functions with `guest-address`",
                );
            }
            bdf
        }
        Some(text) => {
            let bdf = Bdf::parse(&text.value).filter(|bdf| bdf.bus() == 0);
            if bdf.is_none() {
                context.error(
                    &text.span,
                    format!("`{}` is not an address on bus 00", text.value),
                    "a guest has bus 00 only: write \"00:01.0\" to \"00:1f.7\"",
                );
            }
            bdf
        }
    }
}

/// Parses `8086:10d3` as vendor << 16 | device.
fn hex_pair(text: &str) -> Option<u32> {
    let (vendor, device) = text.split_once(':')?;
    Some(hex(vendor, 4)? << 16 | hex(device, 4)?)
}

/// Parses exactly so many hexadecimal digits.
fn hex(text: &str, digits: usize) -> Option<u32> {
    let good = text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    good.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

/// Checks that no two entries are the same function, have the same address for a
/// guest, or share an interrupt pin (C9).
fn shared(context: &Context<'_>, name: &Located<String>, device: &Device, model: &Model) {
    for other in &model.devices {
        let first = context.key_span("device", &other.name);
        let both = format!("devices `{}` and `{}`", other.name, device.name);
        if other.selector == device.selector
            && other.value == device.value
            && device.selector == spec::Selector::Address
        {
            context.conflict(
                &name.span,
                &first,
                format!("{both} are one function"),
                "a function is assigned once: remove one entry",
            );
        }
        if other.guest_address == device.guest_address {
            context.conflict(
                &name.span,
                &first,
                format!("{both} both have guest-address {}", device.guest_address),
                "give each its own `guest-address`",
            );
        }
    }
    let Some(pin) = device.intx else {
        return;
    };
    let message =
        |other: &str| format!("`{other}` and `{}` share interrupt pin {pin}", device.name);
    let help = "the kernel gives a pin to one owner: remove `intx` here, and let the guest use \
                MSI-X or MSI, or put the function into another slot of the machine";
    let mut board = model.board.devices.iter();
    if let Some(other) = model.devices.iter().find(|other| other.intx == Some(pin)) {
        let first = context.key_span("device", &other.name);
        context.conflict(&name.span, &first, message(&other.name), help);
    } else if let Some(other) =
        board.find(|other| other.irq.is_some_and(|irq| irq.0 == u16::from(pin)))
    {
        context.error(&name.span, message(&other.name), help);
    }
}

/// Reads `dma`, and returns whether the function is trusted: where nothing confines
/// it, it has to be.
fn dma(section: &Section<'_, '_>, model: &Model) -> bool {
    let context = section.context;
    match section.string("dma") {
        Some(text) if text.value == "trusted" => true,
        Some(text) => {
            context.error(
                &text.span,
                format!("`{}` is not a way to treat DMA here", text.value),
                "write \"trusted\" if the guest may reach all memory by DMA; without the key the \
                 function must be confined",
            );
            false
        }
        None => {
            let missing = if model.board.iommu == IommuKind::None {
                Some("nothing on this board confines it")
            } else if model.holder(Authority::Iommu).is_none() {
                Some("no component drives this board's IOMMU")
            } else {
                None
            };
            if let Some(missing) = missing {
                context.error(
                    &section.span,
                    format!("{} can reach all memory by DMA: {missing}", section.name),
                    "add `dma = \"trusted\"` if you trust the guest with that, else do not assign it",
                );
            }
            false
        }
    }
}

/// Checks that INTx can arrive: not through an I/O APIC that is blocked.
fn check_intx(context: &Context<'_>, pin: Option<&Located<u64>>, model: &Model) {
    if let Some(pin) = pin.filter(|_| model.remaps()) {
        context.error(
            &pin.span,
            "an IOMMU that remaps interrupts blocks the I/O APIC, through which INTx comes",
            "remove `intx`, and let the guest use MSI-X or MSI; or run without the IOMMU",
        );
    }
}
