//! A device that does what its registers say: MSI-X, MSI with a mask, and a
//! function-level reset that makes it forget.

use models::Registers;
use pci::{BarInfo, BarKind, FunctionInfo, MsixInfo, MsixPage, Width};
use spec::FunctionId;

pub const PCIE: u16 = 0x40;
pub const MSIX: u16 = 0xa0;
pub const PM: u16 = 0xc8;
pub const MSI: u16 = 0xd0;
pub const TABLE_BAR: u8 = 0;
const PBA: u32 = 0x800;
const BAR_ADDRESS: u64 = 0xfe80_0000;

pub struct Device {
    config: Registers,
    table: Vec<u8>,
    entries: usize,
}

/// Returns the registers as the firmware leaves them.
fn registers(entries: usize) -> [(u16, u32); 13] {
    [
        (0x00, 0x10d3_8086),
        (0x04, 0x0010_0002),
        (0x08, 0x0200_0001),
        (0x10, BAR_ADDRESS as u32),
        (0x2c, 0x0000_8086),
        (0x34, PM.into()),
        (0x3c, 0x0000_010b),
        (
            MSIX,
            (entries as u32 - 1) << 16 | u32::from(PCIE) << 8 | 0x11,
        ),
        (MSIX + 8, PBA),
        (PM, 0x0022_d001),
        // 64 bits wide, maskable, four messages.
        (MSI, 0x0184_a005),
        (PCIE, 0x0001_0010),
        // Function-level reset.
        (PCIE + 4, 0x1000_8cc1),
    ]
}

impl Device {
    pub fn new(entries: usize) -> Self {
        let mut device = Self {
            config: Registers::new(vec![0; 256]),
            table: vec![0; 0x1000],
            entries,
        };
        for (offset, value) in registers(entries) {
            device.config.put(offset, 4, value);
        }
        device.config.put(PCIE + 8, 2, 0x2810);
        device.forget_table();
        device
    }

    pub fn info(entries: usize, function: FunctionId) -> FunctionInfo {
        let mut info = FunctionInfo {
            guest_bdf: u16::from(function.0 + 1) << 3,
            intx: u32::from(function.0) * 20,
            msix: MsixInfo {
                entries: entries as u32,
                capability: MSIX.into(),
                pba_offset: PBA,
                page_count: 1,
                ..MsixInfo::default()
            },
            ..FunctionInfo::default()
        };
        info.msix.pages[0] = MsixPage { bar: 0, page: 0 };
        info.bars[0] = BarInfo {
            kind: BarKind::Memory32,
            address: BAR_ADDRESS,
            guest: BAR_ADDRESS,
            size: 0x1000,
            ..BarInfo::default()
        };
        info
    }

    fn forget_table(&mut self) {
        self.table.fill(0);
        for entry in 0..self.entries {
            self.table[16 * entry + 12] = 1;
        }
    }

    pub fn config_read(&self, offset: u16, width: Width) -> u32 {
        self.config.read(offset, width)
    }

    pub fn config_write(&mut self, offset: u16, width: Width, value: u32) {
        if offset == PCIE + 8 && value & 0x8000 != 0 {
            // The reset: nothing that software wrote is left.
            self.config.put(0x04, 2, 0);
            self.config.put(0x10, 4, 0);
            self.config.put(PCIE + 8, 2, 0x2810);
            self.config.put(MSI + 2, 2, 0x0184);
            for at in (MSI + 4..MSI + 20).step_by(4) {
                self.config.put(at, 4, 0);
            }
            self.config.put(MSIX + 2, 2, self.entries as u32 - 1);
            self.forget_table();
            return;
        }
        self.config.write(offset, width, value);
    }

    pub fn table_read(&self, offset: u32, width: Width) -> u64 {
        let at = offset as usize;
        let bytes = &self.table[at..at + width.bytes() as usize];
        bytes.iter().rev().fold(0, |v, b| v << 8 | u64::from(*b))
    }

    pub fn table_write(&mut self, offset: u32, width: Width, value: u64) {
        assert!(self.decodes(), "a table write that reaches nobody");
        let at = offset as usize;
        let bytes = width.bytes() as usize;
        self.table[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
    }

    fn decodes(&self) -> bool {
        self.config_read(0x04, Width::Word) & 2 != 0
            && u64::from(self.config_read(0x10, Width::Dword)) == BAR_ADDRESS
    }

    /// Returns the message that an entry sends now; `None` while it is masked.
    pub fn msix_message(&self, entry: u16) -> Option<(u64, u32)> {
        let control = self.config_read(MSIX + 2, Width::Word);
        let at = 16 * u32::from(entry);
        let masked = self.table_read(at + 12, Width::Dword) & 1 == 1;
        (control & 0xc000 == 0x8000 && !masked).then(|| self.entry_message(entry))
    }

    /// Returns the message in an entry, masked or not.
    pub fn entry_message(&self, entry: u16) -> (u64, u32) {
        let at = 16 * u32::from(entry);
        let data = self.table_read(at + 8, Width::Dword) as u32;
        (self.table_read(at, Width::Qword), data)
    }

    /// Returns the messages that plain MSI can send now.
    pub fn msi_messages(&self) -> Vec<(u64, u32)> {
        let control = self.config_read(MSI + 2, Width::Word);
        if control & 1 == 0 {
            return Vec::new();
        }
        let address = u64::from(self.config_read(MSI + 4, Width::Dword))
            | u64::from(self.config_read(MSI + 8, Width::Dword)) << 32;
        let data = self.config_read(MSI + 12, Width::Word);
        let count = 1 << (control >> 4 & 7);
        (0..count).map(|number| (address, data | number)).collect()
    }

    /// Returns the state that is the same in every run: the device's vector is not, nor what
    /// is left in MSI registers that are off.
    pub fn settled(&self) -> (Vec<u8>, Vec<bool>) {
        let mut config = self.config.bytes().to_vec();
        let msi = usize::from(MSI);
        let left = if config[msi + 2] & 1 == 0 {
            2..20
        } else {
            12..13
        };
        config[msi + left.start..msi + left.end].fill(0);
        let masks = (0..self.entries).map(|entry| self.table[16 * entry + 12] == 1);
        (config, masks.collect())
    }

    /// Returns whether INTx is off in the device.
    pub fn intx_off(&self) -> bool {
        self.config_read(0x04, Width::Word) & 0x400 != 0
    }
}
