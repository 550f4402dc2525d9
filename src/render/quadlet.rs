//! Podman quadlets: the pod, its network, a container for the agent and for each service, the volumes.

use std::collections::BTreeSet;

use minijinja::{Value, context};

use super::{RenderError, template, unit};
use crate::codex::name::Name;
use crate::codex::{BRIDGE, Backend, Codex, Service, Source, Volume};
use crate::reach;
use crate::tree::Tree;

const FOLDER: &str = "usr/share/containers/systemd";

/// What a container made from a root tree runs when the Codex names no command.
const START: &str = "/usr/bin/start";

/// The suffix of the agent's unit: `<appliance>-vpn`.
const AGENT: &str = "vpn";

pub(super) fn render(codex: &Codex, tree: &mut Tree) -> Result<(), RenderError> {
    distinct_units(codex)?;
    let app = codex.appliance.name.as_str();
    tree.file(format!("{FOLDER}/{app}.network"), network(codex)?)?;
    tree.file(format!("{FOLDER}/{app}.pod"), pod(codex)?)?;
    let userspace = codex.tether.backend == Backend::Userspace;
    let agent = template::render("vpn.container", context! { app, userspace })?;
    tree.file(format!("{FOLDER}/{app}-{AGENT}.container"), agent)?;
    for (name, service) in &codex.services {
        tree.file(format!("{FOLDER}/{app}-{name}.container"), container(app, name, service)?)?;
    }
    for volume in volumes(codex) {
        let text = template::render("name.volume", context! { app, volume => volume.as_str() })?;
        tree.file(format!("{FOLDER}/{app}-{volume}.volume"), text)?;
    }
    Ok(())
}

fn network(codex: &Codex) -> Result<String, RenderError> {
    template::render(
        "app.network",
        context! {
            app => codex.appliance.name.as_str(),
            subnet => codex.pod.network.to_string(),
            gateway => codex.pod.gateway.to_string(),
            bridge => BRIDGE,
        },
    )
}

fn pod(codex: &Codex) -> Result<String, RenderError> {
    let published = reach::published(codex);
    let publish = |(protocol, port)| format!("{port}:{port}/{protocol}");
    template::render(
        "app.pod",
        context! {
            app => codex.appliance.name.as_str(),
            address => codex.pod.address.to_string(),
            six => codex.tether.network6.is_some(),
            published => template::list(published.into_iter().map(publish)),
        },
    )
}

fn container(app: &str, name: &Name, service: &Service) -> Result<String, RenderError> {
    let Service {
        description,
        source,
        command,
        user,
        environment,
        secrets,
        ports: _,
        routes: _,
        volumes,
        hooks: _,
        veil,
    } = service;
    let (rootfs, image) = match source {
        Source::Rootfs(root) => (Some(root.as_str()), None),
        Source::Image(image) => (None, Some(image.as_str())),
    };
    let start = (command.is_empty() && rootfs.is_some()).then_some(START);
    let exec = unit::exec(command.iter().map(String::as_str).chain(start))
        .map_err(|source| RenderError::Command { service: name.clone(), source })?;
    template::render(
        "service.container",
        context! {
            app, rootfs, image,
            name => name.as_str(),
            description => summary(name, description),
            exec => template::safe(exec.line),
            settings => exec.settings.into_iter().map(template::safe).collect::<Vec<_>>(),
            user => user.map(|(uid, gid)| format!("{uid}:{gid}")),
            idmap => user.map_or_else(String::new, idmap),
            environment => template::list(environment.iter().map(|(key, value)| format!("{key}={value}"))),
            secrets => template::list(secrets),
            volumes => volumes.iter().map(mount).collect::<Vec<_>>(),
            veil => *veil,
        },
    )
}

/// The description with the name behind it, which also keeps it from ending its line in a backslash.
fn summary(name: &Name, description: &str) -> String {
    match description.trim() {
        "" => name.to_string(),
        description => format!("{description} ({name})"),
    }
}

/// A credential belongs to root alone; this shows it to the container's user as its own.
fn idmap((uid, gid): (u32, u32)) -> String {
    format!(",idmap=uids=0-{uid}-1;gids=0-{gid}-1")
}

fn mount(volume: &Volume) -> Value {
    let Volume { name, target, snapshot: _ } = volume;
    context! { name => name.as_str(), target }
}

fn volumes(codex: &Codex) -> BTreeSet<&Name> {
    codex.services.values().flat_map(|service| &service.volumes).map(|volume| &volume.name).collect()
}

/// Quadlet makes `<stem>-pod.service`, `<stem>-volume.service` and the like: no two files may make one unit.
fn distinct_units(codex: &Codex) -> Result<(), RenderError> {
    let volumes = volumes(codex).into_iter().map(|volume| format!("{volume}-volume"));
    let services = codex.services.keys().map(Name::to_string);
    let mut taken = BTreeSet::from([AGENT.to_owned(), "pod".to_owned(), "network".to_owned()]);
    match volumes.chain(services).find(|name| !taken.insert(name.clone())) {
        Some(name) => Err(RenderError::UnitTwice { unit: format!("{}-{name}", codex.appliance.name) }),
        None => Ok(()),
    }
}
