//! Images for Solo5's target hvt beside their shim: every hypercall, good and bad.

use std::fs;
use std::path::Path;

use crate::changed::Changed;
use crate::harness::{Finished, Running, finish, one_machine, root, run_of, vectis};
use crate::hostile::ATTACKS;

/// Bytes of the disk.
const DISK: u64 = 1 << 20;

/// A disk of zeros, and the system with it and these words on the image's command line.
struct Solo5 {
    system: Changed,
    _folder: tempfile::TempDir,
    disk: std::path::PathBuf,
}

impl Solo5 {
    fn new(name: &str, words: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = folder.path().join("disk.img");
        let file = fs::File::create(&disk).expect("a file");
        file.set_len(DISK).expect("room on the disk");
        let drive = format!("if=none,id=disk0,format=raw,file={}", disk.display());
        let keys =
            format!("device.disk0.qemu-drives = [{drive:?}]\nguest.site.command-line = {words:?}");
        Self {
            system: Changed::of("tests/systems/solo5.toml", name, &keys),
            _folder: folder,
            disk,
        }
    }

    fn also(self, keys: &str) -> Self {
        Self {
            system: self.system.also(keys),
            ..self
        }
    }

    /// Builds it, which fails. Returns what is said.
    fn refused(&self) -> String {
        let mut build = vectis();
        let end = finish(build.args(["build", "--system"]).arg(&self.system.0));
        assert!(!end.status.success(), "{}", end.text);
        end.text
    }
}

/// Returns the image's lines of a run that ended with this status of `vectis`.
fn ran(end: &Finished, status: i32) -> &str {
    assert_eq!(end.status.code(), Some(status), "{}", end.text);
    assert!(!end.text.contains("] not ok"), "{}", end.text);
    &end.text
}

#[test]
fn every_hypercall_does_what_the_abi_says() {
    let _machine = one_machine();
    let words = "registers thread time block net=400 net2=100 exit=0";
    let solo5 = Solo5::new("solo5-all", words);
    let end = solo5.system.run();
    let text = ran(&end, 0);
    assert!(text.contains("hvt: 24 MiB, \"registers thread"), "{text}");
    for word in [
        "boot information",
        "registers",
        "thread",
        "time",
        "block",
        "net",
        "net2",
    ] {
        assert!(text.contains(&format!("] ok {word}")), "{word}: {text}");
    }
    assert!(text.contains("# 400 of 400 echoes"), "{text}");
    assert!(text.contains("# 100 of 100 echoes"), "{text}");
    for nic in ["nic0", "nic1"] {
        let confined = text
            .lines()
            .any(|line| line.contains(nic) && line.contains("reaches its guest's memory only"));
        assert!(confined, "{nic}: {text}");
    }
    // The last block, and only what was written, is in the file.
    let disk = fs::read(&solo5.disk).expect("the disk");
    assert_eq!(disk.len() as u64, DISK);
    let last = &disk[disk.len() - 512..];
    let expected: Vec<u8> = (0..512).map(|at| (at / 3 + 34) as u8).collect();
    assert_eq!(last, expected);
    assert!(disk[..3 * 512].iter().all(|&byte| byte == 0));
}

#[test]
fn virtio_stands_for_a_network_and_a_disk() {
    let _machine = one_machine();
    let virtio = "device.nic1.match = \"1af4:1041\"
         device.nic1.dma = \"trusted\"
         device.nic1.qemu = [\"virtio-net-pci,disable-legacy=on,iommu_platform=on,netdev=net1\"]
         device.disk0.match = \"1af4:1042\"
         device.disk0.qemu = [\"virtio-blk-pci,disable-legacy=on,iommu_platform=on,drive=disk0\"]";
    let solo5 = Solo5::new("solo5-virtio", "block net=100 net2=400 exit=0").also(virtio);
    let end = solo5.system.run();
    let text = ran(&end, 0);
    for word in ["block", "net", "net2"] {
        assert!(text.contains(&format!("] ok {word}")), "{word}: {text}");
    }
    assert!(text.contains("# 400 of 400 echoes"), "{text}");
    let disk = fs::read(&solo5.disk).expect("the disk");
    let expected: Vec<u8> = (0..512).map(|at| (at / 3 + 34) as u8).collect();
    assert_eq!(disk[disk.len() - 512..], expected);
}

#[test]
fn a_steady_network_calls_no_component() {
    let _machine = one_machine();
    let solo5 = Solo5::new("solo5-steady", "net=50 net=100000");
    let mut system = Running::start(&mut run_of(&solo5.system.0, 300));
    system.wait_for(|line| line.contains("# 50 of 50 echoes"));
    let of = |system: &mut Running| {
        let counters = system.counters();
        let calls = ["pci-config", "msix", "irq-router", "iommu"]
            .map(|component| counters[&format!("{component}.calls")]);
        (calls, counters["vmm.shim_calls"], counters["vmm.events"])
    };
    let before = of(&mut system);
    let mut after = of(&mut system);
    while after.2 < before.2 + 1000 {
        after = of(&mut system);
    }
    // Nor is a hypercall trapped.
    assert_eq!((after.0, after.1), (before.0, before.1));
}

#[test]
fn components_that_crash_leave_the_network_going() {
    let _machine = one_machine();
    let solo5 = Solo5::new("solo5-crash", "net=50 net=20000 block exit=0").also(
        "component.irq-router.on-fault = \"restart\"
         component.msix.on-fault = \"restart\"
         component.pci-config.on-fault = \"restart\"",
    );
    let mut run = run_of(&solo5.system.0, 300);
    let mut system = Running::start(run.args(["--inject-fault", "msix"]));
    system.wait_for(|line| line.contains("# 50 of 50 echoes"));
    // In the order of the system's file these are the third to the sixth.
    for (key, name) in [
        ('3', "irq-router"),
        ('4', "msix"),
        ('5', "pci-config"),
        ('6', "iommu"),
    ] {
        system.type_line(&format!("F{key}"));
        system.wait_for(|line| line.contains(&format!("{name} restarted, generation 1")));
    }
    system.wait_for(|line| line.contains("# 20000 of 20000 echoes"));
    system.wait_for(|line| line.contains("] ok block"));
    assert!(system.wait().success(), "{}", system.text());
}

#[test]
fn bad_arguments_are_refused_and_all_goes_on() {
    let _machine = one_machine();
    let end = Solo5::new("solo5-hostile", "hostile net=10 hostile")
        .system
        .run();
    let text = ran(&end, 0);
    assert_eq!(text.matches("] ok hostile").count(), 2, "{text}");
    let report = "solo5: hypercall 1 with its argument at 0x0";
    assert!(text.contains(report), "{text}");
}

#[test]
fn exit_statuses_and_exceptions_are_told_apart() {
    let _machine = one_machine();
    let status = Solo5::new("solo5-exit", "exit=7").system.run();
    let text = ran(&status, 10);
    assert!(text.contains("0x107"), "{text}");
    let undefined = Solo5::new("solo5-undefined", "net=3 undefined")
        .system
        .run();
    let text = ran(&undefined, 10);
    assert!(text.contains("exception 6 code 0x0 rip 0x1"), "{text}");
    assert!(text.contains("0x1ff"), "{text}");
    // Above RAM: the image's own handler, on its own stack, has the address.
    let fault = Solo5::new("solo5-fault", "fault=0x200000000").system.run();
    let text = ran(&fault, 10);
    assert!(
        text.contains("exception 14") && text.contains("cr2 0x200000000"),
        "{text}"
    );
}

#[test]
fn an_image_starts_again_with_clean_functions() {
    let _machine = one_machine();
    let solo5 =
        Solo5::new("solo5-restart", "block net=5 net2=5").also("guest.site.on-exit = \"restart\"");
    let mut system = Running::start(&mut run_of(&solo5.system.0, 300));
    for _ in 0..3 {
        system.wait_for_all(&[
            "# disk of 1048576 bytes",
            "] ok block",
            "] ok net2",
            "guest finished: restart",
        ]);
    }
}

#[test]
fn devices_without_a_partner_are_errors_of_the_build() {
    let _machine = one_machine();
    // A key cannot be taken away: another file without it.
    let folder = tempfile::tempdir().expect("a folder");
    let text = fs::read_to_string(root().join("tests/systems/solo5.toml")).expect("the file");
    let base = root().join("tests/systems/base.toml");
    let text = text
        .replace(
            "\"base.toml\"",
            &format!("{:?}", base.display().to_string()),
        )
        .replace("block.storage = \"disk0\"\n", "");
    let path = folder.path().join("system.toml");
    fs::write(&path, &text).expect("a file");
    let missing = build_of(&path);
    let expected = "its manifest has block.storage, and no function stands for it";
    assert!(missing.contains(expected), "{missing}");
    let line = text.lines().position(|line| line == "[guest.site.solo5]");
    let place = format!("system.toml:{}:", line.expect("the table") + 1);
    assert!(missing.contains(&place), "{missing}");
    let more = Solo5::new("solo5-more", "").also(
        "device.nic2 = { match = \"8086:10d3\" }
         guest.site.devices = [\"nic0\", \"nic1\", \"disk0\", \"nic2\"]
         guest.site.solo5.net.third = \"nic2\"",
    );
    let more = more.refused();
    let expected = "its manifest has no net.third, but net.service, block.storage, net.management";
    assert!(more.contains(expected), "{more}");
}

fn build_of(system: &Path) -> String {
    let end = finish(vectis().args(["build", "--system"]).arg(system));
    assert!(!end.status.success(), "{}", end.text);
    end.text
}

#[test]
fn an_image_that_has_no_room_beside_its_shim_is_refused() {
    let _machine = one_machine();
    let small = Solo5::new("solo5-small", "").also("guest.site.memory = \"8M\"");
    let small = small.refused();
    assert!(
        small.contains("takes 8 MiB, but the guest has 8 MiB"),
        "{small}"
    );
    let elsewhere = Solo5::new("solo5-elsewhere", "").also("guest.site.address = 0x200000");
    let elsewhere = elsewhere.refused();
    assert!(
        elsewhere.contains("memory from address 0 on"),
        "{elsewhere}"
    );
    let plain = Solo5::new("solo5-plain", "").also("guest.site.image = \"guests/web\"");
    let plain = plain.refused();
    assert!(plain.contains("its image is no Solo5 hvt image"), "{plain}");
}

#[test]
fn a_function_of_the_wrong_kind_ends_the_guest() {
    let _machine = one_machine();
    let swapped = Solo5::new("solo5-kind", "").also(
        "guest.site.solo5.net.service = \"disk0\"
         guest.site.solo5.block.storage = \"nic0\"",
    );
    let end = swapped.system.run();
    let text = ran(&end, 10);
    let expected = "device service of the image's manifest: function 00:03.0 is 1b36:0010 of \
                    class 010802, not an 82574L";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn what_another_guest_attacks_leaves_an_image_alone() {
    let _machine = one_machine();
    let system = Changed::of(
        "tests/systems/soak-solo5.toml",
        "solo5-attacked",
        &format!(
            "guest.hostile.command-line = \"attack={} exit=stay\"
             guest.hostile.on-exit = \"halt\"
             guest.site.command-line = \"registers thread time net=5000 net2=500\"",
            ATTACKS.join(",")
        ),
    );
    let mut running = Running::start(&mut run_of(&system.0, 600));
    running.wait_for(|line| line.contains("# hostile: pass"));
    // From its start to its end once more, after the attacks.
    running.wait_for(|line| line.contains("] ok registers"));
    running.wait_for(|line| line.contains("] ok net2"));
    let text = running.text();
    assert!(!text.contains("] not ok"), "{text}");
    assert!(text.contains("# 5000 of 5000 echoes"), "{text}");
}
