//! Completions, asked for as a shell asks.

use crate::judge;
use crate::support::sepulcher;

fn script(shell: &str) -> Vec<u8> {
    sepulcher().args(["completions", shell]).assert().success().get_output().stdout.clone()
}

#[test]
fn bash_completes_verbs_and_options() {
    let Some(bash) = judge::program("bash_completes_verbs_and_options", "bash") else { return };
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), script("bash")).unwrap();
    // What bash does after a tab: the words so far, the one at the cursor, and the function that was registered.
    let line = r#"source "$0"; COMP_WORDS=(sepulcher "$@"); COMP_CWORD=$#; last=$(($# - 1))
                  _sepulcher sepulcher "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[last]}"; printf '%s\n' "${COMPREPLY[@]}""#;
    for (words, expected) in [
        (&["image", "b"][..], "build"),
        (&["tether", "st"], "status"),
        (&["check", "--j"], "--json"),
        (&["completions", "f"], "fish"),
        // Hidden: for examples and tests, and for units.
        (&["stand"], ""),
        (&["rebirth", "fall"], ""),
        (&["rebirth", "status", "--ro"], ""),
    ] {
        let run = bash.clone().args(["--norc", "-c", line]).arg(file.path()).args(words).read().unwrap();
        assert_eq!(String::from_utf8(run).unwrap().trim(), expected, "{words:?}");
    }
}
