//! Numbers and structures of Solo5's hvt ABI, version 2, as its headers have them:
//! hvt_abi.h, elf_abi.h, mft_abi.h, solo5.h.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Version of the ABI.
pub const VERSION: u32 = 2;
/// Name in Solo5's notes.
pub const NOTE_NAME: &[u8] = b"Solo5";
/// Type of the note with the manifest, "MFT1".
pub const MFT1: u32 = 0x3154_464d;
/// Where the monitor puts the boot information, and then manifest and command line
/// (`X86_BOOT_INFO_BASE`).
pub const BOOT_INFO: u64 = 0x1_0000;
/// Lowest address of an image (`HVT_GUEST_MIN_BASE`).
pub const IMAGE_START: u64 = 0x10_0000;
/// Longest command line in bytes, with the zero at its end.
pub const COMMAND_LINE_SIZE: usize = 8192;

/// Hypercalls, by number; the port is 0x500 higher.
pub mod call {
    /// Wall clock time.
    pub const WALLTIME: u32 = 1;
    /// Text for the console.
    pub const PUTS: u32 = 2;
    /// Waits for networks or time.
    pub const POLL: u32 = 3;
    /// Writes blocks.
    pub const BLOCK_WRITE: u32 = 4;
    /// Reads blocks.
    pub const BLOCK_READ: u32 = 5;
    /// Sends a frame.
    pub const NET_WRITE: u32 = 6;
    /// Takes a received frame.
    pub const NET_READ: u32 = 7;
    /// Ends the guest.
    pub const HALT: u32 = 8;
}

/// `SOLO5_R_OK`.
pub const OK: i32 = 0;
/// `SOLO5_R_AGAIN`: nothing is there yet.
pub const AGAIN: i32 = 1;
/// `SOLO5_R_EINVAL`: an argument is wrong.
pub const EINVAL: i32 = 2;
/// `SOLO5_R_EUNSPEC`: another error.
pub const EUNSPEC: i32 = 3;

/// Declares structures that image and monitor share.
macro_rules! shared {
    ($(
        $(#[$meta:meta])*
        struct $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }
    )*) => { $(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
        #[repr(C)]
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)* }
    )* };
}

shared! {
    /// What the image's entry gets (`hvt_boot_info`).
    struct BootInfo {
        /// Bytes of memory, from address 0.
        mem_size: u64,
        /// First address after the image.
        kernel_end: u64,
        /// Frequency of the time stamp counter in Hz.
        cpu_cycle_freq: u64,
        /// Address of the command line, which ends with a zero.
        command_line: u64,
        /// Address of the manifest.
        manifest: u64,
        /// Features that are offered: none.
        host_features: u32,
        /// Features that the image takes.
        guest_features: u32,
        /// Address of a ring for networks: none.
        net_ring: u64,
    }
    /// Argument of [`call::WALLTIME`].
    struct WallTime {
        /// Out: nanoseconds since the start of 1970.
        nsecs: u64,
    }
    /// Argument of [`call::PUTS`].
    struct Puts {
        /// Address of the text.
        data: u64,
        /// Its bytes.
        length: u64,
    }
    /// Argument of [`call::POLL`].
    struct Poll {
        /// Longest wait in nanoseconds.
        timeout_nsecs: u64,
        /// Out: a bit for each entry of the manifest with something to read.
        ready_set: u64,
        /// Out: how many.
        ret: i32,
        /// Padding.
        reserved: u32,
    }
    /// Argument of [`call::BLOCK_WRITE`] and [`call::BLOCK_READ`].
    struct Block {
        /// Entry of the manifest.
        handle: u64,
        /// Byte on the disk.
        offset: u64,
        /// Address of the data.
        data: u64,
        /// Bytes.
        length: u64,
        /// Out: result.
        ret: i32,
        /// Padding.
        reserved: u32,
    }
    /// Argument of [`call::NET_WRITE`] and [`call::NET_READ`].
    struct Net {
        /// Entry of the manifest.
        handle: u64,
        /// Address of the frame.
        data: u64,
        /// Bytes; out, of a read: those of the frame.
        length: u64,
        /// Out: result.
        ret: i32,
        /// Padding.
        reserved: u32,
    }
    /// Argument of [`call::HALT`].
    struct Halt {
        /// Address of a hint for debuggers, or 0.
        cookie: u64,
        /// Exit status.
        exit_status: i32,
        /// Padding.
        reserved: u32,
    }
}
