//! Development commands: `cargo xtask VERB`.

mod bless;
mod render;

use std::process::ExitCode;

use clap::Parser;

/// Development commands of sepulcher
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
enum Verb {
    Render(render::Args),
    Bless(bless::Args),
}

fn main() -> ExitCode {
    match Verb::parse() {
        Verb::Render(args) => render::run(args),
        Verb::Bless(args) => bless::run(&args),
    }
}
