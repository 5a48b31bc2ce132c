//! Functions: which, whose, and what they may reach.

use super::choice;
use crate::model::{Authority, Device, Model};
use crate::reader::{Context, Located, Section};
use spec::IommuKind;

/// `8086:10d3` as vendor << 16 | device.
pub fn hex_pair(text: &str) -> Option<u32> {
    let (vendor, device) = text.split_once(':')?;
    Some(hex(vendor, 4)? << 16 | hex(device, 4)?)
}

/// `020000` as a class code.
pub fn hex_class(text: &str) -> Option<u32> {
    hex(text, 6)
}

fn hex(text: &str, digits: usize) -> Option<u32> {
    let good = text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    good.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

/// Two entries must not be the same function, nor the same address to a guest,
/// nor share an interrupt pin (C9).
pub fn device(context: &Context<'_>, name: &Located<String>, device: &Device, model: &Model) {
    for other in &model.devices {
        let first = context.key_span("device", &other.name);
        if other.selector == device.selector
            && other.value == device.value
            && device.selector == spec::Selector::Address
        {
            context.conflict(
                &name.span,
                &first,
                format!(
                    "devices `{}` and `{}` are one function",
                    other.name, device.name
                ),
                "a function is assigned once: remove one entry",
            );
        }
        if other.guest_address == device.guest_address {
            context.conflict(
                &name.span,
                &first,
                format!(
                    "devices `{}` and `{}` both have guest-address {}",
                    other.name, device.name, device.guest_address
                ),
                "give each its own `guest-address`",
            );
        }
    }
    let Some(pin) = device.intx else {
        return;
    };
    let shared = |other: &str| format!("`{other}` and `{}` share interrupt pin {pin}", device.name);
    let help = "the kernel gives a pin to one owner: remove `intx` here, and let the guest use \
                MSI-X or MSI, or put the function into another slot of the machine";
    let mut board = model.board.devices.iter();
    if let Some(other) = model.devices.iter().find(|other| other.intx == Some(pin)) {
        let first = context.key_span("device", &other.name);
        context.conflict(&name.span, &first, shared(&other.name), help);
    } else if let Some(other) = board.find(|other| other.irq.is_some_and(|irq| irq.0 == pin)) {
        context.error(&name.span, shared(&other.name), help);
    }
}

/// Where nothing confines it, a bus-mastering function needs its owner's word;
/// gives whether it has it.
pub fn dma(section: &Section<'_, '_>, model: &Model) -> bool {
    let context = section.context;
    match section.string("dma") {
        Some(text) if text.value == "trusted" => true,
        Some(text) => {
            context.error(
                &text.span,
                format!("`{}` is no way to treat DMA here", text.value),
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

/// Reads `on-dma-fault`: whether the first refused access stops the guest.
pub fn on_dma_fault(section: &Section<'_, '_>) -> bool {
    let words = [("count", false), ("stop-guest", true)];
    choice(
        section,
        "on-dma-fault",
        "policy for refused accesses",
        &words,
    )
}

/// Reads `reset`: whether the guest may start again with a function that nothing
/// resets (M24).
pub fn reset_optional(section: &Section<'_, '_>) -> bool {
    let words = [("required", false), ("optional", true)];
    choice(section, "reset", "policy for resets", &words)
}

/// Where interrupts are remapped, the I/O APIC's pins are silent.
pub fn intx(context: &Context<'_>, pin: Option<&Located<u64>>, model: &Model) {
    if let Some(pin) = pin.filter(|_| model.remaps()) {
        context.error(
            &pin.span,
            "an IOMMU that remaps interrupts blocks the I/O APIC, through which INTx comes",
            "remove `intx`, and let the guest use MSI-X or MSI; or run without the IOMMU",
        );
    }
}

/// A function has one guest.
pub fn device_owner(context: &Context<'_>, name: &Located<String>, model: &Model, index: usize) {
    if let Some(owner) = model.owner(index) {
        context.conflict(
            &name.span,
            &context.key_span("guest", &model.guests[owner].name),
            format!(
                "device `{}` already belongs to guest `{}`",
                name.value, model.guests[owner].name
            ),
            "a function has one guest: take it from one of them",
        );
    }
}
