//! Compiles and links the kernel.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::edits::edited;
use crate::headers::{kernel_headers, write};
use crate::sources::{ASM, C, C_DEBUG, INCLUDES, LINKER_SCRIPT};
use crate::{Config, Error, Source, elf32, locate};

/// A built kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The linked 64-bit file, for debuggers and symbol lookup.
    pub elf64: PathBuf,
    /// The 32-bit file for multiboot loaders.
    pub elf32: PathBuf,
    /// The options it was built with.
    pub options: BTreeMap<String, String>,
}

/// What every file is compiled with. Beside the kernel's own choices (C99,
/// freestanding, kernel code model, no vector registers) these switch off what
/// distributions switch on, and keep paths out of the result.
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
/// Does nothing if what is there was built from the same inputs. `progress`
/// is told each step.
///
/// # Errors
/// If the sources cannot be found or a tool fails; says what, why and what to do.
pub fn build(config: &Config, out: &Path, progress: &mut dyn FnMut(&str)) -> Result<Built, Error> {
    let source = locate()?;
    let headers = kernel_headers(&source, config)?;
    let unit = compilation_unit(&source, config)?;
    let assembly = assembly(&source)?;
    let stamp = stamp(config, &headers, &unit, &assembly)?;
    let built = Built {
        elf64: out.join("kernel64.elf"),
        elf32: out.join("kernel32.elf"),
        options: config.options.clone(),
    };
    let stamp_file = out.join("stamp");
    let same = std::fs::read_to_string(&stamp_file).is_ok_and(|old| old == stamp);
    if same && built.elf64.is_file() && built.elf32.is_file() {
        return Ok(built);
    }
    // A build that is cut short must not look complete.
    if stamp_file.exists() {
        std::fs::remove_file(&stamp_file).map_err(|e| io("remove", &stamp_file, e))?;
    }

    progress(&format!(
        "kernel: seL4 {} ({})",
        crate::VERSION,
        config.profile
    ));
    for (name, text) in &headers {
        write(&out.join("headers"), name, text)?;
    }
    write(out, "kernel.c", &unit)?;
    let compiler = Compiler {
        source: &source,
        out,
    };
    progress("kernel: compiling");
    compiler.compile("kernel.c", "kernel.o")?;
    let mut objects = vec!["kernel.o".to_string()];
    for (name, text) in &assembly {
        write(out, name, text)?;
        let object = format!("{}.o", stem(name));
        compiler.compile(name, &object)?;
        objects.push(object);
    }
    progress("kernel: linking");
    compiler.link(&objects, "kernel64.elf")?;
    let elf64 = std::fs::read(&built.elf64).map_err(|e| io("read", &built.elf64, e))?;
    let elf32 = elf32::convert(&elf64).map_err(|e| {
        Error::new(
            "cannot make the kernel's 32-bit image",
            e,
            "the linker made an odd file",
        )
    })?;
    std::fs::write(&built.elf32, elf32).map_err(|e| io("write", &built.elf32, e))?;
    write(out, "stamp", &stamp)?;
    Ok(built)
}

fn io(verb: &str, path: &Path, e: std::io::Error) -> Error {
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

/// All C files in one, as the kernel's own build does; with line directives
/// that name each file from the kernel's root.
fn compilation_unit(source: &Source, config: &Config) -> Result<String, Error> {
    let debug: &[&str] = if config.options.contains_key("DEBUG") {
        C_DEBUG
    } else {
        &[]
    };
    let mut unit = String::new();
    for file in C.iter().chain(debug) {
        unit.push_str(&format!("#line 1 \"{file}\"\n"));
        unit.push_str(&edited(file, source.read(file)?)?);
        unit.push('\n');
    }
    Ok(unit)
}

/// The assembly files by the name that they get in the build folder, edited.
fn assembly(source: &Source) -> Result<Vec<(String, String)>, Error> {
    ASM.iter()
        .map(|file| {
            let name = format!("{}.S", stem(file));
            let text = edited(file, source.read(file)?)?;
            Ok((name, format!("#line 1 \"{file}\"\n{text}")))
        })
        .collect()
}

/// What a result depends on. The headers that are used as they are do not
/// appear: Cargo.lock pins them together with the version.
fn stamp(
    config: &Config,
    headers: &[(String, String)],
    unit: &str,
    assembly: &[(String, String)],
) -> Result<String, Error> {
    let compiler = run(
        Command::new("gcc").arg("--version"),
        "ask gcc for its version",
    )?;
    let mut lines = vec![
        format!("seL4 {}", crate::VERSION),
        compiler.lines().next().unwrap_or("").to_string(),
        FLAGS.join(" "),
        LINK_FLAGS.join(" "),
        format!("unit {:016x}", fnv1a(unit)),
    ];
    lines.extend(
        headers
            .iter()
            .chain(assembly)
            .map(|(name, text)| format!("{name} {:016x}", fnv1a(text))),
    );
    lines.extend(config.describe());
    Ok(lines.join("\n") + "\n")
}

/// 64-bit FNV-1a (Fowler, Noll, Vo): a checksum that stays the same in every
/// release of Rust, which the standard hasher does not promise.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
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
    out: &'a Path,
}

impl Compiler<'_> {
    /// gcc, run in the output folder so that it sees relative names.
    fn gcc(&self) -> Command {
        let mut gcc = Command::new("gcc");
        gcc.current_dir(self.out)
            .args(FLAGS)
            .args(["-I", "headers"]);
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
        gcc.current_dir(self.out).args(LINK_FLAGS);
        gcc.args(["-T", "linker.lds", "-o", result]).args(objects);
        run(&mut gcc, "link the kernel").map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EDITS, Profile};

    #[test]
    fn every_edit_reaches_the_compiler() {
        let source = locate().expect("the kernel's sources");
        let config = Config::x86_64_pc99(Profile::Release);
        let mut inputs = vec![compilation_unit(&source, &config).expect("a unit")];
        let files = kernel_headers(&source, &config).expect("headers");
        inputs.extend(files.into_iter().map(|(_, text)| text));
        let files = assembly(&source).expect("assembly");
        inputs.extend(files.into_iter().map(|(_, text)| text));
        for edit in EDITS {
            let found = inputs.iter().filter(|text| text.contains(edit.becomes));
            assert_eq!(found.count(), 1, "{}: {}", edit.file, edit.becomes);
        }
    }
}
