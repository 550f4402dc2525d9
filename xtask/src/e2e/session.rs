//! A WireGuard session as both of its ends tell of it.

use crate::Result;

/// Seconds after which WireGuard shakes hands by itself.
const RENEWAL: u64 = 120;

/// What a peer and the machine know of their session at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// When the peer's last handshake was, by its clock, in seconds since 1970.
    peers: u64,
    /// The same of the machine.
    machines: u64,
    /// Age of the machine's, in seconds.
    age: u64,
    received: u64,
    sent: u64,
}

impl Session {
    /// From the peer's last handshake, and what `GET /v1/peers` tells: the whole answer's `now`, and the peer in it.
    pub fn of(peers: u64, now: u64, seen: &serde_json::Value) -> Result<Self> {
        let number = |key: &str| seen[key].as_u64().ok_or_else(|| format!("there is no {key} in {seen}"));
        let machines = number("last_handshake")?;
        let age = now.saturating_sub(machines);
        Ok(Self { peers, machines, age, received: number("received")?, sent: number("sent")? })
    }

    /// Whether it will last for the minute and more in which something is proven.
    pub fn is_young(&self) -> bool {
        self.age < RENEWAL / 4
    }

    /// Whether both ends have shaken hands since.
    pub fn is_another(&self, before: &Self) -> bool {
        self.peers > before.peers && self.machines > before.machines
    }

    /// That a later look shows the same session: a peer that the machine made anew begins at zero, and one that had
    /// to shake hands has another time.
    pub fn goes_on_as(&self, later: &Self) -> Result<()> {
        let same = self.peers == later.peers && self.machines == later.machines;
        if later.age >= RENEWAL {
            Err(format!("too slow to tell: WireGuard may have renewed the session by itself, {later:?}")
                .into())
        } else if same && later.received >= self.received && later.sent >= self.sent {
            Ok(())
        } else {
            Err(format!("it is another session: {self:?} and then {later:?}").into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(peers: u64, machines: u64, now: u64, bytes: u64) -> Session {
        let seen = serde_json::json!({"last_handshake": machines, "received": bytes, "sent": bytes});
        Session::of(peers, now, &seen).unwrap()
    }

    #[test]
    fn a_session_that_was_lost_on_either_end_is_another() {
        let before = session(1000, 2000, 2010, 50);
        assert!(before.is_young() && !session(1000, 2000, 2030, 50).is_young());
        assert!(before.goes_on_as(&session(1000, 2000, 2030, 60)).is_ok());
        for other in
            [(1020, 2000, 2030, 60), (1000, 2020, 2030, 60), (1000, 2000, 2030, 49), (1000, 2000, 2120, 60)]
        {
            let (peers, machines, now, bytes) = other;
            assert!(before.goes_on_as(&session(peers, machines, now, bytes)).is_err(), "{other:?}");
        }
        let never = serde_json::json!({"last_handshake": null, "received": 0, "sent": 0});
        assert!(Session::of(1000, 2000, &never).is_err(), "a peer that was made anew has no handshake");
    }
}
