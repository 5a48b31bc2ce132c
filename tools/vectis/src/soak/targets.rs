//! The parts of a system that can be crashed.

use spec::{OnExit, OnFault};
use system::Model;

use crate::run;

/// Something that can be crashed.
pub struct Target {
    /// Its name in the system file.
    pub name: String,
    /// Its key after `F`.
    pub key: char,
    /// For a guest, the component that runs it.
    pub vmm: Option<String>,
    /// Crashes so far.
    pub crashes: u64,
}

/// Components that are restarted, then guests that are.
#[must_use]
pub fn targets(model: &Model) -> Vec<Target> {
    let target = |index, name: &str, vmm| {
        Some(Target {
            name: name.to_owned(),
            key: run::position_key(index)?,
            vmm,
            crashes: 0,
        })
    };
    let components = model.components.iter().enumerate();
    let components = components
        .filter(|(_, component)| component.on_fault == OnFault::Restart)
        .filter_map(|(index, component)| target(index, &component.name, None));
    let guests = model.guests.iter().enumerate();
    let guests = guests
        .filter(|(_, guest)| guest.on_exit == OnExit::Restart)
        .filter_map(|(index, guest)| {
            let vmm = model.components[guest.vmm].name.clone();
            target(model.components.len() + index, &guest.name, Some(vmm))
        });
    components.chain(guests).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn keys(file: &str) -> String {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let model = system::read(&root, &root.join(file), None).unwrap();
        let targets = targets(&model).into_iter();
        let each = targets.map(|t| format!("{}{} ", t.key, t.vmm.unwrap_or(t.name)));
        each.collect()
    }

    #[test]
    fn what_is_restarted_can_be_crashed() {
        assert_eq!(
            keys("tests/systems/soak.toml"),
            "1console 2timer 3irq-router 4msix 5pci-config 6iommu 9vmm-web avmm-hostile "
        );
        // Nothing there is restarted but these.
        assert_eq!(
            keys("tests/systems/two-guests.toml"),
            "1console 2timer 6iommu "
        );
    }
}
