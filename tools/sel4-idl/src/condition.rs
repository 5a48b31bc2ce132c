//! Evaluates the conditions in the XML descriptions against kernel options.
//!
//! The kernel uses two forms, and these are all that is understood:
//! `defined NAME` (with or without parentheses) and `NAME > NUMBER`.

use crate::Options;

/// Returns whether `condition` holds. An empty condition does.
///
/// # Errors
/// A message if the condition has another form.
pub fn holds(condition: &str, options: &Options) -> Result<bool, String> {
    let text = condition.trim();
    if text.is_empty() {
        return Ok(true);
    }
    let is_name =
        |s: &str| !s.is_empty() && s.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if let Some(rest) = text.strip_prefix("defined") {
        let name = rest
            .trim()
            .trim_start_matches('(')
            .trim_end_matches(')')
            .trim();
        if is_name(name) {
            return Ok(options.contains_key(name));
        }
    }
    if let Some((name, number)) = text.split_once('>') {
        let name = name.trim();
        if let (true, Ok(number)) = (is_name(name), number.trim().parse::<u64>()) {
            // As in C, an undefined name counts as 0.
            let value = options
                .get(name)
                .and_then(|v| v.parse().ok())
                .unwrap_or(0u64);
            return Ok(value > number);
        }
    }
    Err(format!("condition `{condition}` is not understood"))
}
