//! `sepulcher toolbox`: runs a program of a locked toolbox, or says where the toolbox lies.

use std::ffi::OsString;

use clap::Args;

use super::progress::Shown;
use super::store::StoreArgs;
use super::{Failure, Kind};
use crate::image::toolbox::Toolbox;

/// Run a program out of locked packages
///
/// Unpacks images/NAME (the folders `tools-…`) into the cache and runs PROGRAM through its own
/// loader; without PROGRAM prints the folder.
#[derive(Debug, Args)]
pub struct ToolboxArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Name of the toolbox
    name: String,
    /// Program, by name or by path in the toolbox, and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    program: Vec<OsString>,
}

/// Runs the verb; the program takes this process's place.
pub fn run(args: &ToolboxArgs) -> Result<(), Failure> {
    let progress = Shown::default();
    let store = args.store.store(&progress)?;
    let image = args.store.image(&store, &args.name)?;
    let toolbox = Toolbox::open(&store, &image)?;
    let Some((program, rest)) = args.program.split_first() else {
        println!("{}", toolbox.root().display());
        return Ok(());
    };
    let command = toolbox.command(&program.to_string_lossy())?.args(rest).with_callers_environment();
    Err(Failure::from_error(Kind::Unavailable, &command.exec()))
}
