//! From a lock to a running program, with a mirror of this test on the loopback interface.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use sepulcher::image::definition::Definitions;
use sepulcher::image::fetch;
use sepulcher::image::store::Store;
use sepulcher::image::toolbox::Toolbox;
use sepulcher::sys::http;
use sepulcher::tree::Sha256Digest;

/// A mirror that has these paths; its address ends in `/debian`.
pub fn mirror(files: BTreeMap<String, Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/debian", listener.local_addr().unwrap());
    let files = Arc::new(files);
    // It ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, files) = (stream.unwrap(), Arc::clone(&files));
            std::thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let Some(request) = lines.next() else { return };
                lines.take_while(|line| !line.is_empty()).for_each(drop);
                let path = request.split(' ').nth(1).unwrap();
                let (status, body) =
                    files.get(path).map_or(("404 Not Found", &[][..]), |body| ("200 OK", body));
                let length = body.len();
                let head =
                    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
            });
        }
    });
    address
}

/// A package with one program, which is a script.
fn deb(program: &str, script: &str) -> Vec<u8> {
    let tar = |path: &str, mode, text: &str| {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(text.len() as u64);
        builder.append_data(&mut header, path, text.as_bytes()).unwrap();
        builder.into_inner().unwrap()
    };
    let control = tar("./control", 0o644, "Package: demo\n");
    let data = tar(&format!("./bin/{program}"), 0o755, script);
    let mut builder = ar::Builder::new(Vec::new());
    for (name, bytes) in [("debian-binary", &b"2.0\n"[..]), ("control.tar", &control), ("data.tar", &data)] {
        builder.append(&ar::Header::new(name.into(), bytes.len() as u64), bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Writes the definition `demo` that locks `deb` under `path`.
fn define(images: &Path, path: &str, deb: &[u8]) {
    let folder = images.join("demo");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("packages.toml"), "packages = [\"demo\"]\n").unwrap();
    let lock = format!(
        "schema = 1\nrelease = \"trixie\"\n\n[[package]]\nname = \"demo\"\nversion = \"1\"\n\
         architecture = \"all\"\narchive = \"debian\"\npath = \"{path}\"\nsize = {}\nsha256 = \"{}\"\n",
        deb.len(),
        Sha256Digest::of(deb)
    );
    std::fs::write(folder.join("packages.lock"), lock).unwrap();
}

const PATH: &str = "pool/main/d/demo/demo_1_all.deb";

struct Case {
    folder: tempfile::TempDir,
    address: String,
}

impl Case {
    /// Definition `demo` locks `locked`; the mirror has `served` under its path.
    fn new(locked: &[u8], served: Option<&[u8]>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        define(&folder.path().join("images"), PATH, locked);
        let files = served.map(|served| (format!("/debian/{PATH}"), served.to_vec()));
        Self { folder, address: mirror(files.into_iter().collect()) }
    }

    fn toolbox(&self, args: &[&str]) -> assert_cmd::assert::Assert {
        self.command(args).assert()
    }

    fn command(&self, args: &[&str]) -> assert_cmd::Command {
        let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_sepulcher"));
        command.env_clear().timeout(std::time::Duration::from_mins(1));
        command.env("SEPULCHER_CACHE", self.folder.path().join("cache"));
        command.env("SEPULCHER_MIRROR", &self.address);
        command.arg("toolbox").arg("--images").arg(self.folder.path().join("images"));
        command.args(args);
        command
    }

    fn cached(&self, folder: &str) -> usize {
        std::fs::read_dir(self.folder.path().join("cache").join(folder)).map_or(0, Iterator::count)
    }
}

fn said(assert: &assert_cmd::assert::Assert) -> String {
    String::from_utf8(assert.get_output().stderr.clone()).unwrap()
}

#[test]
fn a_locked_program_is_fetched_unpacked_and_run_and_then_needs_no_network() {
    let deb = deb("greet", "#!/bin/sh\necho \"hello $1\"\n");
    let case = Case::new(&deb, Some(&deb));
    case.toolbox(&["demo", "greet", "--you"]).success().stdout("hello --you\n");
    case.toolbox(&["--offline", "demo", "greet", "again"]).success().stdout("hello again\n");
    let absent = case.toolbox(&["--offline", "demo", "nope"]).code(1).stdout("");
    assert!(said(&absent).contains("the toolbox demo has no program nope"), "{}", said(&absent));
    let root = case.toolbox(&["--offline", "demo"]).success();
    let root = String::from_utf8(root.get_output().stdout.clone()).unwrap();
    assert!(Path::new(root.trim()).join("usr/bin/greet").is_file(), "{root}");
}

#[test]
fn what_has_rotted_in_the_cache_is_told_and_then_unpacked_anew() {
    let deb = deb("greet", "#!/bin/sh\necho good\n");
    let case = Case::new(&deb, Some(&deb));
    case.toolbox(&["demo", "greet"]).success().stdout("good\n");
    let cache = case.folder.path().join("cache");
    let data = cache.join(format!("data/{}.tar", Sha256Digest::of(&deb)));
    let rotten = std::fs::read(&data).unwrap().windows(4).position(|bytes| bytes == b"good").unwrap();
    let mut bytes = std::fs::read(&data).unwrap();
    bytes[rotten..rotten + 4].copy_from_slice(b"evil");
    std::fs::write(&data, &bytes).unwrap();
    std::fs::remove_dir_all(cache.join("toolbox")).unwrap();
    case.toolbox(&["--offline", "demo", "greet"]).code(74).stdout("");
    case.toolbox(&["--offline", "demo", "greet"]).success().stdout("good\n");
}

#[test]
fn a_persons_environment_reaches_the_program_but_for_what_steers_the_loader() {
    let deb = deb("greet", "#!/bin/sh\necho \"$TZ,$LD_LIBRARY_PATH\"\n");
    let case = Case::new(&deb, Some(&deb));
    let mut command = case.command(&["demo", "greet"]);
    command.env("TZ", "Asia/Tokyo").env("LD_LIBRARY_PATH", "/nonexistent");
    command.assert().success().stdout("Asia/Tokyo,\n");
}

#[test]
fn a_program_for_the_builder_does_not_see_the_callers_environment() {
    let deb = deb("greet", "#!/bin/sh\necho \"$CARGO_MANIFEST_DIR,$LC_ALL\"\n");
    let case = Case::new(&deb, Some(&deb));
    case.toolbox(&["demo"]).success();
    let store = Store {
        cache: case.folder.path().join("cache"),
        mirrors: None,
        offline: true,
        client: http::Client::default(),
        progress: &fetch::Quiet,
    };
    let image = Definitions::Folder(case.folder.path().join("images")).image("demo").unwrap();
    let greet = Toolbox::open(&store, &image).unwrap().command("greet").unwrap();
    assert_ne!(std::env::var("CARGO_MANIFEST_DIR").unwrap(), "");
    assert_eq!(greet.read().unwrap(), b",C\n");
}

#[test]
fn a_changed_package_is_refused_and_leaves_nothing_in_the_cache() {
    let locked = deb("greet", "#!/bin/sh\necho good\n");
    let case = Case::new(&locked, Some(&deb("greet", "#!/bin/sh\necho evil\n")));
    let assert = case.toolbox(&["demo", "greet"]).code(69).stdout("");
    assert!(said(&assert).contains("demo 1 has the wrong content"), "{}", said(&assert));
    assert_eq!((case.cached("debs"), case.cached("data"), case.cached("toolbox")), (0, 0, 0));
}

#[test]
fn a_package_that_left_the_mirror_names_the_remedies_when_the_lock_must_hold() {
    let case = Case::new(&deb("greet", ""), None);
    let assert = case.toolbox(&["--locked", "demo"]).code(69).stdout("");
    for word in ["demo 1 is not on the mirror", "sepulcher lock", "--mirror"] {
        assert!(said(&assert).contains(word), "{word}: {}", said(&assert));
    }
}

#[test]
fn without_network_and_cache_the_missing_packages_are_listed() {
    let case = Case::new(&deb("greet", ""), None);
    let assert = case.toolbox(&["--offline", "demo"]).code(69).stdout("");
    assert!(said(&assert).contains("1 package not in the cache: demo 1"), "{}", said(&assert));
}

#[test]
fn a_package_that_is_no_package_is_told_by_name() {
    let case = Case::new(b"noise", Some(b"noise"));
    let assert = case.toolbox(&["demo"]).code(1).stdout("");
    assert!(said(&assert).contains("package demo 1 is malformed"), "{}", said(&assert));
    assert_eq!((case.cached("data"), case.cached("toolbox")), (0, 0));
}

#[test]
fn a_broken_definition_lock_or_name_is_told_with_its_place() {
    let deb = deb("greet", "");
    let case = Case::new(&deb, Some(&deb));
    let assert = case.toolbox(&["dmeo"]).code(1);
    assert!(said(&assert).contains("there are demo"), "{}", said(&assert));
    let lock = case.folder.path().join("images/demo/packages.lock");
    for (text, word) in
        [(&b"schema = 9\nrelease = \"x\"\n"[..], "schema 9"), (b"schema = \n", "line 1"), (b"\xff", "UTF-8")]
    {
        std::fs::write(&lock, text).unwrap();
        let assert = case.toolbox(&["demo"]).code(1).stdout("");
        assert!(
            said(&assert).contains("demo/packages.lock") && said(&assert).contains(word),
            "{}",
            said(&assert)
        );
    }
    std::fs::write(&lock, "schema = 1\nrelease = \"trixie\"\n").unwrap();
    let assert = case.toolbox(&["demo"]).code(1).stdout("");
    for word in ["demo is asked for and not locked", "hint: renew it with `sepulcher lock demo`"] {
        assert!(said(&assert).contains(word), "{}", said(&assert));
    }
    std::fs::remove_file(&lock).unwrap();
    assert!(said(&case.toolbox(&["demo"]).code(1)).contains("sepulcher lock demo"));
}
