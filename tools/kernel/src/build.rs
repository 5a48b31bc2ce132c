//! Compiles and links the kernel.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use spec::CpuKind;

use crate::edits::{EDITS, Edited, edited};
use crate::headers::{header_name, kernel_headers, write};
use crate::sources::{ASM, C, C_DEBUG, INCLUDES, LINKER_SCRIPT};
use crate::{Config, Entry, Error, Profile, Source, elf32, locate, mask};

/// A built kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The linked 64-bit file, for debuggers and symbol lookup.
    pub elf64: PathBuf,
    /// The 32-bit file for multiboot loaders.
    pub elf32: PathBuf,
    /// The options it was built with.
    pub options: BTreeMap<String, String>,
    /// What stands for it in lists: words and numbers, with commas between them.
    pub label: String,
    /// The file that it was taken from; `None` for the bundled kernel.
    pub installed: Option<PathBuf>,
    /// Which of a guest's flags it runs with.
    pub entry: Entry,
}

/// Compiler flags of every file. Beside the kernel's own choices (C99,
/// freestanding, kernel code model, no vector registers) these switch off the
/// defaults that distributions add, and keep paths out of the result.
const FLAGS: &[&str] = &[
    "-std=c99",
    "-O2",
    "-m64",
    "-ffreestanding",
    "-nostdinc",
    "-nostdlib",
    "-mcmodel=kernel",
    "-mno-mmx",
    "-mno-sse",
    "-mno-sse2",
    "-mno-3dnow",
    "-mno-red-zone",
    "-fno-asynchronous-unwind-tables",
    "-fno-pic",
    "-fno-pie",
    "-fno-stack-protector",
    "-fcf-protection=none",
    "-Wall",
    "-DHAVE_AUTOCONF",
    "-DARCH_X86",
    "-DX86_64",
    "-DKERNEL_64",
    "-D__KERNEL_64__",
];

const LINK_FLAGS: &[&str] = &[
    "-nostdlib",
    "-static",
    "-no-pie",
    "-Wl,--build-id=none",
    "-Wl,-n",
];

/// Builds the kernel below `out`, which only one build may use at a time.
/// Does nothing if the kernel there was built from the same inputs. `progress`
/// is called at each step.
///
/// # Errors
/// If the sources cannot be found or a tool fails: the error says what failed,
/// why, and what to do.
pub fn build(config: &Config, out: &Path, progress: &mut dyn FnMut(&str)) -> Result<Built, Error> {
    let files: Vec<&'static str> = EDITS.iter().map(|edit| edit.file).collect();
    let edits = Edited {
        files: &files,
        apply: &edited,
    };
    let built = build_with(config, &edits, out, progress)?;
    let file = std::fs::read(&built.elf64).map_err(|e| io("read", &built.elf64, e))?;
    check_entry(&file)?;
    Ok(built)
}

/// Fails if a kernel's entry does not clear a guest's flags. What the edits say is not
/// believed: the instructions are looked at, as those of an installed kernel are.
fn check_entry(file: &[u8]) -> Result<(), Error> {
    let open = mask::sites(file).map(|sites| sites.into_iter().find(|site| !site.is_masked()));
    let cause = match open {
        Ok(None) => return Ok(()),
        Ok(Some(site)) => format!(
            "the mask of the wrmsr at {:#x} is {:#x}",
            site.address, site.value
        ),
        Err(cause) => cause,
    };
    Err(Error::new(
        "the kernel's entry does not clear a guest's flags",
        cause,
        "check the edit of IA32_FMASK in tools/kernel/src/edits.rs, and what gcc made of it",
    ))
}

fn build_with(
    config: &Config,
    edits: &Edited<'_>,
    out: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<Built, Error> {
    for file in edits.files {
        check_used(file)?;
    }
    let source = locate()?;
    // The compiler's inputs, by their names in its working folder.
    let mut inputs = vec![(
        "kernel.c".to_owned(),
        compilation_unit(&source, config, edits)?,
    )];
    for file in ASM {
        let text = (edits.apply)(file, source.read(file)?)?;
        inputs.push((
            format!("{}.S", stem(file)),
            format!("#line 1 \"{file}\"\n{text}"),
        ));
    }
    for (name, text) in kernel_headers(&source, config, edits)? {
        inputs.push((format!("{HEADERS}/{name}"), text));
    }
    let stamp = stamp(config, &source, &inputs)?;
    let built = Built {
        elf64: out.join("kernel64.elf"),
        elf32: out.join("kernel32.elf"),
        options: config.options.clone(),
        label: label(config),
        installed: None,
        // By declared edits of the mask and for interrupts: see `check_entry`.
        entry: Entry::Closed,
    };
    let stamp_file = out.join("stamp");
    let old = std::fs::read_to_string(&stamp_file).unwrap_or_default();
    if results(&built).is_some_and(|results| old == format!("{stamp}{results}")) {
        return Ok(built);
    }
    // A build that is cut short must not look complete.
    remove(&stamp_file)?;

    progress(&format!(
        "kernel: seL4 {} ({})",
        crate::VERSION,
        config.profile
    ));
    // The compiler uses whatever lies in its folder, so nothing of an earlier
    // build may remain there, such as a header whose edit has been removed.
    let work = out.join("work");
    remove(&work)?;
    for (name, text) in &inputs {
        write(&work, name, text)?;
    }
    let compiler = Compiler {
        source: &source,
        work: &work,
    };
    progress("kernel: compiling");
    let mut objects = Vec::new();
    for file in std::iter::once("kernel.c").chain(ASM.iter().copied()) {
        let stem = stem(file);
        let input = if stem == "kernel" {
            file.to_owned()
        } else {
            format!("{stem}.S")
        };
        let object = format!("{stem}.o");
        compiler.compile(&input, &object)?;
        objects.push(object);
    }
    progress("kernel: linking");
    compiler.link(&objects, "kernel64.elf")?;
    let linked = work.join("kernel64.elf");
    let elf64 = std::fs::read(&linked).map_err(|e| io("read", &linked, e))?;
    write_images(elf64, &built)?;
    let results = results(&built).unwrap_or_default();
    write(out, "stamp", &format!("{stamp}{results}"))?;
    Ok(built)
}

/// Writes a kernel's 64-bit file and the 32-bit form of it.
pub(crate) fn write_images(elf64: Vec<u8>, built: &Built) -> Result<(), Error> {
    let elf32 = elf32::convert(&elf64).map_err(|e| {
        Error::new(
            "cannot make the kernel's 32-bit image",
            e,
            "its linker made an odd file",
        )
    })?;
    std::fs::write(&built.elf64, elf64).map_err(|e| io("write", &built.elf64, e))?;
    std::fs::write(&built.elf32, elf32).map_err(|e| io("write", &built.elf32, e))
}

/// Returns what stands for a bundled kernel in lists.
fn label(config: &Config) -> String {
    let mut label = format!("{},bundled", crate::VERSION);
    if config.cpu != CpuKind::default() {
        label.push(',');
        label.push_str(config.cpu.name());
    }
    if config.profile == Profile::Debug {
        label.push_str(",debug");
    }
    label
}

/// Where generated and edited headers are, in the folder where the compiler
/// works.
const HEADERS: &str = "headers";

/// Removes a file or a folder, if it is there.
fn remove(path: &Path) -> Result<(), Error> {
    let removed = if path.is_dir() {
        std::fs::remove_dir_all(path)
    } else {
        std::fs::remove_file(path)
    };
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io("remove", path, e)),
        _ => Ok(()),
    }
}

/// Fails if an edited file is not among the compiler's inputs: such an edit would
/// have no effect.
fn check_used(file: &str) -> Result<(), Error> {
    let compiled = C
        .iter()
        .chain(C_DEBUG)
        .chain(ASM)
        .any(|known| *known == file);
    if compiled || (file.ends_with(".h") && header_name(file).is_some()) {
        return Ok(());
    }
    Err(Error::new(
        format!("cannot edit the kernel's {file}"),
        "it is neither compiled nor a header that is",
        "list it in tools/kernel/src/sources.rs, or edit what includes it",
    ))
}

/// Checksums of a build's results, for its stamp; `None` if one is not there.
fn results(built: &Built) -> Option<String> {
    let sum = |path: &Path| Some(fnv1a(&std::fs::read(path).ok()?));
    Some(format!(
        "results {:016x} {:016x}\n",
        sum(&built.elf64)?,
        sum(&built.elf32)?
    ))
}

pub(crate) fn io(verb: &str, path: &Path, e: std::io::Error) -> Error {
    Error::new(
        format!("cannot {verb} {}", path.display()),
        e,
        "check that the folder is writable and the disk not full",
    )
}

fn stem(file: &str) -> &str {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name)
}

/// Returns all C files in one, as the kernel's own build does; with line
/// directives that name each file from the kernel's root.
fn compilation_unit(source: &Source, config: &Config, edits: &Edited<'_>) -> Result<String, Error> {
    let debug: &[&str] = if config.options.contains_key("DEBUG") {
        C_DEBUG
    } else {
        &[]
    };
    let mut unit = String::new();
    for file in C.iter().chain(debug) {
        unit.push_str(&format!("#line 1 \"{file}\"\n"));
        unit.push_str(&(edits.apply)(file, source.read(file)?)?);
        unit.push('\n');
    }
    Ok(unit)
}

/// Returns a stamp of everything that the result depends on: the compiler's
/// inputs, its version and its arguments.
fn stamp(config: &Config, source: &Source, inputs: &[(String, String)]) -> Result<String, Error> {
    let compiler = run(
        Command::new("gcc").arg("--version"),
        "ask gcc for its version",
    )?;
    let mut lines = vec![
        format!("seL4 {}", crate::VERSION),
        compiler.lines().next().unwrap_or("").to_string(),
        FLAGS.join(" "),
        LINK_FLAGS.join(" "),
    ];
    lines.extend(
        inputs
            .iter()
            .map(|(name, text)| format!("{name} {:016x}", fnv1a(text.as_bytes()))),
    );
    let mut files = vec![PathBuf::from(LINKER_SCRIPT)];
    for folder in INCLUDES {
        list(&source.root, Path::new(folder), &mut files)?;
    }
    files.sort();
    files.dedup();
    for file in files {
        let path = source.root.join(&file);
        let bytes = std::fs::read(&path).map_err(|e| io("read", &path, e))?;
        lines.push(format!("{} {:016x}", file.display(), fnv1a(&bytes)));
    }
    lines.extend(config.describe());
    Ok(lines.join("\n") + "\n")
}

/// Lists the files below `folder`, all named from `root`.
fn list(root: &Path, folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Error> {
    let path = root.join(folder);
    let failed = |e| io("read", &path, e);
    for entry in std::fs::read_dir(&path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = folder.join(entry.file_name());
        if entry.file_type().map_err(failed)?.is_dir() {
            list(root, &name, files)?;
        } else {
            files.push(name);
        }
    }
    Ok(())
}

/// Returns the 64-bit FNV-1a (Fowler, Noll, Vo) checksum, the same in every
/// release of Rust, which the standard hasher does not promise.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn run(command: &mut Command, what: &str) -> Result<String, Error> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| {
        Error::new(
            format!("cannot {what}"),
            format!("{}: {e}", command.get_program().to_string_lossy()),
            "install gcc and binutils (Debian: apt install gcc)",
        )
    })?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(Error::new(
            format!("cannot {what}"),
            String::from_utf8_lossy(&output.stderr),
            "the kernel builds with gcc 12; an option or another compiler may not fit it",
        ))
    }
}

struct Compiler<'a> {
    source: &'a Source,
    /// The folder where it works.
    work: &'a Path,
}

impl Compiler<'_> {
    /// Returns gcc, run in its working folder so that it sees relative names, and
    /// without the search folders that a user's environment may add.
    fn gcc(&self) -> Command {
        let mut gcc = Command::new("gcc");
        gcc.current_dir(self.work)
            .env_remove("CPATH")
            .env_remove("C_INCLUDE_PATH")
            .args(FLAGS)
            .args(["-I", HEADERS]);
        for include in INCLUDES {
            gcc.arg("-I").arg(self.source.root.join(include));
        }
        gcc.arg(format!(
            "-ffile-prefix-map={}=seL4",
            self.source.root.display()
        ));
        gcc
    }

    fn compile(&self, file: &str, object: &str) -> Result<(), Error> {
        let mut gcc = self.gcc();
        gcc.args(["-c", "-o", object, file]);
        run(&mut gcc, &format!("compile the kernel's {}", stem(file))).map(drop)
    }

    fn link(&self, objects: &[String], result: &str) -> Result<(), Error> {
        let mut cpp = self.gcc();
        cpp.args(["-E", "-P", "-undef", "-x", "c", "-o", "linker.lds"])
            .arg(self.source.root.join(LINKER_SCRIPT));
        run(&mut cpp, "preprocess the kernel's linker script")?;
        let mut gcc = Command::new("gcc");
        gcc.current_dir(self.work).args(LINK_FLAGS);
        gcc.args(["-T", "linker.lds", "-o", result]).args(objects);
        run(&mut gcc, "link the kernel").map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Edit;

    const HEADER: Edit = Edit {
        file: "include/arch/x86/arch/64/mode/kernel/stack.h",
        expect: "#define KERNEL_STACK_ALIGNMENT 16\n",
        becomes: "#define KERNEL_STACK_ALIGNMENT 4096\n",
        why: "a header",
    };
    const CODE: Edit = Edit {
        file: "src/arch/x86/64/kernel/vspace.c",
        expect: "x86_wrmsr(IA32_FMASK_MSR, FLAGS_TF | FLAGS_IF);",
        becomes: "x86_wrmsr(IA32_FMASK_MSR, FLAGS_TF | FLAGS_IF | 1);",
        why: "C",
    };
    const ASSEMBLY: Edit = Edit {
        file: "src/arch/x86/multiboot.S",
        expect: "    #define MULTIBOOT_HEADER_FLAGS 3\n",
        becomes: "    #define MULTIBOOT_HEADER_FLAGS 1\n",
        why: "assembly",
    };

    fn build(edits: &[Edit], out: &Path) -> Result<Built, Error> {
        let files: Vec<&'static str> = edits.iter().map(|edit| edit.file).collect();
        let edits = Edited {
            files: &files,
            apply: &|file, text| {
                let mut those = edits.iter().filter(|edit| edit.file == file);
                those.try_fold(text, |text, edit| edit.apply(&text))
            },
        };
        build_with(
            &Config::x86_64_pc99(Profile::Release, CpuKind::default()),
            &edits,
            out,
            &mut |_| (),
        )
    }

    fn bytes(built: &Built) -> [Vec<u8>; 2] {
        [&built.elf64, &built.elf32].map(|file| std::fs::read(file).unwrap())
    }

    /// A build equals one from nothing, whatever the edits were before and
    /// whatever lies in the folder.
    #[test]
    fn a_build_is_that_of_its_edits_alone() {
        let lists: [&[Edit]; 3] = [&[], &[HEADER, ASSEMBLY], &[CODE]];
        let clean = lists.map(|edits| {
            let folder = tempfile::tempdir().unwrap();
            bytes(&build(edits, folder.path()).unwrap())
        });
        for (index, one) in clean.iter().enumerate() {
            assert!(
                !clean[..index].contains(one),
                "edits {index} change nothing"
            );
        }
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path();
        for index in [1, 0, 2] {
            let built = build(lists[index], out).unwrap();
            assert_eq!(bytes(&built), clean[index], "edits {index}");
            // A header that would come first.
            write(
                &out.join("work").join(HEADERS),
                "config.h",
                "#error stale\n",
            )
            .unwrap();
            write(out, "kernel.c", "#error stale\n").unwrap();
        }
        // A result that was cut short.
        std::fs::write(out.join("kernel32.elf"), "").unwrap();
        assert_eq!(bytes(&build(lists[2], out).unwrap()), clean[2]);
    }

    #[test]
    fn an_edit_of_what_is_not_compiled_is_refused() {
        for file in [
            "src/arch/arm/c_traps.c",
            "src/plat/pc99/linker.lds",
            "libsel4/include/sel4/types_64.bf",
            "include/64/mode/api/shared_types.bf",
        ] {
            let edit = Edit { file, ..HEADER };
            let folder = tempfile::tempdir().unwrap();
            let error = build(&[edit], folder.path()).unwrap_err();
            assert!(error.what.contains(file), "{error}");
        }
    }

    #[test]
    fn an_entry_that_the_edits_left_open_is_an_error() {
        use crate::mask::tests::{ENDS, SETS, kernel};
        let error = check_entry(&kernel(&[SETS, ENDS])).unwrap_err();
        assert!(error.cause.contains("is 0x300"), "{error}");
        let error = check_entry(&kernel(&[ENDS])).unwrap_err();
        assert!(error.cause.contains("no wrmsr"), "{error}");
    }

    #[test]
    fn every_edit_is_of_something_compiled() {
        for edit in EDITS {
            check_used(edit.file).unwrap();
        }
    }
}
