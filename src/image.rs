//! Tree and locked packages → verity-sealed disk image.
//!
//! The disk, in the order of making: [`initrd`] and [`erofs`] → [`verity`] → [`uki`] → [`esp`] → [`disk`], with
//! [`identity`] for every identifier; beside it [`sbom`] and [`manifest`]; [`inspect`] reads all of it back.

pub mod disk;
pub mod erofs;
pub mod esp;
pub mod identity;
pub mod initrd;
pub mod inspect;
pub mod layer;
pub mod manifest;
pub mod sbom;
pub mod uki;
pub mod verity;
pub mod window;
