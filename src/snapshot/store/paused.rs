//! Services that hold still while their volumes are read.
//!
//! A service with a `[snapshot]` in the Codex is told to, and goes on in a way that leaves its files alone. Every other one
//! is frozen: by Podman, which knows where Quadlet put the container's processes, takes them alone (and not what looks
//! after them), and says to everybody else that they are paused. What is copied of a frozen service is what a process
//! that is ended with SIGKILL leaves, all files at one moment. Databases are made for that: PostgreSQL starts from such a
//! copy as after a crash, out of its log, with everything that was committed.
//!
//! Who is to be resumed is written down first. When this process is killed, the next command that changes snapshots
//! resumes them, or the end of the unit that carries wishes out; a restart of the machine ends every freeze by itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Host;
use super::journal::PAUSED;
use super::volumes::{Source, unavailable};
use crate::codex::name::Name;
use crate::peer::Refused;
use crate::peer::store::{Error, Place};

/// A service that is paused, or is about to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Paused {
    service: Name,
    container: String,
    /// The command that resumes it; without one it is frozen.
    resume: Option<Vec<String>>,
}

/// What is paused, and what does not run.
#[derive(Debug, Default)]
pub(super) struct Pause {
    paused: Vec<Paused>,
    idle: BTreeMap<String, Name>,
}

/// Whether nothing runs in a container of that state.
pub(super) fn is_idle(state: &str) -> bool {
    matches!(state, "created" | "configured" | "exited" | "stopped")
}

/// Pauses every service of these volumes that runs. On an error none is paused.
pub(super) fn pause(place: &Place, host: &Host<'_>, sources: &[Source]) -> Result<Pause, Error> {
    let states = states(host)?;
    let mut pause = Pause::default();
    let mut commands = Vec::new();
    for source in sources {
        let Source { service, container, hooks, .. } = source;
        if pause.paused.iter().any(|paused| paused.service == *service) {
            continue;
        }
        match states.get(container).map_or("absent", String::as_str) {
            "running" => {
                let resume = hooks.as_ref().map(|hooks| hooks.resume.clone());
                pause.paused.push(Paused { service: service.clone(), container: container.clone(), resume });
                commands.push(hooks.as_ref().map(|hooks| hooks.pause.clone()));
            }
            // Whoever paused it before resumes it.
            state if is_idle(state) || matches!(state, "absent" | "paused") => {
                pause.idle.insert(container.clone(), service.clone());
            }
            state => {
                let message = format!("the service {service} is {state}: its volumes may change");
                return Err(Refused::new(message, "try again when it runs or is stopped").into());
            }
        }
    }
    if pause.paused.is_empty() {
        return Ok(pause);
    }
    PAUSED.write(place, &pause.paused)?;
    for (paused, command) in pause.paused.iter().zip(commands) {
        let done = match &command {
            Some(command) => host.services.execute(&paused.container, command),
            None => host.services.freeze(&paused.container),
        };
        if let Err(error) = done {
            // Whoever was not reached needs no resuming, but it does no harm.
            if let Err(second) = resume_each(place, host, &pause.paused) {
                (host.tell)(&second.to_string());
            }
            return Err(unavailable(&format!("the service {} cannot be paused", paused.service), &error));
        }
    }
    Ok(pause)
}

/// State of every container by its name.
pub(super) fn states(host: &Host<'_>) -> Result<BTreeMap<String, String>, Error> {
    let states = host.services.states();
    states.map_err(|error| unavailable("the state of the services cannot be told", &error))
}

/// Resumes them, and looks whether one ran meanwhile: what was read of it may be torn.
pub(super) fn resume(place: &Place, host: &Host<'_>, pause: Pause) -> Result<(), Error> {
    let Pause { paused, idle } = pause;
    if paused.is_empty() && idle.is_empty() {
        return Ok(());
    }
    let states = states(host);
    // Whatever it was that they said.
    if !paused.is_empty() {
        resume_each(place, host, &paused)?;
    }
    let states = states?;
    let is =
        |container: &String, expected: &str| states.get(container).is_some_and(|state| state == expected);
    let started = idle.iter().find(|(container, _)| is(container, "running")).map(|(_, service)| service);
    let thawed = paused.iter().find(|paused| match paused.resume {
        None => !is(&paused.container, "paused"),
        Some(_) => !is(&paused.container, "running"),
    });
    match started.or(thawed.map(|paused| &paused.service)) {
        Some(service) => {
            let message = format!("the service {service} ran or was restarted while its volumes were read");
            Err(Refused::new(message, "try again").into())
        }
        None => Ok(()),
    }
}

/// Resumes what a killed command left paused, and tells it.
pub(super) fn resume_all(place: &Place, host: &Host<'_>) -> Result<(), Error> {
    let Some(paused) = PAUSED.read::<Vec<Paused>>(place)? else { return Ok(()) };
    for paused in &paused {
        (host.tell)(&format!("the service {} was left paused, and is resumed", paused.service));
    }
    resume_each(place, host, &paused)
}

/// Tries all of them before it tells of the first that stays paused; that it is paused stays written down.
fn resume_each(place: &Place, host: &Host<'_>, paused: &[Paused]) -> Result<(), Error> {
    let states = states(host)?;
    let mut first = None;
    for Paused { service, container, resume } in paused {
        let state = states.get(container).map_or("absent", String::as_str);
        let done = match (resume, state) {
            (None, "paused") => host.services.thaw(container),
            (Some(command), "running") => host.services.execute(container, command),
            // Its container is another one by now.
            _ => continue,
        };
        if let (Err(error), None) = (done, &first) {
            first = Some(unavailable(&format!("the service {service} stays paused"), &error));
        }
    }
    if let Some(error) = first {
        return Err(error);
    }
    PAUSED.remove(place)
}
