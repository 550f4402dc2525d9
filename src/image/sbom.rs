//! The bill of materials: CycloneDX 1.6, of packages and our own program, without a clock or a random number.
//!
//! Sources: the CycloneDX 1.6 JSON reference; the package URL specification, types `deb` and `cargo`.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::identity;
use crate::tree::Sha256Digest;

/// A package that went into an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Debian package name.
    pub name: String,
    /// Debian version, with epoch and revision.
    pub version: String,
    /// Debian architecture, e.g. `amd64` or `all`.
    pub architecture: String,
    /// Digest of the `.deb` file.
    pub sha256: Sha256Digest,
}

/// Our own program in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Its version.
    pub version: String,
    /// Digest of the file.
    pub sha256: Sha256Digest,
}

/// A bill of materials as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bom {
    #[serde(rename = "bomFormat")]
    format: String,
    spec_version: String,
    serial_number: String,
    version: u32,
    metadata: Metadata,
    /// The packages, sorted, and our program behind them.
    pub components: Vec<Component>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Metadata {
    component: Subject,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Subject {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    version: String,
}

/// One package or program of a bill of materials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "bom-ref")]
    reference: String,
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Package URL.
    pub purl: String,
    hashes: Vec<Hash>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Hash {
    alg: String,
    content: String,
}

/// The bill of an image `name` in `version`; packages may come in any order and more than once.
pub fn build(name: &str, version: &str, packages: &[Package], program: &Program) -> Bom {
    let mut packages: Vec<&Package> = packages.iter().collect();
    packages.sort();
    packages.dedup();
    let components: Vec<Component> =
        packages.into_iter().map(package_component).chain([program_component(program)]).collect();
    let mut seed = format!("{name}\0{version}\0");
    seed.extend(components.iter().flat_map(|one| [one.purl.as_str(), &one.hashes[0].content, "\0"]));
    Bom {
        format: "CycloneDX".into(),
        spec_version: "1.6".into(),
        serial_number: format!("urn:uuid:{}", identity::uuid(Sha256Digest::of(seed.as_bytes()), "sbom")),
        version: 1,
        metadata: Metadata {
            component: Subject {
                kind: "operating-system".into(),
                name: name.into(),
                version: version.into(),
            },
        },
        components,
    }
}

fn package_component(package: &Package) -> Component {
    let Package { name, version, architecture, sha256 } = package;
    let (name_part, version_part) = (escaped(name), escaped(version));
    let purl = format!("pkg:deb/debian/{name_part}@{version_part}?arch={}", escaped(architecture));
    component("library", name, version, purl, *sha256)
}

fn program_component(program: &Program) -> Component {
    let Program { version, sha256 } = program;
    let name = env!("CARGO_PKG_NAME");
    component("application", name, version, format!("pkg:cargo/{name}@{}", escaped(version)), *sha256)
}

fn component(kind: &str, name: &str, version: &str, purl: String, sha256: Sha256Digest) -> Component {
    Component {
        kind: kind.into(),
        reference: purl.clone(),
        name: name.into(),
        version: version.into(),
        purl,
        hashes: vec![Hash { alg: "SHA-256".into(), content: sha256.to_string() }],
    }
}

/// Percent-encodes all but what a package URL leaves alone.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b".-_~:".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str) -> Package {
        Package {
            name: name.into(),
            version: version.into(),
            architecture: "amd64".into(),
            sha256: Sha256Digest::of(name.as_bytes()),
        }
    }

    fn program() -> Program {
        Program { version: "0.1.0".into(), sha256: Sha256Digest::of(b"program") }
    }

    fn build(name: &str, version: &str, packages: &[Package]) -> Bom {
        super::build(name, version, packages, &program())
    }

    #[test]
    fn our_own_program_is_on_the_bill_and_changes_it() {
        let bom = build("lychd", "1", &[package("a", "1")]);
        let names: Vec<_> = bom.components.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["a", "sepulcher"]);
        let last = &bom.components[1];
        assert_eq!((last.purl.as_str(), last.kind.as_str()), ("pkg:cargo/sepulcher@0.1.0", "application"));
        assert_eq!(last.hashes[0].content, program().sha256.to_string());
        let other = Program { sha256: Sha256Digest::of(b"other"), ..program() };
        assert_ne!(super::build("lychd", "1", &[package("a", "1")], &other).serial_number, bom.serial_number);
    }

    #[test]
    fn package_urls_escape_what_has_a_meaning_there() {
        let bom = build("lychd", "1", &[package("libstdc++6", "1:14.2.0-19+b1~x")]);
        assert_eq!(bom.components[0].purl, "pkg:deb/debian/libstdc%2B%2B6@1:14.2.0-19%2Bb1~x?arch=amd64");
    }

    #[test]
    fn order_and_repetition_do_not_change_the_bill_but_a_package_does() {
        let (one, two) = (package("a", "1"), package("b", "2"));
        let bill = |packages: &[Package]| serde_json::to_string(&build("lychd", "1", packages)).unwrap();
        assert_eq!(bill(&[one.clone(), two.clone()]), bill(&[two.clone(), one.clone(), two.clone()]));
        let (all, some) = (build("lychd", "1", &[one.clone(), two]), build("lychd", "1", &[one]));
        assert_ne!(all.serial_number, some.serial_number);
    }

    #[test]
    fn a_bill_has_the_fields_that_the_format_requires() {
        let bom = serde_json::to_value(build("lychd", "1", &[package("a", "1")])).unwrap();
        assert_eq!(bom["bomFormat"], "CycloneDX");
        assert_eq!(bom["specVersion"], "1.6");
        assert_eq!(bom["components"][0]["hashes"][0]["alg"], "SHA-256");
        assert_eq!(bom["metadata"]["component"]["type"], "operating-system");
    }
}
