//! What operates a fleet of machines: metrics, libvirt.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::client::{Client, metric};
use crate::harness::{
    Finished, PATIENCE, Running, finish, free_port, needed, one_machine, program, root, signal,
    the_only_machine, vectis,
};

/// Has Prometheus' own tool judge metrics.
fn judged_by_promtool(text: &str) {
    let promtool = needed(|| program("promtool"), &["prometheus"]);
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
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

/// Whoever is nobody in particular, for whom a libvirt of root's becomes a session.
const NOBODY: u32 = 65534;

/// A libvirt session of a test's own, below a temporary folder. It is a user's: where the test
/// is root's, `nobody`'s.
struct Session {
    folder: tempfile::TempDir,
    as_nobody: bool,
}

impl Session {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let as_nobody = fs::metadata("/proc/self").expect("/proc").uid() == 0;
        let session = Self { folder, as_nobody };
        session.own(session.folder.path());
        for name in ["run", "config", "cache", "data"] {
            let path = session.path(name);
            fs::create_dir(&path).expect("the folder is ours");
            session.own(&path);
        }
        session
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Gives a file to the session's user.
    fn own(&self, path: &Path) {
        if self.as_nobody {
            chown(path, Some(NOBODY), Some(NOBODY)).expect("root may give files away");
        }
    }

    fn virsh(&self, arguments: &[&str]) -> Finished {
        let virsh = needed(|| program("virsh"), &["libvirt-clients", "libvirt-daemon"]);
        let mut command = if self.as_nobody {
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
                .arg(virsh);
            command
        } else {
            Command::new(virsh)
        };
        for (name, folder) in [
            ("XDG_RUNTIME_DIR", "run"),
            ("XDG_CONFIG_HOME", "config"),
            ("XDG_CACHE_HOME", "cache"),
            ("XDG_DATA_HOME", "data"),
            ("HOME", ""),
        ] {
            command.env(name, self.path(folder));
        }
        finish(
            command
                .args(["--connect", "qemu:///session"])
                .args(arguments),
        )
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.virsh(&["destroy", "vectis"]);
        // It would end by itself two minutes after its last client.
        for name in ["libvirtd.pid", "virtlogd.pid"] {
            let process = fs::read_to_string(self.path("run/libvirt").join(name));
            if let Some(process) = process.ok().and_then(|text| text.trim().parse().ok()) {
                signal(process, "TERM");
            }
        }
    }
}

#[test]
fn the_domain_of_the_documentation_serves_under_libvirt() {
    let _machine = one_machine();
    let session = Session::new();
    let (disk, image) = (session.path("vectis.qcow2"), session.path("image"));
    let mut build = vectis();
    build.args(["build", "--disk"]).arg(&disk);
    let end = finish(build.arg("--out").arg(&image));
    assert!(end.status.success(), "{}", end.text);
    session.own(&disk);

    let port = free_port();
    let text = fs::read_to_string(root().join("docs/fleet-domain.xml")).expect("the domain");
    let folder = session.folder.path().display().to_string();
    let own = text
        .replace("/var/lib/vectis", &folder)
        .replace("127.0.0.1:8080", &format!("127.0.0.1:{port}"));
    let domain = session.path("domain.xml");
    fs::write(&domain, own).expect("the folder is ours");
    session.own(&domain);
    let domain = domain.to_str().expect("a path of text");
    for arguments in [&["define", domain][..], &["start", "vectis"]] {
        let end = session.virsh(arguments);
        assert!(end.status.success(), "{arguments:?}: {}", end.text);
    }

    // What the guest prints comes over COM1, from the first reader on.
    let console = UnixStream::connect(session.path("com1")).expect("libvirt made the socket");
    console
        .set_read_timeout(Some(PATIENCE))
        .expect("a timeout can be set");
    let mut lines = BufReader::new(console).lines();
    let mut said = String::new();
    while !said.contains("web: serving on port 80") {
        let line = lines.next().and_then(Result::ok);
        said += &line.unwrap_or_else(|| panic!("the guest does not serve:\n{said}"));
        said.push('\n');
    }
    drop(lines);
    let (status, page) = Client::connect(port).request("/").expect("the page");
    assert_eq!(status, 200);
    assert!(page.contains("MSI-X table"), "{page}");

    let mut metrics = vectis();
    metrics
        .arg("metrics")
        .arg("--console")
        .arg(session.path("com1"));
    let end = finish(metrics.arg("--image").arg(&image));
    assert!(end.status.success(), "{}", end.text);
    let attached = "vectis_iommu_attached{component=\"iommu\"}";
    assert_eq!(metric(&end.text, attached), 1.0, "{}", end.text);
    let end = session.virsh(&["destroy", "vectis"]);
    assert!(end.status.success(), "{}", end.text);
}
