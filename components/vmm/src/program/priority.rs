//! The priorities of the guest's thread and of this one.

use runtime::Context;
use sel4::cap::Tcb;
use spec::names::{self, Priorities};

/// The guest's priority. A guest in its turn has the priority of system.toml,
/// one that only fills what others leave has the next lower one.
#[derive(Clone, Copy)]
pub struct Priority {
    own: Tcb,
    guest: Tcb,
    /// Of this component.
    component: u8,
    /// Of its guest, in its turn.
    foreground: u8,
}

impl Priority {
    /// Takes capabilities and numbers from the component's resources.
    pub fn new(context: &Context) -> Self {
        let Priorities { component, guest } = context.get(names::PRIORITIES);
        Self {
            own: context.capability(names::OWN_TCB),
            guest: context.capability(names::GUEST_TCB),
            component: component as u8,
            foreground: guest as u8,
        }
    }

    /// Sets the guest's thread to the priority for its turn, or to the one below.
    pub fn set_foreground(&self, foreground: bool) {
        self.set(self.guest, self.foreground - u8::from(!foreground));
    }

    /// Does something long on the guest's account: at the priority at which it
    /// fills what other guests leave, and not above all of them.
    pub fn in_background<T>(&self, work: impl FnOnce() -> T) -> T {
        self.set(self.own, self.foreground - 1);
        let result = work();
        self.set(self.own, self.component);
        result
    }

    fn set(&self, thread: Tcb, priority: u8) {
        // Own capabilities, and nothing above the component's priority, which is
        // what it may give at most.
        if let Err(error) = thread.tcb_set_priority(self.own, priority) {
            panic!("priority {priority}: {error:?}");
        }
    }
}
