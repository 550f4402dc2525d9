//! What a service says about itself: source, texts, environment, volumes, secrets, its name.

use std::collections::BTreeMap;
use std::path::Path;

use crate::codex::Door;
use crate::codex::diagnostic::{Diagnostic, Place};
use crate::codex::name::Name;
use crate::codex::schema::{At, Draft, Field, Hooks, Service, Volume};

/// Names whose units sepulcher makes itself: `<appliance>-vpn`, `-pod` and `-network`.
const TAKEN: [&str; 3] = ["network", "pod", "vpn"];

/// Places in a container that are mounted anyway.
const TAKEN_TARGETS: [&str; 4] = ["/dev", "/proc", SECRETS, "/sys"];

/// Where a container has its secrets.
const SECRETS: &str = "/run/secrets";

/// What the Veil's container has of ours: its configuration, and who may ask for pinned routes.
const VEILS: [&str; 2] = ["/etc/caddy/Caddyfile", "/run/sepulcher/veil"];

/// Names that an appliance cannot have, because units `<name>-…` of others exist, or because it is no host name.
const TAKEN_APPLIANCES: [&str; 6] = ["localhost", "netavark", "podman", "sepulcher", "systemd", "user"];

/// What is left for the appliance's name in the names that are made from it.
const APPLIANCE_LENGTH: usize = 27;

/// Checks every service by itself, volumes across services, and the name that all units begin with.
pub fn check(draft: &Draft, mistakes: &mut Vec<Diagnostic>) {
    if let Some(name) = draft.law.as_ref().and_then(|law| law.name.as_ref())
        && TAKEN_APPLIANCES.contains(&name.value.as_str())
    {
        let message =
            format!("an appliance cannot be called `{}`: its units would clash with others", name.value);
        mistakes.push(Diagnostic::error(message, &name.place).hint("choose another name, like `lychd`"));
    }
    if let Some(name) = draft.law.as_ref().and_then(|law| law.name.as_ref())
        && name.value.as_str().len() > APPLIANCE_LENGTH
    {
        let message = format!("the appliance's name is longer than {APPLIANCE_LENGTH} characters");
        mistakes.push(Diagnostic::error(message, &name.place).hint("choose a shorter name, like `lychd`"));
    }
    let mut volumes = BTreeMap::new();
    for (name, service) in &draft.services {
        let Some(service) = service else { continue };
        own_name(name, service, mistakes);
        source(service, mistakes);
        texts(service, mistakes);
        environment(service, mistakes);
        secrets(service, mistakes);
        volume_targets(service, mistakes);
        hooks(service, mistakes);
        for volume in service.volumes.iter().filter_map(|volume| volume.name.as_ref()) {
            if let Some(first) = volumes.insert(&volume.value, &volume.place) {
                let message = format!("volume `{}` is claimed twice", volume.value);
                let mistake = Diagnostic::error(message, &volume.place)
                    .label("claimed again")
                    .related(first, "first claimed here");
                mistakes
                    .push(mistake.hint("give each volume a name of its own: two services cannot share one"));
            }
        }
    }
}

fn own_name(name: &Name, service: &Service, mistakes: &mut Vec<Diagnostic>) {
    if TAKEN.contains(&name.as_str()) || name.as_str().ends_with("-volume") {
        let message =
            format!("a service cannot be called `{name}`: sepulcher makes a unit of that name itself");
        mistakes.push(Diagnostic::error(message, &service.place).hint("rename the file"));
    }
    if Door::named(name.as_str()).is_some() {
        let message = format!("a service cannot be called `{name}`: as a grant the word is the agent's own");
        mistakes.push(Diagnostic::error(message, &service.place).hint("rename the file"));
    }
}

fn source(service: &Service, mistakes: &mut Vec<Diagnostic>) {
    match (&service.rootfs, &service.image) {
        (Field::Given(rootfs), Field::Given(image)) => {
            let message = "a service runs a `rootfs` or an `image`, not both";
            let mistake = Diagnostic::error(message, &image.place).related(&rootfs.place, "the other one");
            mistakes.push(mistake.hint("remove one of the two"));
        }
        (Field::Absent, Field::Absent) => {
            mistakes.push(
                Diagnostic::error(
                    "the service runs nothing: it has neither `rootfs` nor `image`",
                    &service.place,
                )
                .hint(
                    "write `rootfs = \"<name>\"` for a sealed root tree, or \
                         `image = \"<registry>/<path>@sha256:<digest>\"`",
                ),
            );
        }
        _ => {}
    }
    if let Field::Given(image) = &service.image
        && let Some(reason) = bad_image(&image.value)
    {
        let mistake = Diagnostic::error(format!("`image`: {reason}"), &image.place);
        mistakes.push(mistake.hint(
            "write `image = \"<registry>/<path>@sha256:<64 hex digits>\"`; \
                 `skopeo inspect` prints the digest of a tag",
        ));
    }
}

/// Why a text is no image reference by digest.
fn bad_image(image: &str) -> Option<&'static str> {
    let Some((name, digest)) = image.split_once('@') else {
        return Some("an image is named by digest, because a tag can change under a sealed appliance");
    };
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let digits = digest.strip_prefix("sha256:").unwrap_or_default();
    if digits.len() != 64 || !digits.bytes().all(hex) {
        return Some("a digest is `sha256:` and 64 lower-case hexadecimal digits");
    }
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    let component = |part: &str| !part.is_empty() && part.bytes().all(plain);
    let Some((registry, path)) = name.split_once('/') else {
        return Some("the registry is missing");
    };
    let (host, port) = registry.split_once(':').unwrap_or((registry, "0"));
    if !(registry.contains(['.', ':']) || registry == "localhost") {
        Some("the registry is missing")
    } else if !component(host) || port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        Some("the registry is not a host, or host:port")
    } else if path.contains(':') {
        Some("a tag beside the digest is ambiguous")
    } else if !path.split('/').all(component) {
        Some("the path has only lower-case letters, digits and `._-` between slashes")
    } else {
        None
    }
}

fn texts(service: &Service, mistakes: &mut Vec<Diagnostic>) {
    if let Some(description) = &service.description {
        no_control(description, "description", mistakes);
    }
    if let Field::Given(command) = &service.command {
        program(command, "command", "leave `command` out for the image's own", mistakes);
    }
}

/// Checks the words of a program and its arguments; `otherwise` is what can be done in their place.
fn program(command: &At<Vec<At<String>>>, key: &str, otherwise: &str, mistakes: &mut Vec<Diagnostic>) {
    for word in &command.value {
        no_nul(&word.value, &word.place, key, mistakes);
    }
    if let Some(At { value, place }) = command.value.first()
        && value.is_empty()
    {
        let mistake = Diagnostic::error(format!("`{key}` starts with an empty text"), place);
        mistakes.push(mistake.hint(format!("the first element is the program; {otherwise}")));
    }
}

/// Commands around a snapshot are of use to a service with volumes alone.
fn hooks(service: &Service, mistakes: &mut Vec<Diagnostic>) {
    let Some(Hooks { place, pause, resume }) = &service.hooks else { return };
    let otherwise = "remove `[snapshot]` to have the service frozen in the meantime";
    for (key, command) in [("pause", pause), ("resume", resume)] {
        let Some(command) = command else { continue };
        program(command, key, otherwise, mistakes);
        if command.value.is_empty() {
            let mistake = Diagnostic::error(format!("`{key}` names no program"), &command.place);
            mistakes.push(mistake.hint(format!("write `{key} = [\"/usr/bin/{key}\"]`, or {otherwise}")));
        }
    }
    // A volume that is wrong otherwise counts, too: one mistake must not bring another one.
    let kept = |volume: &Volume| volume.snapshot.as_ref().is_none_or(|snapshot| snapshot.value);
    if !service.volumes.iter().any(kept) {
        let mistake = Diagnostic::error("`[snapshot]` of a service without a volume in snapshots", place);
        mistakes.push(mistake.hint("remove it, or give the service a `[[volume]]` that is not left out"));
    }
}

fn no_control(text: &At<String>, key: &str, mistakes: &mut Vec<Diagnostic>) {
    if let Some(character) = text.value.chars().find(|character| character.is_control()) {
        let message = format!("`{key}` holds the control character U+{:04X}", u32::from(character));
        mistakes.push(Diagnostic::error(message, &text.place).hint("write it on one line, in plain text"));
    }
    no_noncharacter(&text.value, &text.place, key, mistakes);
}

/// Code points that are no characters: systemd takes no line that holds one.
fn no_noncharacter(text: &str, place: &Place, key: &str, mistakes: &mut Vec<Diagnostic>) {
    let is_none = |code: u32| code & 0xfffe == 0xfffe || (0xfdd0..=0xfdef).contains(&code);
    if let Some(code) = text.chars().map(u32::from).find(|code| is_none(*code)) {
        let message = format!("`{key}` holds U+{code:04X}, which is no character");
        mistakes.push(Diagnostic::error(message, place).hint("remove it"));
    }
}

fn no_nul(text: &str, place: &Place, key: &str, mistakes: &mut Vec<Diagnostic>) {
    if text.contains('\0') {
        let message = format!("`{key}` holds a NUL character, which no program can be given");
        mistakes.push(Diagnostic::error(message, place).hint("remove it"));
    }
    no_noncharacter(text, place, key, mistakes);
}

fn environment(service: &Service, mistakes: &mut Vec<Diagnostic>) {
    for (name, value) in &service.environment {
        let start = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
        let mut bytes = name.value.bytes();
        let right = bytes.next().is_some_and(start) && bytes.all(|byte| start(byte) || byte.is_ascii_digit());
        if !right {
            let message = format!("`{}` is not the name of an environment variable", name.value);
            let mistake = Diagnostic::error(message, &name.place);
            mistakes.push(mistake.hint("it has letters, digits and `_`, and does not start with a digit"));
        }
        no_nul(&value.value, &value.place, &name.value, mistakes);
    }
}

/// What is in the folder of secrets that is no service's: the digest of the recovery phrase, and preshared keys.
const OWN_SECRETS: [&str; 2] = ["recovery", "peers"];

fn secrets(service: &Service, mistakes: &mut Vec<Diagnostic>) {
    let Field::Given(secrets) = &service.secrets else { return };
    let mut seen = BTreeMap::new();
    for secret in &secrets.value {
        if OWN_SECRETS.contains(&secret.value.as_str()) {
            let message =
                format!("`{}` is what the appliance keeps for itself beside the secrets", secret.value);
            mistakes.push(Diagnostic::error(message, &secret.place).hint("give the secret another name"));
        }
        if let Some(first) = seen.insert(&secret.value, &secret.place) {
            let mistake =
                Diagnostic::error(format!("secret `{}` is named twice", secret.value), &secret.place);
            mistakes.push(mistake.related(first, "first named here").hint("remove one of the two"));
        }
    }
}

fn volume_targets(service: &Service, mistakes: &mut Vec<Diagnostic>) {
    let mut seen = BTreeMap::new();
    for target in service.volumes.iter().filter_map(|Volume { name: _, target, snapshot: _ }| target.as_ref())
    {
        if let Some(reason) = bad_target(&target.value) {
            let mistake = Diagnostic::error(format!("`target`: {reason}"), &target.place);
            mistakes.push(mistake.hint("write a plain absolute path, like `/var/lib/data`"));
        } else if let Some(ours) = mounted(service).find(|ours| is_in_the_way(ours, &target.value)) {
            let message = format!("`target`: sepulcher itself mounts `{ours}` in this container");
            let mistake = Diagnostic::error(message, &target.place);
            let remedy = "write a path that neither lies in it nor holds it, like `/var/lib/data`";
            mistakes.push(mistake.label("a volume here would cover it, or lie in it").hint(remedy));
        }
        if let Some(first) = seen.insert(target.value.trim_end_matches('/'), &target.place) {
            let message = format!("two volumes have the target `{}`", target.value);
            mistakes.push(
                Diagnostic::error(message, &target.place)
                    .related(first, "the first of them")
                    .hint("change one of the two"),
            );
        }
    }
}

/// Where the service's quadlet mounts what is no volume.
fn mounted(service: &Service) -> impl Iterator<Item = &'static str> {
    let secrets = matches!(&service.secrets, Field::Given(secrets) if !secrets.value.is_empty());
    let veil = service.veil.as_ref().is_some_and(|veil| veil.value);
    secrets.then_some(SECRETS).into_iter().chain(veil.then_some(VEILS).into_iter().flatten())
}

/// Whether one of two places in a container lies in the other, or is it.
fn is_in_the_way(ours: &str, target: &str) -> bool {
    let (ours, target) = (Path::new(ours), Path::new(target));
    ours.starts_with(target) || target.starts_with(ours)
}

/// Why a text is no place for a volume inside a container.
fn bad_target(target: &str) -> Option<&'static str> {
    if !target.starts_with('/') {
        Some("a volume's target is an absolute path")
    } else if target.len() > 1024 {
        Some("a volume's target has at most 1024 bytes")
    } else if target.chars().any(|character| character.is_control() || character == ':') {
        Some("a volume's target has no `:` and no control characters")
    } else if target.split('/').any(|part| part == "." || part == "..") {
        Some("a volume's target has no `.` or `..` in it")
    } else if target.bytes().all(|byte| byte == b'/') {
        Some("a volume cannot cover the whole container")
    } else if TAKEN_TARGETS.iter().any(|taken| Path::new(target).starts_with(taken)) {
        Some("this place in a container belongs to the kernel or to the secrets")
    } else if Path::new(target).starts_with("/etc/resolv.conf") {
        Some("this file in a container lists the host's name servers")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_a_registry_a_path_and_a_digest() {
        let digest = format!("@sha256:{}", "0a".repeat(32));
        for good in ["docker.io/library/caddy", "localhost/x", "registry.example:5000/a/b-c_d.e"] {
            assert_eq!(bad_image(&format!("{good}{digest}")), None, "{good}");
        }
        for bad in [
            "",
            "x",
            "library/x",
            "docker.io/",
            "docker.io//x",
            "docker.io/x:latest",
            "docker.io/X",
            "a.b:/x",
            "a.b:c/x",
            "a.b/x y",
            "a.b/x\n",
        ] {
            assert!(bad_image(&format!("{bad}{digest}")).is_some(), "{bad:?}");
        }
        for bad in ["docker.io/x", "docker.io/x@sha256:0a", "docker.io/x@md5:0a"] {
            assert!(bad_image(bad).is_some(), "{bad:?}");
        }
        assert!(bad_image(&format!("docker.io/x{}", digest.to_uppercase())).is_some());
    }

    #[test]
    fn a_target_is_a_plain_absolute_path() {
        for good in ["/var/lib/oculus data", "/process", "/run/secret"] {
            assert_eq!(bad_target(good), None, "{good:?}");
        }
        for bad in [
            "",
            "x",
            "/",
            "//",
            "/a/../b",
            "/a/.",
            "/a:ro",
            "/a\n",
            "/a\0",
            "/proc",
            "//run//secrets/x",
            "/etc/resolv.conf",
        ] {
            assert!(bad_target(bad).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn a_target_is_in_the_way_of_what_is_ours_above_and_below_it() {
        for target in ["/etc", "/etc/caddy/", "//etc/caddy//Caddyfile", "/etc/caddy/Caddyfile/x"] {
            assert!(is_in_the_way(VEILS[0], target), "{target}");
        }
        for target in ["/etc/caddy/Caddyfile2", "/etc/caddy/sites", "/data"] {
            assert!(!is_in_the_way(VEILS[0], target), "{target}");
        }
    }
}
