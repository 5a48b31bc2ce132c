//! Who may have the monitor do what, and where it steps back.

use spec::{NONE, Start, System, Thread};

/// Whether a component may have a guest stopped: the one that drives the IOMMU,
/// for what the guest's function did. Every component can send to the monitor.
#[must_use]
pub fn may_stop_guests(system: &System<'_>, thread: &Thread) -> bool {
    let driver = system.header.iommu.cnode;
    driver != NONE && thread.cnode == driver
}

/// Whether a component may end the system: the one that runs a guest with
/// `on-exit = "stop"`. A vmm that was taken over is as free to ask for it as its
/// guest is to end.
#[must_use]
pub const fn may_stop_system(thread: &Thread) -> bool {
    thread.may_stop == 1
}

/// The priority at which the monitor lets time pass: that of the most urgent
/// guest, with which it then takes turns. Any lower, a guest that spins would
/// keep it from ever coming back; any higher, nobody but components would run.
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
    use spec::IommuPlace;
    use zerocopy::FromZeros as _;

    fn thread(start: Start, priority: u32, cnode: u32) -> Thread {
        Thread {
            start,
            priority,
            cnode,
            ..Thread::new_zeroed()
        }
    }

    #[test]
    fn only_the_iommus_driver_stops_guests() {
        let with = |iommu| Image {
            iommu,
            ..Image::default()
        };
        let driven = with(Some(IommuPlace {
            cnode: 3,
            ..IommuPlace::NONE
        }));
        driven.system(|system| {
            assert!(may_stop_guests(system, &thread(Start::First, 200, 3)));
            assert!(!may_stop_guests(system, &thread(Start::Boot, 200, 2)));
        });
        with(None).system(|system| {
            for cnode in [0, 3, NONE] {
                assert!(!may_stop_guests(system, &thread(Start::Boot, 200, cnode)));
            }
        });
    }

    #[test]
    fn only_a_guest_whose_end_is_the_systems_ends_it() {
        let runs_a_guest = Thread {
            guest: 0,
            ..thread(Start::Boot, 200, 2)
        };
        assert!(!may_stop_system(&runs_a_guest));
        assert!(may_stop_system(&Thread {
            may_stop: 1,
            ..runs_a_guest
        }));
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
