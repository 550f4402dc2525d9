//! `sepulcher peer`: bonds as people see and change them.

pub mod list;
pub mod watch;
