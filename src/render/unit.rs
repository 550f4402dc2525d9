//! The syntax of systemd units and Podman quadlets, and nothing else of them.
//!
//! A value ends with its line; `%` starts a specifier; words of a command are split, unquoted and have `$`
//! expanded. Sources: systemd.syntax(7), systemd.unit(5) "Specifiers", systemd.service(5) "Command lines".

use super::template::Unrenderable;

/// A whole value behind `Key=` that systemd takes as it stands: only `%` is special.
pub fn value(text: &str) -> Result<String, Unrenderable> {
    plain(text)?;
    // A backslash at the end of the line would swallow the next line; white space there would be lost.
    if text.ends_with('\\') || text != text.trim() {
        return Err(Unrenderable::new(
            text,
            "a value neither ends in `\\` nor starts or ends with white space",
        ));
    }
    Ok(text.replace('%', "%%"))
}

/// Part of a value that the quadlet generator moves, quoted, into a command line: `$` is special too.
pub fn argument(text: &str) -> Result<String, Unrenderable> {
    plain(text)?;
    Ok(text.replace('%', "%%").replace('$', "$$"))
}

/// One word of `Exec=` or `Environment=`, always quoted; control characters are escaped.
///
/// The empty word and a lone `;` cannot be written in `Exec=`: the generator of Podman 5.4 ends the command
/// at the first and systemd at the second, whatever the quotes. [`exec`] goes around them.
pub fn word(text: &str) -> Result<String, Unrenderable> {
    if text.contains('\0') || text.chars().any(noncharacter) {
        return Err(Unrenderable::new(text, "a unit can hold neither NUL nor Unicode noncharacters"));
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '%' | '$' => quoted.extend([letter, letter]),
            _ if letter.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(letter))),
            _ => quoted.push(letter),
        }
    }
    quoted.push('"');
    Ok(quoted)
}

/// A command line for `Exec=`, and the `Environment=` words that `[Service]` must set for it.
pub fn exec<'a>(command: impl IntoIterator<Item = &'a str>) -> Result<Exec, Unrenderable> {
    let mut exec = Exec::default();
    let mut words = Vec::new();
    for text in command {
        let (variable, setting) = match text {
            "" => ("${EMPTY}", "EMPTY="),
            ";" => ("${SEMICOLON}", "\"SEMICOLON=;\""),
            _ => {
                words.push(word(text)?);
                continue;
            }
        };
        words.push(variable.to_owned());
        if !exec.settings.contains(&setting) {
            exec.settings.push(setting);
        }
    }
    exec.line = words.join(" ");
    Ok(exec)
}

/// What [`exec`] makes of a command.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Exec {
    /// The value of `Exec=`.
    pub line: String,
    /// Values of `Environment=` in `[Service]`.
    pub settings: Vec<&'static str>,
}

/// Refuses what no line can hold: control characters, and characters that are none to systemd.
fn plain(text: &str) -> Result<(), Unrenderable> {
    if text.chars().any(char::is_control) {
        Err(Unrenderable::new(text, "a unit cannot hold control characters"))
    } else if text.chars().any(noncharacter) {
        Err(Unrenderable::new(text, "a unit cannot hold Unicode noncharacters"))
    } else {
        Ok(())
    }
}

fn noncharacter(letter: char) -> bool {
    matches!(letter, '\u{fdd0}'..='\u{fdef}') || u32::from(letter) & 0xfffe == 0xfffe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_can_neither_start_a_directive_nor_a_specifier() {
        assert_eq!(value("50 % of \"$x\" \\ ü; #").unwrap(), "50 %% of \"$x\" \\ ü; #");
        for bad in
            ["a\nExecStart=/bin/x", "a\r", "a\0", "a\u{85}", "a\\", " a", "a ", "a\u{ffff}", "\u{fdd0}"]
        {
            assert!(value(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_word_keeps_quotes_backslashes_dollars_and_percents() {
        assert_eq!(word(r#"a "b\c" $d 50% 'e'"#).unwrap(), r#""a \"b\\c\" $$d 50%% 'e'""#);
        assert_eq!(word("a\tb\n").unwrap(), r#""a\x09b\x0a""#);
        assert!(word("a\0b").is_err());
    }

    #[test]
    fn words_that_would_end_the_command_go_through_variables() {
        let Exec { line, settings } = exec(["sh", "", ";", "x;", ""]).unwrap();
        assert_eq!(line, r#""sh" ${EMPTY} ${SEMICOLON} "x;" ${EMPTY}"#);
        assert_eq!(settings, ["EMPTY=", "\"SEMICOLON=;\""]);
    }
}
