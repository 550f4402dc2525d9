//! Writes layers as files of the current user: toolboxes, and containers' roots on a host that is not the appliance.

use std::path::Path;

use super::layer::{Kind, Layer};
use crate::sys::fs;

/// Writes a layer as files of the current user. Absolute links are made relative, so that they stay inside.
pub fn write(layer: &Layer, root: &Path) -> Result<(), fs::Error> {
    for (path, node) in &layer.0 {
        let target = root.join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        match &node.kind {
            Kind::Dir => fs::create_dir_all(&target)?,
            Kind::Link(to) => {
                let to = match to.strip_prefix('/') {
                    Some(inside) => format!("{}{inside}", "../".repeat(path.matches('/').count())),
                    None => to.clone(),
                };
                fs::context(std::os::unix::fs::symlink(to, &target), "write", &target)?;
            }
            Kind::File(content) => {
                let bytes = fs::context(content.read(), "unpack", &target)?;
                fs::write(&target, node.mode & 0o777 | 0o600, &bytes)?;
            }
        }
    }
    Ok(())
}
