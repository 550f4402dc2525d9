//! The `sepulcher` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    sepulcher::cli::run(std::env::args_os())
}
