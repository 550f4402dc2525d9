//! `sepulcher completions`: what a shell needs to complete our words.

use clap::{Command, CommandFactory as _};
use clap_complete::{Shell, generate};

use super::output::print;
use super::{Cli, Failure};

/// Print the completions for a shell
///
/// Bash: sepulcher completions bash > /etc/bash_completion.d/sepulcher
/// Zsh: sepulcher completions zsh > /usr/local/share/zsh/site-functions/_sepulcher
/// Fish: sepulcher completions fish > /etc/fish/completions/sepulcher.fish
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    generate(args.shell, &mut offered(), "sepulcher", &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// The program without what is hidden: for bash, a hidden verb or option is one like any other.
fn offered() -> Command {
    shown(&Cli::command()).version(env!("CARGO_PKG_VERSION"))
}

fn shown(all: &Command) -> Command {
    let verbs = all.get_subcommands().filter(|verb| !verb.is_hide_set()).map(shown);
    let options = all.get_arguments().filter(|option| !option.is_hide_set()).cloned();
    let about = all.get_about().cloned().unwrap_or_default();
    // A command's name is one of the program's own words; so it may live as long as that.
    let name: &'static str = all.get_name().to_owned().leak();
    Command::new(name).about(about).args(options).subcommands(verbs)
}
