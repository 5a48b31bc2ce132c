//! ACPI tables of a guest with `machine = "pc"` (ACPI 6.5 chapter 5): what the vmm
//! emulates, at the addresses in [`spec::acpi`].

use spec::CONFIG_WINDOW;
use spec::acpi::{
    FIRMWARE, IOAPIC_BASE, PM_TIMER, PM1_CONTROL, PM1_EVENT, RESET_PORT, RESET_VALUE, RSDP,
    RTC_CENTURY, SCI, SLEEP_TYPE_S5, TIMER_PIN,
};
use system::Segment;

use crate::Error;

/// Bytes of the header of every table but the RSDP.
const HEADER: usize = 36;
/// Bytes of the RSDP of revision 2, and of its first part, with a checksum of its own.
const RSDP_SIZE: usize = 36;
const RSDP_FIRST: usize = 20;
/// Every table begins at a multiple of it.
const ALIGNMENT: usize = 16;

/// FADT (section 5.2.9): bytes of revision 6, and offsets in it.
mod fadt {
    pub const SIZE: usize = 276;
    pub const DSDT: usize = 40;
    pub const SCI: usize = 46;
    pub const PM1A_EVENT: usize = 56;
    pub const PM1A_CONTROL: usize = 64;
    pub const PM_TIMER: usize = 76;
    pub const PM1_EVENT_LENGTH: usize = 88;
    pub const PM1_CONTROL_LENGTH: usize = 89;
    pub const PM_TIMER_LENGTH: usize = 91;
    pub const C2_LATENCY: usize = 96;
    pub const C3_LATENCY: usize = 98;
    pub const CENTURY: usize = 108;
    pub const BOOT_FLAGS: usize = 109;
    pub const FLAGS: usize = 112;
    pub const RESET_REGISTER: usize = 116;
    pub const RESET_VALUE: usize = 128;
    pub const MINOR: usize = 131;
    pub const X_DSDT: usize = 140;
    pub const X_PM1A_EVENT: usize = 148;
    pub const X_PM1A_CONTROL: usize = 172;
    pub const X_PM_TIMER: usize = 208;
}

/// FADT flags: WBINVD works; C1 on all processors; no power button and no sleep button as
/// fixed hardware; the RTC does not wake as such; the reset register works.
const FADT_FLAGS: u32 = 1 << 0 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 10;
/// IA-PC boot flags (section 5.2.9.3): there are devices of the ISA bus; no VGA.
const BOOT_FLAGS: u16 = 1 << 0 | 1 << 2;
/// Latencies that say: there is no state C2 or C3.
const NO_C2: u16 = 101;
const NO_C3: u16 = 1001;
/// Address space of a generic address: I/O ports.
const SPACE_IO: u8 = 1;

/// MADT (section 5.2.12): there are 8259s too.
const PCAT_COMPATIBLE: u32 = 1;
const MADT_LOCAL_APIC: u8 = 0;
const MADT_IO_APIC: u8 = 1;
const MADT_OVERRIDE: u8 = 2;
/// The local APIC belongs to a processor that is there.
const ENABLED: u32 = 1;

/// AML (section 20.2) of `Name (_S5, Package () {SLP_TYPa, SLP_TYPb, 0, 0})` (section
/// 7.4.2.6). A package's length counts its own byte and all behind it.
const S5: [u8; 16] = [
    0x08,
    b'_',
    b'S',
    b'5',
    b'_',
    0x12,
    10,
    4,
    0x0a,
    SLEEP_TYPE_S5,
    0x0a,
    SLEEP_TYPE_S5,
    0x0a,
    0,
    0x0a,
    0,
];

/// Returns the bytes of the firmware's area from its start: RSDP, RSDT, XSDT, FADT, MADT,
/// MCFG, DSDT.
#[must_use]
pub fn tables() -> Vec<u8> {
    let mut area = Area(vec![0; RSDP_SIZE]);
    let dsdt = area.add(table(*b"DSDT", 2, &S5));
    let fadt = area.add(fadt(dsdt));
    let madt = area.add(madt());
    let mcfg = area.add(mcfg());
    let listed = [fadt, madt, mcfg];
    let short: Vec<u8> = listed
        .iter()
        .flat_map(|at| (*at as u32).to_le_bytes())
        .collect();
    let long: Vec<u8> = listed.iter().flat_map(|at| at.to_le_bytes()).collect();
    let rsdt = area.add(table(*b"RSDT", 1, &short));
    let xsdt = area.add(table(*b"XSDT", 1, &long));
    area.0[..RSDP_SIZE].copy_from_slice(&rsdp(rsdt, xsdt));
    area.0
}

/// Adds the tables to what lies in a guest's memory.
///
/// # Errors
/// If something else lies there.
pub fn add(segments: &mut Vec<Segment>) -> Result<(), Error> {
    let taken =
        |segment: &Segment| segment.address < FIRMWARE.end && RSDP < segment.address + segment.size;
    if segments.iter().any(taken) {
        return Err(Error::new(
            format!("it lies where ACPI's tables are, {:#x}", RSDP),
            "link it at 0x100000 or above",
        ));
    }
    segments.push(segment());
    Ok(())
}

/// Returns the tables as they lie in a guest's memory.
#[must_use]
pub fn segment() -> Segment {
    let bytes = tables();
    Segment {
        address: RSDP,
        size: bytes.len() as u64,
        bytes,
        writable: false,
        executable: false,
    }
}

/// Tables one after another.
struct Area(Vec<u8>);

impl Area {
    /// Adds a table. Returns its guest address.
    fn add(&mut self, table: Vec<u8>) -> u64 {
        let at = self.0.len().next_multiple_of(ALIGNMENT);
        self.0.resize(at, 0);
        self.0.extend(table);
        RSDP + at as u64
    }
}

/// Returns what must be added to `bytes` for a sum of 0.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, &byte| sum.wrapping_sub(byte))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn rsdp(rsdt: u64, xsdt: u64) -> [u8; RSDP_SIZE] {
    let mut rsdp = [0; RSDP_SIZE];
    put(&mut rsdp, 0, b"RSD PTR ");
    put(&mut rsdp, 9, b"VECTIS");
    rsdp[15] = 2;
    put(&mut rsdp, 16, &(rsdt as u32).to_le_bytes());
    put(&mut rsdp, 20, &(RSDP_SIZE as u32).to_le_bytes());
    put(&mut rsdp, 24, &xsdt.to_le_bytes());
    rsdp[8] = checksum(&rsdp[..RSDP_FIRST]);
    rsdp[32] = checksum(&rsdp);
    rsdp
}

/// Returns a table with its header (section 5.2.6).
fn table(signature: [u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut table = vec![0; HEADER];
    table.extend(body);
    let length = table.len() as u32;
    put(&mut table, 0, &signature);
    put(&mut table, 4, &length.to_le_bytes());
    table[8] = revision;
    put(&mut table, 10, b"VECTIS");
    put(&mut table, 16, b"GUEST   ");
    put(&mut table, 24, &1u32.to_le_bytes());
    put(&mut table, 28, b"VCTS");
    put(&mut table, 32, &1u32.to_le_bytes());
    table[9] = checksum(&table);
    table
}

/// Returns a generic address (section 5.2.3.2) of ports of this many bytes.
fn ports(port: u16, bytes: u8) -> [u8; 12] {
    // 1 byte, 2 bytes and 4 bytes are access sizes 1, 2 and 3.
    let access = bytes.ilog2() as u8 + 1;
    let mut address = [0; 12];
    put(&mut address, 0, &[SPACE_IO, bytes * 8, 0, access]);
    put(&mut address, 4, &u64::from(port).to_le_bytes());
    address
}

fn fadt(dsdt: u64) -> Vec<u8> {
    let mut body = vec![0; fadt::SIZE - HEADER];
    let mut field = |at: usize, value: &[u8]| put(&mut body, at - HEADER, value);
    let wide = |port: u16| u32::from(port).to_le_bytes();
    field(fadt::DSDT, &(dsdt as u32).to_le_bytes());
    field(fadt::SCI, &u16::from(SCI).to_le_bytes());
    field(fadt::PM1A_EVENT, &wide(PM1_EVENT));
    field(fadt::PM1A_CONTROL, &wide(PM1_CONTROL));
    field(fadt::PM_TIMER, &wide(PM_TIMER));
    field(fadt::PM1_EVENT_LENGTH, &[4]);
    field(fadt::PM1_CONTROL_LENGTH, &[2]);
    field(fadt::PM_TIMER_LENGTH, &[4]);
    field(fadt::C2_LATENCY, &NO_C2.to_le_bytes());
    field(fadt::C3_LATENCY, &NO_C3.to_le_bytes());
    field(fadt::CENTURY, &[RTC_CENTURY]);
    field(fadt::BOOT_FLAGS, &BOOT_FLAGS.to_le_bytes());
    field(fadt::FLAGS, &FADT_FLAGS.to_le_bytes());
    field(fadt::RESET_REGISTER, &ports(RESET_PORT, 1));
    field(fadt::RESET_VALUE, &[RESET_VALUE]);
    field(fadt::MINOR, &[5]);
    field(fadt::X_DSDT, &dsdt.to_le_bytes());
    field(fadt::X_PM1A_EVENT, &ports(PM1_EVENT, 4));
    field(fadt::X_PM1A_CONTROL, &ports(PM1_CONTROL, 2));
    field(fadt::X_PM_TIMER, &ports(PM_TIMER, 4));
    table(*b"FACP", 6, &body)
}

fn madt() -> Vec<u8> {
    let mut body = Vec::new();
    body.extend((spec::MESSAGES.start as u32).to_le_bytes());
    body.extend(PCAT_COMPATIBLE.to_le_bytes());
    // Processor 0 with local APIC 0.
    body.extend([MADT_LOCAL_APIC, 8, 0, 0]);
    body.extend(ENABLED.to_le_bytes());
    // The I/O APIC has id 0; its first pin is interrupt 0.
    body.extend([MADT_IO_APIC, 12, 0, 0]);
    body.extend((IOAPIC_BASE as u32).to_le_bytes());
    body.extend(0u32.to_le_bytes());
    // ISA interrupt 0, with the bus's polarity and trigger mode.
    body.extend([MADT_OVERRIDE, 10, 0, 0]);
    body.extend(u32::from(TIMER_PIN).to_le_bytes());
    body.extend(0u16.to_le_bytes());
    table(*b"APIC", 5, &body)
}

/// Returns the MCFG (PCI Firmware 3.3 section 4.1.2), with bus 00 of segment 0.
fn mcfg() -> Vec<u8> {
    let mut body = vec![0; 8];
    body.extend(CONFIG_WINDOW.start.to_le_bytes());
    // Segment, first and last bus, and four bytes that are reserved.
    body.extend([0; 8]);
    table(*b"MCFG", 1, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, &byte| sum.wrapping_add(byte))
    }

    fn word(bytes: &[u8], at: usize) -> u64 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()).into()
    }

    fn at(area: &[u8], address: u64) -> &[u8] {
        let table = &area[(address - RSDP) as usize..];
        &table[..word(table, 4) as usize]
    }

    /// Follows the addresses from the RSDP on, as a kernel does.
    #[test]
    fn every_table_is_found_and_sums_to_0() {
        let area = tables();
        assert!(area.len() as u64 <= FIRMWARE.end - RSDP);
        assert_eq!(&area[..8], b"RSD PTR ");
        assert_eq!((sum(&area[..20]), sum(&area[..36])), (0, 0));
        let rsdt = at(&area, word(&area, 16));
        let xsdt = at(&area, word(&area, 24));
        assert_eq!((&rsdt[..4], &xsdt[..4]), (&b"RSDT"[..], &b"XSDT"[..]));
        let short: Vec<u64> = (36..rsdt.len()).step_by(4).map(|i| word(rsdt, i)).collect();
        let long: Vec<u64> = (36..xsdt.len()).step_by(8).map(|i| word(xsdt, i)).collect();
        assert_eq!(short, long);
        let [fadt, madt, mcfg] = [0, 1, 2].map(|index| at(&area, short[index]));
        assert_eq!((&fadt[..4], &madt[..4]), (&b"FACP"[..], &b"APIC"[..]));
        assert_eq!((&mcfg[..4], mcfg.len()), (&b"MCFG"[..], 60));
        assert_eq!(word(mcfg, 44), CONFIG_WINDOW.start);
        // Bus 00 only: the window is a MiB.
        assert_eq!(mcfg[52..56], [0; 4]);
        assert_eq!(CONFIG_WINDOW.end - CONFIG_WINDOW.start, 1 << 20);
        let dsdt = at(&area, word(fadt, fadt::DSDT));
        assert_eq!(&dsdt[..4], b"DSDT");
        assert_eq!(word(fadt, fadt::DSDT), word(fadt, fadt::X_DSDT));
        for table in [rsdt, xsdt, fadt, madt, mcfg, dsdt] {
            assert_eq!(sum(table), 0);
        }
        assert_eq!(fadt.len(), 276);
    }

    #[test]
    fn the_dsdt_names_the_sleep_type_of_s5() {
        let dsdt = table(*b"DSDT", 2, &S5);
        // Name, its four letters, package op, length, four elements.
        assert_eq!(dsdt[36..44], [8, b'_', b'S', b'5', b'_', 0x12, 10, 4]);
        assert_eq!(dsdt.len(), 36 + 6 + 10);
        assert_eq!(dsdt[45], SLEEP_TYPE_S5);
    }

    #[test]
    fn the_fadt_says_what_the_vmm_emulates() {
        let fadt = fadt(0);
        assert_eq!(word(&fadt, 56), 0x600);
        assert_eq!(word(&fadt, 64), 0x604);
        assert_eq!(word(&fadt, 76), 0x608);
        assert_eq!(fadt[116..128], [1, 8, 0, 1, 0xf9, 0x0c, 0, 0, 0, 0, 0, 0]);
        assert_eq!(fadt[128], 6);
        // Neither the CPU's own sleep nor a hardware-reduced machine.
        assert_eq!(word(&fadt, 112) >> 20 & 1, 0);
    }

    #[test]
    fn the_madt_lists_one_of_each() {
        let madt = madt();
        let mut entries = Vec::new();
        let mut at = 44;
        while at < madt.len() {
            entries.push(madt[at]);
            at += usize::from(madt[at + 1]);
        }
        assert_eq!((entries, at), (vec![0, 1, 2], madt.len()));
        assert_eq!(word(&madt, 36), 0xfee0_0000);
    }
}
