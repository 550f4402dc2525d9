//! Container images on a disk that may lose its power.
//!
//! Podman's storage keeps an image's layers as plain files, written without waiting for the disk, and does not look at
//! them again: what a loss of power took of them is missing for good, and no container of the image starts any more. The
//! pod's own pause image is one of them. So the list of images is kept beside, as it was when all of it had reached the
//! disk; where the two differ at boot, no image is trusted, and Podman makes or fetches them anew. Volumes stay.

use std::path::Path;

use serde::Deserialize;

use super::fs;

/// Podman's storage on a machine, as its `storage.conf` says.
const STORAGE: &str = "var/lib/containers/storage";

/// What it lists its images in: atomically, an image when its layers are there.
const LIST: &str = "overlay-images/images.json";

/// What it lists layers in, those of an image already while others of it are fetched still.
const LAYERS: &str = "overlay-layers/layers.json";

/// The list as it was when all that it names had reached the disk. Empty while that is not known.
const SETTLED: &str = "var/lib/containers/images.settled";

/// A layer in Podman's list.
#[derive(Deserialize)]
struct Layer {
    id: String,
    /// Digest of its content: none is known of what a container writes.
    #[serde(rename = "diff-digest")]
    digest: Option<String>,
}

/// Before Podman starts: removes images, and what containers had written into them, unless all had reached the disk.
/// Whether something was removed.
///
/// # Errors
/// What cannot be read, written or removed.
pub fn check(root: &Path) -> Result<bool, fs::Error> {
    let list = list(root)?;
    match read(&root.join(SETTLED))? {
        // A body that knew nothing of this ran before: its images are no worse than they were there.
        None if list.is_some() => return settle(root).map(|()| false),
        Some(settled) if list.as_ref() == Some(&settled) => return Ok(false),
        _ => note(root, b"")?,
    }
    fs::tidy_beside(&root.join(SETTLED))?;
    let parts = fs::list_named(&root.join(STORAGE), |name| name.starts_with("overlay"));
    let parts = fs::if_there(parts)?.unwrap_or_default();
    for part in &parts {
        fs::remove_dir_all(part)?;
    }
    Ok(!parts.is_empty())
}

/// Whenever the list has changed, and when the machine goes down in order: waits until all that it names is on the disk,
/// and remembers it.
///
/// # Errors
/// What cannot be read or written.
pub fn settle(root: &Path) -> Result<(), fs::Error> {
    // It may change meanwhile, and nobody is told of what changes while this runs.
    while let Some(list) = list(root)? {
        if read(&root.join(SETTLED))?.as_ref() == Some(&list) {
            break;
        }
        note(root, b"")?;
        fs::sync_system(&root.join(STORAGE))?;
        note(root, &list)?;
    }
    Ok(())
}

fn note(root: &Path, list: &[u8]) -> Result<(), fs::Error> {
    let path = root.join(SETTLED);
    let folder = fs::folder_of(&path);
    fs::create_dir_all(folder)?;
    fs::set_mode(folder, 0o700)?;
    fs::write_atomic(&path, 0o600, list)
}

/// Podman's images, and the layers that belong to them or will; `None` before there are any.
fn list(root: &Path) -> Result<Option<Vec<u8>>, fs::Error> {
    let [images, layers] = [LIST, LAYERS].map(|name| read(&root.join(STORAGE).join(name)));
    let (images, layers) = (images?, layers?);
    if images.is_none() && layers.is_none() {
        return Ok(None);
    }
    let (mut list, layers) = (images.unwrap_or_default(), layers.unwrap_or_default());
    match serde_json::from_slice::<Vec<Layer>>(&layers) {
        Ok(layers) => {
            let fixed = layers.into_iter().filter(|layer| layer.digest.is_some());
            list.extend(fixed.flat_map(|layer| format!("\n{}", layer.id).into_bytes()));
        }
        // Whatever it is, another one is another list.
        Err(_) => list.extend(layers),
    }
    list.push(b'\n');
    Ok(Some(list))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, fs::Error> {
    fs::if_there(fs::read(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with a list of images, a layer and a volume.
    fn machine(list: &[u8]) -> (tempfile::TempDir, impl Fn(&str) -> bool) {
        let folder = tempfile::tempdir().unwrap();
        let storage = folder.path().join(STORAGE);
        for name in ["overlay/0a/link", "volumes/data/_data/kept", "db.sql", LIST, LAYERS] {
            fs::create_dir_all(storage.join(name).parent().unwrap()).unwrap();
            fs::write(&storage.join(name), 0o600, list).unwrap();
        }
        layers(folder.path(), &[FIXED]);
        (folder, move |name| fs::exists(&storage.join(name)).unwrap())
    }

    fn layers(root: &Path, layers: &[&str]) {
        let text = format!("[{}]", layers.join(","));
        fs::write(&root.join(STORAGE).join(LAYERS), 0o600, text.as_bytes()).unwrap();
    }

    const FIXED: &str = r#"{"id":"0a","diff-digest":"sha256:1"}"#;

    #[test]
    fn images_that_had_reached_the_disk_are_kept_whatever_containers_wrote() {
        let (root, has) = machine(b"[1]");
        settle(root.path()).unwrap();
        layers(root.path(), &[FIXED, r#"{"id":"0b","parent":"0a"}"#]);
        assert!(!check(root.path()).unwrap());
        assert!(has("overlay/0a/link") && has(LIST));
    }

    #[test]
    fn a_layer_of_an_image_that_was_never_whole_is_not_trusted() {
        let (root, has) = machine(b"[1]");
        settle(root.path()).unwrap();
        layers(root.path(), &[FIXED, r#"{"id":"0b","diff-digest":"sha256:2"}"#]);
        assert!(check(root.path()).unwrap());
        assert!(!has("overlay"));
    }

    #[test]
    fn a_list_that_the_power_emptied_is_not_trusted() {
        for settled in ["[1]", ""] {
            let (root, has) = machine(b"");
            layers(root.path(), &[]);
            fs::write(&root.path().join(SETTLED), 0o600, settled.as_bytes()).unwrap();
            assert!(check(root.path()).unwrap(), "{settled:?}");
            assert!(!has("overlay"));
        }
    }

    #[test]
    fn others_are_removed_with_all_that_knows_them_and_volumes_stay() {
        for settled in ["[1]", ""] {
            let (root, has) = machine(b"[1,2]");
            fs::write(&root.path().join(SETTLED), 0o600, settled.as_bytes()).unwrap();
            assert!(check(root.path()).unwrap(), "{settled:?}");
            assert!(!has("overlay") && !has("overlay-layers") && !has("overlay-images"));
            assert!(has("volumes/data/_data/kept") && has("db.sql"));
            assert!(!check(root.path()).unwrap(), "nothing is left to remove");
        }
    }

    #[test]
    fn a_list_that_the_power_took_is_no_list_that_was_settled() {
        let (root, has) = machine(b"[1]");
        settle(root.path()).unwrap();
        fs::remove_file(&root.path().join(STORAGE).join(LIST)).unwrap();
        assert!(check(root.path()).unwrap());
        assert!(!has("overlay"));
    }

    #[test]
    fn a_first_boot_trusts_nothing_that_comes_until_it_has_settled() {
        let (root, has) = machine(b"[1]");
        fs::remove_dir_all(&root.path().join(STORAGE)).unwrap();
        assert!(!check(root.path()).unwrap());
        settle(root.path()).unwrap();
        fs::create_dir_all(&root.path().join(STORAGE).join("overlay-images")).unwrap();
        fs::write(&root.path().join(STORAGE).join(LIST), 0o600, b"[1]").unwrap();
        assert!(check(root.path()).unwrap());
        assert!(!has("overlay-images"));
    }

    #[test]
    fn images_of_a_body_that_knew_nothing_of_this_stay() {
        let (root, has) = machine(b"[1]");
        assert!(!check(root.path()).unwrap());
        assert!(has("overlay/0a/link") && has(LIST));
        assert_eq!(fs::read(&root.path().join(SETTLED)).unwrap(), b"[1]\n0a\n");
    }
}
