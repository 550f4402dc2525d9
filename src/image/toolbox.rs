//! Programs out of locked packages, run through their own loader: the host's versions cannot leak in.
//!
//! A toolbox is unpacked once into the cache, as plain files of the current user. Its folder `shims` holds a
//! launcher for each program, for scripts that call others by name.
#![expect(clippy::disallowed_methods, reason = "unpacks into the cache")]

use std::fs::{File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::definition::Image;
use super::store::{self, Store};
use super::unpack;
use crate::sys::cmd::Command;
use crate::sys::fs;

/// How unfinished toolboxes in the cache are named.
const LITTER: &str = ".unpacking-";
const LOADER: &str = "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";
/// Where libraries lie, as far as a toolbox has these folders.
const LIBRARIES: [&str; 9] = [
    "usr/lib/x86_64-linux-gnu",
    "usr/lib",
    "usr/lib/x86_64-linux-gnu/systemd",
    "usr/lib/systemd",
    "usr/lib/x86_64-linux-gnu/blas",
    "usr/lib/x86_64-linux-gnu/lapack",
    "usr/lib/x86_64-linux-gnu/pulseaudio",
    "usr/lib/x86_64-linux-gnu/ceph",
    "usr/lib/x86_64-linux-gnu/swtpm",
];
/// Where converters of character sets lie; without this the host's would be loaded.
const CONVERTERS: &str = "usr/lib/x86_64-linux-gnu/gconv";
/// Where programs lie, in the order they are looked for.
const PROGRAMS: [&str; 6] =
    ["usr/bin", "usr/sbin", "usr/lib/systemd", "usr/libexec", "usr/libexec/podman", "usr/lib/podman"];
/// Folders of programs that scripts find by name.
const SHIMMED: [&str; 2] = ["usr/bin", "usr/sbin"];

/// An unpacked toolbox.
#[derive(Debug, Clone)]
pub struct Toolbox {
    name: String,
    root: PathBuf,
}

/// A toolbox that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its packages cannot be had.
    #[error("cannot get the toolbox {name}")]
    Store {
        /// Its name.
        name: String,
        /// Why.
        source: Box<store::Error>,
    },
    /// No such program in it.
    #[error("the toolbox {toolbox} has no program {program}")]
    Program {
        /// Its name.
        toolbox: String,
        /// What was looked for.
        program: String,
    },
    /// The cache cannot be read or written.
    #[error(transparent)]
    File(#[from] fs::Error),
}

/// How a program is started.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Format {
    /// Through the loader.
    Dynamic,
    /// As it is.
    Static,
    /// Through an interpreter with at most one argument.
    Script { interpreter: String, arg: Option<String> },
}

impl Toolbox {
    /// Fetches and unpacks the packages of `image` unless that was done before.
    pub fn open(store: &Store<'_>, image: &Image) -> Result<Self, Error> {
        let digest = image.digest().to_string();
        let folder = store.cache.join("toolbox");
        // Launchers name it in full, so it must not be relative to where the program was started.
        let folder = fs::context(std::path::absolute(&folder), "resolve", &folder)?;
        let root = folder.join(format!("{}-{}", image.name, &digest[..16]));
        let toolbox = Self { name: image.name.clone(), root };
        if toolbox.root.exists() {
            return Ok(toolbox);
        }
        let layer = store
            .layer(image)
            .map_err(|source| Error::Store { name: image.name.clone(), source: Box::new(source) })?;
        let _locked = fs::lock_and_tidy(&folder, LITTER)?;
        // Another process may have done it all meanwhile.
        if toolbox.root.exists() {
            return Ok(toolbox);
        }
        let temporary = tempfile::Builder::new().prefix(LITTER).tempdir_in(&folder);
        let temporary = fs::context(temporary, "write in", &folder)?;
        unpack::write(&layer, temporary.path())?;
        toolbox.write_shims(temporary.path())?;
        fs::context(
            std::fs::set_permissions(temporary.path(), Permissions::from_mode(0o755)),
            "write",
            temporary.path(),
        )?;
        fs::rename(temporary.path(), &toolbox.root)?;
        // Nothing is left at the old path to clean up.
        let _ = temporary.keep();
        Ok(toolbox)
    }

    /// One that somebody else has unpacked at `root`, with launchers in its folder `shims`.
    pub fn unpacked(name: &str, root: &Path) -> Self {
        Self { name: name.to_owned(), root: root.to_owned() }
    }

    /// Folder that it is unpacked in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Path of a file in it (relative, e.g. `usr/share/OVMF/OVMF_CODE_4M.fd`).
    pub fn file(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Folder with a launcher for each of its programs, to put into `PATH`.
    pub fn shims(&self) -> PathBuf {
        self.root.join("shims")
    }

    /// A command that runs `program`: a name (`mkfs.erofs`) or a path in the toolbox
    /// (`usr/lib/systemd/systemd-sysusers`). Scripts find the toolbox's programs before the host's. The caller's
    /// environment is hidden: see [`Command::isolated`].
    pub fn command(&self, program: &str) -> Result<Command, Error> {
        let path = self.find(program)?;
        let name = path.file_name().unwrap_or_default().to_owned();
        match format(&path)? {
            Format::Static => Ok(Command::new(path).isolated()),
            Format::Dynamic => Ok(self.loader(&self.root).arg("--argv0").arg(name).arg(path)),
            Format::Script { interpreter, arg } => {
                let own = self.command(interpreter.rsplit('/').next().unwrap_or(&interpreter));
                let command = match own {
                    Err(Error::Program { .. }) => Command::new(interpreter),
                    own => own?,
                };
                let path_variable = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.shims().display());
                Ok(command.args(arg).arg(path).env("PATH", path_variable).isolated())
            }
        }
    }

    fn find(&self, program: &str) -> Result<PathBuf, Error> {
        let candidates: Vec<PathBuf> = if program.contains('/') {
            vec![self.root.join(program.trim_start_matches('/'))]
        } else {
            PROGRAMS.iter().map(|folder| self.root.join(folder).join(program)).collect()
        };
        let not_found = || Error::Program { toolbox: self.name.clone(), program: program.to_owned() };
        candidates.into_iter().find(|path| path.is_file()).ok_or_else(not_found)
    }

    /// The loader with the library folders of the toolbox unpacked at `unpacked`.
    fn loader(&self, unpacked: &Path) -> Command {
        let folders: Vec<String> = LIBRARIES
            .iter()
            .filter(|folder| unpacked.join(folder).is_dir())
            .map(|folder| self.root.join(folder).display().to_string())
            .collect();
        let loader =
            Command::new(self.root.join(LOADER)).arg("--library-path").arg(folders.join(":")).isolated();
        if unpacked.join(CONVERTERS).is_dir() {
            loader.env("GCONV_PATH", self.root.join(CONVERTERS))
        } else {
            loader
        }
    }

    fn write_shims(&self, unpacked: &Path) -> Result<(), Error> {
        let folder = unpacked.join("shims");
        fs::create_dir_all(&folder)?;
        for programs in SHIMMED.iter().filter(|programs| unpacked.join(programs).is_dir()) {
            for path in fs::list(&unpacked.join(programs))? {
                let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
                // Links that leave the toolbox (alternatives) are not programs.
                if path.is_file() && format(&path)? == Format::Dynamic {
                    let target = self.root.join(programs).join(name);
                    let words = self.loader(unpacked).arg("--argv0").arg(name).arg(target);
                    let text = format!("#!/bin/sh\n{} \"$@\"\n", shell_line(&words));
                    fs::write(&folder.join(name), 0o755, text.as_bytes())?;
                }
            }
        }
        Ok(())
    }
}

/// A command for the shell, which becomes it.
fn shell_line(command: &Command) -> String {
    let mut line = String::new();
    for (name, value) in command.environment() {
        line.extend([&name.to_string_lossy(), "=", &quoted(&value.to_string_lossy()), " "]);
    }
    line.push_str("exec");
    for word in command.argv() {
        line.extend([" ", &quoted(&word.to_string_lossy())]);
    }
    line
}

/// A word for the shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn format(path: &Path) -> Result<Format, fs::Error> {
    let head = || {
        let mut head = Vec::new();
        File::open(path)?.take(4096).read_to_end(&mut head)?;
        io::Result::Ok(head)
    };
    let head = fs::context(head(), "read", path)?;
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let mut words = line.split_whitespace().map(str::to_owned);
        let mut interpreter = words.next().unwrap_or_else(|| "/bin/sh".to_owned());
        let mut arg = words.next();
        if interpreter.ends_with("/env") {
            interpreter = arg.take().unwrap_or(interpreter);
        }
        return Ok(Format::Script { interpreter, arg });
    }
    Ok(if has_interpreter(&head) { Format::Dynamic } else { Format::Static })
}

/// Whether a 64-bit ELF file asks for a loader (program header `PT_INTERP`), told from its first page.
fn has_interpreter(head: &[u8]) -> bool {
    let half = |at: usize| head.get(at..at + 2).map_or(0, |b| usize::from(u16::from_le_bytes([b[0], b[1]])));
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return false;
    }
    let (start, size, count) = (half(32), half(54), half(56));
    (0..count).any(|index| half(start + index * size) == 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_and_programs_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        let mut elf = vec![0u8; 200];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (elf[32], elf[54], elf[56], elf[64], elf[120]) = (64, 56, 2, 6, 3);
        let dynamic = elf.clone();
        elf[120] = 1;
        let script = |interpreter: &str, arg: Option<&str>| Format::Script {
            interpreter: interpreter.to_owned(),
            arg: arg.map(str::to_owned),
        };
        for (bytes, expected) in [
            (dynamic.as_slice(), Format::Dynamic),
            (&elf, Format::Static),
            (b"\x7fELF\x02\x01", Format::Static),
            (b"#! /bin/bash -e\n", script("/bin/bash", Some("-e"))),
            (b"#!/usr/bin/env python3\n", script("python3", None)),
            (b"#!\n", script("/bin/sh", None)),
        ] {
            fs::write(&path, 0o755, bytes).unwrap();
            assert_eq!(format(&path).unwrap(), expected);
        }
    }

    #[test]
    fn a_word_with_quotes_stays_one_word() {
        let word = "it's $HOME";
        let said = Command::new("sh").args(["-c", &format!("printf %s {}", quoted(word))]).read().unwrap();
        assert_eq!(said, word.as_bytes());
    }
}
