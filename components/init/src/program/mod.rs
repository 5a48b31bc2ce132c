//! Init's steps, in order: take stock, build, find devices, start, watch.

mod audit;
mod authority;
mod builder;
mod clock;
mod fatal;
mod firmware;
mod functions;
mod groups;
mod iommu;
mod memory;
mod monitor;
mod ports;
mod probe;
mod restart;
mod screen;
mod selfcheck;

use core::sync::atomic::Ordering;

use sel4::init_thread::slot;
use sel4::{BootInfoPtr, CapRights};
use spec::{MachineInfo, Start, System};

use builder::Builder;
use fatal::fatal;
use init::Given;

/// Returns the image that the build tool attached.
fn image() -> &'static [u8] {
    let [address, length] = &crate::VECTIS_IMAGE;
    let address = address.load(Ordering::Relaxed) as usize;
    let length = length.load(Ordering::Relaxed) as usize;
    if address == 0 {
        fatal!("no image is attached: build with `vectis build`");
    }
    let start = core::ptr::with_exposed_provenance::<u8>(address);
    // SAFETY: the build tool made the image a read-only segment of this very
    // ELF file, which the kernel mapped whole.
    unsafe { core::slice::from_raw_parts(start, length) }
}

/// Runs init: `boot_info` is the address that the kernel passed.
pub extern "C" fn start(boot_info: usize) -> ! {
    let handover = runtime::tsc();
    // SAFETY: the kernel passed this address, and nothing unmaps it.
    let boot_info = match unsafe { BootInfoPtr::from_address(boot_info) } {
        Ok(boot_info) => boot_info,
        Err(_) => fatal!("the kernel's BootInfo makes no sense"),
    };
    // SAFETY: this is the buffer that the kernel configured this thread with,
    // the only thread of this program.
    unsafe { sel4::set_ipc_buffer(boot_info.ipc_buffer()) };
    ports::start(boot_info.empty().start());
    let system = match System::parse(image()) {
        Ok(system) => system,
        Err(error) => fatal!("the attached image is broken: {error:?}"),
    };
    let header = system.header;
    ports::set(header.com1 as u16, header.exit_port as u16);
    let mut builder = Builder::new(&boot_info, &system);
    builder.start_log();
    screen::start(&mut builder);
    let tsc_khz = boot_info.tsc_mhz() * 1000;
    defmt::info!("tsc_khz={=u64}", tsc_khz);
    if !init::keeps_rate(|leaf| probe::cpuid(leaf, 0)) {
        defmt::warn!(
            "the time stamp counter is not invariant (CPUID 0x80000007): time and deadlines are \
             wrong while the CPU runs at another rate than at boot"
        );
    }
    let handover_time = ports::unix_time().unwrap_or_default();
    defmt::info!("handover time={=u64}", handover_time);
    defmt::info!("handover tsc={=u64}", handover);
    defmt::info!(
        "kernel: seL4 {=str}, {=usize} pieces of untyped memory",
        header.kernel.as_str(),
        boot_info.untyped().len()
    );
    if header.kernel.is_open() {
        defmt::warn!("a guest may halt this kernel by its flags");
    }
    let mut pages = firmware::Pages::new();
    let given = boot_info.rsdp();
    let looked_for = match given {
        Some(_) => None,
        None => firmware::root_pointer(&mut builder, &mut pages),
    };
    let root_pointer = given.or(looked_for.as_ref().map(|pointer| &pointer[..]));
    if header.probe == 1 {
        probe::run(&mut builder, &boot_info, pages, root_pointer);
    }
    firmware::place(&mut builder, &mut pages, root_pointer);
    builder.make_objects();
    builder.fill();
    let found = functions::assign(&mut builder);
    let unit = iommu::find(&mut builder, &mut pages, root_pointer, &found);
    pages.end();
    if unit.kind != spec::IommuKind::None {
        groups::check(&mut builder, &found);
    }
    let bell = selfcheck::Bell::new(&mut builder);
    builder.write(
        system.header.machine as u32,
        zerocopy::IntoBytes::as_bytes(&MachineInfo {
            tsc_khz,
            handover_tsc: handover,
            functions: found.len() as u64,
            handover_time,
            kernel: header.kernel,
            clock: builder.places.clock,
            clock_pin: builder.places.clock_pin,
            configuration: builder.places.configuration(),
        }),
    );
    builder.map_all();
    builder.hand_out();
    builder.configure_threads();
    if builder.start_threads(Start::First) > 0 {
        monitor::wait_ready(&system, &builder.watched(heapless::Vec::new()));
    }
    let in_use = unit.kind != spec::IommuKind::None;
    selfcheck::all(&mut builder, &found, bell, tsc_khz, in_use);
    if system.header.audit == 1 {
        let functions: heapless::Vec<_, { spec::FUNCTIONS }> =
            found.iter().map(|(_, info)| *info).collect();
        let given = Given {
            system: &system,
            functions: &functions,
            places: builder.places,
            iommu: unit,
        };
        let mut audit = audit::Audit::new(&mut builder, given);
        audit.threads(&builder);
        builder.drop_authority();
        audit.own(&builder);
        audit.end();
    }
    builder.start_threads(Start::Boot);
    let gone = builder.drop_authority();
    let watched = builder.watched(gone);
    defmt::info!(
        "{=usize} objects, {=usize} capabilities, {=usize} slots left",
        system.objects.len(),
        system.capabilities.len(),
        watched.slots_left
    );
    defmt::info!("init done tsc={=u64}", runtime::tsc());
    monitor::watch(&system, &watched, tsc_khz)
}

/// Returns the slot `index` of init's own CNode.
fn own_slot(index: usize) -> sel4::AbsoluteCPtr {
    slot::CNODE.cap().absolute_cptr(
        sel4::init_thread::Slot::<sel4::cap_type::Unspecified>::from_index(index).cptr(),
    )
}

fn rights(rights: spec::Rights) -> CapRights {
    CapRights::new(
        rights.contains(spec::Rights::GRANT_REPLY),
        false,
        rights.contains(spec::Rights::READ),
        rights.contains(spec::Rights::WRITE),
    )
}
