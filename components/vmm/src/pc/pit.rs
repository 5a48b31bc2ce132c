//! The 8254 interval timer (Intel 8254 datasheet, order number 231164): channel 0, whose
//! output is IRQ 0, and channel 2, whose gate and output are at port 0x61. Channel 1,
//! which refreshed a PC's memory, is not there.
//!
//! Nothing counts by itself: counts and outputs follow from the time at which a channel
//! was started.

/// Input clock in Hz.
pub const FREQUENCY: u64 = 1_193_182;

/// Bits of the control word and of the read-back command.
mod control {
    /// Read-back: do not latch the count.
    pub const NO_COUNT: u8 = 1 << 5;
    /// Read-back: do not latch the status.
    pub const NO_STATUS: u8 = 1 << 4;
    /// Count in binary-coded decimal.
    pub const BCD: u8 = 1 << 0;
}

/// Status byte: the output.
const STATUS_OUTPUT: u8 = 1 << 7;
/// Status byte: no count was loaded since the control word.
const STATUS_NULL: u8 = 1 << 6;

/// Bytes that a channel's port transfers.
const LOW: u8 = 1;
const HIGH: u8 = 2;

/// One channel.
#[derive(Clone, Copy, Debug)]
struct Channel {
    /// 0 to 5.
    mode: u8,
    /// [`LOW`], [`HIGH`] or both, low first.
    access: u8,
    bcd: bool,
    /// The count, 1 to 65536; `None` since the control word.
    count: Option<u32>,
    /// Clocks counted while the gate was open.
    counted: u64,
    /// Time stamp from which it counts on; `None` while it does not.
    since: Option<u64>,
    gate: bool,
    /// The low byte of a count of which the high one is to come.
    low: Option<u8>,
    /// The next read is of the high byte.
    reads_high: bool,
    latched: Option<u16>,
    status: Option<u8>,
    /// Rising edges of the output that were taken.
    edges: u64,
}

impl Channel {
    const fn new(gate: bool) -> Self {
        Self {
            mode: 0,
            access: LOW | HIGH,
            bcd: false,
            count: None,
            counted: 0,
            since: None,
            gate,
            low: None,
            reads_high: false,
            latched: None,
            status: None,
            edges: 0,
        }
    }

    /// Returns whether its gate is a trigger and no enable.
    const fn triggered(&self) -> bool {
        matches!(self.mode, 1 | 5)
    }

    const fn periodic(&self) -> bool {
        matches!(self.mode, 2 | 3)
    }

    fn control(&mut self, value: u8) {
        self.access = value >> 4 & 3;
        // Modes 6 and 7 are 2 and 3.
        self.mode = match value >> 1 & 7 {
            mode @ 0..=5 => mode,
            mode => mode - 4,
        };
        self.bcd = value & control::BCD != 0;
        self.count = None;
        self.counted = 0;
        self.since = None;
        self.low = None;
        self.reads_high = false;
        self.latched = None;
        self.status = None;
        self.edges = 0;
    }

    /// Returns the clocks counted.
    fn clocks(&self, now: u64, tsc_hz: u64) -> u64 {
        let ticks = self.since.map_or(0, |since| now.saturating_sub(since));
        let clocks = u128::from(ticks) * u128::from(FREQUENCY) / u128::from(tsc_hz);
        self.counted
            .saturating_add(clocks.min(u128::from(u64::MAX)) as u64)
    }

    /// Returns the output and the count after so many clocks.
    fn state(&self, clocks: u64) -> (bool, u16) {
        let Some(count) = self.count else {
            return (self.mode != 0, 0);
        };
        let length = u64::from(count);
        // Counting on below 0 it wraps, in decimal at 10,000.
        let wrap = if self.bcd { 10_000 } else { 0x1_0000 };
        let below = |by: u64| (length + wrap - by % wrap) % wrap;
        let begun = self.since.is_some() || clocks > 0;
        let (output, value) = match self.mode {
            2 => {
                let part = clocks % length;
                (part + 1 < length || length == 1, length - part)
            }
            3 => {
                let part = clocks % length;
                let high = length.div_ceil(2);
                let half = if part < high { part } else { part - high };
                (part < high, (length & !1).saturating_sub(2 * half).max(2))
            }
            1 if !begun => (true, length),
            4 | 5 => (clocks != length || !begun, below(clocks)),
            _ => (clocks >= length, below(clocks)),
        };
        (output, value as u16)
    }

    /// Returns the clocks after which the output rises next, if it ever does.
    fn next_edge(&self) -> Option<u64> {
        let length = u64::from(self.count?);
        self.since?;
        let first = match self.mode {
            4 | 5 => length + 1,
            _ => length,
        };
        match self.edges {
            0 => Some(first),
            taken if self.periodic() => (taken + 1).checked_mul(length),
            _ => None,
        }
    }

    /// Takes the edges up to now. Returns whether there were any.
    fn take_edges(&mut self, now: u64, tsc_hz: u64) -> bool {
        let clocks = self.clocks(now, tsc_hz);
        if self.next_edge().is_none_or(|edge| clocks < edge) {
            return false;
        }
        self.edges = match self.count {
            Some(count) if self.periodic() => clocks / u64::from(count),
            _ => 1,
        };
        true
    }

    fn deadline(&self, tsc_hz: u64) -> Option<u64> {
        let clocks = self.next_edge()?.saturating_sub(self.counted);
        let ticks = (u128::from(clocks) * u128::from(tsc_hz)).div_ceil(u128::from(FREQUENCY));
        Some(
            self.since?
                .saturating_add(ticks.min(u128::from(u64::MAX)) as u64),
        )
    }

    fn write(&mut self, value: u8, now: u64) {
        let written = match (self.access, self.low) {
            (LOW, _) => u16::from(value),
            (HIGH, _) => u16::from(value) << 8,
            (_, None) => {
                self.low = Some(value);
                // In mode 0 the first byte stops the count.
                if self.mode == 0 {
                    self.since = None;
                }
                return;
            }
            (_, Some(low)) => u16::from(value) << 8 | u16::from(low),
        };
        self.low = None;
        let whole = if self.bcd { 10_000 } else { 0x1_0000 };
        let count = if self.bcd {
            from_bcd(written)
        } else {
            written.into()
        };
        let running = self.count.is_some();
        self.count = Some(if count == 0 { whole } else { count });
        if self.triggered() && running {
            // It is used from the next trigger on.
            return;
        }
        self.counted = 0;
        self.edges = 0;
        self.since = (self.gate && !self.triggered()).then_some(now);
    }

    fn set_gate(&mut self, gate: bool, now: u64, tsc_hz: u64) {
        if gate == self.gate {
            return;
        }
        self.gate = gate;
        if gate {
            if self.triggered() || self.periodic() {
                self.counted = 0;
                self.edges = 0;
            }
            self.since = self.count.map(|_| now);
        } else if !self.triggered() {
            self.counted = self.clocks(now, tsc_hz);
            self.since = None;
        }
    }

    fn latch_count(&mut self, now: u64, tsc_hz: u64) {
        if self.latched.is_none() {
            self.latched = Some(self.shown(now, tsc_hz));
        }
    }

    fn latch_status(&mut self, now: u64, tsc_hz: u64) {
        let (output, _) = self.state(self.clocks(now, tsc_hz));
        self.status.get_or_insert(
            spec::bit(output, STATUS_OUTPUT)
                | spec::bit(self.count.is_none(), STATUS_NULL)
                | self.access << 4
                | self.mode << 1
                | u8::from(self.bcd),
        );
    }

    fn shown(&self, now: u64, tsc_hz: u64) -> u16 {
        let (_, count) = self.state(self.clocks(now, tsc_hz));
        if self.bcd { to_bcd(count) } else { count }
    }

    fn read(&mut self, now: u64, tsc_hz: u64) -> u8 {
        if let Some(status) = self.status.take() {
            return status;
        }
        let count = self.latched.unwrap_or_else(|| self.shown(now, tsc_hz));
        let [low, high] = count.to_le_bytes();
        let both = self.access == LOW | HIGH;
        let is_high = self.access == HIGH || both && self.reads_high;
        self.reads_high = both && !is_high;
        if is_high || !both {
            self.latched = None;
        }
        if is_high { high } else { low }
    }
}

/// Returns the number that four decimal digits stand for. Digits above 9 count as such.
fn from_bcd(digits: u16) -> u32 {
    (0..4).rev().fold(0, |number, digit| {
        number * 10 + u32::from(digits >> (4 * digit) & 0xf)
    })
}

/// Returns the four decimal digits of a number below 10,000.
fn to_bcd(number: u16) -> u16 {
    let digit = |scale| number / scale % 10;
    digit(1000) << 12 | digit(100) << 8 | digit(10) << 4 | digit(1)
}

/// The timer.
#[derive(Clone, Copy, Debug)]
pub struct Pit {
    tsc_hz: u64,
    interrupts: Channel,
    speaker: Channel,
}

impl Pit {
    /// Creates the timer, beside a time stamp counter of this frequency in Hz, 1 at
    /// least. No channel counts: a guest that wants interrupts programs them.
    #[must_use]
    pub const fn new(tsc_hz: u64) -> Self {
        Self {
            tsc_hz,
            interrupts: Channel::new(true),
            speaker: Channel::new(false),
        }
    }

    const fn channel(&mut self, index: u16) -> Option<&mut Channel> {
        match index {
            0 => Some(&mut self.interrupts),
            2 => Some(&mut self.speaker),
            _ => None,
        }
    }

    /// Reads port 0x40 + `index`, 0 to 3.
    pub fn read(&mut self, index: u16, now: u64) -> u8 {
        let tsc_hz = self.tsc_hz;
        self.channel(index)
            .map_or(0xff, |channel| channel.read(now, tsc_hz))
    }

    /// Writes port 0x40 + `index`, 0 to 3.
    pub fn write(&mut self, index: u16, value: u8, now: u64) {
        let tsc_hz = self.tsc_hz;
        if index < 3 {
            if let Some(channel) = self.channel(index) {
                channel.write(value, now);
            }
            return;
        }
        if value >> 6 == 3 {
            for index in [0, 2] {
                if value >> (index + 1) & 1 == 0 {
                    continue;
                }
                if let Some(channel) = self.channel(index) {
                    if value & control::NO_COUNT == 0 {
                        channel.latch_count(now, tsc_hz);
                    }
                    if value & control::NO_STATUS == 0 {
                        channel.latch_status(now, tsc_hz);
                    }
                }
            }
        } else if let Some(channel) = self.channel(u16::from(value >> 6)) {
            if value >> 4 & 3 == 0 {
                channel.latch_count(now, tsc_hz);
            } else {
                channel.control(value);
            }
        }
    }

    /// Opens or closes the gate of channel 2.
    pub fn set_gate(&mut self, gate: bool, now: u64) {
        self.speaker.set_gate(gate, now, self.tsc_hz);
    }

    /// Returns the gate of channel 2.
    #[must_use]
    pub const fn gate(&self) -> bool {
        self.speaker.gate
    }

    /// Returns the output of channel 2.
    #[must_use]
    pub fn output(&self, now: u64) -> bool {
        self.speaker.state(self.speaker.clocks(now, self.tsc_hz)).0
    }

    /// Returns the time stamp of the next edge of IRQ 0.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        self.interrupts.deadline(self.tsc_hz)
    }

    /// Takes the edges of IRQ 0 up to now. Returns whether there were any: as many as
    /// came too late are one.
    pub fn take_edges(&mut self, now: u64) -> bool {
        self.interrupts.take_edges(now, self.tsc_hz)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A time stamp counter with one tick a clock.
    fn pit() -> Pit {
        Pit::new(FREQUENCY)
    }

    fn program(pit: &mut Pit, control: u8, count: u16, now: u64) {
        pit.write(3, control, now);
        let channel = u16::from(control >> 6);
        let [low, high] = count.to_le_bytes();
        if control & 0x10 != 0 {
            pit.write(channel, low, now);
        }
        if control & 0x20 != 0 {
            pit.write(channel, high, now);
        }
    }

    fn read16(pit: &mut Pit, channel: u16, now: u64) -> u16 {
        u16::from_le_bytes([pit.read(channel, now), pit.read(channel, now)])
    }

    /// Latches status and count of channel 0, and reads both.
    fn read_back(pit: &mut Pit, now: u64) -> (u8, u16) {
        pit.write(3, 0xc2, now);
        (pit.read(0, now), read16(pit, 0, now + 99))
    }

    #[test]
    fn nothing_counts_by_itself() {
        let mut pit = pit();
        assert_eq!(pit.deadline(), None);
        assert!(!pit.take_edges(1 << 60));
        assert_eq!(read_back(&mut pit, 5).0 & STATUS_NULL, STATUS_NULL);
    }

    #[test]
    fn mode_0_rises_once_and_counts_on() {
        let mut pit = pit();
        program(&mut pit, 0x30, 1000, 50);
        assert_eq!(pit.deadline(), Some(1050));
        assert_eq!(read_back(&mut pit, 50), (0x30, 1000));
        assert_eq!(read_back(&mut pit, 1049), (0x30, 1));
        assert_eq!(read_back(&mut pit, 1050), (0xb0, 0));
        assert_eq!(read_back(&mut pit, 1051), (0xb0, 0xffff));
        assert!(!pit.take_edges(1049));
        assert!(pit.take_edges(1050));
        assert!(!pit.take_edges(9999));
        assert_eq!(pit.deadline(), None);
    }

    #[test]
    fn mode_2_divides() {
        let mut pit = pit();
        program(&mut pit, 0x34, 100, 0);
        assert_eq!(read_back(&mut pit, 0), (0xb4, 100));
        assert_eq!(read_back(&mut pit, 98), (0xb4, 2));
        assert_eq!(read_back(&mut pit, 99), (0x34, 1));
        assert_eq!(read_back(&mut pit, 100), (0xb4, 100));
        assert_eq!(pit.deadline(), Some(100));
        assert!(pit.take_edges(100));
        assert_eq!(pit.deadline(), Some(200));
        // Three edges too late: one.
        assert!(pit.take_edges(430));
        assert!(!pit.take_edges(430));
        assert_eq!(pit.deadline(), Some(500));
    }

    #[test]
    fn mode_3_is_a_square_wave() {
        let mut pit = pit();
        program(&mut pit, 0x36, 10, 0);
        let wave: [u8; 10] = core::array::from_fn(|now| read_back(&mut pit, now as u64).0 >> 7);
        assert_eq!(wave, [1, 1, 1, 1, 1, 0, 0, 0, 0, 0]);
        let counts: [u16; 6] = core::array::from_fn(|now| read_back(&mut pit, now as u64).1);
        assert_eq!(counts, [10, 8, 6, 4, 2, 10]);
        assert_eq!(pit.deadline(), Some(10));
        // Odd: high one clock longer.
        program(&mut pit, 0x36, 5, 0);
        let wave: [u8; 5] = core::array::from_fn(|now| read_back(&mut pit, now as u64).0 >> 7);
        assert_eq!(wave, [1, 1, 1, 0, 0]);
    }

    #[test]
    fn a_count_of_0_is_the_largest() {
        let mut pit = pit();
        program(&mut pit, 0x34, 0, 0);
        assert_eq!(pit.deadline(), Some(0x1_0000));
        assert_eq!(read_back(&mut pit, 1).1, 0xffff);
        program(&mut pit, 0x35, 0, 0);
        assert_eq!(pit.deadline(), Some(10_000));
        assert_eq!(read_back(&mut pit, 1).1, 0x9999);
    }

    #[test]
    fn decimal_counts() {
        let mut pit = pit();
        program(&mut pit, 0x31, 0x0250, 0);
        assert_eq!(pit.deadline(), Some(250));
        assert_eq!(read_back(&mut pit, 7).1, 0x0243);
    }

    #[test]
    fn single_bytes() {
        let mut pit = pit();
        program(&mut pit, 0x14, 0x7f, 0);
        assert_eq!(
            (pit.deadline(), pit.read(0, 1), pit.read(0, 2)),
            (Some(0x7f), 0x7e, 0x7d)
        );
        program(&mut pit, 0x24, 0x0300, 0);
        assert_eq!(
            (pit.deadline(), pit.read(0, 1), pit.read(0, 0x101)),
            (Some(0x300), 2, 1)
        );
    }

    #[test]
    fn a_latch_keeps_the_count_until_it_is_read() {
        let mut pit = pit();
        program(&mut pit, 0x34, 1000, 0);
        pit.write(3, 0x00, 10);
        pit.write(3, 0x00, 20);
        assert_eq!(read16(&mut pit, 0, 30), 990);
        assert_eq!(pit.read(0, 40), 0xc0);
    }

    #[test]
    fn channel_2_counts_while_its_gate_is_open() {
        let mut pit = pit();
        program(&mut pit, 0xb0, 100, 0);
        assert!(!pit.output(1000));
        pit.set_gate(true, 1000);
        assert_eq!(read16(&mut pit, 2, 1040), 60);
        pit.set_gate(false, 1040);
        assert_eq!(read16(&mut pit, 2, 2000), 60);
        pit.set_gate(true, 2000);
        assert!(!pit.output(2059));
        assert!(pit.output(2060));
        assert_eq!(pit.deadline(), None, "its output is no interrupt");
    }

    #[test]
    fn a_gate_triggers_the_one_shot() {
        let mut pit = pit();
        program(&mut pit, 0xb2, 100, 0);
        assert!(pit.output(500));
        pit.set_gate(true, 1000);
        assert!(!pit.output(1099));
        assert!(pit.output(1100));
        pit.set_gate(false, 1200);
        pit.set_gate(true, 1300);
        assert!(!pit.output(1399));
    }

    #[test]
    fn strobes_are_one_clock_late() {
        let mut pit = pit();
        program(&mut pit, 0x38, 10, 0);
        assert_eq!(pit.deadline(), Some(11));
        assert_eq!(
            [9, 10, 11].map(|now| read_back(&mut pit, now).0 >> 7),
            [1, 0, 1]
        );
        assert!(!pit.take_edges(10));
        assert!(pit.take_edges(11));
    }

    #[test]
    fn time_is_the_time_stamp_counter_s() {
        let mut pit = Pit::new(3_000_000_000);
        program(&mut pit, 0x34, 11932, 7);
        // 10 ms at 3 GHz, to within one clock, and never early.
        let due = pit.deadline().unwrap();
        assert!((30_000_007..30_002_522).contains(&due), "{due}");
        assert!(!pit.take_edges(due - 1));
        assert!(pit.take_edges(due));
    }

    #[test]
    fn channel_1_is_not_there() {
        let mut pit = pit();
        program(&mut pit, 0x74, 18, 0);
        assert_eq!(pit.read(1, 5), 0xff);
        assert_eq!(pit.read(3, 5), 0xff);
    }
}
