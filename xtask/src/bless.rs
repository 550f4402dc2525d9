//! `cargo xtask bless`: what is rendered today becomes what the golden tests expect.

use std::path::Path;
use std::process::ExitCode;

/// Render every golden case anew; review the result as the difference that it makes to the product
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(Args {}: &Args) -> ExitCode {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    let mut result = ExitCode::SUCCESS;
    let cases = match sepulcher::sys::fs::list(&cases) {
        Ok(cases) => cases,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    for case in cases {
        let words = ["sepulcher".into(), "render".into(), case.join("codex").into_os_string()];
        let out = ["--out".into(), case.join("expected").into_os_string()];
        let rendered = sepulcher::cli::run(words.into_iter().chain(out));
        if rendered != ExitCode::SUCCESS {
            eprintln!("error: cannot bless {}", case.display());
            result = rendered;
        }
    }
    result
}
