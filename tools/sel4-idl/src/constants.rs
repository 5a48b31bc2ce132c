//! What only the C headers say: sizes, numbers of object types and slots, layouts.
//!
//! One table has each constant's name in Rust and its expression in C. A C program
//! made of it is compiled against a kernel's headers, to assembly in which the values
//! stand between the instructions: nothing has to be linked or run.

mod table;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Error;
use table::GROUPS;

/// Headers that the program includes.
const INCLUDES: &[&str] = &[
    "autoconf.h",
    "sel4/types.h",
    "sel4/bootinfo_types.h",
    "sel4/arch/mapping.h",
];

/// Headers with the labels of invocations, which numbers are compared with.
const LABELS: &[&str] = &[
    "sel4/invocation.h",
    "sel4/sel4_arch/invocation.h",
    "sel4/arch/invocation.h",
];

/// What marks a value in the assembly.
const MARK: &str = "value:";

/// The constants of one kernel, by module and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constants(BTreeMap<(&'static str, &'static str), Option<u64>>);

/// A number that the headers have too, and must have alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name in C.
    pub name: String,
    /// Its value.
    pub value: i64,
}

impl Constants {
    /// Returns the constant `name` of `module`, if the kernel has it.
    pub fn get(&self, module: &str, name: &str) -> Option<u64> {
        let mut entries = self.0.iter();
        let found = entries.find(|((m, n), _)| *m == module && *n == name);
        found.and_then(|(_, value)| *value)
    }

    /// Writes Rust items: a module for each group.
    pub fn emit(&self) -> String {
        let mut out = String::new();
        for group in GROUPS {
            let (open, close, indent) = match group.module {
                "" => (String::new(), "", ""),
                name => (
                    format!("/// {}\npub mod {name} {{\n", group.doc),
                    "}\n",
                    "    ",
                ),
            };
            out.push_str(&open);
            for constant in group.constants {
                let value = self
                    .0
                    .get(&(group.module, constant.name))
                    .copied()
                    .flatten();
                let (ty, value) = match (constant.optional, value) {
                    (false, value) => (group.ty.to_string(), value.unwrap_or(0).to_string()),
                    (true, value) => (
                        format!("Option<{}>", group.ty),
                        value.map_or("None".to_string(), |value| format!("Some({value})")),
                    ),
                };
                let _ = writeln!(
                    out,
                    "{indent}/// {}\n{indent}pub const {}: {ty} = {value};",
                    constant.doc, constant.name
                );
            }
            out.push_str(close);
        }
        out
    }
}

/// Reads the constants from the headers in `includes`, which are searched in order, and
/// compares `checks` with the headers. Writes its files to `scratch`.
///
/// # Errors
/// If `gcc` cannot be run, a constant is not in the headers, or a number there differs;
/// the message holds gcc's output, which names the header and the line.
pub fn read(includes: &[&Path], checks: &[Check], scratch: &Path) -> Result<Constants, Error> {
    let gcc = Gcc { includes, scratch };
    let mut constants = Constants(BTreeMap::new());
    let mut body = String::new();
    for group in GROUPS {
        for constant in group.constants {
            let sure = constant.c.len() == 1 && !constant.optional;
            let mut known = constant.c.iter().copied();
            let known = if sure {
                known.next()
            } else {
                known.find(|expression| gcc.knows(expression))
            };
            match known {
                Some(expression) => {
                    let _ = writeln!(
                        body,
                        "    __asm__ volatile(\"{MARK} %0\" : : \"i\"((long long)({expression})));"
                    );
                    constants.0.insert((group.module, constant.name), Some(0));
                }
                None if constant.optional => {
                    constants.0.insert((group.module, constant.name), None);
                }
                None => {
                    return Err(gcc.error(format!("none of {} is there", constant.c.join(", "))));
                }
            }
        }
    }
    let mut text = String::new();
    let labels: &[&str] = if checks.is_empty() { &[] } else { LABELS };
    for header in INCLUDES.iter().chain(labels) {
        let _ = writeln!(text, "#include <{header}>");
    }
    for Check { name, value } in checks {
        let _ = writeln!(
            text,
            "_Static_assert((long long)({name}) == {value}, \"{name} is not the {value} of the \
             interface description\");"
        );
    }
    let _ = writeln!(text, "void constants(void)\n{{\n{body}}}");
    let assembly = gcc.compile(&text)?;
    let mut numbers = assembly
        .lines()
        .filter_map(|line| line.trim().strip_prefix(MARK))
        // A constant operand begins with `$`.
        .map(|number| number.trim().trim_start_matches('$').parse::<i64>())
        .map(|number| number.map(i64::cast_unsigned));
    // In the order of the table, which is that of the program.
    for group in GROUPS {
        for constant in group.constants {
            let key = (group.module, constant.name);
            if let Some(Some(value)) = constants.0.get_mut(&key) {
                *value = match numbers.next() {
                    Some(Ok(number)) => number,
                    _ => return Err(gcc.error(format!("no value for {}", constant.c[0]))),
                };
            }
        }
    }
    Ok(constants)
}

struct Gcc<'a> {
    includes: &'a [&'a Path],
    scratch: &'a Path,
}

impl Gcc<'_> {
    fn error(&self, message: impl Into<String>) -> Error {
        let folder = self.includes.last().copied().unwrap_or(self.scratch);
        Error::new(folder.display().to_string(), 0, message)
    }

    /// Returns gcc for the file of that name, without the search folders that a user's
    /// environment may add.
    fn command(&self, file: &Path, arguments: &[&str]) -> Command {
        let mut gcc = Command::new("gcc");
        gcc.env_remove("CPATH")
            .env_remove("C_INCLUDE_PATH")
            // The kernels' headers are of this dialect and not free of warnings.
            .args(["-std=gnu11", "-w", "-O0", "-DHAVE_AUTOCONF"])
            .args(arguments)
            .stdin(Stdio::null());
        for include in self.includes {
            gcc.arg("-I").arg(include);
        }
        gcc.arg(file);
        gcc
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf, Error> {
        let path = self.scratch.join(name);
        std::fs::write(&path, text)
            .map_err(|e| Error::new(path.display().to_string(), 0, e.to_string()))?;
        Ok(path)
    }

    /// Returns whether the headers know a constant expression. A mistake of another kind
    /// makes it unknown too; the program then does not compile either.
    fn knows(&self, expression: &str) -> bool {
        let mut text = String::new();
        for header in INCLUDES {
            let _ = writeln!(text, "#include <{header}>");
        }
        let _ = writeln!(text, "enum {{ known = ({expression}) }};");
        let Ok(file) = self.write("known.c", &text) else {
            return false;
        };
        let output = self.command(&file, &["-fsyntax-only"]).output();
        output.is_ok_and(|output| output.status.success())
    }

    /// Returns the assembly of a program.
    fn compile(&self, text: &str) -> Result<String, Error> {
        let file = self.write("constants.c", text)?;
        let output = self
            .command(&file, &["-S", "-o", "-"])
            .output()
            .map_err(|e| self.error(format!("cannot run `gcc`: {e}; install gcc")))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        Err(self.error(format!("gcc:\n{text}")))
    }
}
