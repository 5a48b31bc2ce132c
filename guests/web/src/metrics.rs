//! The figures in Prometheus' text exposition format, version 0.0.4.

use core::fmt::{self, Display, Write};

use crate::report::{Host, Report};

/// Writes the header of one metric.
fn header(out: &mut dyn Write, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(
        out,
        "# HELP vectis_guest_{name} {help}\n# TYPE vectis_guest_{name} {kind}"
    )
}

/// Writes a metric with one value and no labels.
fn single(
    out: &mut dyn Write,
    name: &str,
    kind: &str,
    help: &str,
    value: impl Display,
) -> fmt::Result {
    header(out, name, kind, help)?;
    writeln!(out, "vectis_guest_{name} {value}")
}

/// Writes a counter with one value for each direction.
fn by_direction(out: &mut dyn Write, name: &str, help: &str, values: [u64; 2]) -> fmt::Result {
    header(out, name, "counter", help)?;
    for (direction, value) in ["receive", "transmit"].iter().zip(values) {
        writeln!(
            out,
            "vectis_guest_{name}{{direction=\"{direction}\"}} {value}"
        )?;
    }
    Ok(())
}

/// Writes all metrics.
///
/// # Errors
/// Only if `out` has no room.
pub fn write(out: &mut dyn Write, report: &Report) -> fmt::Result {
    header(
        out,
        "info",
        "gauge",
        "Where the guest runs and what it drives.",
    )?;
    writeln!(
        out,
        "vectis_guest_info{{host=\"{}\",bdf=\"{}\",vendor=\"{:04x}\",device=\"{:04x}\"}} 1",
        match report.host {
            Host::Vectis => "vectis",
            Host::Bare => "bare",
        },
        report.bdf,
        report.vendor,
        report.device
    )?;
    let micros = report.uptime_micros;
    let uptime = format_args!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    single(
        out,
        "uptime_seconds",
        "gauge",
        "Time since the guest was entered.",
        uptime,
    )?;
    if let Some(ns) = report.unix_ns {
        single(
            out,
            "time_seconds",
            "gauge",
            "Unix time.",
            format_args!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000),
        )?;
    }
    let hertz = report.tsc_khz * 1000;
    single(
        out,
        "tsc_hertz",
        "gauge",
        "Frequency of the time stamp counter.",
        hertz,
    )?;
    let memory = report.memory_bytes;
    single(
        out,
        "memory_bytes",
        "gauge",
        "Usable memory in the loader's map.",
        memory,
    )?;

    let help = "Interrupts taken, by MSI-X entry.";
    header(out, "interrupts_total", "counter", help)?;
    for (index, entry) in report.entries.iter().enumerate() {
        if let Some(purpose) = entry.purpose {
            let count = entry.interrupts;
            writeln!(
                out,
                "vectis_guest_interrupts_total{{entry=\"{index}\",purpose=\"{purpose}\"}} {count}"
            )?;
        }
    }
    header(out, "msix_masked", "gauge", "Mask bit of each MSI-X entry.")?;
    for (index, entry) in report.entries.iter().enumerate() {
        let masked = u8::from(entry.entry.masked);
        writeln!(
            out,
            "vectis_guest_msix_masked{{entry=\"{index}\"}} {masked}"
        )?;
    }
    let timer = report.timer_interrupts;
    single(
        out,
        "timer_interrupts_total",
        "counter",
        "Interrupts of the APIC timer.",
        timer,
    )?;
    single(
        out,
        "halts_total",
        "counter",
        "Times the CPU was halted.",
        report.halts,
    )?;

    let traffic = &report.traffic;
    let packets = [traffic.received_packets, traffic.sent_packets];
    by_direction(out, "packets_total", "Frames exchanged.", packets)?;
    let bytes = [traffic.received_bytes, traffic.sent_bytes];
    by_direction(out, "bytes_total", "Bytes in those frames.", bytes)?;
    let drops = [traffic.missed + traffic.receive_errors, traffic.send_drops];
    by_direction(out, "drops_total", "Frames lost or refused.", drops)?;
    single(
        out,
        "transmit_hangs_total",
        "counter",
        "Times the transmitter hung and the device was started again.",
        traffic.transmit_hangs,
    )?;
    single(
        out,
        "link_up",
        "gauge",
        "Whether the link is up.",
        u8::from(report.link.up),
    )?;
    // Base units are bytes (Prometheus' naming rules), for the speed of a link too.
    let speed = u64::from(report.link.speed) * 1_000_000 / 8;
    single(
        out,
        "link_speed_bytes",
        "gauge",
        "Link speed in bytes per second.",
        speed,
    )?;
    let lease = report.lease.map_or(0, |lease| lease.seconds_left);
    single(
        out,
        "lease_seconds",
        "gauge",
        "Time until the address lease ends.",
        lease,
    )?;

    let requests = &report.requests;
    single(
        out,
        "http_requests_total",
        "counter",
        "Requests answered.",
        requests.answered,
    )?;
    let refused = requests.refused;
    single(
        out,
        "http_errors_total",
        "counter",
        "Answers of status 400 and above.",
        refused,
    )?;
    let connections = requests.connections;
    single(
        out,
        "http_connections_total",
        "counter",
        "Connections accepted.",
        connections,
    )?;
    let timeouts = requests.timeouts;
    single(
        out,
        "http_timeouts_total",
        "counter",
        "Connections ended for idleness.",
        timeouts,
    )
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::collections::BTreeSet;
    use std::string::String;

    use crate::report::tests::sample;

    #[test]
    fn every_sample_has_help_and_type_before_it() {
        let mut text = String::new();
        super::write(&mut text, &sample()).unwrap();
        let mut typed = BTreeSet::new();
        let mut samples = 0;
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                assert!(
                    typed.insert(rest.split(' ').next().unwrap()),
                    "twice: {line}"
                );
            } else if !line.starts_with("# HELP ") {
                let (series, value) = line.rsplit_once(' ').unwrap();
                assert!(typed.contains(series.split('{').next().unwrap()), "{line}");
                assert!(value.parse::<f64>().is_ok(), "{line}");
                samples += 1;
            }
        }
        assert_eq!(samples, 28);
        assert!(text.contains("vectis_guest_interrupts_total{entry=\"0\",purpose=\"rx\"} 1234\n"));
        assert!(text.contains("vectis_guest_uptime_seconds 93784.000123\n"));
        assert!(text.contains("vectis_guest_time_seconds 1795814130.000000005\n"));
        assert!(text.contains("vectis_guest_drops_total{direction=\"receive\"} 3\n"));
        assert!(text.contains("vectis_guest_transmit_hangs_total 5\n"));
        assert!(text.contains("vectis_guest_link_speed_bytes 125000000\n"));
    }
}
