//! A TCP stream from the machine to a peer, and when its lines come in.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sepulcher::image::toolbox::Toolbox;

use super::around::{WG0, until};
use crate::Result;
use crate::netns::Netns;

/// What a change of somebody else may hold a stream up. Its lines are 50 ms apart; an emulator whose processors are busy,
/// or a packet that was lost on the way, makes some tenths of a second of that. A session that was lost costs at least
/// the 5 s after which WireGuard says hello again, and mostly 15 s, because only silence tells a peer of it.
pub const PAUSE: Duration = Duration::from_secs(1);

/// Lines that must have come before a stream counts as established.
const ESTABLISHED: usize = 40;

/// An answer of the Oculus that goes on and on, on one connection.
pub struct Stream {
    curl: Child,
    arrivals: Arc<Mutex<Arrivals>>,
}

#[derive(Default)]
struct Arrivals {
    times: Vec<Instant>,
    /// The first line that was not the one that was due.
    astray: Option<String>,
}

impl Stream {
    /// Opens a stream to a peer, and waits until it flows.
    pub fn open(toolbox: &Toolbox, to: &Netns) -> Result<Self> {
        let url = format!("http://{WG0}:6006/?lines");
        let curl = toolbox.command("curl")?.args(["--silent", "--show-error", "--no-buffer", &url]);
        let command = curl.within(to.launcher());
        let mut curl =
            command.to_std().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
        let lines = BufReader::new(curl.stdout.take().ok_or("curl has no standard output")?).lines();
        let arrivals = Arc::<Mutex<Arrivals>>::default();
        let stream = Self { curl, arrivals: Arc::clone(&arrivals) };
        std::thread::spawn(move || {
            for (number, line) in (1..).zip(lines.map_while(std::result::Result::ok)) {
                let mut arrivals = arrivals.lock().unwrap_or_else(PoisonError::into_inner);
                arrivals.times.push(Instant::now());
                if arrivals.astray.is_none() && line != format!("line {number}") {
                    arrivals.astray = Some(line);
                }
            }
        });
        until(Duration::from_secs(20), "a stream of lines", || {
            Ok(stream.arrivals.lock().unwrap_or_else(PoisonError::into_inner).times.len() >= ESTABLISHED)
        })?;
        Ok(stream)
    }

    /// The longest time without a line since `start`, provided that the stream goes on and it is within `limit`.
    pub fn pause_since(&mut self, start: Instant, limit: Duration) -> Result<Duration> {
        if let Some(status) = self.curl.try_wait()? {
            return Err(format!("the stream has ended: {status}").into());
        }
        let arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = &arrivals.astray {
            return Err(format!("the stream is not the same any more: `{line}`").into());
        }
        let pause = longest_pause(&arrivals.times, start, Instant::now());
        if pause <= limit {
            Ok(pause)
        } else {
            Err(format!("the stream stood still for {} ms", pause.as_millis()).into())
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.curl.kill();
        let _ = self.curl.wait();
    }
}

/// The longest time between two arrivals, of which the second or the end of the look lies after `start`.
fn longest_pause(arrivals: &[Instant], start: Instant, end: Instant) -> Duration {
    let first = arrivals.partition_point(|at| *at < start);
    let mut last = first.checked_sub(1).map_or(start, |before| arrivals[before]);
    let mut longest = Duration::ZERO;
    for at in arrivals[first..].iter().chain([&end]) {
        longest = longest.max(at.saturating_duration_since(last));
        last = *at;
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_measured_where_it_was_and_to_the_end() {
        let zero = Instant::now();
        let at = |millis: u64| zero + Duration::from_millis(millis);
        let longest =
            |start, end| longest_pause(&[100, 200, 900, 1000].map(at), at(start), at(end)).as_millis();
        assert_eq!(longest(0, 1050), 700);
        assert_eq!(longest(500, 1050), 700, "it had begun before");
        assert_eq!(longest(950, 1050), 100, "it was over before");
        assert_eq!(longest(950, 5000), 4000, "nothing comes any more");
        assert_eq!(longest_pause(&[], at(0), at(30)).as_millis(), 30);
    }
}
