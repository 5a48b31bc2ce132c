//! Generates the binding from the pinned kernel's interface description.

use std::path::PathBuf;

use kernel::{Config, Profile};
use sel4_idl::{bitfield_rust, invocation_rust, syscall};

fn main() {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    println!("cargo::rerun-if-changed=build.rs");
    if let Err(message) = generate(&out) {
        // Cargo shows this line alone; a panic would bury it.
        println!("cargo::error={}", message.replace('\n', " "));
    }
}

fn generate(out: &std::path::Path) -> Result<(), String> {
    let source = kernel::locate().map_err(|e| e.to_string())?;
    // Both profiles have the same interface but for the debug system calls,
    // which nothing of ours may use.
    let config = Config::x86_64_pc99(Profile::Release);
    let interface = kernel::interface(&source, &config, out).map_err(|e| e.to_string())?;
    for file in &interface.files {
        println!("cargo::rerun-if-changed={}", file.display());
    }
    let mut text = String::new();
    for description in &interface.bitfields {
        text.push_str(&bitfield_rust::emit(description));
    }
    text.push_str(&syscall::emit_rust(&interface.syscalls, &config.options)?);
    let [generic, sel4_arch, arch] = &interface.invocations;
    text.push_str(&invocation_rust::emit(
        &[generic, sel4_arch, arch],
        &config.options,
    )?);
    let untyped = &config.options["CONFIG_MAX_NUM_BOOTINFO_UNTYPED_CAPS"];
    text.push_str(&format!(
        "/// Most untypeds that a BootInfo lists (`CONFIG_MAX_NUM_BOOTINFO_UNTYPED_CAPS`).\n\
         pub const MAX_BOOTINFO_UNTYPEDS: usize = {untyped};\n"
    ));
    std::fs::write(out.join("interface.rs"), text).map_err(|e| format!("interface.rs: {e}"))
}
