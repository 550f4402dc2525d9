//! Development commands: `cargo xtask VERB`.

fn main() {}
