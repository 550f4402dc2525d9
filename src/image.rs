//! Tree and locked packages → verity-sealed disk image.
//!
//! Packages, in reading order: [`definition`] (`packages.toml`) → [`index`], [`resolve`] → [`lock`]
//! (`packages.lock`) → [`mirror`], [`fetch`] → [`deb`] → [`layer`]; [`store`] ties them to a cache and
//! [`toolbox`] runs programs out of them.

pub mod deb;
pub mod definition;
pub mod disk;
pub mod erofs;
pub mod esp;
pub mod fetch;
pub mod identity;
pub mod index;
pub mod initrd;
pub mod layer;
pub mod lock;
pub mod mirror;
pub mod resolve;
pub mod store;
pub mod system;
pub mod toolbox;
pub mod uki;
pub mod verity;
pub mod window;
