//! The image's entry point is that of Multiboot, not the kit's.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_GUEST").is_some() {
        println!("cargo::rustc-link-arg-bins=-Wl,-e,multiboot_start");
    }
}
