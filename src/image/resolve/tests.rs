//! The pure parts: the solver's answer, its mapping to index entries, explanations.

use super::*;
use crate::tree::Sha256Digest;

fn entry(name: &str, version: &str, more: &str) -> String {
    let digest = Sha256Digest::of(format!("{name}{version}").as_bytes());
    format!(
        "Package: {name}\nVersion: {version}\nArchitecture: amd64\n{more}\
         Filename: pool/main/{name}_{version}_amd64.deb\nSize: 10\nSHA256: {digest}\n\n"
    )
}

fn universe() -> Universe {
    let main = [
        entry("app", "1", "Depends: lib (>= 1), virtual | other\n"),
        entry("lib", "1", "Depends: base\n"),
        entry("base", "1", ""),
        entry("real", "1", "Provides: virtual (= 1)\nDepends: base\n"),
        entry("tool", "1", ""),
    ];
    let security = entry("lib", "1+deb13u1", "Depends: base\n");
    let [one, two, three] = suites("trixie");
    Universe::new("trixie", vec![(one, main.concat()), (two, String::new()), (three, security)])
}

const ANSWER: &str = "Inst base (1 localhost [amd64])\nConf base (1 localhost [amd64])\n\
    Inst lib (1+deb13u1 Debian-Security:13/stable-security, Debian:13.1/stable [amd64]) []\n\
    Inst real:amd64 (1 localhost [amd64])\nInst app [0.9] (1 localhost [amd64])\nInst tool (1 localhost [amd64])\n";

fn lock() -> Lock {
    universe().lock_of(&chosen(ANSWER)).unwrap()
}

fn definition() -> Definition {
    Definition::parse("packages = ['app', 'tool']").unwrap()
}

#[test]
fn the_solvers_answer_becomes_index_entries() {
    let lock = lock();
    let names: Vec<_> = lock.packages().iter().map(|package| package.name.as_str()).collect();
    assert_eq!(names, ["app", "base", "lib", "real", "tool"]);
    let lib = lock.get("lib").unwrap();
    assert_eq!((lib.version.as_str(), lib.archive), ("1+deb13u1", Archive::DebianSecurity));
    assert_eq!(lib.path, "pool/main/lib_1+deb13u1_amd64.deb");
}

#[test]
fn an_answer_that_no_index_has_is_an_error() {
    let error = universe().lock_of(&chosen("Inst lib (2 localhost [amd64])\n")).unwrap_err();
    assert!(matches!(&error, Error::Unknown(what) if what == "lib 2"), "{error}");
}

#[test]
fn an_explanation_is_the_shortest_chain_and_all_that_need_it() {
    let explain = |package| universe().explain(&definition(), &lock(), package);
    assert_eq!(
        explain("base").unwrap(),
        ["app 1 (asked for)", "  lib 1+deb13u1", "    base 1", "needed by: lib, real"]
    );
    assert_eq!(explain("real").unwrap(), ["app 1 (asked for)", "  real 1", "needed by: app"]);
    assert_eq!(explain("tool").unwrap(), ["tool 1 (asked for)", "needed by: nothing"]);
    assert_eq!(explain("absent"), None);
}

#[test]
fn an_empty_definition_needs_no_solver() {
    let nobody = Tools {
        gpgv: Command::new("/nonexistent"),
        apt_get: Command::new("/nonexistent"),
        keyring: PathBuf::new(),
    };
    let empty = Definition::parse("packages = []").unwrap();
    assert!(universe().resolve(&nobody, &empty).unwrap().packages().is_empty());
}

/// `Tools` whose gpgv says `status` and that `text` was signed.
fn tells(status: &str, text: &str) -> Tools {
    let script = format!("cat >/dev/null; for out; do :; done; printf '{text}' >\"$out\"; echo '{status}'");
    Tools {
        gpgv: Command::new("sh").args(["-c", &script, "gpgv"]),
        apt_get: Command::new("/nonexistent"),
        keyring: PathBuf::new(),
    }
}

/// `Tools` whose gpgv finds the signature good and says that `text` was signed.
fn says(text: &str) -> Tools {
    tells("[GNUPG:] VALIDSIG 41", text)
}

fn signed() -> Vec<u8> {
    b"-----BEGIN PGP SIGNED MESSAGE-----\n".to_vec()
}

const RELEASE: &str = "Codename: trixie\\nValid-Until: Thu, 01 Jan 1970 01:00:00 UTC\\nSHA256:\\n \
    e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 0 main/binary-amd64/Packages.xz\\n";

#[test]
fn an_index_of_another_suite_or_past_its_time_is_refused() {
    let now = |seconds| Some(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds));
    let tools = says(RELEASE);
    verify(&tools, "trixie", signed(), now(3600)).unwrap();
    verify(&tools, "trixie", signed(), None).unwrap();
    assert!(matches!(verify(&tools, "trixie", signed(), now(3601)), Err(Error::Expired(_))));
    assert!(matches!(verify(&tools, "trixie-security", signed(), None), Err(Error::Suite { .. })));
    assert!(matches!(
        verify(&says("Codename: trixie\\n"), "trixie", signed(), None),
        Err(Error::Index { .. })
    ));
}

#[test]
fn a_bad_signature_is_told_from_a_missing_program() {
    let distrusted =
        |tools: &Tools, signed| matches!(verify(tools, "trixie", signed, None), Err(Error::Signature { .. }));
    assert!(distrusted(&tells("[GNUPG:] BADSIG 64", RELEASE), signed()));
    assert!(distrusted(&Tools { gpgv: Command::new("false"), ..says("") }, signed()));
    assert!(distrusted(&says(RELEASE), [signed(), signed()].concat()));
    let missing = Tools { gpgv: Command::new("/nonexistent"), ..says("") };
    assert!(matches!(verify(&missing, "trixie", signed(), None), Err(Error::Command(_))));
}
