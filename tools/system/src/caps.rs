//! The capability table: who holds what, from the composed records.

use std::fmt::Write as _;

use spec::{Mapping, NONE, Object, ObjectKind, PIN_BY_MACHINE, Requires, Rights};

use crate::compose::Image;
use crate::model::Model;

/// Returns the table as text: a block for each component and guest, a line for each
/// capability in its CSpace, then what is mapped for it; and the channels.
#[must_use]
pub fn capability_table(model: &Model, image: &Image) -> String {
    let mut text = String::new();
    for thread in &image.threads {
        let _ = writeln!(text, "{}", thread.name.as_str());
        for capability in image
            .capabilities
            .iter()
            .filter(|c| c.cnode == thread.cnode)
        {
            let object = &image.objects[capability.object as usize];
            let badge = match capability.badge {
                0 => String::new(),
                badge => format!(" badge {badge:#x}"),
            };
            let what = match object.kind {
                ObjectKind::Memory => {
                    format!("{} pages of {}", object.pages, describe(object))
                }
                _ => describe(object),
            };
            let line = format!(
                "  slot {:>5}  {what:<34} {}{badge}",
                capability.slot,
                rights(capability.rights, object)
            );
            let _ = writeln!(text, "{}", line.trim_end());
        }
        for function in &image.functions {
            let name = function.name.as_str();
            for (cnode, slot, what) in [
                (
                    function.config_cnode,
                    function.config_slot,
                    format!("configuration page of {name}"),
                ),
                (
                    function.config_cnode,
                    function.registers_slot,
                    format!("reset registers of {name}, if known"),
                ),
                (
                    function.msix_cnode,
                    function.msix_slot,
                    format!("MSI-X table and PBA pages of {name}"),
                ),
                (
                    function.bar_cnode,
                    function.bar_slot,
                    format!("BAR pages of {name} without MSI-X, ports"),
                ),
            ] {
                if cnode == thread.cnode {
                    let _ = writeln!(text, "  slot {slot:>5}  {what:<34} rw");
                }
            }
        }
        let iommu = &image.iommu;
        if iommu.cnode == thread.cnode {
            let what = "registers of the IOMMU";
            let _ = writeln!(text, "  slot {:>5}  {what:<34} rw", iommu.slot);
        }
        for mapping in image.mappings.iter().filter(|m| m.vspace == thread.vspace) {
            let _ = writeln!(text, "  {}", mapped(mapping, image));
        }
        text.push('\n');
    }
    text.push_str("channels\n");
    for channel in &model.channels {
        let [client, server] = [channel.client, channel.server].map(|c| &model.components[c].name);
        let _ = writeln!(text, "  {client} calls {server}: {}", channel.interface);
    }
    text.push('\n');
    let devices: Vec<_> = model.devices.iter().map(|d| d.name.as_str()).collect();
    let _ = writeln!(
        text,
        "after boot init holds component TCBs, their fault endpoint, component memory for \
         backtraces, COM1 and the exit port; no device ({}), no guest memory",
        devices.join(", ")
    );
    text
}

fn describe(object: &Object) -> String {
    let name = object.name.as_str();
    let text = match object.kind {
        ObjectKind::Tcb => format!("TCB of {name}"),
        ObjectKind::Endpoint => format!("endpoint of {name}"),
        ObjectKind::Notification => format!("notification of {name}"),
        ObjectKind::CNode => format!("CNode of {name}"),
        ObjectKind::VSpace => format!("address space of {name}"),
        ObjectKind::Memory => format!("memory {name}"),
        ObjectKind::Device => format!("registers of {name}"),
        ObjectKind::IoPorts => {
            let (first, last) = (object.first_port, object.last_port);
            format!("I/O ports {first:#x}-{last:#x} ({name})")
        }
        ObjectKind::IoApicIrq if object.pin == PIN_BY_MACHINE => {
            format!("IRQ handler, pin by the machine ({name})")
        }
        ObjectKind::IoApicIrq => format!("IRQ handler, pin {} ({name})", object.pin),
        ObjectKind::MessageIrq => {
            format!("IRQ handler, user vector {} ({name})", object.vector)
        }
        ObjectKind::IrqControl => "IRQControl".to_owned(),
        ObjectKind::Untyped => format!("untyped 2^{} for {name}", object.size_bits),
    };
    match object.requires {
        Requires::Nothing => text,
        Requires::Hpet | Requires::Pit => format!("{text}, as the clock"),
        Requires::ConfigPorts => format!("{text}, without a window"),
    }
}

fn rights(rights: Rights, object: &Object) -> &'static str {
    let message = matches!(object.kind, ObjectKind::Endpoint | ObjectKind::Notification);
    if !message {
        return "";
    }
    if rights.contains(Rights::ALL) {
        "all"
    } else if rights.contains(Rights::FAULT) {
        "call"
    } else if rights.contains(Rights::WRITE) {
        "signal"
    } else {
        "receive"
    }
}

fn mapped(mapping: &Mapping, image: &Image) -> String {
    let object = &image.objects[mapping.object as usize];
    let size = object.pages << object.size_bits;
    let access = if mapping.rights.contains(Rights::WRITE) {
        "rw"
    } else {
        "r "
    };
    let held = if mapping.holder == NONE {
        String::new()
    } else {
        format!(
            ", {} page capabilities from slot {}",
            object.pages, mapping.holder_slot
        )
    };
    format!(
        "map {access} {:#012x} {:>6}K {}{held}",
        mapping.address,
        size >> 10,
        describe(object)
    )
}
