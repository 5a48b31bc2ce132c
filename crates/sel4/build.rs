//! Passes on the facts of the kernel's interface, as `cfg`.

use sel4_idl::facts;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for fact in facts::ALL {
        println!("cargo::rustc-check-cfg=cfg({fact})");
    }
    // Set by the build script of sel4-sys.
    let holding = std::env::var("DEP_SEL4_FACTS").expect("sel4-sys names its facts");
    for fact in holding.split(',').filter(|fact| !fact.is_empty()) {
        println!("cargo::rustc-cfg={fact}");
    }
}
