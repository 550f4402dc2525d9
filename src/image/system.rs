//! The root file system's base: packages as unpacked, plus what their maintainer scripts would have done.
//!
//! No script runs. Users, enabled units, mount points and configuration are data (`image.toml`, `tree/`);
//! what the packages expect of them is checked here, so that a new package cannot be forgotten.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::layer::{Content, Kind, Layer, Node};

/// Where ca-certificates puts the authorities' certificates.
const AUTHORITIES: &str = "usr/share/ca-certificates/mozilla/";

/// `image.toml` of a bootable image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct System {
    /// Words of the kernel command line, without the root hash.
    pub cmdline: Vec<String>,
    /// Folders that no package brings.
    pub folders: Vec<String>,
    /// Symbolic links: path → target.
    pub links: BTreeMap<String, String>,
}

/// Why packages and data do not make a root.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `image.toml` is not what is expected.
    #[error("cannot read image.toml")]
    Definition(#[from] Box<toml::de::Error>),
    /// A package declares users or groups that the image does not have.
    #[error("packages expect users or groups that etc/passwd and etc/group of the image lack: {}", .0.join(", "))]
    MissingAccounts(Vec<String>),
    /// A link points to nothing.
    #[error("{path} of image.toml points to {target}, which no package brings")]
    DanglingUnit {
        /// Path of the link.
        path: String,
        /// What it resolves to.
        target: String,
    },
    /// A package's file cannot be read from the cache.
    #[error("cannot read a file of a package from the cache")]
    Read(#[source] std::io::Error),
    /// Not exactly one kernel.
    #[error("the packages bring {0} kernels (boot/vmlinuz-*); exactly one is needed")]
    Kernels(usize),
}

/// A root without its kernel, and the kernel.
#[derive(Debug)]
pub struct Base {
    /// Everything below `/`, without `/boot`.
    pub root: Layer,
    /// The kernel image.
    pub kernel: Content,
    /// Its release, the name of its module folder.
    pub release: String,
}

impl System {
    /// Reads `image.toml`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        toml::from_str(text).map_err(|error| Error::Definition(Box::new(error)))
    }

    /// Lays the image's own files, links and folders over the unpacked packages.
    pub fn base(&self, packages: Layer, files: Layer) -> Result<Base, Error> {
        let Self { cmdline: _, folders, links } = self;
        let mut root = packages;
        root.merge(files);
        for folder in folders {
            root.0.insert(folder.clone(), node(0o755, Kind::Dir));
        }
        root.0.insert("tmp".to_owned(), node(0o1777, Kind::Dir));
        root.0.insert("root".to_owned(), node(0o700, Kind::Dir));
        for (path, target) in links {
            root.0.insert(path.clone(), node(0o777, Kind::Link(target.clone())));
        }
        self.units_exist(&root)?;
        accounts_exist(&root)?;
        add_certificates(&mut root)?;
        let (kernel, release) = take_kernel(&mut root)?;
        Ok(Base { root, kernel, release })
    }

    fn units_exist(&self, root: &Layer) -> Result<(), Error> {
        for (path, target) in self.links.iter().filter(|(path, _)| path.starts_with("usr/lib/systemd/")) {
            let target = resolve(path, target);
            if !root.0.contains_key(&target) {
                return Err(Error::DanglingUnit { path: path.clone(), target });
            }
        }
        Ok(())
    }
}

fn node(mode: u32, kind: Kind) -> Node {
    Node { mode, uid: 0, gid: 0, kind }
}

/// What a relative link at `path` points to.
fn resolve(path: &str, target: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            ".." => {
                parts.pop();
            }
            "." | "" => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Every user and group that a `sysusers.d` line declares must be in `etc/passwd` and `etc/group`.
fn accounts_exist(root: &Layer) -> Result<(), Error> {
    let text = |path: &str| match root.0.get(path).map(|node| &node.kind) {
        Some(Kind::File(content)) => read(content).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        _ => Ok(String::new()),
    };
    let names = |text: String| -> BTreeSet<String> {
        text.lines().filter_map(|line| line.split(':').next()).map(str::to_owned).collect()
    };
    let (users, groups) = (names(text("etc/passwd")?), names(text("etc/group")?));
    let mut missing = BTreeSet::new();
    for path in root.0.keys().filter(|path| path.starts_with("usr/lib/sysusers.d/")) {
        if path.ends_with("/basic.conf") {
            // systemd's own list of Debian's historical accounts (games, news, …): nothing here uses them.
            continue;
        }
        for line in text(path)?.lines() {
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("u" | "u!"), Some(name)) if !users.contains(name) || !groups.contains(name) => {
                    missing.insert(name.to_owned());
                }
                (Some("g"), Some(name)) if !groups.contains(name) => {
                    missing.insert(name.to_owned());
                }
                _ => {}
            }
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(Error::MissingAccounts(missing.into_iter().collect())) }
}

/// Makes a tree of packages and files the root of a container.
pub fn container(packages: Layer, files: Layer) -> Result<Layer, Error> {
    let mut root = packages;
    root.merge(files);
    root.add_usr_links();
    for folder in ["dev", "etc", "proc", "run", "sys", "tmp", "var"] {
        root.0.entry(folder.to_owned()).or_insert_with(|| node(0o755, Kind::Dir));
    }
    root.0.insert("tmp".to_owned(), node(0o1777, Kind::Dir));
    add_certificates(&mut root)?;
    Ok(root)
}

/// The certificates of all authorities in one file, where programs look for it, if the packages bring any.
fn add_certificates(root: &mut Layer) -> Result<(), Error> {
    let mut bundle = Vec::new();
    for (path, node) in &root.0 {
        match &node.kind {
            Kind::File(content) if path.starts_with(AUTHORITIES) => {
                bundle.extend(read(content)?);
            }
            _ => {}
        }
    }
    if !bundle.is_empty() {
        let kind = Kind::File(Content::Bytes(bundle.into()));
        root.0.insert("etc/ssl/certs/ca-certificates.crt".to_owned(), node(0o644, kind));
    }
    Ok(())
}

fn read(content: &Content) -> Result<Vec<u8>, Error> {
    content.read().map_err(Error::Read)
}

/// Takes the kernel out of `boot/`; the root has no other use for that folder's content.
fn take_kernel(root: &mut Layer) -> Result<(Content, String), Error> {
    let mut boot = root.0.split_off("boot/");
    // `boot0` is the first path behind everything below `boot/`.
    root.0.append(&mut boot.split_off("boot0"));
    let mut kernels =
        boot.into_iter().filter_map(|(path, node)| match (path.strip_prefix("boot/vmlinuz-"), node.kind) {
            (Some(release), Kind::File(content)) => Some((content, release.to_owned())),
            _ => None,
        });
    match (kernels.next(), kernels.count()) {
        (Some(kernel), 0) => Ok(kernel),
        (None, _) => Err(Error::Kernels(0)),
        (Some(_), more) => Err(Error::Kernels(1 + more)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Node {
        node(0o644, Kind::File(Content::Bytes(text.as_bytes().into())))
    }

    fn layer(entries: &[(&str, &str)]) -> Layer {
        Layer(entries.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect())
    }

    fn system(links: &str) -> System {
        System::parse(&format!("cmdline = []\nfolders = [\"proc\"]\n[links]\n{links}")).unwrap()
    }

    #[test]
    fn the_kernel_is_taken_out_and_boot_stays_empty() {
        let packages = layer(&[
            ("boot/vmlinuz-6.12", "kernel"),
            ("boot/config-6.12", "x"),
            ("boot0", "kept"),
            ("usr/a", "x"),
        ]);
        let base = system("").base(packages, Layer::default()).unwrap();
        assert_eq!(base.release, "6.12");
        assert_eq!(read(&base.kernel).unwrap(), b"kernel");
        assert!(base.root.0.keys().all(|path| !path.starts_with("boot/")));
        assert!(base.root.0.contains_key("boot0") && base.root.0.contains_key("proc"));
    }

    #[test]
    fn no_kernel_and_two_kernels_are_refused() {
        let none = system("").base(Layer::default(), Layer::default()).unwrap_err();
        assert!(matches!(none, Error::Kernels(0)), "{none}");
        let packages = layer(&[("boot/vmlinuz-1", ""), ("boot/vmlinuz-2", "")]);
        assert!(matches!(system("").base(packages, Layer::default()), Err(Error::Kernels(2))));
    }

    #[test]
    fn an_account_that_a_package_expects_is_not_forgotten() {
        let packages = layer(&[
            ("usr/lib/sysusers.d/new.conf", "# comment\nu! newcomer - \"New\"\ng plain -\n"),
            ("etc/passwd", "root:*:0:0:root:/root:/bin/sh\n"),
            ("etc/group", "root:x:0:\nplain:x:7:\n"),
        ]);
        let error = system("").base(packages, Layer::default()).unwrap_err();
        assert!(matches!(&error, Error::MissingAccounts(names) if names == &["newcomer"]), "{error}");
    }

    #[test]
    fn an_enabled_unit_that_does_not_exist_is_refused() {
        let links = "\"usr/lib/systemd/system/multi-user.target.wants/gone.service\" = \"../gone.service\"";
        let error = system(links).base(Layer::default(), Layer::default()).unwrap_err();
        assert!(error.to_string().contains("usr/lib/systemd/system/gone.service"), "{error}");
    }
}
