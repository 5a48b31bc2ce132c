//! From the loader to the guest's `main`.

use core::arch::global_asm;

use crate::boot_params::{self, BootParams, PVH_ENTRY_SIZE, PVH_INFO_SIZE, PvhInfo};
use crate::command_line::{self, CommandLine};
use crate::cpu;

global_asm!(include_str!("boot.s"));

/// Information from the loader.
#[derive(Clone, Copy)]
pub struct Boot {
    /// Memory map and addresses.
    pub params: BootParams<'static>,
    /// The command line; empty if none was given.
    pub command_line: CommandLine<'static>,
    /// Time stamp counter at the first Rust instruction.
    pub entry_tsc: u64,
}

/// Names the guest's main function, `fn(kit::boot::Boot) -> !`, and with `stack =
/// BYTES` the size of its stack: a multiple of 16, at most 1 MiB, 64 KiB otherwise.
#[macro_export]
macro_rules! entry {
    ($main:path, stack = $size:expr) => {
        $crate::entry!($main);
        ::core::arch::global_asm!(
            ".global guest_stack_size",
            ".set guest_stack_size, {size}",
            size = const $size,
        );
    };
    ($main:path) => {
        #[unsafe(no_mangle)]
        extern "Rust" fn guest_main(boot: $crate::boot::Boot) -> ! {
            let main: fn($crate::boot::Boot) -> ! = $main;
            main(boot)
        }
    };
}

unsafe extern "C" {
    static guest_ram: u8;
    static guest_stack_bottom: u8;
    static boot_has_fault_stack: u8;
}

/// Returns the block that the build tool leaves for a shim ([`spec::shim`]); zeros in
/// another guest. Its stack must not reach there.
pub fn handoff() -> &'static [u8] {
    let block = &raw const guest_ram as u64 + spec::shim::HANDOFF_OFFSET;
    // SAFETY: it is RAM between the stack and the program (guest.ld), and nothing writes
    // to it.
    unsafe { core::slice::from_raw_parts(block as *const u8, spec::shim::HANDOFF_SIZE) }
}

/// Bytes below the stack that are mapped nowhere: on Vectis all of them, on a bare
/// machine these.
const GUARD: u64 = 1 << 20;

/// Returns whether an access to this address is one past the end of the stack.
pub(crate) fn is_below_stack(address: u64) -> bool {
    let bottom = &raw const guest_stack_bottom as u64;
    // RAM may begin at 0: what lies below is then the last of all addresses.
    bottom.wrapping_sub(1).wrapping_sub(address) < GUARD
}

/// Returns whether exceptions can have a stack of their own, IST 1: the task
/// state is ours on a bare machine only.
pub(crate) fn has_fault_stack() -> bool {
    // SAFETY: boot.s wrote it before the first Rust instruction, and nothing since.
    unsafe { boot_has_fault_stack != 0 }
}

unsafe extern "Rust" {
    safe fn guest_main(boot: Boot) -> !;
}

/// Runs the first Rust code of a guest, called by `boot.s` on the guest's own stack.
#[unsafe(no_mangle)]
extern "C" fn guest_start(params: &'static [u8; boot_params::SIZE]) -> ! {
    let entry_tsc = cpu::tsc();
    let params = BootParams::new(params);
    let address = params.command_line_address();
    let command_line = if address == 0 {
        &[][..]
    } else {
        // SAFETY: boot.s has copied that many bytes there, into the image, from
        // where the loader had them, and nothing writes to them.
        unsafe { core::slice::from_raw_parts(address as *const u8, command_line::MAX_LENGTH) }
    };
    guest_main(Boot {
        params,
        command_line: CommandLine::new(command_line),
        entry_tsc,
    })
}

static mut PVH_BOOT_PARAMS: [u8; boot_params::SIZE] = [0; boot_params::SIZE];

/// Makes the boot_params page of a PVH boot; called once by `boot.s`.
#[unsafe(no_mangle)]
extern "C" fn boot_params_from_pvh(info: &[u8; PVH_INFO_SIZE]) -> *const [u8; boot_params::SIZE] {
    let page = &raw mut PVH_BOOT_PARAMS;
    if let Some(info) = PvhInfo::parse(info) {
        let map = if info.memory_entries == 0 {
            &[][..]
        } else {
            // SAFETY: PVH promises that many entries at that address.
            unsafe {
                core::slice::from_raw_parts(
                    info.memory_map as *const u8,
                    info.memory_entries * PVH_ENTRY_SIZE,
                )
            }
        };
        // SAFETY: the only reference to the page; `guest_start` takes its own
        // after this function has returned.
        info.fill(map, unsafe { &mut *page });
    }
    page
}
