//! The monitor's decisions about a message or a fault, and its rest between restarts.

use spec::{GUEST_STOP_LABEL, INJECT_LABEL, NONE, OnFault, STOP_LABEL, Start, System, Thread};

use crate::restarts::Restarts;

/// How the monitor acts on a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ends the system for the reason that the message names.
    StopSystem,
    /// Crashes the component that the message names, and answers.
    Inject,
    /// Stops the guest that the message names, and answers.
    StopGuest,
    /// Answers only: the sender may not ask for this.
    Refuse,
    /// Reports a fault of the sender and follows its policy.
    Fault,
}

/// Returns how the monitor acts on a message with `label` from `thread`. Every
/// component can send to the monitor:
///
/// - One that runs a guest with `on-exit = "stop"` may end the system. A vmm that
///   was taken over is as free to ask for it as its guest is to end.
/// - The one that drives the IOMMU may stop a guest, for what its function did.
/// - Only a system that was composed for it injects faults.
///
/// Anything else is the sender's fault.
#[must_use]
pub fn action(system: &System<'_>, thread: &Thread, label: u64) -> Action {
    let driver = system.header.iommu.cnode;
    match label {
        STOP_LABEL if thread.may_stop == 1 => Action::StopSystem,
        INJECT_LABEL if system.header.inject_faults == 1 => Action::Inject,
        GUEST_STOP_LABEL if driver != NONE && thread.cnode == driver => Action::StopGuest,
        INJECT_LABEL | GUEST_STOP_LABEL => Action::Refuse,
        _ => Action::Fault,
    }
}

/// What follows a component's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterFault {
    /// Its guest is stopped, the others go on.
    StopGuest,
    /// The system ends.
    Stop,
    /// It faulted too often: the system ends.
    GiveUp,
    /// It starts again.
    Restart {
        /// How many milliseconds later.
        wait_ms: u64,
        /// The number of its restarts, with this one.
        generation: u64,
    },
}

/// Returns what follows a fault of `thread`, `now_ms` milliseconds after an
/// arbitrary start. A component without a count of its restarts gets none.
pub fn after_fault(thread: &Thread, restarts: Option<&mut Restarts>, now_ms: u64) -> AfterFault {
    match (thread.on_fault, restarts) {
        (OnFault::StopGuest, _) => AfterFault::StopGuest,
        (OnFault::Stop, _) => AfterFault::Stop,
        (OnFault::Restart, None) => AfterFault::GiveUp,
        (OnFault::Restart, Some(restarts)) => {
            restarts
                .fault(now_ms)
                .map_or(AfterFault::GiveUp, |wait_ms| AfterFault::Restart {
                    wait_ms,
                    generation: restarts.generation,
                })
        }
    }
}

/// Which guests the monitor has stopped.
#[derive(Clone, Copy, Debug)]
pub struct Guests {
    count: usize,
    /// A bit for each guest that was stopped.
    stopped: u64,
}

impl Guests {
    /// Creates the record of a system with `count` guests, all of which run.
    #[must_use]
    pub const fn new(count: usize) -> Self {
        Self { count, stopped: 0 }
    }

    /// Notes that a guest is stopped. Returns its position, or `None` if there is no
    /// such guest.
    pub fn stop(&mut self, guest: u64) -> Option<usize> {
        let guest = usize::try_from(guest).ok().filter(|&g| g < self.count)?;
        self.stopped |= 1 << guest;
        Some(guest)
    }

    /// Returns the positions of the guests that were stopped.
    pub fn stopped(self) -> impl Iterator<Item = usize> {
        (0..self.count).filter(move |guest| self.stopped >> guest & 1 == 1)
    }

    /// Whether every guest was stopped, so that the system has nothing left to run.
    #[must_use]
    pub fn none_left(self) -> bool {
        self.stopped().count() == self.count
    }
}

/// The priority at which the monitor lets time pass: that of the most urgent
/// guest, with which it then takes turns. Any lower, a guest that spins would
/// keep it from ever coming back; any higher, only components would run.
#[must_use]
pub fn resting_priority(threads: &[Thread]) -> u8 {
    let guests = threads.iter().filter(|thread| thread.start == Start::Guest);
    // The image's priorities are 255 at most.
    guests.map(|guest| guest.priority as u8).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Image;
    use spec::{IommuPlace, READY_LABEL};
    use zerocopy::FromZeros as _;

    fn thread(start: Start, priority: u32, cnode: u32) -> Thread {
        Thread {
            start,
            priority,
            cnode,
            ..Thread::new_zeroed()
        }
    }

    /// Labels of the kernel's faults and of no message, and two that nothing has.
    const FAULTS: [u64; 9] = [0, 1, 2, 3, 4, 5, 6, 68, u64::MAX];
    /// The CNode of the component that drives the IOMMU.
    const DRIVER: u32 = 3;

    /// Checks what each label leads to from each sender: a component, a vmm, a vmm
    /// whose guest's end is the system's, and the driver of the IOMMU.
    fn check(image: &Image, label: u64, expected: [Action; 4]) {
        let vmm = Thread {
            guest: 0,
            ..thread(Start::Boot, 200, 1)
        };
        let senders = [
            thread(Start::Boot, 200, 2),
            vmm,
            Thread { may_stop: 1, ..vmm },
            thread(Start::First, 200, DRIVER),
        ];
        image.system(|system| {
            let actions = senders.map(|sender| action(system, &sender, label));
            assert_eq!(actions, expected, "{label}");
        });
    }

    /// Returns an image with a driver of the IOMMU, if `iommu`.
    fn image(iommu: bool, inject_faults: bool) -> Image {
        Image {
            iommu: iommu.then_some(IommuPlace {
                cnode: DRIVER,
                ..IommuPlace::NONE
            }),
            inject_faults,
            ..Image::default()
        }
    }

    #[test]
    fn each_label_from_each_sender() {
        use Action::{Fault, Inject, Refuse, StopGuest, StopSystem};
        for (iommu, inject) in [(false, false), (false, true), (true, false), (true, true)] {
            let image = image(iommu, inject);
            check(&image, STOP_LABEL, [Fault, Fault, StopSystem, Fault]);
            let injects = if inject { Inject } else { Refuse };
            check(&image, INJECT_LABEL, [injects; 4]);
            let stops = if iommu { StopGuest } else { Refuse };
            check(&image, GUEST_STOP_LABEL, [Refuse, Refuse, Refuse, stops]);
            // After boot nothing becomes ready.
            check(&image, READY_LABEL, [Fault; 4]);
            for label in FAULTS {
                check(&image, label, [Fault; 4]);
            }
        }
    }

    #[test]
    fn without_an_iommu_no_cnode_is_its_drivers() {
        image(false, false).system(|system| {
            for cnode in [0, DRIVER, NONE] {
                let sender = thread(Start::Boot, 200, cnode);
                assert_eq!(action(system, &sender, GUEST_STOP_LABEL), Action::Refuse);
            }
        });
    }

    #[test]
    fn a_fault_leads_to_what_the_policy_says() {
        let with = |on_fault| Thread {
            on_fault,
            ..thread(Start::Boot, 200, 0)
        };
        let mut restarts = Restarts::default();
        for (on_fault, after) in [
            (OnFault::StopGuest, AfterFault::StopGuest),
            (OnFault::Stop, AfterFault::Stop),
        ] {
            assert_eq!(after_fault(&with(on_fault), None, 100), after);
            assert_eq!(
                after_fault(&with(on_fault), Some(&mut restarts), 100),
                after
            );
        }
        let again = with(OnFault::Restart);
        for (generation, wait_ms) in (1..).zip([0, 5, 10, 20, 40, 80]) {
            assert_eq!(
                after_fault(&again, Some(&mut restarts), 100),
                AfterFault::Restart {
                    wait_ms,
                    generation
                }
            );
        }
        assert_eq!(
            after_fault(&again, Some(&mut restarts), 100),
            AfterFault::GiveUp
        );
        assert_eq!(after_fault(&again, None, 100), AfterFault::GiveUp);
    }

    #[test]
    fn the_system_ends_with_its_last_guest() {
        let mut guests = Guests::new(2);
        for no_guest in [2, 63, 64, u64::MAX] {
            assert_eq!(guests.stop(no_guest), None);
        }
        assert_eq!(guests.stopped().count(), 0);
        // A guest that is stopped twice is one guest.
        for _ in 0..2 {
            assert_eq!(guests.stop(1), Some(1));
            assert!(guests.stopped().eq([1]) && !guests.none_left());
        }
        assert_eq!(guests.stop(0), Some(0));
        assert!(guests.stopped().eq([0, 1]) && guests.none_left());
    }

    #[test]
    fn the_monitor_rests_among_the_guests() {
        let components = [thread(Start::Boot, 200, 0), thread(Start::First, 150, 0)];
        assert_eq!(resting_priority(&components), 0);
        let all = [
            thread(Start::Boot, 200, 0),
            thread(Start::Guest, 90, 0),
            thread(Start::Guest, 100, 0),
            thread(Start::First, 150, 0),
        ];
        assert_eq!(resting_priority(&all), 100);
    }
}
