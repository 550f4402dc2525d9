//! The commands as a person meets them: output, exit codes, obstacles in the file system.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::support::{copy, repository, sepulcher};

/// Runs `check` over the example after `spoil` had its way with a copy, and returns exit code and report.
fn check(spoil: impl FnOnce(&Path)) -> (Option<i32>, String) {
    let scratch = tempfile::tempdir().unwrap();
    let codex = scratch.path().join("codex");
    copy(&repository("examples/lychd"), &codex);
    spoil(&codex);
    let output = sepulcher().current_dir(scratch.path()).args(["check", "codex"]).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// Asserts that `check` ends with exit code 1 and says all of `parts`.
fn refuses(parts: &[&str], spoil: impl FnOnce(&Path)) {
    let (code, report) = check(spoil);
    assert_eq!(code, Some(1), "{report}");
    for part in parts {
        assert!(report.contains(part), "{part:?} is missing from:\n{report}");
    }
}

#[test]
fn the_example_is_valid_and_summed_up_in_one_line() {
    let run = sepulcher().arg("check").arg(repository("examples/lychd")).assert().success();
    run.stdout("lychd: 7 services, 2 peers (0 revoked), ports: 1 forest, 4 tether, 4 pod\n").stderr("");
}

#[test]
fn init_writes_a_codex_that_check_accepts() {
    let scratch = tempfile::tempdir().unwrap();
    let new = scratch.path().join("deep/new");
    let empty = scratch.path().join("empty");
    fs::create_dir(&empty).unwrap();
    for dir in [&new, &empty] {
        sepulcher().arg("init").arg(dir).args(["--name", "tomb"]).assert().success().stdout("");
        let run = sepulcher().arg("check").arg(dir).assert().success();
        run.stdout("tomb: 1 service, 0 peers (0 revoked), ports: 0 forest, 1 tether, 0 pod\n");
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["lychd.toml", "peers", "services"]);
    }
    assert_eq!(fs::read_dir(new.parent().unwrap()).unwrap().count(), 1, "something is left beside it");
}

#[test]
fn init_refuses_a_folder_that_holds_anything_and_leaves_it_alone() {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join(".hidden"), "mine").unwrap();
    let run = sepulcher().arg("init").arg(scratch.path()).assert().code(1);
    let report = String::from_utf8(run.get_output().stderr.clone()).unwrap();
    assert!(report.contains("is not empty: it holds .hidden") && report.contains("hint: "), "{report}");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    sepulcher().arg("init").arg(scratch.path().join(".hidden")).assert().code(1);
}

#[test]
fn init_refuses_a_name_that_is_none() {
    let scratch = tempfile::tempdir().unwrap();
    let run = sepulcher().current_dir(&scratch).args(["init", "codex", "--name", "A b"]).assert().code(2);
    assert!(String::from_utf8_lossy(&run.get_output().stderr).contains("lower-case"));
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[test]
fn check_prints_json_on_standard_output() {
    let scratch = tempfile::tempdir().unwrap();
    let codex = scratch.path().join("codex");
    copy(&repository("examples/lychd"), &codex);
    let json = |code: i32| -> serde_json::Value {
        let run = sepulcher().current_dir(&scratch).args(["check", "--json", "codex"]).assert().code(code);
        serde_json::from_slice(&run.get_output().stdout).unwrap()
    };
    assert_eq!(json(0)["ports"]["tether"], 4);
    fs::write(codex.join("services/worker.toml"), "description = \"é\"\nprot = 1\nrootfs = \"a\"\n").unwrap();
    let report = json(1);
    assert_eq!(report["valid"], false);
    let mistake = &report["mistakes"][0];
    assert_eq!(mistake["file"], "codex/services/worker.toml");
    assert_eq!(mistake["start"], serde_json::json!({ "line": 2, "column": 1 }));
    assert_eq!(mistake["end"], serde_json::json!({ "line": 2, "column": 5 }));
    assert_eq!(mistake["message"], "unknown key `prot`");
}

#[test]
fn check_warns_where_a_service_answers_the_forest_for_its_own_pinned_route() {
    let scratch = tempfile::tempdir().unwrap();
    let codex = scratch.path().join("codex");
    copy(&repository("tests/golden/v6/codex"), &codex);
    let said = || {
        let run = sepulcher().current_dir(&scratch).args(["check", "codex"]).assert().success();
        String::from_utf8(run.get_output().stderr.clone()).unwrap()
    };
    let json = || -> serde_json::Value {
        let run = sepulcher().current_dir(&scratch).args(["check", "--json", "codex"]).assert().success();
        serde_json::from_slice(&run.get_output().stdout).unwrap()
    };
    let shared = said();
    for part in [
        "warning: `vessel` itself answers the forest for the pinned route `/a2a/smith`",
        "codex/services/vessel.toml:16:8",
        "help: give the pinned route a port of its own",
    ] {
        assert!(shared.contains(part), "{part:?} is missing from:\n{shared}");
    }
    assert_eq!(json()["warnings"][0]["severity"], "warning");
    let file = codex.join("services/vessel.toml");
    let text = fs::read_to_string(&file).unwrap();
    let (before, after) = text.rsplit_once("port = 7134").unwrap();
    let port = "[[port]]\nnumber = 7135\ntier = \"pod\"\n";
    fs::write(&file, format!("{before}port = 7135{after}\n{port}")).unwrap();
    let apart = said();
    assert!(
        apart.contains("help: make sure that nothing is served below `/a2a/smith` at port 7134"),
        "{apart}"
    );
    let (alone, _) = text.rsplit_once("# Pinned below").unwrap();
    fs::write(&file, format!("{alone}{}", port.replace("\"pod\"", "\"tether\""))).unwrap();
    assert_eq!(said(), "");
    assert_eq!(json()["warnings"], serde_json::json!([]));
}

#[test]
fn a_usage_mistake_has_exit_code_2() {
    sepulcher().arg("check").assert().code(2);
    sepulcher().args(["check", "a", "--nonsense"]).assert().code(2);
}

#[test]
fn a_missing_folder_or_law_is_named_with_a_remedy() {
    refuses(&["codex", "sepulcher init"], |codex| fs::remove_dir_all(codex).unwrap());
    refuses(&["`lychd.toml` is missing", "sepulcher init"], |codex| {
        fs::remove_file(codex.join("lychd.toml")).unwrap();
    });
    refuses(&["cannot read the folder", "codex"], |codex| {
        fs::remove_dir_all(codex).unwrap();
        fs::write(codex, "a file").unwrap();
    });
}

#[test]
fn a_file_that_is_not_utf_8_is_named_with_the_byte() {
    refuses(&["codex/services/oculus.toml", "byte 5, in line 2", "UTF-8"], |codex| {
        fs::write(codex.join("services/oculus.toml"), b"a=1\n#\xff\n").unwrap();
    });
}

#[test]
fn ten_mebibytes_of_noise_are_refused_by_size() {
    refuses(&["codex/peers/phone.toml", "larger than 1048576 bytes"], |codex| {
        fs::write(codex.join("peers/phone.toml"), vec![b'\xa5'; 10 << 20]).unwrap();
    });
}

#[test]
fn a_mebibyte_of_noise_is_refused_with_a_short_report() {
    let noise = |codex: &Path| {
        let byte = |index: u32| b' ' + u8::try_from(index.wrapping_mul(2_654_435_761) >> 24).unwrap() % 95;
        fs::write(codex.join("peers/phone.toml"), (0..1 << 20).map(byte).collect::<Vec<u8>>()).unwrap();
    };
    let (code, report) = check(noise);
    assert_eq!(code, Some(1));
    assert!(report.len() < 10_000, "{} bytes of report", report.len());
}

#[test]
fn a_symlink_loop_is_named_as_one() {
    refuses(&["codex/services/oculus.toml", "leads back to itself"], |codex| {
        let path = codex.join("services/oculus.toml");
        fs::remove_file(&path).unwrap();
        symlink("oculus.toml", &path).unwrap();
    });
    refuses(&["codex/peers", "leads back to itself"], |codex| {
        fs::remove_dir_all(codex.join("peers")).unwrap();
        symlink("peers", codex.join("peers")).unwrap();
    });
}

#[test]
fn a_symlink_to_nothing_is_an_obstacle_and_not_an_absent_file() {
    refuses(&["codex/peers/phone.toml", "cannot read", "symbolic link"], |codex| {
        fs::remove_file(codex.join("peers/phone.toml")).unwrap();
        symlink("gone", codex.join("peers/phone.toml")).unwrap();
    });
}

#[test]
fn a_fifo_a_socket_and_a_folder_are_refused_without_waiting() {
    for name in ["services/oculus.toml", "lychd.toml"] {
        refuses(&[name, "this is a FIFO, not a file"], |codex| {
            fs::remove_file(codex.join(name)).unwrap();
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            let kind = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, codex.join(name), kind, mode, 0).unwrap();
        });
    }
    refuses(&["codex/peers/phone.toml", "this is a socket"], |codex| {
        fs::remove_file(codex.join("peers/phone.toml")).unwrap();
        std::os::unix::net::UnixListener::bind(codex.join("peers/phone.toml")).unwrap();
    });
    refuses(&["codex/peers/wraith.toml", "this is a folder"], |codex| {
        fs::create_dir(codex.join("peers/wraith.toml")).unwrap();
    });
}

#[test]
fn an_unreadable_file_causes_no_mistakes_elsewhere() {
    let (_, report) = check(|codex| {
        // `phone` is granted this service; it is still there by name.
        fs::write(codex.join("services/oculus.toml"), [0xff]).unwrap();
    });
    assert!(report.contains("the Codex holds 1 mistake\n"), "{report}");
}

#[test]
fn a_slip_in_a_file_name_is_an_error_and_other_files_are_left_alone() {
    refuses(&["services/x.tml", "services/x.toml"], |codex| {
        fs::write(codex.join("services/x.tml"), "").unwrap();
    });
    refuses(&["codex/peers/Phone.toml", "lower-case", "rename it"], |codex| {
        fs::rename(codex.join("peers/phone.toml"), codex.join("peers/Phone.toml")).unwrap();
    });
    refuses(&["codex/service", "rename it to `services`"], |codex| {
        fs::rename(codex.join("services"), codex.join("service")).unwrap();
    });
    let (code, report) = check(|codex| {
        for name in ["README.md", "notes", "peers/.phone.toml.swp", "peers/phone.toml~", "services/x.bak"] {
            fs::write(codex.join(name), "not TOML").unwrap();
        }
    });
    assert_eq!((code, report.as_str()), (Some(0), ""));
}

#[test]
fn the_bonds_take_the_place_of_the_laws_peers() {
    let law = repository("examples/lychd");
    let bonds = tempfile::tempdir().unwrap();
    let peers = |sources| {
        let codex = sepulcher::codex::Codex::parse(&sources).unwrap();
        codex.peers.into_keys().map(|name| name.to_string()).collect::<Vec<_>>()
    };
    let load = || sepulcher::sys::codex::load(&[&law, bonds.path()]);
    assert_eq!(peers(load()), ["laptop", "phone"]);
    fs::create_dir(bonds.path().join("peers")).unwrap();
    assert_eq!(peers(load()), [""; 0]);
    fs::copy(law.join("peers/phone.toml"), bonds.path().join("peers/wraith.toml")).unwrap();
    assert_eq!(peers(load()), ["wraith"]);
}

#[test]
fn a_host_is_asked_for_nothing_that_is_done_here() {
    for verb in [
        "check .",
        "rebirth fall-back",
        "rebirth verify . --codex .",
        "rebirth preview . --body .",
        "audit show",
    ] {
        let output = sepulcher().args(["--host", "lychd"]).args(verb.split(' ')).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && told.contains("`--host` belongs to"), "{verb}: {told}");
    }
}
