//! Tree and locked packages → verity-sealed disk image.

pub mod disk;
pub mod erofs;
pub mod esp;
pub mod identity;
pub mod initrd;
pub mod layer;
pub mod uki;
pub mod verity;
pub mod window;
