//! Statistics of a fixed number of samples.

/// Up to `N` samples, in ticks.
#[derive(Clone, Debug)]
pub struct Samples<const N: usize> {
    values: [u64; N],
    length: usize,
}

/// What many samples come down to, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The least.
    pub min: u64,
    /// The one in the middle; the lower one of two.
    pub median: u64,
    /// The average, rounded to the nearest.
    pub mean: u64,
    /// The greatest.
    pub max: u64,
}

impl<const N: usize> Samples<N> {
    /// Creates an empty collection.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            values: [0; N],
            length: 0,
        }
    }

    /// Adds a sample; those beyond the `N`th are dropped.
    pub fn push(&mut self, value: u64) {
        if let Some(place) = self.values.get_mut(self.length) {
            *place = value;
            self.length += 1;
        }
    }

    /// Returns the summary; `None` without a sample.
    #[must_use]
    pub fn summary(&mut self) -> Option<Summary> {
        let values = &mut self.values[..self.length];
        values.sort_unstable();
        let (min, max) = (*values.first()?, *values.last()?);
        let count = values.len() as u128;
        let sum: u128 = values.iter().copied().map(u128::from).sum();
        Some(Summary {
            min,
            median: values[(values.len() - 1) / 2],
            mean: ((sum + count / 2) / count) as u64,
            max,
        })
    }
}

impl<const N: usize> Default for Samples<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_of_all_samples_in_any_order() {
        let mut samples = Samples::<8>::new();
        assert_eq!(samples.summary(), None);
        for value in [9, 1, 4, 2] {
            samples.push(value);
        }
        let expected = Summary {
            min: 1,
            median: 2,
            mean: 4,
            max: 9,
        };
        assert_eq!(samples.summary(), Some(expected));
    }

    #[test]
    fn what_does_not_fit_is_dropped() {
        let mut samples = Samples::<2>::new();
        for value in [u64::MAX, u64::MAX, 1] {
            samples.push(value);
        }
        let summary = samples.summary().unwrap();
        assert_eq!((summary.min, summary.mean), (u64::MAX, u64::MAX));
    }
}
