//! What a kernel leaves of a guest's flags when it is entered, and an installed kernel as
//! an image takes it.

use std::path::Path;

use crate::build::{io, write_images};
use crate::check::Purpose;
use crate::mask::{self, Site};
use crate::{Built, Configuration, Error, Installed};

/// Which flags of a guest the kernel runs with. TF, IF, DF, NT and AC are the ones that
/// hurt it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// None of them, as the kernel was built.
    Closed,
    /// None of them: the masks at these places were completed in the image's copy.
    Completed(Vec<Site>),
    /// Some of them, or it is not known, for this reason: a guest may halt the machine.
    Open(String),
}

impl Entry {
    /// Returns its word in the kernel's label; `None` if there is nothing to be said.
    #[must_use]
    pub const fn word(&self) -> Option<&'static str> {
        match self {
            Self::Closed => None,
            Self::Completed(_) => Some("flags-completed"),
            Self::Open(_) => Some("flags-open"),
        }
    }

    /// Returns what is to be said of it on each build, and at boot.
    #[must_use]
    pub fn describe(&self) -> String {
        let each = |sites: &[Site]| {
            let each = sites.iter().map(|site| {
                let (old, new, at) = (site.value, site.completed(), site.address);
                format!("{old:#x} to {new:#x} at {at:#x}")
            });
            each.collect::<Vec<_>>().join(" and ")
        };
        match self {
            Self::Closed => "its entry clears a guest's TF, IF, DF, NT and AC".to_owned(),
            Self::Completed(sites) => format!(
                "the flags that its entry clears were completed in the image's copy, {}: with NT \
                 a guest would halt the machine",
                each(sites)
            ),
            Self::Open(why) => format!("a guest may halt the machine by its flags: {why}"),
        }
    }
}

/// What stands for the kernel in lists: short words, each of them an option that matters.
pub(crate) fn label(configuration: &Configuration, entry: &Entry) -> String {
    let mut words = vec!["installed".to_owned()];
    for (option, word) in [
        ("VERIFICATION_BUILD", "verification-build"),
        ("DEBUG_BUILD", "debug"),
        ("PRINTING", "printing"),
        ("FASTPATH", "fast-path"),
        ("KERNEL_SKIM_WINDOW", "skim-window"),
        ("SUPPORT_PCID", "pcid"),
    ] {
        if configuration.is_on(option) {
            words.push(word.to_owned());
        }
    }
    if let Some(domains) = configuration.number("NUM_DOMAINS").filter(|n| *n > 1) {
        words.push(format!("{domains}-domains"));
    }
    words.extend(entry.word().map(str::to_owned));
    words.join(",")
}

/// Finds out what the entry of a kernel's 64-bit ELF file lets in, and closes it in a
/// copy unless it is to stay `untouched`. Returns the file for the image.
fn close(file: Vec<u8>, untouched: bool) -> Result<(Vec<u8>, Entry), String> {
    let (sites, open) = match mask::sites(&file) {
        Ok(sites) => {
            let open = sites.iter().find(|site| !site.is_masked()).map(|site| {
                let (mask, address) = (site.value, site.address);
                format!("the mask of the wrmsr at {address:#x} is {mask:#x}")
            });
            (sites, open)
        }
        Err(why) if untouched => return Ok((file, Entry::Open(why))),
        Err(why) => return Err(why),
    };
    // An interrupt keeps DF, and the kernel's entries do not clear it.
    let strings = mask::string_instruction(&file)?.map(|address| {
        format!("an interrupt keeps DF, with which the string instruction at {address:#x} runs backwards")
    });
    match (open, strings) {
        (None, None) => Ok((file, Entry::Closed)),
        (Some(why), _) | (None, Some(why)) if untouched => Ok((file, Entry::Open(why))),
        (_, Some(why)) => Err(why),
        (Some(_), None) => {
            let (copy, changed) = mask::complete(&file, &sites)?;
            Ok((copy, Entry::Completed(changed)))
        }
    }
}

/// Takes an installed kernel for an image: checks its options, closes its entry in a
/// copy unless it is to stay `untouched`, and writes its two forms to `out`. `note` is
/// called with what the user has to know.
///
/// # Errors
/// If its options do not fit, its file cannot be read, or its entry cannot be followed or
/// closed.
pub fn adopt(
    installed: &Installed,
    purpose: Purpose,
    untouched: bool,
    out: &Path,
    note: &mut dyn FnMut(&str),
) -> Result<Built, Error> {
    for warning in installed.check(purpose)? {
        note(&format!("warning: {warning}"));
    }
    let path = installed.kernel();
    let file = std::fs::read(&path).map_err(|e| io("read", &path, e))?;
    let (file, entry) = close(file, untouched).map_err(|why| {
        Error::new(
            format!("cannot make {} safe from a guest's flags", path.display()),
            why,
            "build seL4 with KernelOptimisation=-O2 and without KernelVTX; or take it as it is \
             by --kernel-untouched, with `kernel = \"trusted\"` for each guest that may halt \
             the machine",
        )
    })?;
    note(&entry.describe());
    std::fs::create_dir_all(out).map_err(|e| io("make", out, e))?;
    let built = Built {
        elf64: out.join("kernel64.elf"),
        elf32: out.join("kernel32.elf"),
        options: installed.configuration().macros(),
        label: label(installed.configuration(), &entry),
        installed: Some(path),
        entry,
    };
    write_images(file, &built)?;
    Ok(built)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Setting;
    use crate::mask::tests::{ENDS, SETS, kernel};

    /// mov eax, 0x44700; mov ecx, 0xc0000084; wrmsr
    const WHOLE: &[u8] = &[0xb8, 0, 0x47, 4, 0, 0xb9, 0x84, 0, 0, 0xc0, 0x0f, 0x30];
    /// rep movsb
    const STRING: &[u8] = &[0xf3, 0xa4];
    /// A mask from memory: mov eax, [rdi]; mov ecx, 0xc0000084; wrmsr
    const UNKNOWN: &[u8] = &[0x8b, 0x07, 0xb9, 0x84, 0, 0, 0xc0, 0x0f, 0x30];

    fn closed(code: &[&[u8]], untouched: bool) -> Result<(bool, Entry), String> {
        let file = kernel(code);
        close(file.clone(), untouched).map(|(copy, entry)| (copy != file, entry))
    }

    #[test]
    fn a_kernel_whose_entry_is_closed_stays_as_it_is() {
        for untouched in [false, true] {
            assert_eq!(
                closed(&[WHOLE, ENDS], untouched),
                Ok((false, Entry::Closed))
            );
        }
    }

    #[test]
    fn an_open_entry_is_closed_in_the_copy_or_said() {
        let (changed, entry) = closed(&[SETS, ENDS], false).unwrap();
        assert!(changed);
        let text = entry.describe();
        assert!(
            text.contains("0x300 to 0x44700 at 0xffffffff8010000c"),
            "{text}"
        );
        let (changed, entry) = closed(&[SETS, ENDS], true).unwrap();
        assert!(!changed);
        let text = entry.describe();
        assert!(text.contains("may halt the machine"), "{text}");
        assert!(text.contains("0xffffffff8010000c is 0x300"), "{text}");
    }

    #[test]
    fn what_cannot_be_closed_is_an_error_unless_the_user_says_so() {
        for (code, word) in [(UNKNOWN, "not to be told"), (STRING, "no wrmsr")] {
            assert!(closed(&[code, ENDS], false).unwrap_err().contains(word));
            let (changed, entry) = closed(&[code, ENDS], true).unwrap();
            assert!(!changed && matches!(entry, Entry::Open(why) if why.contains(word)));
        }
        for sets in [SETS, WHOLE] {
            let error = closed(&[sets, STRING, ENDS], false).unwrap_err();
            assert!(error.contains("the string instruction at"), "{error}");
            let (changed, entry) = closed(&[sets, STRING, ENDS], true).unwrap();
            assert!(!changed && matches!(entry, Entry::Open(_)));
        }
    }

    #[test]
    fn the_label_has_the_options_that_matter() {
        let options = [
            ("VERIFICATION_BUILD", Setting::Flag(true)),
            ("FASTPATH", Setting::Flag(true)),
            ("DEBUG_BUILD", Setting::Flag(false)),
            ("NUM_DOMAINS", Setting::Text("16".to_owned())),
        ];
        let options = options.map(|(name, value)| (name.to_owned(), value));
        let configuration = options.into_iter().collect();
        assert_eq!(
            label(&configuration, &Entry::Completed(Vec::new())),
            "installed,verification-build,fast-path,16-domains,flags-completed"
        );
        let open = Entry::Open(String::new());
        assert_eq!(
            label(&Configuration::default(), &open),
            "installed,flags-open"
        );
        assert_eq!(
            label(&Configuration::default(), &Entry::Closed),
            "installed"
        );
    }
}
