//! The shim: finds the image's devices, enters the image, and serves its calls.
//!
//! Responsible for: what Solo5's monitor (the tender) does around an hvt image.
//! Must never: leave an interrupt or a device set up that the manifest does not name.
//! May call: kit, the library.
//! Invariants: the image runs only inside `Image::run`, with interrupts off.
#![no_std]
#![no_main]

mod image;
mod machine;

use core::fmt::Arguments;

use kit::boot::{self, Boot};
use kit::clock::Clock;
use kit::interrupts::Interrupts;
use kit::lapic::Lapic;
use kit::pci::Way;
use kit::{console, cpu, println};
use solo5::abi::{BOOT_INFO, BootInfo, COMMAND_LINE_SIZE};
use solo5::calls::{Next, serve};
use solo5::manifest::{ENTRIES, Entry, Manifest};
use spec::shim::{Handoff, Solo5Devices};
use zerocopy::{FromBytes as _, IntoBytes as _};

use image::Image;
use machine::Machine;

kit::entry!(main);

/// Added to an exit status of the image that is not 0, so that it differs from kit's own.
const STATUS: u32 = 0x100;

fn main(boot: Boot) -> ! {
    console::init();
    let Some((head, command_line, payload)) = Handoff::parse(boot::handoff()) else {
        fail(format_args!("there is no image beside this shim"))
    };
    let Ok((devices, manifest)) = Solo5Devices::read_from_prefix(payload) else {
        fail(format_args!("what was handed over is too short"))
    };
    let manifest = match Manifest::parse(manifest) {
        Ok(manifest) => manifest,
        Err(error) => fail(format_args!("the image's manifest: {error:?}")),
    };
    let clock = Clock::calibrated(boot.entry_tsc, &boot.command_line);
    let mut interrupts = Interrupts::install();
    interrupts.post(&boot.command_line);
    let lapic = Lapic::enable(&clock, &boot.command_line);
    let hertz = clock.khz() * 1000;
    let mut machine = Machine::new(clock, interrupts, lapic, Way::of(&boot.command_line));
    let mut entries = [Entry::reserved(); ENTRIES];
    let mut count = 0;
    for (entry, from) in entries.iter_mut().zip(manifest.entries()) {
        *entry = from;
        let function = devices.functions[count];
        if entry.kind().is_some()
            && let Err(error) = machine.attach(count, entry, function)
        {
            let name = entry.name().unwrap_or("?");
            fail(format_args!(
                "device {name} of the image's manifest: {error}"
            ))
        }
        count += 1;
    }
    let entries = &entries[..count];

    let mut image = Image::new(&head);
    if write_boot_info(&mut image, &head, hertz, command_line, entries).is_none() {
        fail(format_args!("the image has too little memory"))
    }
    image.enter_at(head.entry);
    loop {
        let call = image.run();
        let mut ram = image.ram();
        match serve(call.number, call.argument, &mut ram, entries, &mut machine) {
            Next::Resume => {}
            Next::End(status) => end(status),
        }
    }
}

/// Puts boot information, manifest and command line where Solo5's monitor has them.
fn write_boot_info(
    image: &mut Image,
    head: &Handoff,
    hertz: u64,
    command_line: &[u8],
    entries: &[Entry],
) -> Option<()> {
    let manifest = BOOT_INFO + size_of::<BootInfo>() as u64;
    let list = manifest + 8;
    let line = list + size_of_val(entries) as u64;
    let info = BootInfo {
        mem_size: head.ram_end,
        kernel_end: head.image_end.next_multiple_of(4096),
        cpu_cycle_freq: hertz,
        command_line: line,
        manifest,
        ..BootInfo::default()
    };
    let mut ram = image.ram();
    ram.write(BOOT_INFO, &info)?;
    ram.write(manifest, &[solo5::manifest::VERSION, entries.len() as u32])?;
    let bytes = entries.as_bytes();
    ram.get_mut(list, bytes.len() as u64)?
        .copy_from_slice(bytes);
    // A longer line is cut; the rest is zero.
    let length = command_line.len().min(COMMAND_LINE_SIZE - 1);
    let text = ram.get_mut(line, length as u64)?;
    text.copy_from_slice(&command_line[..length]);
    Some(())
}

/// Ends the guest with the image's exit status.
fn end(status: i32) -> ! {
    let code = match status as u8 {
        0 => spec::EXIT_SUCCESS,
        status => STATUS | u32::from(status),
    };
    cpu::out32(spec::EXIT_PORT, code);
    cpu::stop()
}

/// Ends the guest before its image has run.
fn fail(why: Arguments) -> ! {
    println!("solo5: {why}");
    kit::exit(kit::EXIT_FAILURE)
}
