//! Generates the binding from a kernel's interface description: the bundled kernel's, or
//! that of the install folder in `SEL4_PREFIX`.

use std::path::{Path, PathBuf};

use kernel::{CPU, Config, Installed, PREFIX, Profile, cpu_from_environment};
use sel4_idl::{bitfield_rust, facts, invocation_rust, syscall};

fn main() {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    println!("cargo::rerun-if-changed=build.rs");
    for variable in [PREFIX, CPU] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    if let Err(message) = generate(&out) {
        // Cargo shows this line alone; a panic would bury it.
        println!("cargo::error={}", message.replace('\n', " "));
    }
}

fn interface(out: &Path) -> Result<kernel::Interface, kernel::Error> {
    if let Some(prefix) = Installed::prefix_from_environment() {
        return kernel::installed_interface(&Installed::open(&prefix)?, out);
    }
    // Both profiles have the same interface but for the debug system calls,
    // which nothing of ours may use.
    kernel::interface(
        &kernel::locate()?,
        &Config::x86_64_pc99(Profile::Release, cpu_from_environment()?),
        out,
    )
}

fn generate(out: &Path) -> Result<(), String> {
    let interface = interface(out).map_err(|e| e.to_string())?;
    for file in &interface.files {
        println!("cargo::rerun-if-changed={}", file.display());
    }
    let holding = interface.facts().map_err(|e| e.to_string())?;
    for fact in facts::ALL {
        println!("cargo::rustc-check-cfg=cfg({fact})");
    }
    for fact in &holding {
        println!("cargo::rustc-cfg={fact}");
    }
    // For the build scripts of crates that depend on this one.
    println!("cargo::metadata=facts={}", holding.join(","));
    let mut text = interface.constants.emit();
    for description in &interface.bitfields {
        text.push_str(&bitfield_rust::emit(description));
    }
    text.push_str(&syscall::emit_rust(&interface.syscalls, &interface.options));
    let [generic, sel4_arch, arch] = &interface.invocations;
    text.push_str(&invocation_rust::emit(
        &[generic, sel4_arch, arch],
        &interface.options,
    )?);
    std::fs::write(out.join("interface.rs"), text).map_err(|e| format!("interface.rs: {e}"))
}
