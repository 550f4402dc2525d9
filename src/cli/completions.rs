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

/// The program without the verbs that are hidden: for bash, a hidden verb is one like any other.
fn offered() -> Command {
    let all = Cli::command();
    let verbs = all.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned();
    Command::new("sepulcher")
        .version(env!("CARGO_PKG_VERSION"))
        .args(all.get_arguments().cloned())
        .subcommands(verbs)
}
