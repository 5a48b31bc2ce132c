//! `vectis logs`: the log of a run, decoded again.
//!
//! A run leaves in one folder all that decoding needs: the raw stream, the manifest,
//! and the programs. The folder can be kept, or sent to a colleague.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::logs::{Decoder, Level, Line, in_order};
use crate::run;
use crate::workspace::{read, write};

/// Name of the raw stream.
pub const LOG: &str = "log.bin";

/// How often `--follow` looks for more.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Copies the files that decoding needs out of an image's folder, in place of an
/// earlier run's. Returns the log's path.
///
/// # Errors
/// If a file cannot be copied.
pub fn prepare(image: &Path, folder: &Path) -> Result<PathBuf> {
    let manifest = read(&image.join("manifest.json"))?;
    let (log, programs) = (folder.join(LOG), folder.join("programs"));
    for (old, removed) in [
        (&log, std::fs::remove_file(&log)),
        (&programs, std::fs::remove_dir_all(&programs)),
    ] {
        match removed {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::file("remove", old, &e));
            }
            _ => {}
        }
    }
    write(&folder.join("manifest.json"), &manifest)?;
    for (_, file) in writers(image)? {
        let Ok(name) = file.strip_prefix(image) else {
            continue;
        };
        write(&folder.join(name), read(&file)?)?;
    }
    Ok(log)
}

/// Returns the writers of logs and their programs, in the order of their ids,
/// by the manifest in `folder`.
///
/// # Errors
/// If there is none, or it is not one of ours.
pub fn writers(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let path = folder.join("manifest.json");
    let manifest: Value = serde_json::from_slice(&read(&path)?).unwrap_or_default();
    let components = manifest["components"].as_array();
    let writers: Option<Vec<_>> = components.and_then(|components| {
        components
            .iter()
            .map(|writer| {
                let elf = folder.join(writer["elf"].as_str()?);
                Some((writer["name"].as_str()?.to_owned(), elf))
            })
            .collect()
    });
    writers.ok_or_else(|| {
        Error::new(
            format!("cannot use {}", path.display()),
            "it is no manifest of an image",
            "`vectis run` makes a new one",
        )
    })
}

/// Which lines to print.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Least urgent level.
    pub level: Level,
    /// One component only.
    pub component: Option<String>,
}

/// Prints the log in `file`; with `follow` waits for more until the process is
/// ended.
///
/// # Errors
/// If it, the manifest or a program cannot be read.
pub fn print(file: &Path, filter: &Filter, follow: bool) -> Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let writers = writers(folder)?;
    if let Some(name) = &filter.component
        && !writers.iter().any(|(writer, _)| writer == name)
    {
        let names: Vec<&str> = writers.iter().map(|(name, _)| name.as_str()).collect();
        return Err(Error::new(
            format!("no component {name}"),
            "it is not in this log",
            format!("there is {}", names.join(", ")),
        ));
    }
    let mut decoder = Decoder::new(&writers)?;
    let mut source = File::open(file).map_err(|e| Error::file("read", file, &e))?;
    let show = |decoder: &Decoder, lines: &[Line]| {
        let wanted = filter.component.as_ref();
        lines
            .iter()
            .filter(|line| wanted.is_none_or(|name| *name == line.component))
            .try_for_each(|line| run::show(decoder, line, filter.level))
    };
    // The existing lines are sorted before they are printed; later ones in the groups
    // in which they arrive.
    let mut lines = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let length = source
            .read(&mut buffer)
            .map_err(|e| Error::file("read", file, &e))?;
        lines.extend(decoder.push(&buffer[..length]));
        if length == 0 {
            in_order(&mut lines);
            show(&decoder, &lines)?;
            lines.clear();
            if !follow {
                return Ok(());
            }
            thread::sleep(LOOK_AGAIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_s_folder_has_all_that_decoding_needs() {
        let (image, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let manifest = r#"{"components":[
            {"name":"init","elf":"programs/init","log":0},
            {"name":"vmm0","elf":"programs/vmm","log":1}]}"#;
        write(&image.path().join("manifest.json"), manifest).unwrap();
        assert!(prepare(image.path(), folder.path()).is_err());
        write(&image.path().join("programs/init"), "i").unwrap();
        write(&image.path().join("programs/vmm"), "v").unwrap();
        prepare(image.path(), folder.path()).unwrap();
        let found = writers(folder.path()).unwrap();
        let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["init", "vmm0"]);
        assert_eq!(std::fs::read(&found[1].1).unwrap(), b"v");
        // Nothing of it is there in the next run's.
        let manifest = r#"{"components":[{"name":"init","elf":"programs/init","log":0}]}"#;
        write(&image.path().join("manifest.json"), manifest).unwrap();
        write(&folder.path().join(LOG), "log").unwrap();
        let log = prepare(image.path(), folder.path()).unwrap();
        assert!(!log.exists() && !folder.path().join("programs/vmm").exists());
        assert!(folder.path().join("programs/init").exists());
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["", "{}", r#"{"components":[{"name":1}]}"#] {
            write(&folder.path().join("manifest.json"), text).unwrap();
            assert!(writers(folder.path()).is_err(), "{text}");
        }
    }
}
