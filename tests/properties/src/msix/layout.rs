//! Where a function has its table and PBA, and what lies where: one byte at a
//! time (M13 to M15).

use pci::{FunctionInfo, MsixInfo, MsixPage, PAGE_SIZE, Width};
use proptest::prelude::*;

/// A function with MSI-X.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub entries: u32,
    pub table: (u8, u32),
    pub pba: (u8, u32),
    pub permissive: bool,
}

/// What a byte of a BAR is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Table,
    Pba,
    Adjacent,
    Unclaimed,
}

impl Layout {
    pub fn table_end(&self) -> u32 {
        self.table.1 + 16 * self.entries
    }

    pub fn pba_end(&self) -> u32 {
        self.pba.1 + self.entries.div_ceil(64) * 8
    }

    fn pages(&self) -> Vec<(u8, u32)> {
        let page = PAGE_SIZE as u32;
        let table = self.table.1 / page..=(self.table_end() - 1) / page;
        let pba = self.pba.1 / page..=(self.pba_end() - 1) / page;
        let mut pages: Vec<_> = table.map(|page| (self.table.0, page)).collect();
        for page in pba {
            if !pages.contains(&(self.pba.0, page)) {
                pages.push((self.pba.0, page));
            }
        }
        pages
    }

    pub fn place(&self, bar: u8, offset: u64) -> Place {
        let inside = |start: (u8, u32), end: u32| {
            start.0 == bar && offset >= start.1.into() && offset < end.into()
        };
        if inside(self.table, self.table_end()) {
            return Place::Table;
        }
        if inside(self.pba, self.pba_end()) {
            return Place::Pba;
        }
        let claimed = self
            .pages()
            .iter()
            .any(|&(b, page)| b == bar && u64::from(page) == offset / PAGE_SIZE);
        if claimed {
            Place::Adjacent
        } else {
            Place::Unclaimed
        }
    }

    /// Returns the component's view of the function.
    pub fn info(&self) -> FunctionInfo {
        let mut msix = MsixInfo {
            entries: self.entries,
            capability: 0x50,
            table_bar: self.table.0.into(),
            table_offset: self.table.1,
            pba_bar: self.pba.0.into(),
            pba_offset: self.pba.1,
            ..MsixInfo::default()
        };
        for (place, (bar, page)) in msix.pages.iter_mut().zip(self.pages()) {
            let bar = bar.into();
            *place = MsixPage { bar, page };
        }
        msix.page_count = self.pages().len() as u32;
        FunctionInfo {
            permissive: self.permissive.into(),
            msix,
            ..FunctionInfo::default()
        }
    }

    /// Returns the first entries, the last, and those around the words of a
    /// bitmap.
    pub fn entry(&self, pick: u8) -> u16 {
        let n = self.entries;
        let hot = [0, 1, 2, 63, 64, n / 2, n.saturating_sub(2), n - 1];
        (hot[usize::from(pick) % hot.len()] % n) as u16
    }

    /// Returns where something begins or ends.
    pub fn edge(&self, pick: u8) -> (u8, u32) {
        let page = PAGE_SIZE as u32;
        let (table_end, pba_end) = (self.table_end(), self.pba_end());
        match pick % 8 {
            0 => self.table,
            1 => (self.table.0, table_end),
            2 => self.pba,
            3 => (self.pba.0, pba_end),
            4 => (self.table.0, self.table.1 / page * page),
            5 => (self.table.0, table_end.next_multiple_of(page)),
            6 => (self.pba.0, pba_end.next_multiple_of(page)),
            _ => (5, self.table.1),
        }
    }
}

pub fn layouts() -> impl Strategy<Value = Layout> {
    let entries = prop::sample::select(vec![1, 5, 64, 65, 2048]);
    let table = prop::sample::select(vec![0, 8, 0x1000, 0x1008, 0x1230, 0x1f38]);
    (entries, table, 0..4u8, any::<bool>()).prop_map(|(entries, table, pba, permissive)| {
        let mut layout = Layout {
            entries,
            table: (2, table),
            pba: (4, 0x18),
            permissive,
        };
        let (end, pba_size) = (layout.table_end(), layout.pba_end() - 0x18);
        match pba {
            0 => layout.pba = (2, end),
            1 => layout.pba = (2, end.next_multiple_of(4096) + 0x10),
            2 if table > pba_size + 24 => layout.pba = (2, table - pba_size - 24),
            _ => {}
        }
        layout
    })
}

pub fn widths() -> impl Strategy<Value = Width> {
    prop::sample::select(vec![Width::Byte, Width::Word, Width::Dword, Width::Qword])
}
