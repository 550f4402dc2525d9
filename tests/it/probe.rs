//! `sepulcher probe`: what it refuses, before a packet leaves.

use crate::support::sepulcher;

/// Runs a probe that has to fail, and returns exit code and what it said.
fn refused(args: &[&str]) -> (i32, String) {
    let run = sepulcher().arg("probe").args(args).assert().failure();
    let output = run.get_output();
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    (output.status.code().unwrap(), String::from_utf8(output.stderr.clone()).unwrap())
}

#[test]
fn arguments_that_are_none_are_refused() {
    for (args, part) in [
        (&["--rate", "1001"][..], "1001 is not in 1..=1000"),
        (&["--rate", "0"], "0 is not in 1..=1000"),
        (&["--wait", "0"], "0 is not in 1..=30"),
        (&["--rounds", "101"], "101 is not in 1..=100"),
        (&["--port", "0"], "'--port <PORT>'"),
        (&["--tcp", "80,http"], "'http'"),
        (&["--key", "x"], "44 characters of base64"),
        (&["--key", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="], "low-order point"),
    ] {
        let (code, said) = refused(&[&["192.0.2.1"], args].concat());
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(part), "{part:?} is missing from:\n{said}");
    }
}

#[test]
fn hosts_that_are_not_one_machine_are_refused() {
    for host in ["0.0.0.0", "::", "[::]", "255.255.255.255", "224.0.0.1", "ff02::1"] {
        let (code, said) = refused(&[host]);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("is not the address of one host\nhint: "), "{said}");
    }
    // Longer than a name may be: refused before anybody is asked.
    let (code, said) = refused(&[&"a".repeat(300)]);
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("cannot look `aaa") && said.contains("hint: check the name"), "{said}");
}

#[test]
fn a_codex_with_mistakes_stops_the_probe_before_it_begins() {
    let (code, said) = refused(&["192.0.2.1", "--codex", "/nonexistent"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("the Codex holds 1 mistake") && !said.contains("asking"), "{said}");
}
