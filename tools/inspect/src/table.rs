//! The answers for people.

use std::fmt::Write as _;

use crate::verdict::{Bar, Start, Verdict};

/// Returns a paragraph about a function. Control characters of the dump become dots.
#[must_use]
pub fn table(verdict: &Verdict) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = tell(&mut text, verdict);
    text.chars()
        .map(|c| if c.is_control() && c != '\n' { '.' } else { c })
        .collect()
}

fn tell(text: &mut String, verdict: &Verdict) -> std::fmt::Result {
    let segment = match verdict.segment {
        0 => String::new(),
        segment => format!("{segment:04x}:"),
    };
    let starts = match verdict.starts {
        Start::Yes => "starts",
        Start::No => "does not start",
        Start::Unknown => "not known",
        Start::Bridge => "not an endpoint",
    };
    writeln!(
        text,
        "{segment}{} {:04x}:{:04x} {starts}  {}",
        verdict.address, verdict.vendor, verdict.device, verdict.title
    )?;
    let mut line = |name: &str, value: &str| writeln!(text, "    {name:<11} {value}");
    if let Some(reason) = &verdict.reason {
        line("because", reason)?;
    }
    if verdict.starts == Start::Bridge {
        return Ok(());
    }
    for bar in &verdict.bars {
        line(&format!("BAR {}", bar.index), &tell_bar(bar))?;
    }
    // What follows is not known of a function whose capabilities are not.
    if verdict.starts == Start::Unknown || verdict.needs.is_empty() {
        return Ok(());
    }
    let reset = match &verdict.reset[..] {
        [] => "nothing resets it".to_owned(),
        ways => ways.join(", then "),
    };
    line("reset", &reset)?;
    line("messages", &tell_messages(verdict))?;
    for page in &verdict.trapped {
        let ranges = page.shared.iter();
        let shared: Vec<String> = ranges
            .map(|r| format!("{:#x}-{:#x}", r.start, r.end - 1))
            .collect();
        let shared = match &shared[..] {
            [] => "nothing else on it".to_owned(),
            ranges => format!("registers on it at {}", ranges.join(", ")),
        };
        line(
            "trapped",
            &format!("BAR {} page {:#x}, {shared}", page.bar, page.offset),
        )?;
    }
    for (name, shown) in [("shown", true), ("hidden", false)] {
        let those = verdict
            .capabilities
            .iter()
            .filter(|capability| capability.shown == shown);
        let mut names: Vec<String> = those
            .map(|capability| format!("{} at {:#x}", capability.name, capability.offset))
            .collect();
        if !shown && verdict.extended {
            names.push("all extended ones".to_owned());
        }
        if !names.is_empty() {
            line(name, &names.join(", "))?;
        }
    }
    if let Some(window) = &verdict.window {
        line("window", window)?;
    }
    if let Some(iommu) = &verdict.iommu {
        line("IOMMU", iommu)?;
    }
    if let Some(reason) = &verdict.group_reason {
        line("group", &format!("{}: {reason}", verdict.group.join(", ")))?;
    }
    for need in &verdict.needs {
        line("needs", need)?;
    }
    Ok(())
}

fn tell_bar(bar: &Bar) -> String {
    let works = if bar.works { "works" } else { "does not work" };
    let prefetchable = if bar.prefetchable {
        ", prefetchable"
    } else {
        ""
    };
    let size = if bar.size_known {
        size(bar.size)
    } else {
        format!("{}? (lspci -vv tells the size)", size(bar.size))
    };
    format!(
        "{} at {:#x}, {size}{prefetchable}: {works}: {}",
        bar.kind, bar.address, bar.reason
    )
}

fn tell_messages(verdict: &Verdict) -> String {
    let msi = match verdict.msi {
        0 => "no MSI".to_owned(),
        messages => format!("MSI with {messages}"),
    };
    match &verdict.msix {
        None => format!("no MSI-X, {msi}"),
        Some(msix) => match (msix.reason, &msix.table, &msix.pba) {
            (None, Some(table), Some(pba)) => format!(
                "MSI-X with {}, table in BAR {} at {:#x}, PBA in BAR {} at {:#x}; {msi}",
                msix.vectors, table.bar, table.offset, pba.bar, pba.offset
            ),
            (reason, ..) => format!("no MSI-X: {}; {msi}", reason.unwrap_or("not usable")),
        },
    }
}

/// Returns a size in the largest unit that divides it.
fn size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units
        .into_iter()
        .find(|(shift, _)| bytes >= 1 << shift && bytes.is_multiple_of(1 << shift));
    match unit {
        Some((shift, name)) => format!("{} {name}", bytes >> shift),
        None => format!("{bytes} bytes"),
    }
}
