//! Tree and locked packages → verity-sealed disk image.

pub mod erofs;
pub mod identity;
pub mod layer;
pub mod verity;
pub mod window;
