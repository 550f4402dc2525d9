//! `sepulcher man`: a page for each verb.

use std::path::PathBuf;

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use super::{Cli, Failure, Kind};
use crate::sys::fs;

/// Write the manual: a page for each verb, like sepulcher-image-build.1
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder to write to; it is made, and pages in it are replaced
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    fs::create_dir_all(&args.out)?;
    for command in commands() {
        let man = Man::new(command);
        let mut page = Vec::new();
        man.render(&mut page).map_err(|error| Failure::from_error(Kind::Internal, &error))?;
        fs::write_atomic(&args.out.join(man.get_filename()), 0o644, &page)?;
    }
    Ok(())
}

/// The program and every verb of it that is not hidden, each under the name of its page.
fn commands() -> Vec<Command> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let mut found = Vec::new();
    let mut left = vec![root];
    while let Some(command) = left.pop() {
        left.extend(command.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned());
        found.push(command);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_and_option_says_what_it_is() {
        Cli::command().debug_assert();
        for command in commands() {
            let name = command.get_display_name().unwrap_or(command.get_name());
            assert!(command.get_about().is_some_and(|about| !about.to_string().is_empty()), "{name}");
            for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(!help.is_empty(), "{name}: {}", arg.get_id());
            }
        }
    }

    #[test]
    fn every_verb_has_a_page_that_names_its_options() {
        let folder = tempfile::tempdir().unwrap();
        run(&Args { out: folder.path().join("man") }).unwrap();
        let pages = fs::list(&folder.path().join("man")).unwrap();
        assert_eq!(pages.len(), commands().len());
        for command in commands() {
            let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
            let page = fs::read(&folder.path().join(format!("man/{name}.1"))).unwrap();
            let page = String::from_utf8(page).unwrap().replace("\\-", "-");
            assert!(page.contains(&format!(".TH {name} 1")), "{name}: {page}");
            for option in
                command.get_arguments().filter(|arg| !arg.is_hide_set()).filter_map(|arg| arg.get_long())
            {
                assert!(page.contains(&format!("--{option}")), "{name}: {option}");
            }
        }
    }
}
