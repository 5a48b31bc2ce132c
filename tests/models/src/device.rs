//! A device that is plain bytes.

use std::cell::{Ref, RefCell, RefMut};
use std::rc::Rc;

use channel::msix::FunctionBar;
use pci::{ConfigSpace, Width};

use crate::{Pages, Registers};

/// State of a device.
#[derive(Debug)]
pub struct State {
    /// Its configuration space.
    pub registers: Registers,
    /// Its memory.
    pub pages: Pages,
    /// The clock, in milliseconds.
    pub now_ms: u64,
    /// How far the clock moves with each look at it.
    pub step_ms: u64,
    /// Accesses that it still takes: one more is a loop that does not end, and panics.
    pub budget: usize,
}

/// A device as pci-config, msix and discovery reach it, and a handle on its state for
/// the test. Clones are the same device.
#[derive(Clone, Debug)]
pub struct Device(Rc<RefCell<State>>);

impl Device {
    /// Creates a device with these registers, without memory.
    #[must_use]
    pub fn new(registers: Registers) -> Self {
        Self(Rc::new(RefCell::new(State {
            registers,
            pages: Pages::default(),
            now_ms: 0,
            step_ms: 0,
            budget: usize::MAX,
        })))
    }

    /// Returns the state.
    #[must_use]
    pub fn state(&self) -> Ref<'_, State> {
        self.0.borrow()
    }

    /// Returns the state, to change it.
    #[must_use]
    pub fn change(&self) -> RefMut<'_, State> {
        self.0.borrow_mut()
    }

    /// Returns the state for an access of the component, which must be aligned.
    fn access(&self, offset: u32, width: Width) -> RefMut<'_, State> {
        assert!(width.is_aligned(offset.into()), "{offset:#x} {width:?}");
        let mut state = self.0.borrow_mut();
        state.budget = state.budget.checked_sub(1).expect("an access too many");
        state
    }
}

impl ConfigSpace for Device {
    fn read32(&mut self, offset: u16) -> u32 {
        pci_config::Hardware::read(self, offset, Width::Dword)
    }
    fn write32(&mut self, offset: u16, value: u32) {
        pci_config::Hardware::write(self, offset, Width::Dword, value);
    }
    fn write16(&mut self, offset: u16, value: u16) {
        pci_config::Hardware::write(self, offset, Width::Word, value.into());
    }
}

impl pci_config::Hardware for Device {
    fn read(&mut self, offset: u16, width: Width) -> u32 {
        self.access(offset.into(), width)
            .registers
            .read(offset, width)
    }
    fn write(&mut self, offset: u16, width: Width, value: u32) {
        let mut state = self.access(offset.into(), width);
        state.registers.write(offset, width, value);
    }
    fn has_extended_space(&self) -> bool {
        self.state().registers.is_extended()
    }
    fn now_ms(&mut self) -> u64 {
        let mut state = self.change();
        state.now_ms += state.step_ms;
        state.now_ms
    }
}

impl msix::Hardware for Device {
    fn read(&mut self, place: FunctionBar, offset: u32, width: Width) -> u64 {
        self.access(offset, width)
            .pages
            .read(place.bar, offset, width)
    }
    fn write(&mut self, place: FunctionBar, offset: u32, width: Width, value: u64) {
        let mut state = self.access(offset, width);
        state.pages.write(place.bar, offset, width, value);
    }
}
