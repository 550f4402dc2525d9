//! Tree and locked packages → verity-sealed disk image.

pub mod layer;
pub mod system;
