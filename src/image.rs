//! Tree and locked packages → verity-sealed disk image.
//!
//! Packages, in reading order: [`definition`] (`packages.toml`) → [`index`], [`resolve`] → [`lock`]
//! (`packages.lock`, with [`version`]) → [`mirror`], [`fetch`] → [`deb`] → [`layer`]; [`store`] ties them to a cache and
//! [`toolbox`] runs programs out of them, [`roots`] makes containers' root trees, [`unpack`] writes either as plain files.
//!
//! The disk, in the order of making: [`initrd`] and [`erofs`] → [`verity`] → [`uki`] → [`esp`] → [`disk`], with
//! [`identity`] for every identifier; beside it [`sbom`] and [`manifest`]; [`inspect`] reads all of it back.

pub mod build;
pub mod deb;
pub mod definition;
pub mod disk;
pub mod erofs;
pub mod esp;
pub mod fetch;
pub mod identity;
pub mod index;
pub mod initrd;
pub mod inspect;
pub mod layer;
pub mod lock;
pub mod manifest;
pub mod mirror;
pub mod resolve;
pub mod roots;
pub mod sbom;
pub mod store;
pub mod system;
pub mod toolbox;
pub mod uki;
pub mod unpack;
pub mod verity;
pub mod version;
pub mod window;
