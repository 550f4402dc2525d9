//! `sepulcher render` as people call it.

use std::path::Path;

use assert_cmd::Command;

fn sepulcher() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sepulcher"));
    command.env_clear();
    command
}

fn example() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/lychd")
}

#[test]
fn render_writes_a_tree_that_check_finds_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("tree");
    sepulcher().arg("render").arg(example()).arg("--out").arg(&out).assert().success().stdout("").stderr("");
    sepulcher()
        .arg("render")
        .arg(example())
        .arg("--check")
        .arg("--out")
        .arg(&out)
        .assert()
        .success()
        .stdout("");
}

#[test]
fn check_shows_the_difference_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("tree");
    sepulcher().arg("render").arg(example()).arg("--out").arg(&out).assert().success();
    std::fs::write(out.join("etc/hostname"), "other\n").unwrap();
    let run = sepulcher().arg("render").arg(example()).arg("--check").arg("--out").arg(&out).assert().code(1);
    let shown = String::from_utf8(run.get_output().stdout.clone()).unwrap();
    assert!(shown.contains("-other\n+lychd\n"), "{shown}");
    assert_eq!(std::fs::read_to_string(out.join("etc/hostname")).unwrap(), "other\n");
}

#[test]
fn render_replaces_an_earlier_rendering_and_its_stale_files() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("tree");
    sepulcher().arg("render").arg(example()).arg("--out").arg(&out).assert().success();
    let minimal = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/minimal/codex");
    sepulcher().arg("render").arg(minimal).arg("--out").arg(&out).assert().success();
    assert!(!out.join("usr/share/sepulcher/Caddyfile").exists());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn render_never_replaces_a_folder_that_holds_anything_else() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("tree");
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("thesis.txt"), "years of work").unwrap();
    let run = sepulcher().arg("render").arg(example()).arg("--out").arg(&out).assert().code(1);
    let said = String::from_utf8(run.get_output().stderr.clone()).unwrap();
    assert!(said.contains("it has no manifest of a rendering\nhint: name a new folder"), "{said}");
    std::fs::remove_file(out.join("thesis.txt")).unwrap();
    sepulcher().arg("render").arg(example()).arg("--out").arg(&out).assert().success();
    std::fs::write(out.join("thesis.txt"), "years of work").unwrap();
    let run = sepulcher().arg("render").arg(example()).arg("--out").arg(&out).assert().code(1);
    let said = String::from_utf8(run.get_output().stderr.clone()).unwrap();
    assert!(said.contains("thesis.txt was not rendered"), "{said}");
    assert_eq!(std::fs::read_to_string(out.join("thesis.txt")).unwrap(), "years of work");
}

#[test]
fn a_codex_with_mistakes_renders_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("tree");
    std::fs::write(folder.path().join("lychd.toml"), "schema = 1\n[appliance]\nnam = \"x\"\n").unwrap();
    sepulcher().arg("render").arg(folder.path()).arg("--out").arg(&out).assert().code(1).stdout("");
    assert!(!out.exists());
}
