//! Rebuilds the crate when an embedded image definition appears, changes or goes, and tells it the digest of the
//! sources that decide what a base root is: bases are cached, and another builder makes another base.
#![expect(clippy::disallowed_methods, reason = "reads the sources at build time")]

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// Files and folders whose code decides the bytes of a base: all of the builder, because a file of it that was left out here
/// would seal old bases. The lock file pins those who write tar and zstd.
const DECIDE: [&str; 2] = ["Cargo.lock", "src/image"];

fn main() -> std::io::Result<()> {
    println!("cargo::rerun-if-changed=images");
    let mut files = Vec::new();
    for path in DECIDE {
        println!("cargo::rerun-if-changed={path}");
        collect(Path::new(path), &mut files)?;
    }
    files.sort();
    let mut hasher = Sha256::new();
    for file in files {
        let bytes = std::fs::read(&file)?;
        // The length keeps one file's end apart from the next one's start.
        hasher.update(format!("{} {}\n", file.display(), bytes.len()));
        hasher.update(bytes);
    }
    let digest: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    println!("cargo::rustc-env=SEPULCHER_BASE_FORMAT={digest}");
    Ok(())
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            collect(&entry?.path(), files)?;
        }
    } else if path.file_name().is_none_or(|name| name != "tests.rs") {
        files.push(path.to_owned());
    }
    Ok(())
}
