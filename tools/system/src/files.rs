//! Files and folders of a project.

use std::path::Path;

/// Returns the names of the folders in a folder, sorted; none if it cannot be read.
pub fn folders(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// Reads a text file, which has to be a regular one: a device or a pipe might never
/// end.
pub fn read_text(path: &Path) -> std::io::Result<String> {
    if std::fs::metadata(path)?.is_file() {
        return std::fs::read_to_string(path);
    }
    Err(std::io::Error::other("it is not a regular file"))
}
