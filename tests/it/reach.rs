//! `sepulcher explain` and `sepulcher map`.

use serde_json::Value;

use crate::support::{repository, sepulcher};

/// Standard output of a run over the example.
fn told(args: &str) -> String {
    let run = sepulcher()
        .args(args.split(' '))
        .arg("--codex")
        .arg(repository("examples/lychd"))
        .assert()
        .success()
        .stderr("");
    String::from_utf8(run.get_output().stdout.clone()).unwrap()
}

/// Standard error of a run over the example that is refused.
fn refused(args: &str) -> String {
    let folder = repository("examples/lychd");
    let run = sepulcher().args(args.split(' ')).arg("--codex").arg(folder).assert().code(1).stdout("");
    String::from_utf8(run.get_output().stderr.clone()).unwrap()
}

#[test]
fn a_yes_names_the_grant_the_rule_and_the_lines() {
    let expected = "\
yes: phone reaches oculus:6006/tcp
  why      `phone` holds the grant `oculus`
  codex    peers/phone.toml:4: grants `oculus`
  codex    services/oculus.toml:9: tier `tether`
  rule     pod, chain tether: ip saddr . meta l4proto . th dport @grants counter accept
  element  10.88.16.2 . tcp . 6006
";
    assert_eq!(told("explain phone oculus:6006"), expected);
}

#[test]
fn a_no_says_what_would_change_it() {
    let expected = "\
no: phone does not reach worker:9464/tcp; nothing is answered, the attempt is counted
  why      `phone` does not hold the grant `worker`
  codex    peers/phone.toml:4: does not hold it
  codex    services/worker.toml:8: tier `tether`
  rule     pod, chain tether: goto refused
  remedy   sepulcher peer grant phone worker
";
    assert_eq!(told("explain phone worker"), expected);
    let pinned = told("explain forest /a2a/smith");
    assert!(
        pinned.starts_with("no: forest does not reach /a2a/smith; it is answered like anything unknown\n")
    );
    assert!(
        pinned.contains("  codex    services/intercom.toml:13: route /a2a/smith of tier `tether`\n"),
        "{pinned}"
    );
}

#[test]
fn the_remedy_of_a_no_makes_it_a_yes() {
    let scratch = tempfile::tempdir().unwrap();
    crate::support::copy(&repository("examples/lychd"), scratch.path());
    let explain = || {
        let run = sepulcher()
            .args(["explain", "phone", "/a2a/smith", "--json", "--codex"])
            .arg(scratch.path())
            .assert()
            .success();
        serde_json::from_slice::<Value>(&run.get_output().stdout).unwrap()["answers"][0].clone()
    };
    let before = explain();
    assert_eq!((&before["allowed"], &before["fate"]), (&Value::Bool(false), &Value::from("denied")));
    let remedy = before["remedy"].as_str().unwrap().strip_prefix("sepulcher ").unwrap().to_owned();
    sepulcher().args(remedy.split(' ')).arg("--codex").arg(scratch.path()).assert().success();
    let after = explain();
    assert_eq!(after["allowed"], true, "{after}");
}

#[test]
fn what_nobody_is_called_is_an_error_with_a_suggestion() {
    for (args, part) in [
        ("explain phon oculus", "hint: did you mean `phone`?"),
        ("explain phone oculsu:6006", "hint: did you mean `oculus`?"),
        ("explain phone oculus:99", "its ports are: 6006/tcp, 4318/tcp"),
        ("explain phone :99999", "`99999` is no port"),
        ("explain phone :80/icmp", "write `/tcp` or `/udp`"),
        ("explain oculus phone", "services speak as the pod"),
    ] {
        let said = refused(args);
        assert!(said.starts_with("error: ") && said.contains(part), "{args}: {said}");
    }
}

#[test]
fn the_map_is_a_table_json_and_a_picture() {
    let table = told("map");
    let row = |label: &str| {
        let line = table.lines().find(|line| line.contains(label)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row("SERVICE"), ["SERVICE", "WHAT", "TIER", "forest", "host", "pod", "laptop", "phone"]);
    assert_eq!(row("6006/tcp"), ["oculus", "6006/tcp", "tether", "-", "-", "yes", "yes", "yes"]);
    assert_eq!(row("9464/tcp"), ["worker", "9464/tcp", "tether", "-", "-", "yes", "yes", "-"]);
    assert_eq!(row("/a2a/hello"), ["intercom", "/a2a/hello", "forest", "yes", "yes", "yes", "yes", "yes"]);
    let json: Value = serde_json::from_str(&told("map --json")).unwrap();
    assert_eq!(json["rows"].as_array().unwrap().len(), table.lines().count() - 1);

    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("map.svg");
    assert_eq!(told(&format!("map --svg {}", file.display())), "");
    let picture = std::fs::read_to_string(file).unwrap();
    assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
    for name in ["oculus", "phylactery", "phone", "laptop", "/a2a/smith"] {
        assert!(picture.contains(&format!(">{name}</text>")), "{name}");
    }
}
