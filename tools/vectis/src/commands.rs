//! The commands, put together from the other modules.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use spec::CpuKind;
use system::{Board, Model, Programs, Qemu};

use crate::cli::{self, profile};
use crate::error::{Error, Result};
use crate::kernels::Kernel;
use crate::logs::Level;
use crate::network::{free_ports, networks};
use crate::qemu::{Clock, Machine, check_kvm};
use crate::record::{self, Filter, LOG};
use crate::steps::Steps;
use crate::workspace::Workspace;
use crate::{bench, control, image, media, metrics, output, packages, run, soak};

/// Bound on an audit, and on a probe: twenty times the time of a slow machine.
const AUDIT: Duration = Duration::from_secs(300);
/// How the host's kernel runs machines.
const KVM: &str = "/dev/kvm";
/// System of `vectis soak` unless another one is named.
const SOAK_SYSTEM: &str = "tests/systems/soak.toml";
/// The guest's word for measuring: it ends once it has a lease.
const EXIT_ON_LEASE: &str = "exit=on-lease";

fn read(workspace: &Workspace, system: &cli::System) -> Result<Model> {
    let file = workspace.system_file(system.file.as_deref());
    Ok(system::read(&workspace.root, &file, system.iommu)?)
}

/// Returns how QEMU makes the system's machine.
fn qemu(model: &Model) -> Result<&Qemu> {
    let Board {
        name,
        file,
        iommu,
        qemu,
        ..
    } = &model.board;
    let qemu = qemu.as_ref().ok_or_else(|| {
        Error::new(
            format!("board {name} has no machine to run"),
            format!("{file} has no `[qemu]`, which says how QEMU makes one"),
            "boot the machine itself, from what `vectis build` with --iso, --disk or --boot \
             writes; or add [qemu], as board/qemu-q35/board.toml has it",
        )
    })?;
    if qemu.iommu_arguments(*iommu).is_none() {
        return Err(Error::new(
            format!("board {name} has no IOMMU `{}`", iommu.name()),
            format!("{file} does not say how QEMU makes one"),
            "add it under [qemu.iommu] in the board's file, or choose another with --iommu",
        ));
    }
    Ok(qemu)
}

/// Reads a system that QEMU is to run; what it has no machine for is an error before the build.
fn read_to_run(workspace: &Workspace, system: &cli::System) -> Result<Model> {
    let model = read(workspace, system)?;
    qemu(&model)?;
    Ok(model)
}

fn print_kernel(kernel: &kernel::Built) -> Result<()> {
    output::line(&format!("kernel: seL4 {}", kernel.label))?;
    output::line(&format!("kernel: {}", kernel.entry.describe()))?;
    for (name, value) in &kernel.options {
        output::line(&format!("{name}={value}"))?;
    }
    Ok(())
}

/// Returns the key that stands for the component, or the guest as `guest:NAME`,
/// that `--inject-fault` names: its position from 1 as one digit of base 36;
/// guests come after the components.
fn position(model: &system::Model, name: Option<&str>) -> Result<Option<char>> {
    let Some(name) = name else {
        return Ok(None);
    };
    let components = model.components.iter().map(|c| c.name.clone());
    let guests = model.guests.iter().map(|g| format!("guest:{}", g.name));
    let names: Vec<String> = components.chain(guests).collect();
    names
        .iter()
        .position(|known| *known == name)
        .and_then(run::position_key)
        .map(Some)
        .ok_or_else(|| {
            Error::new(
                format!("no component {name}"),
                "it is not among the first 35 of the system file",
                format!("there is {}", names.join(", ")),
            )
        })
}

/// Runs `vectis run`.
///
/// # Errors
/// If the system cannot be built, does not start, or ends badly.
pub fn run(arguments: &cli::Run) -> Result<()> {
    let workspace = Workspace::find()?;
    let mut model = read_to_run(&workspace, &arguments.system)?;
    // Checked before the build, so that an error comes at once.
    let networks = networks(&model).len();
    free_ports(arguments.port, networks)?;
    if arguments.kvm {
        check_kvm(Path::new(KVM))?;
        // Where machines are nested, KVM may offer neither of what the other kernel needs.
        model.board.cpu = CpuKind::Baseline;
    }
    if let Some(file) = &arguments.trace {
        // The first line comes when the guest runs.
        std::fs::File::create(file).map_err(|e| Error::file("write", file, &e))?;
    }
    if arguments.bench_boot {
        for guest in &mut model.guests {
            guest.command_line = format!("{} {EXIT_ON_LEASE}", guest.command_line)
                .trim()
                .to_owned();
        }
    }
    let options = run::Options {
        level: if arguments.verbose {
            Level::Trace
        } else {
            Level::Warn
        },
        bare: arguments.bare,
        exit_after_ready: arguments.exit_after_ready,
        timeout: arguments.timeout.map(Duration::from_secs),
        bench: arguments.bench_boot,
        counted: arguments.bench_boot || arguments.icount,
        trace: arguments.trace.clone(),
        inject: position(&model, arguments.inject_fault.as_deref())?,
        ..run::Options::default()
    };
    if arguments.bare {
        return bare(&workspace, &model, arguments, &options);
    }
    let profile = profile(arguments.debug);
    let kernel = Kernel::choose(&arguments.kernel, &model.board, profile)?;
    packages::ensure(&[packages::GCC, packages::QEMU])?;
    let mut steps = Steps::new(image::STEPS + 1);
    // A measured image is another one: the command line is part of it.
    let name = if options.bench { "bench" } else { "image" };
    let folder = image::Folder::Own(workspace.output(profile).join(name));
    let composed = system::Options {
        inject_faults: options.inject.is_some(),
        trace: options.trace.is_some(),
        ..system::Options::default()
    };
    let built = image::build(
        &workspace, &model, composed, &kernel, profile, &folder, &mut steps,
    )?;
    if arguments.verbose {
        print_kernel(&built.kernel)?;
    }
    let log = record::prepare(&built.folder, &workspace.run_folder())?;
    steps.begin(
        "QEMU",
        &format!("{}M, {}", model.board.memory >> 20, model.board.name),
    );
    let machine = Machine {
        clock: Clock::counting(options.counted),
        kvm: arguments.kvm.then(|| image::features(&built.kernel)),
        ..machine(&model, &built, free_ports(arguments.port, networks)?)?
    };
    run::run(
        &machine,
        &built.writers,
        Some(&log),
        &options,
        Some(built.lock),
    )
}

/// Returns the machine that boots an image.
fn machine<'a>(model: &'a Model, built: &image::Built, ports: Vec<u16>) -> Result<Machine<'a>> {
    Ok(Machine {
        model,
        qemu: qemu(model)?,
        kernel: built.kernel_file(),
        initrd: Some(built.init()),
        command_line: built.command_line.clone(),
        ports,
        clock: Clock::Host,
        kvm: None,
    })
}

/// Runs `vectis soak`.
///
/// # Errors
/// If the system cannot be built or does not start, or something is lost or
/// leaked.
pub fn soak(arguments: &cli::Soak) -> Result<()> {
    let workspace = Workspace::find()?;
    let file = match &arguments.system {
        Some(file) => file.clone(),
        None => workspace.root.join(SOAK_SYSTEM),
    };
    let system = cli::System {
        file: Some(file),
        iommu: None,
    };
    let model = read_to_run(&workspace, &system)?;
    let profile = profile(false);
    let kernel = Kernel::choose(&arguments.kernel, &model.board, profile)?;
    packages::ensure(&[packages::GCC, packages::QEMU])?;
    let mut steps = Steps::new(image::STEPS + 1);
    let folder = image::Folder::Own(workspace.output(profile).join("soak"));
    let composed = system::Options {
        inject_faults: true,
        ..system::Options::default()
    };
    let built = image::build(
        &workspace, &model, composed, &kernel, profile, &folder, &mut steps,
    )?;
    let log = record::prepare(&built.folder, &workspace.run_folder())?;
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    steps.begin("QEMU", &format!("{} min, seed {seed}", arguments.minutes));
    let ports = free_ports(0, networks(&model).len())?;
    let options = soak::Options {
        time: Duration::from_secs_f64(arguments.minutes * 60.0),
        seed,
        verbose: arguments.verbose,
    };
    let machine = machine(&model, &built, ports)?;
    soak::soak(&machine, &built.writers, &log, &options, built.lock)
}

/// Runs `vectis bench`.
///
/// # Errors
/// If a machine cannot be built, does not start or does not come to its end, or a count
/// is above the committed one and `--check` was given.
pub fn bench(arguments: &cli::Bench) -> Result<()> {
    if arguments.http {
        return bench_http(arguments);
    }
    let workspace = Workspace::find()?;
    let read_of = |file: &Path| {
        let system = cli::System {
            file: Some(file.to_owned()),
            iommu: arguments.iommu,
        };
        read_to_run(&workspace, &system)
    };
    let alone = workspace.root.join(bench::SYSTEM);
    let bare_model = read_of(&alone)?;
    let profile = profile(false);
    let kernel = Kernel::choose(&arguments.kernel, &bare_model.board, profile)?;
    if kernel.prefix().is_some() && (arguments.check || arguments.update) {
        return Err(Error::new(
            "the committed counts are the bundled kernel's",
            "another one has others",
            "leave --check and --update out, or take `--sel4 bundled`",
        ));
    }
    let folder = workspace.output(profile).join("bench");
    let model = if arguments.guests == 1 {
        bare_model.clone()
    } else {
        let file = workspace.target.join("vectis/bench.toml");
        let text = bench::system(&alone, arguments.guests.into());
        crate::workspace::write(&file, text)?;
        read_of(&file)?
    };
    packages::ensure(&[packages::GCC, packages::QEMU])?;
    let mut steps = Steps::new(image::STEPS + 3);
    let options = system::Options::default();
    let own = image::Folder::Own(folder);
    let built = image::build(
        &workspace, &model, options, &kernel, profile, &own, &mut steps,
    )?;
    let log = record::prepare(&built.folder, &workspace.run_folder())?;
    steps.begin("guest", "without a monitor");
    let ports = free_ports(0, networks(&bare_model).len())?;
    let plain = Machine {
        clock: Clock::Counted,
        ..bare_machine(&workspace, &bare_model, &bare_model.guests[0], ports)?
    };
    // First, since another build could replace the guest: this one's lock is let go with
    // the second machine's start.
    steps.begin("QEMU", "without a monitor");
    let bare = bench::measure(&plain, &[], None, arguments.verbose, None)?;
    steps.begin("QEMU", &format!("{} on Vectis", model.name));
    let ports = free_ports(0, networks(&model).len())?;
    let machine = Machine {
        clock: Clock::Counted,
        ..machine(&model, &built, ports)?
    };
    let measured = bench::measure(
        &machine,
        &built.writers,
        Some(&log),
        arguments.verbose,
        Some(built.lock),
    )?;
    let wanted = bench::Wanted {
        json: arguments.json,
        check: arguments.check,
        update: arguments.update,
    };
    let iommu = model.board.iommu.name();
    bench::conclude(&workspace, iommu, bare, measured, wanted)
}

/// Measures requests to the project's guest, without a monitor and on Vectis.
fn bench_http(arguments: &cli::Bench) -> Result<()> {
    let workspace = Workspace::find()?;
    let system = cli::System {
        file: None,
        iommu: arguments.iommu,
    };
    let model = read_to_run(&workspace, &system)?;
    let profile = profile(false);
    let kernel = Kernel::choose(&arguments.kernel, &model.board, profile)?;
    packages::ensure(&[packages::GCC, packages::QEMU])?;
    let mut steps = Steps::new(image::STEPS + 3);
    let options = system::Options::default();
    let own = image::Folder::Own(workspace.output(profile).join("bench"));
    let built = image::build(
        &workspace, &model, options, &kernel, profile, &own, &mut steps,
    )?;
    let log = record::prepare(&built.folder, &workspace.run_folder())?;
    let clock = Clock::Recorded;
    steps.begin("guest", "without a monitor");
    let ports = free_ports(0, networks(&model).len())?;
    let mut plain = bare_machine(&workspace, &model, &model.guests[0], ports)?;
    plain.clock = clock;
    plain.command_line = [&plain.command_line, bench::http::WORDS].join(" ");
    steps.begin("QEMU", "requests, without a monitor");
    let verbose = arguments.verbose;
    let bare = bench::http::measure(&plain, &[], None, verbose, None)?;
    steps.begin("QEMU", &format!("requests, {} on Vectis", model.name));
    let ports = free_ports(0, networks(&model).len())?;
    let machine = Machine {
        clock,
        ..machine(&model, &built, ports)?
    };
    let (writers, lock) = (&built.writers, built.lock);
    let vectis = bench::http::measure(&machine, writers, Some(&log), verbose, Some(lock))?;
    bench::http::conclude(bare, vectis, arguments.json)
}

/// Returns the guest without seL4.
fn bare(
    workspace: &Workspace,
    model: &Model,
    arguments: &cli::Run,
    options: &run::Options,
) -> Result<()> {
    let [guest] = &model.guests[..] else {
        return Err(Error::new(
            "cannot run the guest on bare QEMU",
            format!("the system has {} guests", model.guests.len()),
            "name a system file with one guest: --system FILE",
        ));
    };
    packages::ensure(&[packages::QEMU])?;
    let mut steps = Steps::new(2);
    let lock = workspace.lock()?;
    steps.begin("guest", &guest.name);
    let ports = free_ports(arguments.port, networks(model).len())?;
    let machine = Machine {
        clock: Clock::counting(options.counted),
        kvm: arguments.kvm.then_some(0),
        ..bare_machine(workspace, model, guest, ports)?
    };
    steps.begin("QEMU", &format!("{}M, no seL4", model.board.memory >> 20));
    run::run(&machine, &[], None, options, Some(lock))
}

/// Returns the machine that is this guest's alone; the guest is built.
fn bare_machine<'a>(
    workspace: &Workspace,
    model: &'a Model,
    guest: &system::Guest,
    ports: Vec<u16>,
) -> Result<Machine<'a>> {
    Ok(Machine {
        model,
        qemu: qemu(model)?,
        kernel: image::guest_file(workspace, guest)?,
        initrd: None,
        command_line: guest.command_line.clone(),
        ports,
        clock: Clock::Host,
        kvm: None,
    })
}

/// Runs `vectis dump`.
///
/// # Errors
/// If no system runs, or it does not answer.
pub fn dump(keys: &str) -> Result<()> {
    control::dump(&Workspace::find()?.run_folder(), keys)
}

/// Runs `vectis metrics`, of the last run or of the system behind the socket `console`
/// with the image in the folder `image`.
///
/// # Errors
/// If no system runs, or it does not answer.
pub fn metrics(console: Option<&Path>, image: Option<&Path>) -> Result<()> {
    let folder = Workspace::find()?.run_folder();
    metrics::metrics(image.unwrap_or(&folder), console)
}

/// Runs `vectis build`.
///
/// # Errors
/// If a part cannot be built.
pub fn build(arguments: &cli::Build) -> Result<()> {
    let workspace = Workspace::find()?;
    let model = read(&workspace, &arguments.system)?;
    let profile = profile(arguments.debug);
    let kernel = Kernel::choose(&arguments.kernel, &model.board, profile)?;
    let folder = match &arguments.out {
        // Checked before the build, so that an error comes at once.
        Some(folder) => image::Folder::named(folder)?,
        None => image::Folder::Own(workspace.output(profile).join("image")),
    };
    let media = &arguments.media;
    packages::ensure(&[&[packages::GCC], &media::needs(media)[..]].concat())?;
    let mut steps = Steps::new(image::STEPS + media::steps(media));
    let composed = system::Options::default();
    let built = image::build(
        &workspace, &model, composed, &kernel, profile, &folder, &mut steps,
    )?;
    if arguments.verbose {
        print_kernel(&built.kernel)?;
    }
    media::write(&workspace, &model, &built, media, &mut steps)
}

/// Runs `vectis probe`.
///
/// # Errors
/// If the image cannot be built, or QEMU does not run it to its end.
pub fn probe(arguments: &cli::Probe) -> Result<()> {
    let workspace = Workspace::find()?;
    let media = &arguments.media;
    let runs = *media == cli::Media::default();
    let of_system = if runs { read_to_run } else { read };
    let model = of_system(&workspace, &arguments.system)?;
    // Only init is on the image. It knows of no port that ends a PC.
    let mut alone = Model {
        components: Vec::new(),
        channels: Vec::new(),
        devices: Vec::new(),
        guests: Vec::new(),
        ..model.clone()
    };
    if !runs {
        alone.board.exit_port = 0;
    }
    // What it lacks is to be told on any CPU.
    alone.board.cpu = CpuKind::Baseline;
    let profile = profile(false);
    let kernel = Kernel::choose(&arguments.kernel, &alone.board, profile)?;
    let needs = if runs {
        vec![packages::QEMU]
    } else {
        media::needs(media)
    };
    packages::ensure(&[&[packages::GCC], &needs[..]].concat())?;
    let steps = if runs { 1 } else { media::steps(media) };
    let mut steps = Steps::new(image::STEPS + steps);
    let folder = image::Folder::Own(workspace.output(profile).join("probe"));
    let composed = system::Options {
        probe: true,
        ..system::Options::default()
    };
    let built = image::build(
        &workspace, &alone, composed, &kernel, profile, &folder, &mut steps,
    )?;
    if !runs {
        return media::write(&workspace, &alone, &built, media, &mut steps);
    }
    steps.begin("QEMU", &model.board.name);
    let ports = free_ports(0, networks(&model).len())?;
    let options = run::Options {
        timeout: Some(AUDIT),
        ..run::Options::default()
    };
    let machine = machine(&model, &built, ports)?;
    run::run(&machine, &built.writers, None, &options, Some(built.lock))
}

/// Runs `vectis test`.
///
/// # Errors
/// If a test fails.
pub fn test(arguments: &[OsString]) -> Result<()> {
    let workspace = Workspace::find()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(&workspace.root)
        .args(["test", "--workspace"])
        .args(arguments)
        .status()
        .map_err(|e| Error::new("cannot run cargo", e, "cargo must be in the PATH"))?;
    if status.success() {
        return Ok(());
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Err(Error::new(
        "tests failed",
        "see above",
        "`vectis test -p CRATE NAME` runs one test again",
    )
    .with_status(code.unwrap_or(1)))
}

/// Runs `vectis graph`.
///
/// # Errors
/// If the system is wrong or the file cannot be written.
pub fn graph(system: &cli::System, out: Option<&Path>) -> Result<()> {
    let workspace = Workspace::find()?;
    let svg = system::draw(&read(&workspace, system)?);
    match out {
        // Like any file that a command writes: its folder has to be there.
        Some(file) => std::fs::write(file, svg).map_err(|e| Error::file("write", file, &e)),
        None => output::line(svg.trim_end()),
    }
}

/// Runs `vectis show`.
///
/// # Errors
/// If the system is wrong.
pub fn show(file: Option<&Path>) -> Result<()> {
    let workspace = Workspace::find()?;
    let text = system::expand(&workspace.root, &workspace.system_file(file), None)?;
    output::line(text.trim_end())
}

/// Runs `vectis caps`.
///
/// # Errors
/// If the system is wrong, or a kernel is named, on which the table does not depend.
pub fn caps(system: &cli::System, kernel: &cli::Kernel) -> Result<()> {
    if *kernel != cli::Kernel::default() {
        return Err(Error::new(
            "a kernel is for `caps --live`",
            "the table is the same on each",
            "add --live, or name no kernel",
        )
        .with_status(2));
    }
    let workspace = Workspace::find()?;
    let model = read(&workspace, system)?;
    let image = system::compose(&model, &Programs::default(), system::Options::default());
    let image = image.map_err(|e| {
        Error::new(
            "the system cannot be put together",
            e,
            "change system.toml as it says",
        )
    })?;
    output::line(system::capability_table(&model, &image).trim_end())
}

/// Runs `vectis caps --live`.
///
/// # Errors
/// If the system cannot be built or does not start, or a slot is not as the
/// table says.
pub fn audit(system: &cli::System, kernel: &cli::Kernel) -> Result<()> {
    let workspace = Workspace::find()?;
    let model = read_to_run(&workspace, system)?;
    let profile = profile(false);
    let kernel = Kernel::choose(kernel, &model.board, profile)?;
    packages::ensure(&[packages::GCC, packages::QEMU])?;
    let mut steps = Steps::new(image::STEPS + 1);
    let folder = image::Folder::Own(workspace.output(profile).join("audit"));
    let composed = system::Options {
        audit: true,
        ..system::Options::default()
    };
    let built = image::build(
        &workspace, &model, composed, &kernel, profile, &folder, &mut steps,
    )?;
    steps.begin("QEMU", "comparing every slot with the table");
    let ports = free_ports(0, networks(&model).len())?;
    let options = run::Options {
        timeout: Some(AUDIT),
        ..run::Options::default()
    };
    let machine = machine(&model, &built, ports)?;
    run::run(&machine, &built.writers, None, &options, Some(built.lock))
}

/// Runs `vectis logs`.
///
/// # Errors
/// If there is no log.
pub fn logs(arguments: &cli::Logs) -> Result<()> {
    let workspace = Workspace::find()?;
    let file = match &arguments.file {
        Some(file) => file.clone(),
        None => workspace.run_folder().join(LOG),
    };
    let filter = Filter {
        level: arguments.level,
        component: arguments.component.clone(),
    };
    record::print(&file, &filter, arguments.follow)
}
