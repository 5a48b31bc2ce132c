//! Progress on standard error: one numbered line a step.

/// Counts steps.
#[derive(Clone, Debug)]
pub struct Steps {
    total: usize,
    done: usize,
}

impl Steps {
    /// Steps of a command that has `total`.
    #[must_use]
    pub const fn new(total: usize) -> Self {
        Self { total, done: 0 }
    }

    /// Says that the next step begins.
    pub fn begin(&mut self, what: &str, detail: &str) {
        self.done += 1;
        eprintln!("[{}/{}] {what:<10} {detail}", self.done, self.total);
    }

    /// Says something about the step that runs.
    pub fn note(&self, text: &str) {
        eprintln!("      {text}");
    }
}
