//! msix: table and message control, with a table of 2048 entries.

use std::sync::atomic::{AtomicBool, Ordering};

use channel::irq_router::{Answers, Batch, Client, IrqRouter, ShortMessage, Source};
use channel::msix::FunctionBar;
use channel::msix::control::MsixControl;
use channel::msix::table::MsixTable;
use channel::{Caller, Error, Local, Message};
use divan::{Bencher, black_box};
use msix::{Hardware, Msix};
use pci::{FunctionInfo, MsixInfo, MsixPage, Width};
use shm::Kept;
use spec::FunctionId;

const CONTROL: Caller = Caller(1);
const VMM: Caller = Caller(2);
const ENTRIES: u32 = 2048;
const ENABLE: u16 = 0x8000;
const FUNCTION_MASK: u16 = 0x4000;
const PLACE: FunctionBar = FunctionBar {
    function: FunctionId(0),
    bar: 0,
};

/// The device's table.
struct Memory(Vec<u64>);

impl Hardware for Memory {
    fn read(&mut self, _: FunctionBar, offset: u32, _: Width) -> u64 {
        self.0[offset as usize / 4]
    }
    fn write(&mut self, _: FunctionBar, offset: u32, _: Width, value: u64) {
        self.0[offset as usize / 4] = value;
    }
}

/// Whether the router refuses.
static REFUSES: AtomicBool = AtomicBool::new(false);

/// A router that always has a vector, unless it refuses.
struct Router;

impl IrqRouter for Router {
    fn bind(&mut self, _: Caller, _: Source, address: u64, data: u32) -> Result<(u64, u32), Error> {
        if REFUSES.load(Ordering::Relaxed) {
            return Err(Error::Failed);
        }
        Ok(black_box((address, data)))
    }
    fn unbind(&mut self, _: Caller, _: Source) -> Result<(), Error> {
        Ok(())
    }
    fn set_masked(&mut self, _: Caller, _: Source, _: bool) -> Result<(), Error> {
        Ok(())
    }
    fn set_function_masked(&mut self, _: Caller, _: FunctionId, _: bool) -> Result<(), Error> {
        Ok(())
    }
    fn unbind_function(&mut self, _: Caller, _: FunctionId) -> Result<(), Error> {
        Ok(())
    }
    fn restore(&mut self, _: Caller, _: Source) -> Result<(u64, u32), Error> {
        Err(Error::NotFound)
    }

    fn bind_batch(
        &mut self,
        caller: Caller,
        batch: Batch,
        first: ShortMessage,
        second: ShortMessage,
        third: ShortMessage,
    ) -> Result<Answers, Error> {
        let messages = [first, second, third];
        let bind = |source, address, data| self.bind(caller, source, address, data);
        Ok(Answers::of_each(batch, messages, bind))
    }

    fn unbind_entries(
        &mut self,
        caller: Caller,
        first: Source,
        entries: u64,
    ) -> Result<u64, Error> {
        Ok(first.each_until(entries, |source| self.unbind(caller, source)))
    }
}

/// Makes a message and takes it apart as between components, without sending it.
fn call(request: Message) -> Message {
    channel::irq_router::dispatch(&mut Router, Caller(3), request)
}

type Table<'a> = Msix<'a, Memory, Local<fn(Message) -> Message>, 1>;

/// Runs `bench` on an enabled function with its first `bound` entries bound.
fn with_table(bound: u32, bench: impl FnOnce(&mut Table)) {
    let mut info = FunctionInfo {
        msix: MsixInfo {
            entries: ENTRIES,
            pba_offset: 0x8000,
            page_count: 9,
            ..MsixInfo::default()
        },
        ..FunctionInfo::default()
    };
    for (index, page) in info.msix.pages.iter_mut().enumerate() {
        *page = MsixPage {
            bar: 0,
            page: index as u32,
        };
    }
    let memory = Memory(vec![0; 0x9000 / 4]);
    let router = Client(Local(call as fn(Message) -> Message));
    let kept = Kept::<{ msix::kept_words(1, ENTRIES as usize) }>::new();
    let functions = [(info, VMM)];
    let mut msix = Msix::new(memory, router, &kept);
    msix.take_over(ENTRIES as usize, functions);
    for entry in 0..bound {
        let start = 16 * entry;
        for (field, value) in [(0, 0xfee0_0000), (8, 0x40), (12, 0)] {
            write(&mut msix, start + field, value);
        }
    }
    control(&mut msix, ENABLE);
    bench(&mut msix);
}

fn write(msix: &mut Table, offset: u32, value: u64) {
    let done = msix.write(
        VMM,
        black_box(PLACE),
        black_box(offset),
        black_box(Width::Dword),
        black_box(value),
    );
    assert!(done.is_ok());
}

fn control(msix: &mut Table, value: u16) {
    let effect = msix.write_control(CONTROL, FunctionId(0), black_box(value));
    assert!(effect.is_ok_and(|write| write.is_some()));
}

#[divan::bench(sample_size = 1000)]
fn write_data_same(bencher: Bencher) {
    with_table(3, |msix| bencher.bench_local(|| write(msix, 0x28, 0x40)));
}

#[divan::bench(sample_size = 1000)]
fn write_vector_control_same(bencher: Bencher) {
    with_table(3, |msix| bencher.bench_local(|| write(msix, 0x2c, 0)));
}

#[divan::bench(sample_size = 1000)]
fn read_data(bencher: Bencher) {
    with_table(3, |msix| {
        bencher.bench_local(|| {
            msix.read(
                VMM,
                black_box(PLACE),
                black_box(0x28),
                black_box(Width::Dword),
            )
        });
    });
}

/// Two writes, of a bound entry that was not changed.
#[divan::bench(sample_size = 1000)]
fn mask_then_unmask_clean(bencher: Bencher) {
    with_table(3, |msix| {
        bencher.bench_local(|| {
            write(msix, 0x2c, 1);
            write(msix, 0x2c, 0);
        });
    });
}

/// Three writes; the last one unbinds and binds.
#[divan::bench(sample_size = 1000)]
fn mask_write_data_unmask(bencher: Bencher) {
    with_table(3, |msix| {
        bencher.bench_local(|| {
            write(msix, 0x2c, 1);
            write(msix, 0x28, 0x41);
            write(msix, 0x2c, 0);
        });
    });
}

/// Two control writes.
#[divan::bench(sample_size = 1000, args = [3, 2048])]
fn set_then_clear_function_mask(bencher: Bencher, bound: u32) {
    with_table(bound, |msix| {
        bencher.bench_local(|| {
            control(msix, ENABLE | FUNCTION_MASK);
            control(msix, ENABLE);
        });
    });
}

/// Two control writes, which unbind and bind every bound entry: a few, as many
/// as a guest has slots, and what no guest can have.
#[divan::bench(sample_size = 100, args = [3, 26, 2048])]
fn disable_then_enable(bencher: Bencher, bound: u32) {
    with_table(bound, |msix| {
        bencher.bench_local(|| {
            control(msix, 0);
            control(msix, ENABLE);
        });
    });
}

/// Two control writes, with every entry of the table unmasked, updated, and of a
/// message that no local APIC takes (M17); or one that the router refuses.
#[divan::bench(sample_size = 100, args = [0x05, 0x41])]
fn set_then_clear_function_mask_all_refused(bencher: Bencher, data: u64) {
    with_table(0, |msix| {
        for entry in 0..ENTRIES {
            let start = 16 * entry;
            for (field, value) in [(0, 0xfee0_0000), (8, data), (12, 0)] {
                write(msix, start + field, value);
            }
            // The message that was bound with its unmask is due again.
            write(msix, start + 8, data);
        }
        REFUSES.store(true, Ordering::Relaxed);
        bencher.bench_local(|| {
            control(msix, ENABLE | FUNCTION_MASK);
            control(msix, ENABLE);
        });
        REFUSES.store(false, Ordering::Relaxed);
    });
}

/// Takes a function of 2048 entries back to start (M24).
#[divan::bench(sample_size = 100)]
fn reset(bencher: Bencher) {
    with_table(26, |msix| {
        bencher.bench_local(|| {
            assert!(msix.reset(CONTROL, black_box(FunctionId(0))).is_ok());
        });
    });
}
