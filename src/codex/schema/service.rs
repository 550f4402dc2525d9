//! `services/<name>.toml` as typed.

use super::reader::{At, Field, Table};
use super::scalar::User;
use crate::codex::diagnostic::Place;
use crate::codex::name::{Name, RoutePath};
use crate::codex::net::Port;
use crate::codex::{Protocol, Tier};

/// A service; a `None` that is not optional in the Codex was wrong and is reported already.
#[derive(Debug)]
pub struct Service {
    /// The file.
    pub place: Place,
    /// `description`.
    pub description: Option<At<String>>,
    /// `rootfs`.
    pub rootfs: Field<Name>,
    /// `image`.
    pub image: Field<String>,
    /// `command`.
    pub command: Field<Vec<At<String>>>,
    /// `user`.
    pub user: Field<User>,
    /// `[environment]`.
    pub environment: Vec<(At<String>, At<String>)>,
    /// `secrets`.
    pub secrets: Field<Vec<At<Name>>>,
    /// `[[port]]`.
    pub ports: Vec<ServicePort>,
    /// `[[route]]`.
    pub routes: Vec<Route>,
    /// `[[volume]]`.
    pub volumes: Vec<Volume>,
    /// `[snapshot]`.
    pub hooks: Option<Hooks>,
    /// `veil`.
    pub veil: Option<At<bool>>,
}

/// `[snapshot]`.
#[derive(Debug)]
pub struct Hooks {
    /// Where it is written.
    pub place: Place,
    /// `pause`.
    pub pause: Option<At<Vec<At<String>>>>,
    /// `resume`.
    pub resume: Option<At<Vec<At<String>>>>,
}

/// `[[port]]`.
#[derive(Debug)]
pub struct ServicePort {
    /// `number`.
    pub number: Option<At<Port>>,
    /// `protocol`.
    pub protocol: Option<At<Protocol>>,
    /// `tier`.
    pub tier: Option<At<Tier>>,
}

/// `[[route]]`.
#[derive(Debug)]
pub struct Route {
    /// `path`.
    pub path: Option<At<RoutePath>>,
    /// `tier`.
    pub tier: Option<At<Tier>>,
    /// `port`.
    pub port: Option<At<Port>>,
}

/// `[[volume]]`.
#[derive(Debug)]
pub struct Volume {
    /// `name`.
    pub name: Option<At<Name>>,
    /// `target`.
    pub target: Option<At<String>>,
    /// `snapshot`.
    pub snapshot: Option<At<bool>>,
}

/// Reads `services/<name>.toml`.
pub fn read(root: &mut Table<'_>) -> Service {
    Service {
        place: root.place().clone(),
        description: root.required("description", "\"what it is for\""),
        rootfs: root.optional("rootfs"),
        image: root.optional("image"),
        command: root.optional("command"),
        user: root.optional("user"),
        environment: root.map("environment"),
        secrets: root.optional("secrets"),
        ports: root.tables("port").into_iter().map(port).collect(),
        routes: root.tables("route").into_iter().map(route).collect(),
        volumes: root.tables("volume").into_iter().map(volume).collect(),
        hooks: root.optional_section("snapshot").map(hooks),
        veil: root.defaulted("veil", false),
    }
}

fn port(mut table: Table<'_>) -> ServicePort {
    let port = ServicePort {
        number: table.required("number", "8080"),
        protocol: table.defaulted("protocol", Protocol::Tcp),
        tier: table.required("tier", "\"tether\""),
    };
    table.finish();
    port
}

fn route(mut table: Table<'_>) -> Route {
    let route = Route {
        path: table.required("path", "\"/path\""),
        tier: table.required("tier", "\"tether\""),
        port: table.required("port", "8080"),
    };
    table.finish();
    route
}

fn volume(mut table: Table<'_>) -> Volume {
    let volume = Volume {
        name: table.required("name", "\"data\""),
        target: table.required("target", "\"/var/lib/data\""),
        snapshot: table.defaulted("snapshot", true),
    };
    table.finish();
    volume
}

fn hooks(mut table: Table<'_>) -> Hooks {
    let hooks = Hooks {
        place: table.place().clone(),
        pause: table.required("pause", "[\"/usr/bin/pause\"]"),
        resume: table.required("resume", "[\"/usr/bin/resume\"]"),
    };
    table.finish();
    hooks
}
