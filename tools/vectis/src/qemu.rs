//! QEMU: its arguments, its serial ports as sockets, its end.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::SyncSender;
use std::thread;

use system::Model;
use tempfile::TempDir;

use crate::error::{Error, Result};
use crate::image::symbol_files;
use crate::network::networks;
use crate::packages;
use crate::workspace::Opened;

/// A serial port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// COM1: text and keys.
    People,
    /// COM2: log frames.
    Logs,
}

const PORTS: [(Port, &str); 2] = [(Port::People, "com1"), (Port::Logs, "com2")];

/// The longest name of a socket beside QEMU: other commands' way to the console.
pub const CONTROL: &str = "control";

/// The name of QEMU's own monitor's socket, of a recorded machine.
pub const MONITOR: &str = "qmp";

/// Bytes of a socket's path, with the zero at its end (unix(7), `sun_path`).
const SOCKET_PATH: usize = 108;

/// Event of a running QEMU.
#[derive(Debug)]
pub enum Event {
    /// QEMU has opened a serial port; keys can be written to it.
    Open(Port, UnixStream),
    /// The machine wrote to a serial port.
    Bytes(Port, Vec<u8>),
    /// A serial port that was open is closed.
    Closed,
    /// QEMU itself said something.
    Said(String),
    /// QEMU has ended, or is about to.
    Ended,
    /// This process got a signal.
    Signal(i32),
    /// Another command connected to the console.
    Visitor(UnixStream),
    /// It typed this.
    Keys(Vec<u8>),
    /// A guest's port on this host was tried.
    Reachable(usize, std::io::Result<()>),
}

/// The clock of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The host's.
    Host,
    /// It counts instructions, and jumps where nobody has work.
    Counted,
    /// It counts instructions, and waits for the host where nobody has work. QEMU records
    /// what comes from outside, and therefore knows how many instructions ran: its monitor
    /// at [`MONITOR`] tells (docs/system/replay.rst of QEMU).
    Recorded,
}

impl Clock {
    /// Returns the host's, or one that counts.
    #[must_use]
    pub const fn counting(counts: bool) -> Self {
        if counts { Self::Counted } else { Self::Host }
    }
}

/// Image or guest that QEMU runs.
#[derive(Clone, Debug)]
pub struct Machine<'a> {
    /// The system: its board and devices.
    pub model: &'a Model,
    /// How the board's machine is made.
    pub qemu: &'a system::Qemu,
    /// `-kernel`.
    pub kernel: PathBuf,
    /// `-initrd`.
    pub initrd: Option<PathBuf>,
    /// `-append`.
    pub command_line: String,
    /// TCP ports of this host that lead to port 80 of whoever is on each of the
    /// system's [`networks`].
    pub ports: Vec<u16>,
    /// Its clock.
    pub clock: Clock,
    /// The features that the host's CPU must have, if that is to run it: bits as those of
    /// [`boot::cpu::needed`].
    pub kvm: Option<u64>,
}

impl Machine<'_> {
    /// Returns the guests' ELF files in the image's folder, by the names of the
    /// components that run them. A guest with a shim has several.
    #[must_use]
    pub fn guests(&self) -> Vec<(String, PathBuf)> {
        let folder = self.kernel.parent().unwrap_or(Path::new(""));
        let mut all = Vec::new();
        for guest in &self.model.guests {
            let vmm = &self.model.components[guest.vmm].name;
            let files = symbol_files(folder, &guest.name).into_iter();
            all.extend(files.map(|file| (vmm.clone(), file)));
        }
        all
    }

    /// Returns QEMU's arguments; the serial ports are sockets in `folder`.
    #[must_use]
    pub fn arguments(&self, folder: &Path) -> Vec<OsString> {
        let board = &self.model.board;
        let qemu = self.qemu;
        let mut all: Vec<OsString> = Vec::new();
        let mut add = |name: &str, value: OsString| all.extend([name.into(), value]);
        // A comma is doubled inside one of QEMU's options.
        let place = |name: &str| folder.join(name).to_string_lossy().replace(',', ",,");
        add("-machine", (&qemu.machine).into());
        let mut cpu = qemu.cpu.clone();
        if let Some(features) = self.kvm {
            // QEMU's IOMMUs cannot remap what the host's kernel delivers by itself.
            add("-accel", "kvm,kernel-irqchip=split".into());
            // Some hosts show a register of this feature and refuse to write it. What KVM has
            // not, QEMU names, and ends.
            cpu.push_str(",-arch-capabilities,enforce");
            for flag in boot::cpu::flags(features) {
                cpu.push_str(",+");
                cpu.push_str(flag);
            }
        }
        add("-cpu", cpu.into());
        add("-m", format!("{}", board.memory >> 20).into());
        add("-display", "none".into());
        for (_, name) in PORTS {
            add(
                "-chardev",
                format!("socket,id={name},path={}", place(name)).into(),
            );
            add("-serial", format!("chardev:{name}").into());
        }
        for (network, port) in networks(self.model).iter().zip(&self.ports) {
            let id = &network.id;
            let forward = format!("user,id={id},hostfwd=tcp:127.0.0.1:{port}-:80");
            add("-netdev", forward.into());
            if self.clock == Clock::Recorded {
                let filter = format!("filter-replay,id=record-{id},netdev={id}");
                add("-object", filter.into());
            }
        }
        for drive in self
            .model
            .devices
            .iter()
            .flat_map(|device| &device.qemu_drives)
        {
            add("-drive", drive.into());
        }
        for device in self.model.devices.iter().flat_map(|device| &device.qemu) {
            add("-device", device.into());
        }
        add("-kernel", self.kernel.clone().into());
        if let Some(initrd) = &self.initrd {
            // Here a comma separates modules.
            add(
                "-initrd",
                initrd.to_string_lossy().replace(',', ",,").into(),
            );
        }
        if !self.command_line.is_empty() {
            add("-append", self.command_line.clone().into());
        }
        match self.clock {
            Clock::Host => {}
            Clock::Counted => add("-icount", "shift=0,sleep=off".into()),
            Clock::Recorded => {
                let record = format!("shift=0,rr=record,rrfile={}", place("record"));
                add("-icount", record.into());
                let monitor = format!("unix:{},server=on,wait=off", place(MONITOR));
                add("-qmp", monitor.into());
            }
        }
        all.extend(["-nodefaults".into(), "-no-reboot".into()]);
        // A guest without seL4 is measured on the plain machine.
        if self.initrd.is_some() {
            let iommu = qemu.iommu_arguments(board.iommu).unwrap_or_default();
            all.extend(iommu.iter().map(OsString::from));
        }
        all.extend(qemu.args.iter().map(OsString::from));
        all
    }
}

/// Checks that `device`, KVM's, can be used.
///
/// # Errors
/// If not; says why, and what to do.
pub fn check_kvm(device: &Path) -> Result<()> {
    let opened = File::options().read(true).write(true).open(device);
    opened.map(drop).map_err(|e| {
        Error::new(
            format!("cannot use KVM by {}", device.display()),
            e,
            "load kvm_intel or kvm_amd, with virtualization switched on in the firmware's setup; \
             be in the group `kvm`; in a virtual machine, nest; or leave --kvm out",
        )
    })
}

/// A running QEMU. It ends when this is dropped.
#[derive(Debug)]
pub struct Qemu {
    child: Child,
    folder: TempDir,
    /// Files that QEMU opens by their descriptor numbers in this process.
    _files: (Opened, Option<Opened>),
}

/// Checks that sockets in a folder can have a path at all.
fn check_sockets(folder: &Path) -> Result<()> {
    let length = folder.join(CONTROL).as_os_str().as_bytes().len();
    if length < SOCKET_PATH {
        return Ok(());
    }
    Err(Error::new(
        format!("cannot make QEMU's sockets in {}", folder.display()),
        format!(
            "their paths have {length} bytes, and a socket's has {} at most",
            SOCKET_PATH - 1
        ),
        "the folder for temporary files is too deep: set TMPDIR to another, such as /tmp",
    ))
}

impl Qemu {
    /// Returns a path for a socket that goes when QEMU goes.
    #[must_use]
    pub fn socket(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts QEMU; threads send its events to `events`.
    ///
    /// # Errors
    /// If the sockets cannot be made or QEMU not be started.
    pub fn start(machine: &Machine<'_>, events: &SyncSender<Event>) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("vectis-")
            .tempdir()
            .map_err(|e| {
                Error::new(
                    format!("cannot make a folder in {}", std::env::temp_dir().display()),
                    e,
                    "set TMPDIR to a folder that can be written, such as /tmp",
                )
            })?;
        check_sockets(folder.path())?;
        // Not by their names: another build may replace them. And of a multiboot module's
        // name QEMU takes what follows a blank as the module's command line
        // (hw/i386/multiboot.c).
        let kernel = Opened::new(&machine.kernel)?;
        let initrd = machine.initrd.as_deref().map(Opened::new).transpose()?;
        let machine = Machine {
            kernel: kernel.path(),
            initrd: initrd.as_ref().map(Opened::path),
            ..machine.clone()
        };
        for (port, name) in PORTS {
            let path = folder.path().join(name);
            let listener =
                UnixListener::bind(&path).map_err(|e| Error::file("listen on", &path, &e))?;
            let events = events.clone();
            thread::spawn(move || serve(port, &listener, &events));
        }
        let mut child = command()
            .args(machine.arguments(folder.path()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Out of reach of the terminal's Ctrl-C, which is for this process.
            .process_group(0)
            .spawn()
            .map_err(|e| {
                Error::new(
                    "cannot start qemu-system-x86_64",
                    e,
                    "install QEMU (Debian: apt-get install qemu-system-x86)",
                )
            })?;
        if let Some(stderr) = child.stderr.take() {
            let events = events.clone();
            // QEMU keeps its standard error open until it ends.
            thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(|line| line.ok()) {
                    let _ = events.send(Event::Said(line));
                }
                let _ = events.send(Event::Ended);
            });
        }
        Ok(Self {
            child,
            folder,
            _files: (kernel, initrd),
        })
    }

    /// Waits for QEMU's end, once [`Event::Ended`] has come.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.child
            .wait()
            .map_err(|e| Error::new("cannot wait for QEMU", e, "try again"))
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // It may have ended already; then both do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns QEMU's command; the kernel kills it if this process ends first.
/// setpriv (util-linux) asks for that and becomes QEMU; where there is none,
/// only an orderly end is covered.
fn command() -> Command {
    const QEMU: &str = "qemu-system-x86_64";
    if !packages::is_there("setpriv") {
        return Command::new(QEMU);
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", QEMU]);
    command
}

/// Reads one serial port to its end.
fn serve(port: Port, listener: &UnixListener, events: &SyncSender<Event>) {
    let Ok((mut stream, _)) = listener.accept() else {
        return;
    };
    if let Ok(keys) = stream.try_clone() {
        let _ = events.send(Event::Open(port, keys));
    }
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if events
            .send(Event::Bytes(port, buffer[..length].to_vec()))
            .is_err()
        {
            return;
        }
    }
    let _ = events.send(Event::Closed);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(system: &str, ports: Vec<u16>) -> String {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let model = system::read(&root, &root.join(system), None).unwrap();
        let machine = Machine {
            model: &model,
            qemu: model.board.qemu.as_ref().unwrap(),
            kernel: "k".into(),
            initrd: Some("a,b".into()),
            command_line: String::new(),
            ports,
            clock: Clock::Counted,
            kvm: None,
        };
        let arguments: Vec<String> = machine
            .arguments(Path::new("/s"))
            .into_iter()
            .map(|argument| argument.into_string().unwrap())
            .collect();
        arguments.join(" ")
    }

    #[test]
    fn arguments_name_every_part() {
        let text = arguments("system.toml", vec![8080]);
        for part in [
            "-m 512 ",
            "-chardev socket,id=com2,path=/s/com2 -serial chardev:com2",
            "hostfwd=tcp:127.0.0.1:8080-:80",
            "-initrd a,,b",
            "-icount shift=0,sleep=off",
            "-device e1000e,netdev=net0",
            "-no-reboot -device amd-iommu,intremap=on",
            "-device isa-debug-exit",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("-append"));
    }

    #[test]
    fn what_kvm_lacks_is_named() {
        let text = check_kvm(Path::new("/no/kvm")).unwrap_err().to_string();
        for words in ["/no/kvm", "No such file", "kvm_intel", "leave --kvm out"] {
            assert!(text.contains(words), "no `{words}` in {text}");
        }
    }

    #[test]
    fn kvm_is_asked_for_what_the_kernel_needs() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let model = system::read(&root, &root.join("system.toml"), None).unwrap();
        let machine = Machine {
            model: &model,
            qemu: model.board.qemu.as_ref().unwrap(),
            kernel: "k".into(),
            initrd: None,
            command_line: String::new(),
            ports: vec![8080],
            clock: Clock::Host,
            kvm: Some(boot::cpu::needed(|option| option == "HUGE_PAGE")),
        };
        let arguments = machine.arguments(Path::new("/s"));
        for part in [
            "kvm,kernel-irqchip=split",
            "max,-arch-capabilities,enforce,+pdpe1gb,+apic",
        ] {
            let is_there = arguments.iter().any(|argument| argument == part);
            assert!(is_there, "{part} in {arguments:?}");
        }
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_named() {
        let folder = |length: usize| PathBuf::from(format!("/{}", "x".repeat(length - 1)));
        // "/control" and the zero at the end.
        let most = 108 - 9;
        assert_eq!(check_sockets(&folder(most)), Ok(()));
        let text = check_sockets(&folder(most + 1)).unwrap_err().to_string();
        assert!(text.contains("108 bytes, and a socket's has 107"), "{text}");
        assert!(text.contains("set TMPDIR"), "{text}");
        // The system reports its own limit.
        let deep = tempfile::tempdir().unwrap();
        let fill = most - deep.path().as_os_str().len() - 1;
        for (more, fits) in [(0, true), (1, false)] {
            let folder = deep.path().join("x".repeat(fill + more));
            std::fs::create_dir(&folder).unwrap();
            let bound = UnixListener::bind(folder.join(CONTROL));
            assert_eq!(bound.is_ok(), fits, "{bound:?}");
            assert_eq!(check_sockets(&folder).is_ok(), fits);
        }
    }

    #[test]
    fn each_network_leads_to_its_own_port() {
        let text = arguments("tests/systems/two-guests.toml", vec![8080, 9000]);
        for part in [
            "-netdev user,id=net0,hostfwd=tcp:127.0.0.1:8080-:80",
            "-netdev user,id=net1,hostfwd=tcp:127.0.0.1:9000-:80",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let text = arguments("tests/systems/nvme.toml", Vec::new());
        assert!(!text.contains("-netdev"), "{text}");
    }
}
