//! Which declared ports nobody answers on.
//!
//! Whoever listens is asked in a thread beside the agent, which follows the bonds meanwhile, and is woken when it learns
//! something new. A question is a connection that asks for nothing, which some services note or count as a fault: so one
//! that has answered is asked again only when somebody waits there, or when it listens anew, and that not at once.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

use super::Error;
use crate::codex::{Codex, Protocol};
use crate::sys::sockets::{self, Socket};
use crate::sys::wake::Nudger;

/// How long a listener may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Who has answered and listens anew is not asked for so long: some begin to listen anew behind every connection.
const GOOD: Duration = Duration::from_secs(60);
/// Who has not, for so long: the end of the questions is a reason to look, and that look does not ask.
const BAD: Duration = Duration::from_secs(1);
/// So many are asked at a time.
const AT_A_TIME: usize = 8;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Question {
    listener: Socket,
    /// Where HTTP is spoken.
    path: Option<String>,
    /// Whether it answered the last time.
    answered: bool,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    /// Number of the listener's socket.
    inode: u64,
    answered: bool,
    at: Instant,
}

/// Asks, and remembers who has answered.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// By TCP port.
    known: BTreeMap<u16, Known>,
    running: Option<Receiver<(u16, Known)>>,
}

impl Answers {
    /// Declared ports that nobody answers on, as far as is known, each with why. Has asked whoever is to be asked, and
    /// nudges when there is news.
    pub(super) fn missing(
        &mut self,
        codex: &Codex,
        nudger: impl FnOnce() -> io::Result<Nudger>,
    ) -> Result<Vec<String>, Error> {
        self.take_in();
        let listening = sockets::listening()?;
        let (missing, questions) = judge(codex, &listening, &self.known, Instant::now());
        self.ask(questions, nudger).map_err(Error::Wait)?;
        Ok(missing)
    }

    fn take_in(&mut self) {
        while let Some(running) = &self.running {
            match running.try_recv() {
                Ok((port, known)) => {
                    self.known.insert(port, known);
                }
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => self.running = None,
            }
        }
    }

    fn ask(
        &mut self,
        questions: Vec<Question>,
        nudger: impl FnOnce() -> io::Result<Nudger>,
    ) -> io::Result<()> {
        if self.running.is_some() || questions.is_empty() {
            return Ok(());
        }
        let (sender, receiver) = channel();
        let mut nudger = nudger()?;
        Builder::new().name("answers".into()).spawn(move || {
            let news = AtomicBool::new(false);
            for some in questions.chunks(AT_A_TIME) {
                thread::scope(|scope| {
                    for question in some {
                        let (sender, news) = (sender.clone(), &news);
                        let asking = move || {
                            let Question { listener, path, answered: before } = question;
                            // A table that cannot be read is an error of the next look.
                            let Ok(answered) = sockets::answers(listener, path.as_deref(), PATIENCE) else {
                                return;
                            };
                            news.fetch_or(answered != *before, Ordering::Relaxed);
                            // When nobody waits any more there is nobody to tell.
                            let known = Known { inode: listener.inode, answered, at: Instant::now() };
                            let _ = sender.send((listener.local.port(), known));
                        };
                        // Who cannot be asked for want of a thread is asked at a later look.
                        let _ = Builder::new().spawn_scoped(scope, asking);
                    }
                });
            }
            drop(sender);
            if news.into_inner() {
                let _ = nudger.nudge();
            }
        })?;
        self.running = Some(receiver);
        Ok(())
    }
}

/// Who is missing, and who is to be asked.
fn judge(
    codex: &Codex,
    listening: &[Socket],
    known: &BTreeMap<u16, Known>,
    now: Instant,
) -> (Vec<String>, Vec<Question>) {
    let (mut missing, mut questions) = (Vec::new(), Vec::new());
    for (name, service) in &codex.services {
        for port in &service.ports {
            let (protocol, number) = (port.protocol, port.number.get());
            let here = listening
                .iter()
                .filter(|socket| (socket.protocol, socket.local.port()) == (protocol, number));
            // One of several: which of them the kernel gives a connection to is its choice anyway.
            let Some(socket) = here.min_by_key(|socket| socket.local) else {
                missing.push(format!("nobody listens on {name} {protocol} {number}"));
                continue;
            };
            if protocol != Protocol::Tcp {
                continue;
            }
            let last = known.get(&number);
            let rest = |last: &Known| match last {
                Known { answered: true, inode, .. } if socket.waiting == 0 => {
                    (*inode != socket.inode).then_some(GOOD)
                }
                _ => Some(BAD),
            };
            let is_due =
                |last: &Known| rest(last).is_some_and(|rest| now.saturating_duration_since(last.at) >= rest);
            if last.is_none_or(is_due) {
                let route = service.routes.iter().find(|route| route.port == port.number);
                questions.push(Question {
                    listener: socket.clone(),
                    path: route.map(|route| route.path.to_string()),
                    answered: last.is_some_and(|last| last.answered),
                });
            }
            let state = match last {
                Some(Known { answered: true, .. }) => continue,
                Some(_) => "has a listener that does not answer",
                None => "was not asked yet",
            };
            missing.push(format!("{name} {protocol} {number} {state}"));
        }
    }
    (missing, questions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codex::Sources;

    const SERVICE: &str = "description = \"x\"\nrootfs = \"stand-in\"\n[[port]]\nnumber = 6006\ntier = \"pod\"\n\
        [[route]]\npath = \"/traces\"\ntier = \"tether\"\nport = 6006\n\
        [[port]]\nnumber = 53\nprotocol = \"udp\"\ntier = \"pod\"\n";
    const VEIL: &str =
        "description = \"x\"\nrootfs = \"stand-in\"\nveil = true\n[[port]]\nnumber = 80\ntier = \"forest\"\n";

    fn codex() -> Codex {
        let sources: Sources = [
            ("lychd.toml", "schema = 1\n[appliance]\nname = \"lychd\"\n".to_owned()),
            ("services/oculus.toml", SERVICE.to_owned()),
            ("services/veil.toml", VEIL.to_owned()),
        ]
        .into_iter()
        .collect();
        Codex::parse(&sources).unwrap()
    }

    fn listener(port: u16, inode: u64, waiting: u32) -> Socket {
        Socket::listener(Protocol::Tcp, port, inode, waiting)
    }

    #[test]
    fn a_listener_counts_when_it_has_answered_and_is_asked_again_only_with_reason() {
        let (start, codex) = (Instant::now(), codex());
        let mut known = BTreeMap::new();
        let mut listening = vec![listener(80, 1, 0), Socket::listener(Protocol::Udp, 53, 3, 0)];
        let at = |seconds| start + Duration::from_secs(seconds);
        let asked = |listening: &[Socket], known: &_, seconds| {
            let (missing, questions) = judge(&codex, listening, known, at(seconds));
            let asked: Vec<_> =
                questions.into_iter().map(|question| (question.listener.inode, question.path)).collect();
            (missing, asked)
        };
        let nobody = "nobody listens on oculus tcp 6006".to_owned();
        let (missing, questions) = asked(&listening, &known, 0);
        assert_eq!(missing, [nobody, "veil tcp 80 was not asked yet".to_owned()]);
        assert_eq!(questions, [(1, None)]);
        listening.push(listener(6006, 2, 0));
        known.insert(80, Known { inode: 1, answered: true, at: start });
        known.insert(6006, Known { inode: 2, answered: false, at: start });
        let silent = "oculus tcp 6006 has a listener that does not answer".to_owned();
        assert_eq!(asked(&listening, &known, 0), (vec![silent.clone()], vec![]));
        assert_eq!(asked(&listening, &known, 1), (vec![silent], vec![(2, Some("/traces".to_owned()))]));
        known.insert(6006, Known { inode: 2, answered: true, at: start });
        assert_eq!(asked(&listening, &known, 3600), (vec![], vec![]));
        // Somebody waits to be accepted: what was said a while ago may not be true any more.
        listening[0].waiting = 1;
        assert_eq!(asked(&listening, &known, 2), (vec![], vec![(1, None)]));
        // Started anew.
        listening[0] = listener(80, 4, 0);
        assert_eq!(asked(&listening, &known, 59), (vec![], vec![]));
        assert_eq!(asked(&listening, &known, 60), (vec![], vec![(4, None)]));
    }
}
