//! Groups of a machine's functions, as boot would find them.

use std::collections::BTreeMap;

use pci::{Bdf, Reach, Tree, buses_behind, can_redirect, carried_id, regs};

use crate::dump::Dump;
use crate::machine::Device;
use crate::verdict::dword;

/// Bytes of a dump that has extended capabilities.
const EXTENDED: usize = 4096;

/// A machine's functions in its dump.
struct Machine<'a> {
    dumps: BTreeMap<Bdf, &'a Dump>,
    /// The bridges by their secondary buses.
    bridges: BTreeMap<u8, Bdf>,
    /// A function's extended capabilities were asked about, and the dump has none.
    lacking: Option<Bdf>,
}

impl<'a> Machine<'a> {
    fn new(dumps: &'a [Dump]) -> Self {
        let own = dumps.iter().filter(|dump| dump.segment == 0);
        let mut machine = Self {
            dumps: own.map(|dump| (dump.bdf, dump)).collect(),
            bridges: BTreeMap::new(),
            lacking: None,
        };
        let all: Vec<Bdf> = machine.dumps.keys().copied().collect();
        for bdf in all {
            if let Some(buses) = buses_behind(bdf, |bdf, offset| machine.read(bdf, offset)) {
                machine.bridges.entry(*buses.start()).or_insert(bdf);
            }
        }
        machine
    }
}

impl Tree for Machine<'_> {
    fn read(&mut self, bdf: Bdf, offset: u16) -> u32 {
        let dump = self.dumps.get(&bdf);
        dump.and_then(|dump| dword(dump, offset))
            .unwrap_or(u32::MAX)
    }
    fn bridge_above(&mut self, bus: u8) -> Option<Bdf> {
        self.bridges.get(&bus).copied()
    }
    fn redirects(&mut self, bdf: Bdf) -> bool {
        let Some(dump) = self.dumps.get(&bdf) else {
            return false;
        };
        if dump.config.len() < EXTENDED {
            self.lacking = Some(bdf);
            return false;
        }
        can_redirect(&mut Device::new(dump))
    }
}

/// Those that go to one guest with a function.
#[derive(Debug)]
pub struct Group {
    pub others: Vec<Bdf>,
    pub why: String,
}

/// The groups of more than one function.
pub struct Groups {
    groups: Vec<(Bdf, Vec<Bdf>, String)>,
    /// Functions whose requests carry another id, with that.
    carried: BTreeMap<Bdf, Bdf>,
}

impl Groups {
    pub fn new(dumps: &[Dump]) -> Self {
        let mut machine = Machine::new(dumps);
        let is_end = |dump: &Dump| {
            let kind = dump.config.get(usize::from(regs::HEADER_TYPE));
            kind.is_some_and(|kind| kind & 0x7f == 0)
        };
        let ends = machine.dumps.iter().filter(|(_, dump)| is_end(dump));
        let ends: Vec<Bdf> = ends.map(|(bdf, _)| *bdf).collect();
        let groups = ends.iter().filter_map(|&bdf| {
            machine.lacking = None;
            let reach = Reach::of(&mut machine, bdf);
            if reach.is_alone() {
                return None;
            }
            let members: Vec<Bdf> = (ends.iter().copied())
                .filter(|&other| reach.has(&mut machine, other))
                .collect();
            let unknown = machine.lacking.map_or_else(String::new, |lacking| {
                format!(
                    "; the dump does not tell whether {lacking} has it: run lspci -vvxxxx as root"
                )
            });
            Some((bdf, members, format!("{reach}{unknown}")))
        });
        let groups = groups.collect();
        let carried = (ends.iter())
            .filter_map(|&bdf| Some((bdf, carried_id(&mut machine, bdf)?)))
            .collect();
        Self { groups, carried }
    }

    /// Returns the id that a function's requests carry, if it is not its own.
    pub fn carried(&self, dump: &Dump) -> Option<Bdf> {
        (self.carried.get(&dump.bdf).copied()).filter(|_| dump.segment == 0)
    }

    /// Returns the largest group that has the function, of those with others.
    pub fn of(&self, dump: &Dump) -> Option<Group> {
        let own = |members: &[Bdf]| dump.segment == 0 && members.contains(&dump.bdf);
        let all = self.groups.iter().filter(|(_, members, _)| own(members));
        // What two functions reach is one inside of the other, or apart.
        let (_, members, why) =
            all.max_by_key(|(of, members, _)| (members.len(), *of == dump.bdf))?;
        let others = members.iter().copied().filter(|bdf| *bdf != dump.bdf);
        let others: Vec<Bdf> = others.collect();
        (!others.is_empty()).then(|| Group {
            others,
            why: why.clone(),
        })
    }
}
