//! Root trees of containers: what a service's `rootfs` and the agent run in, without an image around them.

use super::build::Error;
use super::definition::{Definitions, Image};
use super::layer::{Content, Kind, Layer, Node};
use super::store::Store;
use super::system;

/// Roots that hold our program.
pub const WITH_PROGRAM: [&str; 2] = ["tether", "stand-in"];

/// The root tree of a container as its packages and its definition make it, without our program.
pub fn bare(store: &Store<'_>, definitions: &Definitions, image: &Image) -> Result<Layer, Error> {
    Ok(system::container(store.layer(image)?, definitions.tree(&image.name)?)?)
}

/// The root tree of a container, with our `program` where it holds it.
pub fn complete(
    store: &Store<'_>,
    definitions: &Definitions,
    image: &Image,
    program: &[u8],
) -> Result<Layer, Error> {
    let mut root = bare(store, definitions, image)?;
    if WITH_PROGRAM.contains(&image.name.as_str()) {
        let kind = Kind::File(Content::Bytes(program.into()));
        root.0.insert("usr/bin/sepulcher".to_owned(), Node { mode: 0o755, uid: 0, gid: 0, kind });
    }
    Ok(root)
}
