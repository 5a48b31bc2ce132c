//! Media on machines that the command does not make: QEMU with its firmware, as a PC boots.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::changed::Changed;
use crate::client::Client;
use crate::harness::{
    PATIENCE, Running, finish, free_port, is_bundled, needed, one_machine, vectis,
};

/// What a q35 machine needs beside its disks: this system's function and its IOMMU.
const Q35: &str = "-machine q35 -m 512 -device e1000e,netdev=net0 \
                   -device amd-iommu,intremap=on -global hpet.msi=on";
const SCREEN: &str = "-vga std";
const SERVES: &str = "[web] web: serving on port 80";

/// The images of the project's system, built once.
struct Media {
    iso: PathBuf,
    disk: PathBuf,
}

fn media() -> &'static Media {
    static MEDIA: OnceLock<Media> = OnceLock::new();
    MEDIA.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let media = Media {
            iso: folder.join("boot test.iso"),
            disk: folder.join("boot test.qcow2"),
        };
        let mut build = vectis();
        build.arg("build").arg("--out").arg(folder.join("boot"));
        let end = finish(
            build
                .arg("--iso")
                .arg(&media.iso)
                .arg("--disk")
                .arg(&media.disk),
        );
        assert!(end.status.success(), "{}", end.text);
        media
    })
}

/// Builds the CD of another system for a machine with this IOMMU.
fn cd_of(system: &Path, iommu: &str) -> (TempDir, PathBuf) {
    // Of the caller's own: another test makes one beside it.
    let folder = tempfile::tempdir().expect("a folder");
    let iso = folder.path().join("iso");
    let mut build = vectis();
    build
        .args(["build", "--iommu", iommu, "--system"])
        .arg(system);
    build.arg("--out").arg(folder.path().join("out"));
    let end = finish(build.arg("--iso").arg(&iso));
    assert!(end.status.success(), "{}", end.text);
    (folder, iso)
}

/// Starts a machine with these arguments; COM1 is its output.
fn machine(cpu: &str, arguments: &str, port: u16) -> Command {
    machine_with(cpu, "-serial stdio", arguments, port)
}

/// Starts a machine with these serial ports.
fn machine_with(cpu: &str, serial: &str, arguments: &str, port: u16) -> Command {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-cpu", cpu, "-display", "none", "-nodefaults", "-no-reboot"])
        .args(serial.split_whitespace())
        .arg("-netdev")
        .arg(format!("user,id=net0,hostfwd=tcp:127.0.0.1:{port}-:80"))
        .args(arguments.split_whitespace());
    qemu
}

/// Adds a disk from an image, which stays as it is.
fn drive(qemu: &mut Command, format: &str, image: &Path) {
    let file = image.display().to_string().replace(',', ",,");
    let drive = format!("if=none,id=disk0,format={format},snapshot=on,file={file}");
    qemu.arg("-drive").arg(drive);
}

/// Returns UEFI's firmware: its code, its variables.
fn firmware() -> Option<[&'static str; 2]> {
    const PLACES: [[&str; 2]; 2] = [
        [
            "/usr/share/OVMF/OVMF_CODE.fd",
            "/usr/share/OVMF/OVMF_VARS.fd",
        ],
        [
            "/usr/share/OVMF/OVMF_CODE_4M.fd",
            "/usr/share/OVMF/OVMF_VARS_4M.fd",
        ],
    ];
    PLACES
        .into_iter()
        .find(|files| Path::new(files[0]).is_file())
}

/// Returns what keeps OVMF from reserving memory for sleep, if the kernel reaches into that: it
/// is refused then.
fn awake() -> &'static str {
    if is_bundled() {
        ""
    } else {
        "-global ICH9-LPC.disable_s3=1 -global PIIX4_PM.disable_s3=1"
    }
}

/// Adds UEFI's firmware to a machine.
fn uefi(qemu: &mut Command) {
    let [code, variables] = needed(firmware, &["ovmf"]);
    let flash = "if=pflash,format=raw";
    qemu.arg("-drive")
        .arg(format!("{flash},readonly=on,file={code}"));
    qemu.arg("-drive")
        .arg(format!("{flash},snapshot=on,file={variables}"));
}

/// Waits for the guest, and gets its page. The machine goes on as long as what is returned.
fn serves(qemu: &mut Command, port: u16) -> Running {
    let mut running = Running::start(qemu);
    running.wait_for(|line| line.contains(SERVES));
    let (status, page) = Client::connect(port).request("/").expect("an answer");
    assert_eq!(status, 200, "{}", running.text());
    assert!(page.contains("MSI-X table"), "{page}");
    running
}

#[test]
fn a_cd_serves_from_bios_with_a_screen() {
    let _machine = one_machine();
    let port = free_port();
    let mut qemu = machine("max", &format!("{Q35} {SCREEN}"), port);
    serves(qemu.arg("-cdrom").arg(&media().iso), port);
}

#[test]
fn a_cd_serves_from_uefi_with_a_screen() {
    let _machine = one_machine();
    let port = free_port();
    let mut qemu = machine("max", &format!("{Q35} {SCREEN} {}", awake()), port);
    uefi(&mut qemu);
    serves(qemu.arg("-cdrom").arg(&media().iso), port);
}

#[test]
fn a_disk_serves_as_a_usb_stick_without_a_screen() {
    let _machine = one_machine();
    let awake = "-global ICH9-LPC.disable_s3=1";
    for from_uefi in [false, true] {
        let port = free_port();
        let stick = "-device qemu-xhci -device usb-storage,drive=disk0";
        let mut qemu = machine("max", &format!("{Q35} {awake}"), port);
        if from_uefi {
            uefi(&mut qemu);
        }
        drive(&mut qemu, "qcow2", &media().disk);
        serves(qemu.args(stick.split(' ')), port);
    }
}

#[test]
fn one_cd_serves_on_an_82574l_and_on_virtio() {
    let _machine = one_machine();
    let behind = "-device amd-iommu,intremap=on -global hpet.msi=on";
    let virtio = "-device virtio-net-pci,disable-legacy=on,netdev=net0";
    let system = Path::new("tests/systems/any-nic.toml");
    let (_folder, cd) = cd_of(system, "amd");
    for nic in [
        "-device e1000e,netdev=net0".to_owned(),
        format!("{virtio},iommu_platform=on"),
    ] {
        let port = free_port();
        let arguments = format!("-machine q35 -m 512 {SCREEN} {nic} {behind}");
        let mut qemu = machine("max", &arguments, port);
        serves(qemu.arg("-cdrom").arg(&cd), port);
    }
    // As clouds have it: no IOMMU, and the legacy interface besides.
    let (_folder, cd) = cd_of(system, "none");
    for from_uefi in [false, true] {
        let port = free_port();
        let nic = "-device virtio-net-pci,netdev=net0";
        let arguments = format!("-machine q35 -m 512 {SCREEN} {nic} {}", awake());
        let mut qemu = machine("max", &arguments, port);
        if from_uefi {
            uefi(&mut qemu);
        }
        serves(qemu.arg("-cdrom").arg(&cd), port);
    }
}

#[test]
fn a_cd_is_the_same_if_it_is_built_again() {
    let _machine = one_machine();
    let again = Path::new(env!("CARGO_TARGET_TMPDIR")).join("again.iso");
    let first = std::fs::read(&media().iso).expect("the first");
    let mut build = vectis();
    let end = finish(build.args(["build", "--iso"]).arg(&again));
    assert!(end.status.success(), "{}", end.text);
    let second = std::fs::read(&again).expect("the second");
    assert_eq!(first.len(), second.len());
    let differs = first.iter().zip(&second).position(|(one, two)| one != two);
    assert_eq!(differs, None);
}

#[test]
fn what_the_cpu_lacks_is_said_before_the_kernel_starts() {
    let _machine = one_machine();
    let folder = tempfile::tempdir().expect("a folder");
    let monitor = folder.path().join("monitor");
    let arguments = format!("{Q35} {SCREEN} {}", watched(&monitor));
    let mut qemu = machine("qemu64", &arguments, free_port());
    let mut running = Running::start(qemu.arg("-cdrom").arg(&media().iso));
    running.wait_for(|line| line.contains("boot: fatal: the kernel would not start"));
    let text = running.text();
    let screen = points(&monitor, folder.path());
    for words in [
        "boot: this CPU lacks what the kernel needs:",
        "pages of 1 GiB (pdpe1gb): Intel's Xeons since 2010",
        "instructions for the FS and GS base (fsgsbase): Intel's CPUs since 2012",
    ] {
        assert!(text.contains(words), "no `{words}` in\n{text}");
        let start = &words[..40];
        assert!(screen.contains(start), "no `{start}` in\n{screen}");
    }
}

/// Asks QEMU's monitor behind a socket.
fn ask(socket: &Path, question: &str) -> String {
    const PROMPT: &str = "(qemu) ";
    let mut monitor = UnixStream::connect(socket).expect("QEMU's monitor");
    let bound = monitor.set_read_timeout(Some(PATIENCE));
    bound.expect("a time that is not 0");
    let mut answer = String::new();
    for text in ["", question] {
        if !text.is_empty() {
            answer.clear();
            writeln!(monitor, "{text}").expect("it reads");
        }
        let mut byte = [0];
        while !answer.ends_with(PROMPT) {
            monitor.read_exact(&mut byte).expect("it answers");
            answer.push(byte[0].into());
        }
    }
    answer
}

/// Returns the table MCFG in a machine's memory from `start` on: its address, and its bytes.
fn mcfg(memory: &[u8], start: usize) -> (usize, [u8; 60]) {
    let mut tables = memory.windows(60).enumerate().filter(|(_, table)| {
        let sum = table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        table.starts_with(b"MCFG\x3c\0\0\0") && sum == 0
    });
    let (at, table) = tables.next().expect("the table");
    (start + at, table.try_into().expect("60 bytes"))
}

/// One image on three machines: from BIOS, from UEFI, and where the configuration window is
/// elsewhere. QEMU's firmwares all put it at the same place: there GRUB moves it, and writes
/// its new address into the table.
#[test]
fn an_image_for_any_pc_takes_the_places_of_each() {
    const TOP: usize = 0x1fe0_0000;
    const MOVED: u32 = 0xe000_0000;
    let _machine = one_machine();
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let system = Changed::new("any-pc", "system.board = \"auto\"");
    let mut build = vectis();
    build.arg("build").arg("--system").arg(&system.0);
    build.arg("--out").arg(path("out"));
    build.arg("--iso").arg(path("any.iso"));
    let root = path("cd");
    fs::create_dir_all(root.join("boot/grub")).expect("the folder is ours");
    let end = finish(build.arg("--boot").arg(root.join("boot.elf")));
    assert!(end.status.success(), "{}", end.text);

    let port = free_port();
    let mut qemu = machine("max", &format!("{Q35} {SCREEN} {}", awake()), port);
    uefi(&mut qemu);
    serves(qemu.arg("-cdrom").arg(path("any.iso")), port);

    let monitor = path("monitor");
    let watched = format!("{Q35} {SCREEN} {}", watched(&monitor));
    let port = free_port();
    // The first has neither pages of 1 GiB nor FSGSBASE; which an installed kernel needs.
    let cpu = if is_bundled() { "qemu64" } else { "max" };
    let mut qemu = machine(cpu, &watched, port);
    let running = serves(qemu.arg("-cdrom").arg(path("any.iso")), port);
    let dump = path("memory");
    let save = format!("pmemsave {TOP:#x} 0x200000 \"{}\"", dump.display());
    ask(&monitor, &save);
    drop(running);
    let (at, table) = mcfg(&fs::read(&dump).expect("QEMU wrote it"), TOP);
    let base = u32::from_le_bytes(table[44..48].try_into().expect("4 bytes"));
    assert_eq!(base, 0xb000_0000);

    let sums = [base, MOVED].map(|base| base.to_le_bytes().into_iter().fold(0, u8::wrapping_add));
    let sum = table[9].wrapping_add(sums[0]).wrapping_sub(sums[1]);
    let menu = format!(
        "setpci -s 00:00.0 60.l={:x}\nwrite_dword {:#x} {MOVED:#x}\nwrite_byte {:#x} {sum:#x}\n\
         multiboot2 /boot.elf\nboot\n",
        MOVED | 1,
        at + 44,
        at + 9
    );
    fs::write(root.join("boot/grub/grub.cfg"), menu).expect("the folder is ours");
    let mut rescue = Command::new("grub-mkrescue");
    let end = finish(rescue.arg("-o").arg(path("moved.iso")).arg(&root));
    assert!(end.status.success(), "{}", end.text);
    let port = free_port();
    let mut qemu = machine("max", &watched, port);
    let running = serves(qemu.arg("-cdrom").arg(path("moved.iso")), port);
    let map = ask(&monitor, "info mtree -f");
    let window = format!("{MOVED:016x}-00000000efffffff (prio 0, i/o): pcie-mmcfg-mmio");
    assert!(map.contains(&window), "{map}");
    drop(running);
}

/// One image on machines without an IOMMU: the HPET is the clock where it raises a pin, else
/// the 8254; configuration space is reached by a window where there is one, else by ports, as on
/// QEMU's `pc`, whose HPET raises pin 2 only.
/// One image for what a PC may have: a window for configuration space or ports, an HPET or
/// the 8254, either NIC, either firmware, little memory or much, a second CPU.
#[test]
fn an_image_for_any_pc_takes_what_each_has() {
    let _machine = one_machine();
    let keys = "system.board = \"auto\"";
    let system = Changed::of("tests/systems/any-nic.toml", "any-pc-any-nic", keys);
    let (_folder, cd) = cd_of(&system.0, "none");
    let (e1000e, virtio) = ("e1000e", "virtio-net-pci");
    for (machine_of, nic, from_uefi) in [
        ("q35 -m 128", e1000e, false),
        ("q35,hpet=off -m 512", e1000e, false),
        ("q35,hpet=off -m 8G -smp 2", virtio, false),
        ("q35 -m 512", virtio, true),
        ("pc -m 512", e1000e, false),
        ("pc -m 512", virtio, false),
        ("pc -m 512", virtio, true),
    ] {
        let port = free_port();
        let arguments = format!("-machine {machine_of} -device {nic},netdev=net0 {SCREEN}");
        let mut qemu = machine("max", &format!("{arguments} {}", awake()), port);
        if from_uefi {
            uefi(&mut qemu);
        }
        serves(qemu.arg("-cdrom").arg(&cd), port);
    }
    // The firmware's console is COM2: so is this one's, and COM1 says so before the logs.
    let folder = tempfile::tempdir().expect("a folder");
    let (table, com1) = (folder.path().join("spcr"), folder.path().join("com1"));
    fs::write(&table, spcr(0x2f8)).expect("the folder is ours");
    let port = free_port();
    let serial = format!("-serial file:{} -serial stdio", com1.display());
    let arguments = format!(
        "-machine q35 -m 128 -device {e1000e},netdev=net0 -acpitable file={}",
        table.display()
    );
    let mut qemu = machine_with("max", &serial, &arguments, port);
    let running = serves(qemu.arg("-cdrom").arg(&cd), port);
    let (com1, com2) = (fs::read(&com1).expect("QEMU wrote it"), running.text());
    let com1 = String::from_utf8_lossy(&com1);
    let words = "init: the firmware's console is at 0x2f8 (ACPI, SPCR): text is there";
    for text in [&*com1, &com2] {
        assert!(text.contains(words), "no `{words}` in\n{text}");
    }
    assert!(!com1.contains(SERVES), "{com1}");
}

/// Returns a table SPCR that names a 16550 at these ports (Serial Port Console Redirection Table
/// 1.07). QEMU sums it.
fn spcr(port: u64) -> [u8; 80] {
    let mut table = [0; 80];
    table[..4].copy_from_slice(b"SPCR");
    table[4] = 80;
    // The revision, and the port as a generic address: ports, of 8 bits, read by bytes.
    table[8] = 2;
    table[40..44].copy_from_slice(&[1, 8, 0, 1]);
    table[44..52].copy_from_slice(&port.to_le_bytes());
    table
}

#[test]
fn what_any_pc_needs_and_this_one_lacks_is_said() {
    let _machine = one_machine();
    let folder = tempfile::tempdir().expect("a folder");
    let iso = folder.path().join("any.iso");
    let system = Changed::new("any-pc", "system.board = \"auto\"");
    let mut build = vectis();
    build.arg("build").arg("--system").arg(&system.0);
    build.arg("--out").arg(folder.path().join("out"));
    let end = finish(build.arg("--iso").arg(&iso));
    assert!(end.status.success(), "{}", end.text);
    let monitor = folder.path().join("monitor");
    let arguments = format!("{Q35} -machine hpet=off {SCREEN} {}", watched(&monitor));
    let mut qemu = machine("max", &arguments, free_port());
    let mut running = Running::start(qemu.arg("-cdrom").arg(&iso));
    running.wait_for(|line| line.contains("init: fatal: "));
    let text = running.text();
    let words = "init: fatal: this machine has no HPET (ACPI has no table HPET), and this image \
                 has no other clock";
    assert!(text.contains(words), "no `{words}` in\n{text}");
    let screen = points(&monitor, folder.path());
    assert!(screen.contains(&words[..70]), "no `{words}` in\n{screen}");
}

/// A framebuffer, as GRUB gives one from either firmware, and what stands on it: read by the
/// letters' points in a picture of the screen. On QEMU's VGA and where there is no VGA at all.
#[test]
fn a_framebuffer_shows_why_the_boot_ends() {
    let _machine = one_machine();
    let folder = tempfile::tempdir().expect("a folder");
    let monitor = folder.path().join("monitor");
    for (from_uefi, display) in [
        (false, SCREEN),
        (true, SCREEN),
        (true, "-vga none -device bochs-display"),
    ] {
        let arguments = format!("{Q35} -machine hpet=off {display} {}", awake());
        let arguments = format!("{arguments} {}", watched(&monitor));
        let mut qemu = machine("max", &arguments, free_port());
        if from_uefi {
            uefi(&mut qemu);
        }
        let mut running = Running::start(qemu.arg("-cdrom").arg(&media().iso));
        running.wait_for(|line| line.contains("init: fatal: "));
        let screen = points(&monitor, folder.path());
        drop(running);
        // As long as the rows are, a word may go on in the next one.
        let text = screen.replace('\n', "");
        let words = "init: fatal: this machine is not the board: the board has an HPET at \
                     0xfed00000";
        assert!(
            text.contains(words),
            "no `{words}` with {display} in\n{screen}"
        );
        let words = "ACPI has no table HPET";
        assert!(
            text.contains(words),
            "no `{words}` with {display} in\n{screen}"
        );
    }
}

/// The VGA itself is a guest's: init says so on it, and gives its memory back, which the guest's
/// vmm then has.
#[test]
fn a_framebuffer_that_a_guest_has_is_left_to_it() {
    let _machine = one_machine();
    let folder = tempfile::tempdir().expect("a folder");
    let monitor = folder.path().join("monitor");
    let gpu = "device.gpu0 = { class = \"030000\", dma = \"trusted\", reset = \"optional\" }\n\
               guest.web.devices = [\"nic0\", \"gpu0\"]";
    let (_folder, cd) = cd_of(&Changed::new("gpu", gpu).0, "amd");
    let port = free_port();
    let arguments = format!("{Q35} {SCREEN} {} {}", awake(), watched(&monitor));
    let mut qemu = machine("max", &arguments, port);
    uefi(&mut qemu);
    let running = serves(qemu.arg("-cdrom").arg(&cd), port);
    let screen = points(&monitor, folder.path());
    let words = "init: this screen is of device gpu0, which a guest has: look at COM1";
    for text in [screen, running.text()] {
        let last = text.lines().any(|row| row.starts_with(words));
        assert!(last, "no `{words}` in\n{text}");
    }
}

#[test]
fn a_framebuffer_shows_what_was_found() {
    let _machine = one_machine();
    let folder = tempfile::tempdir().expect("a folder");
    let (iso, monitor) = (folder.path().join("iso"), folder.path().join("monitor"));
    let end = finish(vectis().args(["probe", "--iso"]).arg(&iso));
    assert!(end.status.success(), "{}", end.text);
    let arguments = format!("{Q35} {SCREEN} {} {}", awake(), watched(&monitor));
    let mut qemu = machine("max", &arguments, free_port());
    uefi(&mut qemu);
    let mut running = Running::start(qemu.arg("-cdrom").arg(&iso));
    running.wait_for(|line| line.contains("# verdict: "));
    let screen = points(&monitor, folder.path());
    for line in ["#   MSI-X: 5 entries", "# verdict: a system runs here; "] {
        let there = screen.lines().any(|row| row.starts_with(line));
        assert!(there, "no `{line}` in\n{screen}");
    }
}

/// Without a boot loader the screen shows text, as the BIOS has set it.
#[test]
fn a_screen_of_text_shows_why_the_boot_ends() {
    let _machine = one_machine();
    media();
    let folder = tempfile::tempdir().expect("a folder");
    let monitor = folder.path().join("monitor");
    let arguments = format!("{Q35} -machine hpet=off {SCREEN} {}", watched(&monitor));
    let mut qemu = machine("max", &arguments, free_port());
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("boot");
    let line = fs::read_to_string(built.join("command-line")).expect("it was built");
    qemu.arg("-kernel").arg(built.join("kernel.elf"));
    qemu.arg("-initrd").arg(built.join("init.elf"));
    let mut running = Running::start(qemu.args(["-append", line.trim()]));
    running.wait_for(|line| line.contains("init: fatal: "));
    let screen = letters(&monitor, folder.path());
    let words = "init: fatal: this machine is not the board: the board has an HPET";
    let there = screen.lines().any(|row| row.starts_with(words));
    assert!(there, "no `{words}` in\n{screen}");
}

/// Returns QEMU's arguments for a monitor behind a socket.
fn watched(socket: &Path) -> String {
    format!("-monitor unix:{},server=on,wait=off", socket.display())
}

/// Returns the rows of a screen of 80 columns, by its memory.
fn letters(monitor: &Path, folder: &Path) -> String {
    let dump = folder.join("screen");
    ask(
        monitor,
        &format!("pmemsave 0xb8000 4000 \"{}\"", dump.display()),
    );
    let bytes = fs::read(&dump).expect("QEMU wrote it");
    let cells: Vec<char> = bytes.chunks(2).map(|cell| cell[0].into()).collect();
    let rows = cells.chunks(80).map(|row| row.iter().collect::<String>());
    rows.map(|row| row.trim_end().to_owned() + "\n").collect()
}

/// Returns the rows of a framebuffer, by a picture of it: each letter is the one whose points
/// these are, and a dot where there is none.
fn points(monitor: &Path, folder: &Path) -> String {
    let file = folder.join("picture");
    ask(monitor, &format!("screendump \"{}\"", file.display()));
    let bytes = fs::read(&file).expect("QEMU wrote it");
    // A PPM: magic, width and height, the highest value, each on a line; then three bytes for
    // each point.
    let mut parts = bytes.splitn(4, |byte| *byte == b'\n');
    let mut part = || parts.next().expect("a part of the picture");
    assert_eq!(part(), b"P6");
    let size = String::from_utf8_lossy(part()).into_owned();
    let size: Vec<u32> = size
        .split(' ')
        .map(|n| n.parse().expect("a size"))
        .collect();
    let (_, picture) = (part(), part());
    let field = |first| screen::Field { first, bits: 8 };
    let frame = screen::Framebuffer {
        pitch: 4 * size[0],
        width: size[0],
        height: size[1],
        bits: 32,
        colours: [field(16), field(8), field(0)],
        ..screen::Framebuffer::none()
    };
    let canvas = frame.canvas().expect("a screen that is large enough");
    let lit = |at: u64| picture[at as usize / 4 * 3] > 0x40;
    let mut text = String::new();
    for cell in 0..screen::COLUMNS * screen::ROWS {
        let is = |letter: &u8| {
            let mut same = true;
            canvas.draw(cell, *letter, |at, points| {
                same &= (points != screen::Points::Dword(0)) == lit(at);
            });
            same
        };
        let letter = (b' '..=b'~').find(is).unwrap_or(b'.');
        text.push(letter.into());
        if (cell + 1) % screen::COLUMNS == 0 {
            text.truncate(text.trim_end_matches(' ').len());
            text.push('\n');
        }
    }
    text
}
