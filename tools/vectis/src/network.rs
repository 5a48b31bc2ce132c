//! Which port of this host leads to which guest, and which guests serve.

use std::net::{Ipv4Addr, TcpListener};

use system::Model;

use crate::error::{Error, Result};

/// A guest's message once it listens on port 80 (guests/README.md).
const SERVING: &str = ": serving on port ";

/// A network that a device of the system is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// QEMU's id for it.
    pub id: String,
    /// Index of the guest that has the device.
    pub guest: Option<usize>,
}

/// Returns the networks that the devices name (`netdev=ID`): first one for each
/// guest in the file's order, then the others. So guests have consecutive
/// ports.
#[must_use]
pub fn networks(model: &Model) -> Vec<Network> {
    let mut found: Vec<Network> = Vec::new();
    for (index, device) in model.devices.iter().enumerate() {
        let options = device.qemu.iter().flat_map(|argument| argument.split(','));
        for id in options.filter_map(|option| option.strip_prefix("netdev=")) {
            if !found.iter().any(|network| network.id == id) {
                found.push(Network {
                    id: id.to_owned(),
                    guest: model.owner(index),
                });
            }
        }
    }
    let mut ordered = Vec::new();
    for guest in 0..model.guests.len() {
        if let Some(first) = found.iter().position(|n| n.guest == Some(guest)) {
            ordered.push(found.remove(first));
        }
    }
    ordered.append(&mut found);
    ordered
}

/// Finds `count` ports: `first` and those that follow it, or any free ones for 0.
///
/// # Errors
/// If one is taken, or there are not so many.
pub fn free_ports(first: u16, count: usize) -> Result<Vec<u16>> {
    // All are held until all are found: no free one comes twice.
    let mut held = Vec::new();
    for index in 0..count {
        let port = if first == 0 {
            Some(0)
        } else {
            u16::try_from(index)
                .ok()
                .and_then(|index| first.checked_add(index))
        };
        let listener = port.map_or_else(
            || Err(std::io::Error::other("the last one is 65535")),
            |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)),
        );
        let address = listener.and_then(|listener| {
            let address = listener.local_addr()?;
            held.push(listener);
            Ok(address)
        });
        if let Err(e) = address {
            let port = usize::from(first) + index;
            return Err(Error::new(
                format!("cannot use TCP port {port} of this host"),
                e,
                "end the program that has it, or choose another with --port N (0: any free one)",
            ));
        }
    }
    Ok(held
        .iter()
        .filter_map(|listener| listener.local_addr().ok())
        .map(|address| address.port())
        .collect())
}

/// A guest that can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Guest {
    name: String,
    port: u16,
    /// It says that it serves.
    says: bool,
    /// It was found to.
    ready: bool,
}

/// State of the guests that have a network.
#[derive(Clone, Debug)]
pub struct Guests {
    all: Vec<Guest>,
    /// The system has no other guests, on a network or not: it needs no name.
    alone: bool,
    /// Lines come without the guest's name: no console puts it there.
    bare: bool,
}

impl Guests {
    /// Returns the guests of a system whose [`networks`] have these ports.
    #[must_use]
    pub fn new(model: &Model, ports: &[u16], bare: bool) -> Self {
        let mut all: Vec<Guest> = Vec::new();
        for (network, &port) in networks(model).iter().zip(ports) {
            let Some(guest) = network.guest.and_then(|index| model.guests.get(index)) else {
                continue;
            };
            if !all.iter().any(|known| known.name == guest.name) {
                all.push(Guest {
                    name: guest.name.clone(),
                    port,
                    says: false,
                    ready: false,
                });
            }
        }
        Self {
            all,
            alone: model.guests.len() == 1,
            bare,
        }
    }

    /// Looks at a line from the serial port for people. If a guest says there,
    /// for the first time, that it serves: its number and port.
    pub fn see(&mut self, line: &str) -> Option<(usize, u16)> {
        let name = if self.bare {
            None
        } else {
            // The console writes the name; the guest's own text comes after it.
            Some(line.strip_prefix('[')?.split_once(']')?.0)
        };
        if !line.contains(SERVING) {
            return None;
        }
        let number = self
            .all
            .iter()
            .position(|guest| name.is_none_or(|name| guest.name == name))?;
        let guest = &mut self.all[number];
        let first = !std::mem::replace(&mut guest.says, true);
        first.then_some((number, guest.port))
    }

    /// Records that a guest was reached. Returns the line that reports it.
    pub fn reached(&mut self, number: usize) -> String {
        let guest = &mut self.all[number];
        guest.ready = true;
        let (name, port) = (&guest.name, guest.port);
        if self.alone {
            format!("ready: http://127.0.0.1:{port}/ (Ctrl-C ends it)")
        } else {
            format!("ready: {name} http://127.0.0.1:{port}/")
        }
    }

    /// Returns the guest's port.
    #[must_use]
    pub fn port(&self, number: usize) -> u16 {
        self.all[number].port
    }

    /// Returns the name and port of the first that was reached.
    #[must_use]
    pub fn first_ready(&self) -> Option<(String, u16)> {
        let ready = self.all.iter().find(|guest| guest.ready)?;
        Some((ready.name.clone(), ready.port))
    }

    /// Returns whether any of them was reached.
    #[must_use]
    pub fn any_ready(&self) -> bool {
        self.all.iter().any(|guest| guest.ready)
    }

    /// Returns whether each of them was reached.
    #[must_use]
    pub fn all_ready(&self) -> bool {
        self.any_ready() && self.all.iter().all(|guest| guest.ready)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn model(file: &str) -> Model {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        system::read(&root, &root.join(file), None).unwrap()
    }

    fn ids(model: &Model) -> Vec<(String, Option<usize>)> {
        let each = networks(model).into_iter();
        each.map(|network| (network.id, network.guest)).collect()
    }

    #[test]
    fn each_guest_has_a_network_of_its_own() {
        let mut model = model("tests/systems/two-guests.toml");
        let both = [("net0".to_owned(), Some(0)), ("net1".to_owned(), Some(1))];
        assert_eq!(ids(&model), both);
        // In the order of guests, not of devices.
        model.guests.swap(0, 1);
        assert_eq!(
            ids(&model),
            [("net1".to_owned(), Some(0)), ("net0".to_owned(), Some(1))]
        );
        model.devices[0].qemu = vec!["nvme,serial=netdev".to_owned()];
        assert_eq!(ids(&model), [("net1".to_owned(), Some(0))]);
    }

    #[test]
    fn one_guest_is_ready_without_a_name() {
        let model = model("system.toml");
        let mut guests = Guests::new(&model, &[8080], false);
        assert_eq!(guests.see("[web] web: 2 of 3"), None);
        assert_eq!(guests.see("web: serving on port 80"), None);
        assert_eq!(guests.see("[web] web: serving on port 80"), Some((0, 8080)));
        assert_eq!(guests.see("[web] web: serving on port 80"), None);
        assert!(!guests.any_ready());
        assert_eq!(
            guests.reached(0),
            "ready: http://127.0.0.1:8080/ (Ctrl-C ends it)"
        );
        assert!(guests.all_ready());
        let mut bare = Guests::new(&model, &[8080], true);
        assert_eq!(bare.see("web: serving on port 80"), Some((0, 8080)));
    }

    #[test]
    fn all_guests_are_waited_for() {
        let model = model("tests/systems/two-guests.toml");
        let mut guests = Guests::new(&model, &[8080, 8081], false);
        // Whose line it is, the console says and not the guest.
        assert_eq!(
            guests.see("[b] [a] web: serving on port 80"),
            Some((1, 8081))
        );
        assert_eq!(guests.reached(1), "ready: b http://127.0.0.1:8081/");
        assert!(guests.any_ready() && !guests.all_ready());
        assert_eq!(guests.see("[a] web: serving on port 80"), Some((0, 8080)));
        assert_eq!(guests.reached(0), "ready: a http://127.0.0.1:8080/");
        assert!(guests.all_ready());
    }

    #[test]
    fn a_taken_port_is_refused_with_a_way_out() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let text = free_ports(port, 1).unwrap_err().to_string();
        assert!(text.contains("--port"), "{text}");
        if let Some(before) = port.checked_sub(1).filter(|before| *before != 0) {
            assert!(free_ports(before, 2).is_err());
        }
        drop(taken);
        assert_eq!(free_ports(port, 1), Ok(vec![port]));
        let any = free_ports(0, 2).unwrap();
        assert!(any[0] != any[1] && !any.contains(&0), "{any:?}");
        assert!(free_ports(u16::MAX, 2).is_err());
        assert_eq!(free_ports(port, 0), Ok(Vec::new()));
    }
}
