//! The two 8259A interrupt controllers of a PC, the second behind input 2 of the first
//! (Intel 8259A datasheet, order number 231468).
//!
//! Inputs are edge-triggered. No device of this machine withdraws a request, so an edge
//! is kept until it is acknowledged.

/// Input of the first controller that the second one drives.
const CASCADE: u8 = 2;
/// The input whose vector stands for a request that is gone.
const SPURIOUS: u8 = 7;

/// ICW1: this byte begins the initialization.
const ICW1: u8 = 1 << 4;
/// ICW1: an ICW4 follows.
const ICW1_FOURTH: u8 = 1 << 0;
/// ICW1: there is no second controller, so no ICW3.
const ICW1_SINGLE: u8 = 1 << 1;
/// ICW4: an acknowledged request is ended at once.
const ICW4_AUTO_EOI: u8 = 1 << 1;
/// ICW4: special fully nested mode.
const ICW4_SPECIAL_NESTED: u8 = 1 << 4;
/// Not ICW1: an OCW3, otherwise an OCW2.
const OCW3: u8 = 1 << 3;

/// The next byte that the data port expects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Expects {
    /// The interrupt mask.
    #[default]
    Mask,
    /// The vectors' base, ICW2.
    Base,
    /// The wiring of the cascade, ICW3.
    Cascade,
    /// The mode, ICW4.
    Mode,
}

/// One controller.
#[derive(Clone, Copy, Debug)]
struct Chip {
    /// Requests that wait.
    requests: u8,
    /// Requests that are served.
    in_service: u8,
    mask: u8,
    base: u8,
    expects: Expects,
    icw1: u8,
    auto_eoi: bool,
    special_nested: bool,
    /// Automatic EOI rotates the priorities.
    rotates: bool,
    /// The input of the lowest priority.
    lowest: u8,
    special_mask: bool,
    /// The command port reads what is served, not what waits.
    reads_service: bool,
    /// The next read of either port is an acknowledge.
    polled: bool,
}

impl Default for Chip {
    fn default() -> Self {
        Self {
            requests: 0,
            in_service: 0,
            // Not defined at power-on; nothing interrupts before the guest asks for it.
            mask: 0xff,
            base: 0,
            expects: Expects::Mask,
            icw1: 0,
            auto_eoi: false,
            special_nested: false,
            rotates: false,
            lowest: 7,
            special_mask: false,
            reads_service: false,
            polled: false,
        }
    }
}

impl Chip {
    /// Returns the input of the highest priority among `inputs`.
    fn first(&self, inputs: u8) -> Option<u8> {
        let highest = (self.lowest + 1) & 7;
        (0..8)
            .map(|step| (highest + step) & 7)
            .find(|&input| inputs >> input & 1 == 1)
    }

    /// Returns how far an input is below the highest priority.
    const fn rank(&self, input: u8) -> u8 {
        input.wrapping_sub(self.lowest + 1) & 7
    }

    /// Returns the input that is to be served next; `cascaded` are requests from the
    /// second controller.
    fn pending(&self, cascaded: u8) -> Option<u8> {
        // It does not interrupt while it is initialized.
        if self.expects != Expects::Mask {
            return None;
        }
        let input = self.first((self.requests | cascaded) & !self.mask)?;
        let mut holds = self.in_service;
        if self.special_mask {
            // The service of a masked input holds no other input back.
            holds &= !self.mask;
        }
        if self.special_nested && cascaded != 0 {
            holds &= !(1 << CASCADE);
        }
        let free = self
            .first(holds)
            .is_none_or(|served| self.rank(input) < self.rank(served));
        free.then_some(input)
    }

    fn acknowledge(&mut self, input: u8) {
        let bit = 1 << input;
        self.requests &= !bit;
        if self.auto_eoi {
            if self.rotates {
                self.lowest = input;
            }
        } else {
            self.in_service |= bit;
        }
    }

    fn write_command(&mut self, value: u8) {
        if value & ICW1 != 0 {
            let base = self.base;
            *self = Self {
                mask: 0,
                base,
                expects: Expects::Base,
                icw1: value,
                ..Self::default()
            };
        } else if value & OCW3 != 0 {
            self.polled = value & 4 != 0;
            match value & 3 {
                2 => self.reads_service = false,
                3 => self.reads_service = true,
                _ => {}
            }
            match value >> 5 & 3 {
                2 => self.special_mask = false,
                3 => self.special_mask = true,
                _ => {}
            }
        } else {
            self.end(value);
        }
    }

    /// Carries out an OCW2.
    fn end(&mut self, value: u8) {
        let (rotate, specific, ends) = (value & 0x80 != 0, value & 0x40 != 0, value & 0x20 != 0);
        let input = if specific {
            Some(value & 7)
        } else {
            self.first(self.in_service)
        };
        match (ends, specific) {
            (true, _) => {
                if let Some(input) = input {
                    self.in_service &= !(1 << input);
                    if rotate {
                        self.lowest = input;
                    }
                }
            }
            (false, true) if rotate => self.lowest = value & 7,
            (false, true) => {}
            (false, false) => self.rotates = rotate,
        }
    }

    const fn write_data(&mut self, value: u8) {
        let fourth = if self.icw1 & ICW1_FOURTH != 0 {
            Expects::Mode
        } else {
            Expects::Mask
        };
        match self.expects {
            Expects::Mask => self.mask = value,
            Expects::Base => {
                self.base = value & 0xf8;
                self.expects = if self.icw1 & ICW1_SINGLE != 0 {
                    fourth
                } else {
                    Expects::Cascade
                };
            }
            Expects::Cascade => self.expects = fourth,
            Expects::Mode => {
                self.auto_eoi = value & ICW4_AUTO_EOI != 0;
                self.special_nested = value & ICW4_SPECIAL_NESTED != 0;
                self.expects = Expects::Mask;
            }
        }
    }
}

/// Both controllers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pic {
    first: Chip,
    second: Chip,
}

impl Pic {
    /// Takes a rising edge of an input, 0 to 15.
    pub const fn raise(&mut self, input: u8) {
        if input < 8 {
            self.first.requests |= 1 << input;
        } else {
            self.second.requests |= 1 << (input & 7);
        }
    }

    /// Returns the requests that the second controller makes of the first.
    fn cascaded(&self) -> u8 {
        u8::from(self.second.pending(0).is_some()) << CASCADE
    }

    /// Returns whether the controllers ask for an interrupt.
    #[must_use]
    pub fn interrupts(&self) -> bool {
        self.first.pending(self.cascaded()).is_some()
    }

    /// Acknowledges the interrupt of the highest priority. Returns its vector; that of
    /// input 7, which then is not in service, if there is none.
    pub fn acknowledge(&mut self) -> u8 {
        let Some(input) = self.first.pending(self.cascaded()) else {
            return self.first.base | SPURIOUS;
        };
        self.first.acknowledge(input);
        if input != CASCADE {
            return self.first.base | input;
        }
        let Some(input) = self.second.pending(0) else {
            return self.second.base | SPURIOUS;
        };
        self.second.acknowledge(input);
        self.second.base | input
    }

    /// Reads the command or the data port of one controller.
    pub fn read(&mut self, second: bool, data: bool) -> u8 {
        let cascaded = if second { 0 } else { self.cascaded() };
        let chip = self.chip(second);
        if core::mem::take(&mut chip.polled) {
            return chip.pending(cascaded).map_or(0, |input| {
                chip.acknowledge(input);
                0x80 | input
            });
        }
        match (data, chip.reads_service) {
            (true, _) => chip.mask,
            (false, true) => chip.in_service,
            (false, false) => chip.requests | cascaded,
        }
    }

    /// Writes the command or the data port of one controller.
    pub fn write(&mut self, second: bool, data: bool, value: u8) {
        let chip = self.chip(second);
        if data {
            chip.write_data(value);
        } else {
            chip.write_command(value);
        }
    }

    const fn chip(&mut self, second: bool) -> &mut Chip {
        if second {
            &mut self.second
        } else {
            &mut self.first
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Initialized as a PC's: vectors from 0x20 and 0x28, nothing masked.
    fn started(icw4: u8) -> Pic {
        let mut pic = Pic::default();
        for (second, icw3) in [(false, 4), (true, 2)] {
            pic.write(second, false, 0x11);
            pic.write(second, true, if second { 0x28 } else { 0x20 });
            pic.write(second, true, icw3);
            pic.write(second, true, icw4);
        }
        pic
    }

    #[test]
    fn nothing_interrupts_before_it_is_initialized() {
        let mut pic = Pic::default();
        pic.raise(0);
        assert!(!pic.interrupts());
        assert_eq!(pic.read(false, true), 0xff);
        pic.write(false, false, 0x11);
        // ICW1 forgets what waited and clears the mask.
        assert_eq!((pic.read(false, false), pic.read(false, true)), (0, 0));
        pic.raise(0);
        assert!(!pic.interrupts(), "between ICW1 and ICW4");
    }

    #[test]
    fn vectors_of_both_controllers() {
        for (input, vector) in [(0, 0x20), (1, 0x21), (7, 0x27), (8, 0x28), (15, 0x2f)] {
            let mut pic = started(1);
            pic.raise(input);
            assert!(pic.interrupts());
            assert_eq!(pic.acknowledge(), vector);
            assert!(!pic.interrupts());
            pic.write(false, false, 0x0b);
            let served = if input < 8 { 1 << input } else { 1 << 2 };
            assert_eq!(pic.read(false, false), served);
        }
    }

    #[test]
    fn initialization_without_the_third_and_fourth_word() {
        let mut pic = Pic::default();
        // ICW1: single, no ICW4.
        pic.write(false, false, 0x12);
        pic.write(false, true, 0x47);
        pic.write(false, true, 0xfe);
        assert_eq!(pic.read(false, true), 0xfe, "the third byte is the mask");
        pic.raise(0);
        assert_eq!(pic.acknowledge(), 0x40, "the base has no low bits");
    }

    #[test]
    fn priorities_and_ends() {
        let mut pic = started(1);
        pic.raise(3);
        assert_eq!(pic.acknowledge(), 0x23);
        pic.raise(4);
        assert!(!pic.interrupts(), "lower than what is served");
        pic.raise(0);
        assert_eq!(pic.acknowledge(), 0x20);
        // The non-specific EOI ends the highest.
        pic.write(false, false, 0x20);
        assert!(!pic.interrupts());
        // The specific one that it names, and no other.
        pic.write(false, false, 0x60);
        assert!(!pic.interrupts());
        pic.write(false, false, 0x63);
        assert_eq!(pic.acknowledge(), 0x24);
    }

    #[test]
    fn the_mask_holds_a_request_back_and_keeps_it() {
        let mut pic = started(1);
        pic.write(false, true, 0x01);
        pic.raise(0);
        assert!(!pic.interrupts());
        pic.write(false, false, 0x0a);
        assert_eq!(pic.read(false, false), 1);
        pic.write(false, true, 0x00);
        assert_eq!(pic.acknowledge(), 0x20);
        assert_eq!(pic.read(false, false), 0);
    }

    #[test]
    fn the_cascade_has_its_own_mask_and_its_own_end() {
        let mut pic = started(1);
        pic.write(false, true, 1 << CASCADE);
        pic.raise(8);
        assert!(!pic.interrupts());
        pic.write(false, true, 0);
        assert_eq!(pic.acknowledge(), 0x28);
        pic.write(true, false, 0x20);
        pic.raise(9);
        assert!(
            !pic.interrupts(),
            "the first controller still serves input 2"
        );
        pic.write(false, false, 0x62);
        assert_eq!(pic.acknowledge(), 0x29);
    }

    #[test]
    fn special_fully_nested_mode_lets_the_second_interrupt_itself() {
        let mut pic = started(0x11);
        pic.raise(9);
        assert_eq!(pic.acknowledge(), 0x29);
        pic.raise(8);
        assert_eq!(pic.acknowledge(), 0x28);
    }

    #[test]
    fn automatic_end() {
        let mut pic = started(3);
        pic.raise(5);
        assert_eq!(pic.acknowledge(), 0x25);
        pic.raise(6);
        assert_eq!(pic.acknowledge(), 0x26);
        pic.write(false, false, 0x0b);
        assert_eq!(pic.read(false, false), 0);
        // With rotation the last one served has the lowest priority.
        pic.write(false, false, 0x80);
        pic.raise(1);
        assert_eq!(pic.acknowledge(), 0x21);
        pic.raise(1);
        pic.raise(3);
        assert_eq!(pic.acknowledge(), 0x23);
    }

    #[test]
    fn rotation() {
        let mut pic = started(1);
        // Input 4 has the lowest priority: 5 comes first.
        pic.write(false, false, 0xc4);
        pic.raise(0);
        pic.raise(5);
        assert_eq!(pic.acknowledge(), 0x25);
        // Rotate on the non-specific EOI: 5 becomes the lowest.
        pic.write(false, false, 0xa0);
        pic.raise(5);
        assert_eq!(pic.acknowledge(), 0x20);
    }

    #[test]
    fn special_mask_mode_lets_lower_ones_in() {
        let mut pic = started(1);
        pic.raise(1);
        pic.acknowledge();
        pic.raise(6);
        assert!(!pic.interrupts());
        pic.write(false, true, 1 << 1);
        pic.write(false, false, 0x68);
        assert_eq!(pic.acknowledge(), 0x26);
        pic.write(false, false, 0x66);
        pic.write(false, false, 0x48);
        pic.raise(6);
        assert!(!pic.interrupts(), "the mode is off again");
    }

    #[test]
    fn an_acknowledge_without_request_is_spurious() {
        let mut pic = started(1);
        assert_eq!(pic.acknowledge(), 0x27);
        pic.write(false, false, 0x0b);
        assert_eq!(pic.read(false, false), 0, "input 7 is not in service");
    }

    #[test]
    fn polling_acknowledges() {
        let mut pic = started(1);
        pic.write(false, false, 0x0c);
        assert_eq!(pic.read(false, false), 0);
        pic.raise(3);
        pic.write(false, false, 0x0c);
        assert_eq!(pic.read(false, false), 0x83);
        assert_eq!(pic.read(false, true), 0, "one read only");
        assert_eq!(pic.read(false, false), 0);
    }
}
