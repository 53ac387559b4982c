//! Reading and writing whole files.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// The largest file that is read: the published traces have a hundredth of it.
const FILE_MAX_BYTES: u64 = 64 << 20;

/// All of a file, if it is text and not too long.
pub fn read(path: &Path) -> Result<String> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut text = String::new();
    let read = file.take(FILE_MAX_BYTES + 1).read_to_string(&mut text);
    read.with_context(|| format!("cannot read {}", path.display()))?;
    if text.len() as u64 > FILE_MAX_BYTES {
        bail!("{} is longer than {} MiB", path.display(), FILE_MAX_BYTES >> 20);
    }
    Ok(text)
}

/// Writes a file, in place of what was there.
pub fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
