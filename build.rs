//! Rebuilds the crate when an embedded image definition appears, changes or goes.

fn main() {
    println!("cargo::rerun-if-changed=images");
}
