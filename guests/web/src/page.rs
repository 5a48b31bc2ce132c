//! The page: plain HTML that a phone shows well, with nothing to fetch besides.

use core::fmt::{self, Display, Formatter, Write};

use kit::network::Model;
use kit::pci::BarKind;

use crate::report::{EntryReport, Host, Report};

const STYLE: &str = include_str!("page.css");

/// A count with a thin space between groups of three digits.
struct Count(u64);

impl Display for Count {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let mut groups = [0; 7];
        let mut count = 0;
        let mut rest = self.0;
        loop {
            groups[count] = rest % 1000;
            rest /= 1000;
            count += 1;
            if rest == 0 {
                break;
            }
        }
        write!(f, "{}", groups[count - 1])?;
        for group in groups[..count - 1].iter().rev() {
            write!(f, "&#8239;{group:03}")?;
        }
        Ok(())
    }
}

/// A size in the largest binary unit that keeps it at 1 or more.
struct Size(u64);

impl Display for Size {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        let Some((shift, unit)) = units.into_iter().find(|&(shift, _)| self.0 >> shift > 0) else {
            return write!(f, "{} B", self.0);
        };
        let tenths = (u128::from(self.0) * 10) >> shift;
        if tenths.is_multiple_of(10) {
            write!(f, "{} {unit}", tenths / 10)
        } else {
            write!(f, "{}.{} {unit}", tenths / 10, tenths % 10)
        }
    }
}

/// A duration in its two largest units.
struct Span(u64);

impl Display for Span {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let (days, hours, minutes) = (self.0 / 86_400, self.0 / 3600 % 24, self.0 / 60 % 60);
        match (days, hours, minutes) {
            (0, 0, 0) => write!(f, "{} s", self.0),
            (0, 0, _) => write!(f, "{minutes} min {} s", self.0 % 60),
            (0, _, _) => write!(f, "{hours} h {minutes} min"),
            _ => write!(f, "{days} d {hours} h"),
        }
    }
}

/// Text with HTML's markup characters escaped.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '&' => f.write_str("&amp;")?,
                _ => f.write_char(character)?,
            }
        }
        Ok(())
    }
}

/// A kernel's words: the first is its name, the others say more of it.
struct Kernel<'a>(&'a str);

impl Display for Kernel<'_> {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let mut words = self.0.split(',');
        write!(f, "seL4 {}", Escaped(words.next().unwrap_or_default()))?;
        let mut before = " (";
        for word in words {
            write!(f, "{before}{}", Escaped(word))?;
            before = ", ";
        }
        if before == ", " {
            f.write_str(")")?;
        }
        Ok(())
    }
}

/// Writes one figure of a list.
fn item(out: &mut dyn Write, name: &str, value: impl Display) -> fmt::Result {
    write!(out, "<div><dt>{name}</dt><dd>{value}</dd></div>")
}

/// Writes the page.
///
/// # Errors
/// Only if `out` has no room.
pub fn write(out: &mut dyn Write, report: &Report) -> fmt::Result {
    write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=\"refresh\" content=\"2\">\
         <title>Vectis</title><style>{STYLE}</style></head><body><h1>Vectis</h1>"
    )?;
    match report.host {
        Host::Vectis => out.write_str(
            "<p>This page comes from a unikernel in ring 3, an <b>seL4</b> thread. \
             It drives the network card below by itself; MSI-X is mediated by Vectis.</p>",
        )?,
        Host::Bare => out.write_str(
            "<p>This page comes from a unikernel in ring 0 with the <b>bare machine</b> to \
             itself: the floor that Vectis is measured against.</p>",
        )?,
    }
    network(out, report)?;
    interrupts(out, report)?;
    function(out, report)?;
    machine(out, report)?;
    out.write_str("</body></html>\n")
}

fn network(out: &mut dyn Write, report: &Report) -> fmt::Result {
    out.write_str("<section><h2>Network</h2><dl>")?;
    match report.lease {
        Some(lease) => {
            let address = format_args!("{}<small>/{}</small>", lease.address, lease.prefix);
            item(out, "Address", address)?;
            match lease.router {
                Some(router) => item(out, "Router", router)?,
                None => item(out, "Router", "none")?,
            }
            item(out, "Lease ends in", Span(lease.seconds_left))?;
        }
        None => item(out, "Address", "waiting for a lease")?,
    }
    let link = report.link;
    if link.up && link.speed == 0 {
        item(out, "Link", "up")?;
    } else if link.up {
        let duplex = if link.full_duplex { "full" } else { "half" };
        let text = format_args!("{} Mbit/s <small>{duplex} duplex</small>", link.speed);
        item(out, "Link", text)?;
    } else {
        item(out, "Link", "down")?;
    }
    let traffic = &report.traffic;
    let received = Count(traffic.received_packets);
    let size = Size(traffic.received_bytes);
    item(
        out,
        "Packets in",
        format_args!("{received} <small>{size}</small>"),
    )?;
    let sent = Count(traffic.sent_packets);
    let size = Size(traffic.sent_bytes);
    item(
        out,
        "Packets out",
        format_args!("{sent} <small>{size}</small>"),
    )?;
    let lost = Count(traffic.missed + traffic.receive_errors);
    let refused = Count(traffic.send_drops);
    item(out, "Drops in / out", format_args!("{lost} / {refused}"))?;
    item(out, "Requests", Count(report.requests.answered))?;
    out.write_str("</dl></section>")
}

fn interrupts(out: &mut dyn Write, report: &Report) -> fmt::Result {
    out.write_str(
        "<section><h2>MSI-X table, as the guest wrote it</h2><table><tr><th>Entry<th>Purpose\
         <th>Vector<th class=\"w\">Message<th>State<th class=\"n\">Interrupts</tr>",
    )?;
    for (
        index,
        EntryReport {
            entry,
            purpose,
            interrupts,
        },
    ) in report.entries.iter().enumerate()
    {
        let Some(purpose) = purpose else {
            write!(
                out,
                "<tr class=\"off\"><td>{index}<td>unused<td><td class=\"w\"><td>masked<td class=\"n\"></tr>"
            )?;
            continue;
        };
        write!(
            out,
            "<tr><td>{index}<td>{purpose}<td><code>{:#04x}</code><td class=\"w\"><code>{:08x}:{:04x}</code>\
             <td>{}<td class=\"n\">{}</tr>",
            entry.vector(),
            entry.address,
            entry.data,
            if entry.masked { "masked" } else { "open" },
            Count(*interrupts)
        )?;
    }
    out.write_str("</table></section>")
}

fn function(out: &mut dyn Write, report: &Report) -> fmt::Result {
    let name = Model::of(report.vendor, report.device).map_or("unknown", Model::name);
    let mac = report.mac;
    write!(
        out,
        "<section><h2>PCI function</h2><dl><div><dt>Device</dt><dd>{name}</dd></div>\
         <div><dt>Place</dt><dd><code>{}</code></dd></div>\
         <div><dt>Identifier</dt><dd><code>{:04x}:{:04x}</code></dd></div>\
         <div><dt>Station address</dt><dd><code>{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}</code>\
         </dd></div></dl><table><tr><th>BAR<th>Kind<th>Address<th class=\"n\">Size</tr>",
        report.bdf, report.vendor, report.device, mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]
    )?;
    for (index, bar) in report.bars.iter().enumerate() {
        let Some(bar) = bar else { continue };
        let kind = match bar.kind {
            BarKind::Io => "I/O",
            BarKind::Memory32 => "memory",
            BarKind::Memory64 => "64-bit memory",
        };
        write!(
            out,
            "<tr><td>{index}<td>{kind}<td><code>{:#x}</code><td class=\"n\">{}</tr>",
            bar.address,
            Size(bar.size)
        )?;
    }
    out.write_str("</table></section>")
}

fn machine(out: &mut dyn Write, report: &Report) -> fmt::Result {
    out.write_str("<section><h2>Machine</h2><dl>")?;
    item(
        out,
        "Runs on",
        match report.host {
            Host::Vectis => "seL4, ring 3",
            Host::Bare => "bare machine, ring 0",
        },
    )?;
    if let Some(kernel) = report.kernel {
        item(out, "Kernel", Kernel(kernel))?;
    }
    item(out, "Up", Span(report.uptime_micros / 1_000_000))?;
    item(out, "Memory", Size(report.memory_bytes))?;
    item(out, "Clock", format_args!("{} MHz", report.tsc_khz / 1000))?;
    item(out, "Halts", Count(report.halts))?;
    item(out, "Timer interrupts", Count(report.timer_interrupts))?;
    item(
        out,
        "Local APIC",
        if report.x2apic { "x2APIC" } else { "xAPIC" },
    )?;
    if let Some(vendor) = report.cpu_vendor {
        item(out, "CPUID says", Escaped(vendor))?;
    }
    out.write_str("</dl></section>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;

    extern crate std;
    use std::format;
    use std::string::String;

    fn page(report: &Report) -> String {
        let mut text = String::new();
        write(&mut text, report).unwrap();
        text
    }

    #[test]
    fn figures_are_on_the_page() {
        let text = page(&sample());
        for part in [
            "<title>Vectis</title>",
            "name=\"viewport\"",
            "http-equiv=\"refresh\" content=\"2\"",
            "00:02.0",
            "8086:10d3",
            "10.0.2.15<small>/24</small>",
            "23 h 53 min",
            "1 d 2 h",
            "<td>0<td>rx<td><code>0x51</code><td class=\"w\"><code>fee00000:0051</code><td>open<td class=\"n\">1&#8239;234</tr>",
            "<td>3<td>unused",
            "0xfebc0000",
            "128 KiB",
            "seL4, ring 3",
            "TCGTCGTCGTCG",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        assert!(!text.contains("src="), "nothing to fetch");
        assert!(!text.contains("href="), "nothing to fetch");
    }

    #[test]
    fn tags_are_balanced() {
        let text = page(&sample());
        for tag in [
            "section", "dl", "div", "dt", "dd", "table", "code", "small", "p", "h2",
        ] {
            let opened = text.matches(&format!("<{tag}>")).count();
            assert_eq!(opened, text.matches(&format!("</{tag}>")).count(), "{tag}");
            assert!(opened > 0, "{tag}");
        }
    }

    #[test]
    fn the_page_says_what_is_missing_and_escapes() {
        let mut report = sample();
        report.host = Host::Bare;
        report.lease = None;
        report.link.up = false;
        report.cpu_vendor = Some("<b>&");
        report.kernel = None;
        let text = page(&report);
        assert!(text.contains("waiting for a lease"));
        assert!(text.contains("<dd>down</dd>"));
        assert!(text.contains("bare machine, ring 0"));
        assert!(!text.contains("<dt>Kernel</dt>"));
        assert!(text.contains("&lt;b&gt;&amp;"));
    }

    #[test]
    fn the_page_names_a_virtio_function_and_no_speed() {
        let mut report = sample();
        (report.vendor, report.device) = (0x1af4, 0x1041);
        report.link.speed = 0;
        let text = page(&report);
        assert!(text.contains("virtio network"));
        assert!(text.contains("<dt>Link</dt><dd>up</dd>"));
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(format!("{}", Count(0)), "0");
        assert_eq!(format!("{}", Count(1_002_003)), "1&#8239;002&#8239;003");
        assert_eq!(format!("{}", Count(u64::MAX)).matches("&#8239;").count(), 6);
        assert_eq!(format!("{}", Size(0)), "0 B");
        assert_eq!(format!("{}", Size(1536)), "1.5 KiB");
        assert_eq!(format!("{}", Size(u64::MAX)), "16777215.9 TiB");
        assert_eq!(
            format!("{}", Kernel("5.0.0,bundled")),
            "seL4 5.0.0 (bundled)"
        );
        assert_eq!(format!("{}", Kernel("a<,b,c")), "seL4 a&lt; (b, c)");
        assert_eq!(format!("{}", Kernel("a")), "seL4 a");
        assert_eq!(format!("{}", Span(59)), "59 s");
        assert_eq!(format!("{}", Span(61)), "1 min 1 s");
    }
}
