//! What an agent waits for: a changed folder, a signal, a nudge from a thread, a moment, or its time.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use inotify::{Inotify, WatchMask};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// A folder is quiet when nothing happened in it for this long.
const QUIET: Duration = Duration::from_millis(200);
/// A folder that is never quiet is looked at after this long all the same.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why the wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// Something changed in a watched folder, somebody asked for a look (SIGHUP, a nudge), or the moment has
    /// come or moved.
    Changed,
    /// The time is up.
    Tick,
    /// SIGTERM or SIGINT.
    Stop,
}

/// What a poll found.
#[derive(Debug, Default)]
struct Woken {
    folder: bool,
    nudged: bool,
    alarm: bool,
}

/// Waits for all of it at once. Signals are caught from its making on, also as process 1.
#[derive(Debug)]
pub struct Waker {
    inotify: Inotify,
    folders: Vec<PathBuf>,
    nudged: UnixStream,
    nudge: UnixStream,
    /// Runs on the wall clock, and is told when that is set.
    alarm: OwnedFd,
    stop: Arc<AtomicBool>,
}

impl Waker {
    /// Watches `folders` (not what is below them). One that does not exist is watched once it appears,
    /// provided that the one above it is watched too.
    pub fn new(folders: Vec<PathBuf>) -> io::Result<Self> {
        let (nudged, nudge) = UnixStream::pair()?;
        nudged.set_nonblocking(true)?;
        nudge.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            signal_hook::flag::register(signal, Arc::clone(&stop))?;
            signal_hook::low_level::pipe::register(signal, nudge.try_clone()?)?;
        }
        signal_hook::low_level::pipe::register(SIGHUP, nudge.try_clone()?)?;
        let alarm = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let mut waker = Self { inotify: Inotify::init()?, folders, nudged, nudge, alarm, stop };
        waker.watch()?;
        Ok(waker)
    }

    /// A handle by which another thread ends the wait.
    pub fn nudger(&self) -> io::Result<Nudger> {
        self.nudge.try_clone().map(Nudger)
    }

    /// Waits for at most `time`, and not beyond `moment` (seconds since the epoch) by the wall clock: when that
    /// is set to another time, the wait ends too. Changes of a folder are awaited until they end, so that one
    /// wake covers a burst of them.
    pub fn wait(&mut self, time: Duration, moment: Option<u64>) -> io::Result<Wake> {
        if !self.set_alarm(moment)? {
            return Ok(Wake::Changed);
        }
        let deadline = Instant::now() + time;
        let mut burst: Option<Instant> = None;
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(Wake::Stop);
            }
            let until = burst.map_or(deadline, |start| (Instant::now() + QUIET).min(start + PATIENCE));
            let Woken { folder, nudged, alarm } =
                self.poll(until.saturating_duration_since(Instant::now()))?;
            if nudged {
                self.drain_nudges()?;
            }
            if self.stop.load(Ordering::Relaxed) {
                return Ok(Wake::Stop);
            }
            if alarm {
                // Takes note of it; that the clock was set is told as an error.
                let _ = rustix::io::read(&self.alarm, &mut [0; 8]);
            }
            if nudged || alarm {
                return Ok(Wake::Changed);
            } else if folder {
                self.drain_folder()?;
                let start = *burst.get_or_insert_with(Instant::now);
                if start.elapsed() >= PATIENCE {
                    return Ok(Wake::Changed);
                }
            } else if burst.is_some() {
                return Ok(Wake::Changed);
            } else if Instant::now() >= deadline {
                return Ok(Wake::Tick);
            }
        }
    }

    /// Sets the alarm to a moment; one that has passed rings at once. False when the clock was set meanwhile.
    fn set_alarm(&self, moment: Option<u64>) -> io::Result<bool> {
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        // A time of zero would be none.
        let value = moment.map_or(never, |moment| Timespec {
            tv_sec: i64::try_from(moment.max(1)).unwrap_or(i64::MAX),
            tv_nsec: 0,
        });
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        match timerfd_settime(&self.alarm, flags, &Itimerspec { it_interval: never, it_value: value }) {
            Err(Errno::CANCELED) => Ok(false),
            result => Ok(result.map(|_| true)?),
        }
    }

    /// What has something to tell; nothing after `time` or a signal.
    fn poll(&self, time: Duration) -> io::Result<Woken> {
        let mut fds = [
            PollFd::from_borrowed_fd(self.inotify.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.nudged.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.alarm.as_fd(), PollFlags::IN),
        ];
        let timeout = Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(time.subsec_nanos()),
        };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) => {
                let [folder, nudged, alarm] = fds.map(|fd| !fd.revents().is_empty());
                Ok(Woken { folder, nudged, alarm })
            }
            Err(Errno::INTR) => Ok(Woken::default()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn drain_nudges(&mut self) -> io::Result<()> {
        let mut buffer = [0; 64];
        loop {
            match self.nudged.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn drain_folder(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            match self.inotify.read_events(&mut buffer) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.watch(),
                Err(error) => return Err(error),
            }
        }
    }

    /// Watches the folders as they are now: one that was replaced is another inode. Watching the same
    /// one again changes nothing.
    fn watch(&mut self) -> io::Result<()> {
        let mask = WatchMask::CLOSE_WRITE
            | WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVE
            | WatchMask::ATTRIB
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        for folder in &self.folders {
            watch_one(&self.inotify, folder, mask)?;
        }
        Ok(())
    }
}

fn watch_one(inotify: &Inotify, folder: &Path, mask: WatchMask) -> io::Result<()> {
    match inotify.watches().add(folder, mask) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map(drop),
    }
}

/// Ends a [`Waker`]'s wait from another thread.
#[derive(Debug)]
pub struct Nudger(UnixStream);

impl Nudger {
    /// Ends the wait, or the next one. A full pipe already does.
    pub fn nudge(&mut self) -> io::Result<()> {
        match self.0.write(&[0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            result => result.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn the_time_alone_is_a_tick() {
        let folder = tempfile::tempdir().unwrap();
        let mut waker = Waker::new(vec![folder.path().to_owned()]).unwrap();
        assert_eq!(waker.wait(Duration::from_millis(1), None).unwrap(), Wake::Tick);
    }

    #[test]
    fn a_burst_of_changes_wakes_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut waker = Waker::new(vec![folder.path().to_owned()]).unwrap();
        for number in 0..50 {
            crate::sys::fs::write_atomic(&folder.path().join(number.to_string()), 0o644, b"x").unwrap();
        }
        assert_eq!(waker.wait(LONG, None).unwrap(), Wake::Changed);
        assert_eq!(waker.wait(Duration::from_millis(1), None).unwrap(), Wake::Tick);
    }

    #[test]
    fn a_folder_that_appears_later_is_watched_from_then_on() {
        let above = tempfile::tempdir().unwrap();
        let below = above.path().join("peers");
        let mut waker = Waker::new(vec![above.path().to_owned(), below.clone()]).unwrap();
        crate::sys::fs::create_dir_all(&below).unwrap();
        assert_eq!(waker.wait(LONG, None).unwrap(), Wake::Changed);
        crate::sys::fs::write_atomic(&below.join("phone.toml"), 0o644, b"x").unwrap();
        assert_eq!(waker.wait(LONG, None).unwrap(), Wake::Changed);
    }

    #[test]
    fn a_nudge_ends_the_wait() {
        let mut waker = Waker::new(Vec::new()).unwrap();
        waker.nudger().unwrap().nudge().unwrap();
        assert_eq!(waker.wait(LONG, None).unwrap(), Wake::Changed);
    }

    #[test]
    fn a_moment_ends_the_wait_when_it_comes_and_one_that_has_passed_at_once() {
        let mut waker = Waker::new(Vec::new()).unwrap();
        let now = crate::sys::clock::epoch_seconds();
        assert_eq!(waker.wait(LONG, Some(now.saturating_sub(60))).unwrap(), Wake::Changed);
        assert_eq!(waker.wait(LONG, Some(now + 2)).unwrap(), Wake::Changed);
        let woken = crate::sys::clock::epoch_seconds();
        assert!((now + 2..=now + 4).contains(&woken), "{now} {woken}");
        // It is for one wait alone.
        assert_eq!(waker.wait(Duration::from_millis(1), None).unwrap(), Wake::Tick);
        assert_eq!(waker.wait(Duration::from_millis(1), Some(now + 3600)).unwrap(), Wake::Tick);
    }
}
