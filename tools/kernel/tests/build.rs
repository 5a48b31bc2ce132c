//! Builds the kernel in both profiles and checks the results.

use kernel::{Config, Profile};
use spec::CpuKind;

fn built(profile: Profile, cpu: CpuKind, folder: &std::path::Path) -> (kernel::Built, usize) {
    let mut steps = 0;
    let built = kernel::build(&Config::x86_64_pc99(profile, cpu), folder, &mut |_| {
        steps += 1
    })
    .unwrap_or_else(|e| panic!("{e}"));
    (built, steps)
}

/// Returns whether `needle` occurs in the file.
fn contains(file: &std::path::Path, needle: &[u8]) -> bool {
    std::fs::read(file)
        .unwrap()
        .windows(needle.len())
        .any(|w| w == needle)
}

#[test]
fn release_build_is_reproducible_incremental_and_silent() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, steps) = built(Profile::Release, CpuKind::HugePages, one.path());
    assert!(steps > 0);
    let (_, again) = built(Profile::Release, CpuKind::HugePages, one.path());
    assert_eq!(again, 0, "an unchanged kernel was built again");
    let (second, _) = built(Profile::Release, CpuKind::HugePages, two.path());
    for (a, b) in [(&first.elf64, &second.elf64), (&first.elf32, &second.elf32)] {
        assert_eq!(std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
    }
    // No printing, so nothing that a guest does can make the kernel print.
    for text in [
        b"Debug halt".as_slice(),
        b"Caught ",
        b"Invocation of invalid cap",
    ] {
        assert!(!contains(&first.elf64, text));
    }
    let folder = one.path().to_str().unwrap();
    assert!(
        !contains(&first.elf64, folder.as_bytes()),
        "the image holds a path"
    );
    assert!(!contains(&first.elf64, b".cargo"), "the image holds a path");
}

#[test]
fn a_changed_option_builds_again() {
    let folder = tempfile::tempdir().unwrap();
    built(Profile::Release, CpuKind::HugePages, folder.path());
    let (debug, steps) = built(Profile::Debug, CpuKind::HugePages, folder.path());
    assert!(steps > 0);
    assert!(contains(&debug.elf64, b"Debug halt"));
}

#[test]
fn a_kernel_for_any_cpu_asks_for_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let (usual, _) = built(Profile::Release, CpuKind::HugePages, folder.path());
    let asks = |built: &kernel::Built| {
        [
            b"Huge page not supported".as_slice(),
            b"fsgsbase instructions",
        ]
        .map(|text| contains(&built.elf64, text))
    };
    assert_eq!(asks(&usual), [true; 2]);
    assert_eq!(usual.label, "5.0.0,bundled");
    let (any, _) = built(Profile::Release, CpuKind::Baseline, folder.path());
    assert_eq!(asks(&any), [false; 2]);
    assert_eq!(any.label, "5.0.0,bundled,baseline");
}

#[test]
fn a_failing_compiler_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::x86_64_pc99(Profile::Release, CpuKind::HugePages);
    // The bootinfo page holds 327 descriptions; the kernel asserts it.
    config
        .options
        .insert("CONFIG_MAX_NUM_BOOTINFO_UNTYPED_CAPS".into(), "400".into());
    let error = kernel::build(&config, folder.path(), &mut |_| ()).unwrap_err();
    assert!(error.what.contains("compile the kernel"), "{error}");
    assert!(error.cause.contains("bi_size"), "{error}");
}
