//! A kernel's options by name, as its `gen_config.json` says them.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

/// The value of an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// On or off.
    Flag(bool),
    /// A number or a word.
    Text(String),
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Setting::Flag(true) => f.write_str("1"),
            Setting::Flag(false) => f.write_str("0"),
            Setting::Text(text) => f.write_str(text),
        }
    }
}

/// Options by name, without `CONFIG_` before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration(BTreeMap<String, Setting>);

impl Configuration {
    /// Reads the text of a `gen_config.json`: one object, whose values are booleans and
    /// strings.
    ///
    /// # Errors
    /// A message if it is anything else.
    pub fn parse(text: &str) -> Result<Self, String> {
        let options: BTreeMap<String, Value> =
            serde_json::from_str(text).map_err(|e| e.to_string())?;
        let settings = options.into_iter().map(|(name, value)| match value {
            Value::Bool(flag) => Ok((name, Setting::Flag(flag))),
            Value::String(text) => Ok((name, Setting::Text(text))),
            other => Err(format!("{name} is neither a boolean nor a string: {other}")),
        });
        settings.collect::<Result<_, _>>().map(Self)
    }

    /// Adds the options of `other`, those of the user-level library to the kernel's.
    ///
    /// # Errors
    /// A message if an option is in both with different values.
    pub fn add(&mut self, other: Self) -> Result<(), String> {
        for (name, setting) in other.0 {
            match self.0.get(&name) {
                Some(known) if *known != setting => {
                    return Err(format!("{name} is {known} for the kernel, {setting} here"));
                }
                _ => self.0.insert(name, setting),
            };
        }
        Ok(())
    }

    /// Returns an option's value; `None` if there is no such option.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Setting> {
        self.0.get(name)
    }

    /// Returns whether an option is on. One that is not there is off, as it is for the
    /// preprocessor.
    #[must_use]
    pub fn is_on(&self, name: &str) -> bool {
        match self.get(name) {
            Some(Setting::Flag(flag)) => *flag,
            Some(Setting::Text(text)) => text == "1",
            None => false,
        }
    }

    /// Returns an option's number; `None` if it is not there or no number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        match self.get(name)? {
            Setting::Flag(_) => None,
            Setting::Text(text) => text.parse().ok(),
        }
    }

    /// Returns the options that are not off as the macros that C sees: `CONFIG_NAME` with
    /// its value.
    #[must_use]
    pub fn macros(&self) -> BTreeMap<String, String> {
        let on = self
            .0
            .iter()
            .filter(|(_, setting)| **setting != Setting::Flag(false));
        on.map(|(name, setting)| (format!("CONFIG_{name}"), setting.to_string()))
            .collect()
    }
}

impl FromIterator<(String, Setting)> for Configuration {
    fn from_iter<I: IntoIterator<Item = (String, Setting)>>(settings: I) -> Self {
        Self(settings.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_by_name() {
        let text = r#"{ "MCS": false, "HUGE": true, "BITS": "16", "ARCH": "x86" }"#;
        let read = Configuration::parse(text).unwrap();
        assert!(read.is_on("HUGE") && !read.is_on("MCS") && !read.is_on("NONE"));
        assert_eq!(read.number("BITS"), Some(16));
        assert_eq!(read.number("ARCH"), None);
        assert_eq!(read.number("HUGE"), None);
        let macros = [("ARCH", "x86"), ("BITS", "16"), ("HUGE", "1")];
        let macros = macros.map(|(name, value)| (format!("CONFIG_{name}"), value.to_owned()));
        assert_eq!(read.macros(), macros.into());
    }

    #[test]
    fn what_is_not_known_is_an_error() {
        for (text, word) in [
            ("{", "EOF"),
            ("[]", "map"),
            (r#"{ "A": 1 }"#, "A is neither"),
            (r#"{ "A": null }"#, "A is neither"),
        ] {
            let error = Configuration::parse(text).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn two_files_that_differ_are_no_configuration() {
        let of = |text| Configuration::parse(text).unwrap();
        let mut kernel = of(r#"{ "A": true }"#);
        kernel.add(of(r#"{ "A": true, "B": "2" }"#)).unwrap();
        assert_eq!(kernel.number("B"), Some(2));
        let error = kernel.add(of(r#"{ "B": "3" }"#)).unwrap_err();
        assert_eq!(error, "B is 2 for the kernel, 3 here");
    }
}
