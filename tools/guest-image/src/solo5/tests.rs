use ::solo5::manifest::{BadManifest, Entry};

use super::*;
use crate::{Kind as ImageKind, prepare};

/// Returns an hvt image at `address` with this manifest, which may be none.
fn image(address: u64, manifest: Option<&[u8]>) -> Vec<u8> {
    let mut file = system::elf_file(address, &[]);
    let mut notes = note(
        0x3149_4241,
        &[1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    );
    if let Some(manifest) = manifest {
        notes.extend(note(MFT1, &[&[0; PADDING], manifest].concat()));
    }
    // One header for memory and one for notes, which begin where the headers end.
    file.truncate(64);
    file[56] = 2;
    for (kind, address, size) in [(1_u32, address, 0x1000), (4, 0, notes.len() as u64)] {
        file.extend(kind.to_le_bytes());
        file.extend(5_u32.to_le_bytes());
        let (offset, bytes) = (64 + 2 * 56, notes.len() as u64);
        for word in [offset, address, address, bytes, size.max(bytes), 4] {
            file.extend(word.to_le_bytes());
        }
    }
    file.extend(notes);
    file
}

fn note(kind: u32, contents: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    for word in [6, contents.len() as u32, kind] {
        note.extend(word.to_le_bytes());
    }
    note.extend(b"Solo5\0\0\0");
    note.extend(contents);
    note
}

fn manifest(devices: &[(&str, Kind)]) -> Vec<u8> {
    let mut bytes = 1_u32.to_le_bytes().to_vec();
    bytes.extend((devices.len() as u32 + 1).to_le_bytes());
    bytes.extend(Entry::reserved().as_bytes());
    for (name, kind) in devices {
        bytes.extend(Entry::new(name, *kind).as_bytes());
    }
    bytes
}

fn function(name: &'static str, kind: Solo5Kind, function: u16) -> Solo5Function<'static> {
    Solo5Function {
        name,
        kind,
        function,
        place: "system.toml:7:1",
    }
}

fn guest(functions: Option<Vec<Solo5Function<'_>>>) -> Guest<'_> {
    Guest {
        ram: 0..32 << 20,
        name: "image",
        command_line: "--hello",
        pc: false,
        rewritten: false,
        boot: system::Boot::Auto,
        modules: Vec::new(),
        solo5: functions,
        place: "system.toml:5:1",
    }
}

const BOTH: [(&str, Kind); 2] = [("service", Kind::Net), ("storage", Kind::Block)];

fn payload_of(file: &[u8], guest: &Guest<'_>) -> Result<Vec<u8>, String> {
    let image = Foreign::from_elf(file).unwrap();
    payload(file, &image, guest).map_err(|e| format!("{} / {}", e.cause, e.help))
}

#[test]
fn each_entry_gets_its_function() {
    let bytes = manifest(&BOTH);
    let file = image(IMAGE_START, Some(&bytes));
    let functions = vec![
        function("storage", Solo5Kind::Block, 0x20),
        function("service", Solo5Kind::Net, 0x18),
    ];
    let payload = payload_of(&file, &guest(Some(functions))).unwrap();
    let (devices, rest) = payload.split_at(size_of::<Solo5Devices>());
    let mut expected = Solo5Devices {
        functions: [NO_DEVICE; ENTRIES],
    };
    expected.functions[1] = 0x18;
    expected.functions[2] = 0x20;
    assert_eq!(devices, expected.as_bytes());
    assert_eq!(rest, bytes);
    let none = manifest(&[]);
    assert!(payload_of(&image(IMAGE_START, Some(&none)), &guest(None)).is_ok());
}

#[test]
fn devices_that_have_no_partner_are_errors() {
    let file = image(IMAGE_START, Some(&manifest(&BOTH)));
    let net = function("service", Solo5Kind::Net, 0x18);
    let block = function("storage", Solo5Kind::Block, 0x20);
    let missing = payload_of(&file, &guest(Some(vec![net]))).unwrap_err();
    assert!(missing.contains("block.storage"), "{missing}");
    assert!(missing.contains("system.toml:5:1"), "{missing}");
    let none = payload_of(&file, &guest(None)).unwrap_err();
    assert!(
        none.contains("add `solo5.net.service = \"DEVICE\"`"),
        "{none}"
    );
    let more = function("other", Solo5Kind::Net, 0x28);
    let more = payload_of(&file, &guest(Some(vec![net, block, more]))).unwrap_err();
    let expected = "system.toml:7:1: its manifest has no net.other, but net.service, block.storage";
    assert!(more.contains(expected), "{more}");
    // The right name with the wrong kind.
    let kind = function("storage", Solo5Kind::Net, 0x20);
    let kind = payload_of(&file, &guest(Some(vec![net, kind]))).unwrap_err();
    assert!(kind.contains("block.storage, and no function"), "{kind}");
    let many: Vec<_> = ["a", "b", "c", "d", "e"]
        .map(|name| (name, Kind::Net))
        .into();
    let functions = ["a", "b", "c", "d", "e"].map(|name| function(name, Solo5Kind::Net, 1));
    let many = image(IMAGE_START, Some(&manifest(&many)));
    let many = payload_of(&many, &guest(Some(functions.into()))).unwrap_err();
    assert!(many.contains("5 devices of a kind"), "{many}");
}

#[test]
fn broken_images_are_errors() {
    let none = payload_of(&image(IMAGE_START, None), &guest(None)).unwrap_err();
    assert!(none.contains("no manifest"), "{none}");
    // Notes whose lengths lead nowhere.
    for at in [0, 4, 36, 40] {
        let mut file = image(IMAGE_START, Some(&manifest(&BOTH)));
        file[64 + 2 * 56 + at..][..4].fill(0xff);
        let none = payload_of(&file, &guest(None)).unwrap_err();
        assert!(none.contains("no manifest"), "{none}");
    }
    let mut bytes = manifest(&BOTH);
    bytes[4..8].fill(0xff);
    let huge = payload_of(&image(IMAGE_START, Some(&bytes)), &guest(None)).unwrap_err();
    let expected = format!("{:?}", BadManifest::Entries(u32::MAX));
    assert!(huge.contains(&expected), "{huge}");
    let good = manifest(&[]);
    let low = payload_of(&image(0x2_0000, Some(&good)), &guest(None)).unwrap_err();
    assert!(low.contains("begins at 0x20000"), "{low}");
    let elsewhere = Guest {
        ram: 0x200_0000..0x400_0000,
        ..guest(None)
    };
    let elsewhere = payload_of(&image(IMAGE_START, Some(&good)), &elsewhere).unwrap_err();
    assert!(elsewhere.contains("`address = 0`"), "{elsewhere}");
}

#[test]
fn the_whole_image_has_a_shim() {
    let file = image(IMAGE_START, Some(&manifest(&[])));
    let kind = ImageKind::of(&file);
    assert_eq!(kind.shim(), Some("solo5"));
    let entry = (24 << 20) + IMAGE_START;
    let segment = system::Segment {
        address: entry,
        size: 0x1000,
        bytes: vec![0x90; 16],
        writable: false,
        executable: true,
    };
    let shim = system::elf_file(entry, &[segment]);
    let whole = prepare(file, &guest(None), Some(&shim)).unwrap();
    let whole = Foreign::from_elf(&whole).unwrap();
    assert_eq!((whole.entry, whole.segments.len()), (entry, 3));
    let newer = image(IMAGE_START, Some(&manifest(&[])));
    let mut newer = newer;
    // The version in the first note.
    newer[64 + 2 * 56 + 20 + 4] = 3;
    assert_eq!(ImageKind::of(&newer).shim(), None);
    assert!(prepare(newer, &guest(None), None).is_err());
}

#[test]
fn solo5_keys_are_for_solo5_images() {
    let mut file = image(0x20_0000, None);
    // No note any more: a plain guest.
    file[64 + 56] = 0;
    let error = prepare(file, &guest(Some(Vec::new())), None).unwrap_err();
    assert!(error.cause.contains("system.toml:5:1"), "{error:?}");
}
