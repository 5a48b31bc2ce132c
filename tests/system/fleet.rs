//! What operates a fleet of machines: metrics.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::client::{Client, metric};
use crate::harness::{Running, finish, the_only_machine, vectis};

/// Has Prometheus' own tool judge metrics; says so where it is not installed.
fn judged_by_promtool(text: &str) {
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        println!("skipped: promtool is not there (Debian: apt-get install prometheus)");
        return;
    };
    let mut stdin = child.stdin.take().expect("a pipe");
    // The harness joins lines, so that the last has no end.
    writeln!(stdin, "{}", text.trim_end()).expect("it reads");
    drop(stdin);
    let end = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&end.stderr);
    assert!(end.status.success() && said.is_empty(), "{said}\n{text}");
}

#[test]
fn metrics_of_hypervisor_and_guest_are_prometheus_own() {
    let _machine = the_only_machine();
    let (mut system, port) = Running::serving(&["--inject-fault", "msix"]);
    system.wait_for(|line| line.contains("msix restarted, generation 1"));
    let own = finish(vectis().arg("metrics"));
    assert!(own.status.success(), "{}", own.text);
    for (name, value) in [
        ("vectis_component_restarts_total{component=\"msix\"}", 1.0),
        ("vectis_component_restarts_total{component=\"iommu\"}", 0.0),
        ("vectis_iommu_attached{component=\"iommu\"}", 1.0),
        ("vectis_vmm_storms_total{component=\"vmm\"}", 0.0),
    ] {
        assert_eq!(metric(&own.text, name), value, "{name} in {}", own.text);
    }
    // Each is explained by the component that has it.
    assert!(!own.text.contains("A counter of"), "{}", own.text);
    judged_by_promtool(&own.text);
    let (status, guests) = Client::connect(port).request("/metrics").expect("metrics");
    assert_eq!(status, 200);
    judged_by_promtool(&guests);
}
