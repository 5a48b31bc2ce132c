//! The components' logic against models that are too simple to be wrong.
//!
//! Responsible for: the models, written from the rules (M1 to M24, C1 to C8)
//! and not from the components, and the random sequences that both are put
//! through; and the joined components, killed at every step of what they do.
//! Must never: share code with a component; a mistake would then be in both.
//! May call: channel, msix, pci-config, irq-router, vmm, on the host.
//! Invariants: a run is the same every time, unless `PROPTEST_RNG_SEED` asks
//! for another; a sequence that failed once is kept in `proptest-regressions`.

#![forbid(unsafe_code)]

#[cfg(test)]
mod crash;
#[cfg(test)]
mod irq_router;
#[cfg(test)]
mod msix;
#[cfg(test)]
mod pc;
#[cfg(test)]
mod pci_config;

/// The seed of every run that asks for none.
#[cfg(test)]
const SEED: u64 = 0x7665_6374_6973;

/// Settings for `cases` sequences. `PROPTEST_RNG_SEED` and `PROPTEST_CASES`,
/// given together, look further than the fixed run does.
#[cfg(test)]
fn config(cases: u32) -> proptest::test_runner::Config {
    use proptest::test_runner::{Config, RngSeed};
    if std::env::var_os("PROPTEST_RNG_SEED").is_some() {
        return Config::default();
    }
    Config {
        cases,
        rng_seed: RngSeed::Fixed(SEED),
        ..Config::default()
    }
}
