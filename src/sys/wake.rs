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
/// Folders that cannot be watched are tried again after this long, then twice as long, up to [`LAST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// No longer than this between two tries.
const LAST_RETRY: Duration = Duration::from_secs(30);

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

/// Folders that are not watched as they should be.
#[derive(Debug)]
struct Fault {
    reason: String,
    told: bool,
    /// When it is tried again, and how long after the last time that is.
    again: Instant,
    pause: Duration,
}

/// Waits for all of it at once. Signals are caught from its making on, also as process 1.
#[derive(Debug)]
pub struct Waker {
    /// `None` after it could not be read any more.
    inotify: Option<Inotify>,
    folders: Vec<PathBuf>,
    fault: Option<Fault>,
    nudged: UnixStream,
    nudge: UnixStream,
    /// Runs on the wall clock, and is told when that is set.
    alarm: OwnedFd,
    stop: Arc<AtomicBool>,
}

impl Waker {
    /// Watches `folders` (not what is below them). One that does not exist is watched once it appears,
    /// provided that the one above it is watched too. One that cannot be watched is tried again until it can:
    /// see [`Waker::new_fault`].
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
        let inotify = Some(Inotify::init()?);
        let mut waker = Self { inotify, folders, fault: None, nudged, nudge, alarm, stop };
        waker.watch();
        Ok(waker)
    }

    /// Why a folder is not watched, when that is news. Changes in it are found by looking until it is.
    pub fn new_fault(&mut self) -> Option<&str> {
        let fault = self.fault.as_mut().filter(|fault| !fault.told)?;
        fault.told = true;
        Some(&fault.reason)
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
            if self.watches_again() {
                return Ok(Wake::Changed);
            }
            let until = burst.map_or(deadline, |start| (Instant::now() + QUIET).min(start + PATIENCE));
            let until = self.fault.as_ref().map_or(until, |fault| until.min(fault.again));
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
                self.drain_folder();
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
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.nudged.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.alarm.as_fd(), PollFlags::IN),
        ];
        fds.extend(
            self.inotify.as_ref().map(|inotify| PollFd::from_borrowed_fd(inotify.as_fd(), PollFlags::IN)),
        );
        let timeout = Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(time.subsec_nanos()),
        };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) => {
                let speaks = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
                Ok(Woken { nudged: speaks(0), alarm: speaks(1), folder: speaks(2) })
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

    fn drain_folder(&mut self) {
        let mut buffer = [0; 4096];
        while let Some(inotify) = &mut self.inotify {
            match inotify.read_events(&mut buffer) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.watch(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // It would be ready, and fail, for ever.
                Err(error) => {
                    self.inotify = None;
                    self.note(Err(format!("cannot read what changes in the folders: {error}")));
                }
            }
        }
    }

    /// Watches the folders as they are now: one that was replaced is another inode. Watching the same
    /// one again changes nothing.
    fn watch(&mut self) {
        let watched = self.watch_all();
        self.note(watched);
    }

    fn watch_all(&mut self) -> Result<(), String> {
        let inotify = match self.inotify.take() {
            Some(inotify) => inotify,
            None => Inotify::init().map_err(|error| format!("cannot watch folders: {error}"))?,
        };
        let tried = self.folders.iter().map(|folder| watch_one(&inotify, folder));
        // All are tried, whichever fail.
        let failed: Vec<_> = tried.filter_map(Result::err).collect();
        self.inotify = Some(inotify);
        if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
    }

    /// Takes note of how watching went. One fault is told once, and its tries come ever more slowly.
    fn note(&mut self, watched: Result<(), String>) {
        let known = self.fault.take();
        self.fault = watched.err().map(|reason| {
            let same = known.filter(|known| known.reason == reason);
            let (told, pause) = same.map_or((false, FIRST_RETRY), |known| (known.told, known.pause));
            Fault { reason, told, again: Instant::now() + pause, pause }
        });
    }

    /// Tries to watch again what could not be watched, when that is due. True when all is watched now: what changed
    /// meanwhile was not seen.
    fn watches_again(&mut self) -> bool {
        let now = Instant::now();
        let Some(fault) = self.fault.as_mut().filter(|fault| now >= fault.again) else { return false };
        fault.pause = (fault.pause * 2).min(LAST_RETRY);
        self.watch();
        self.fault.is_none()
    }
}

fn watch_one(inotify: &Inotify, folder: &Path) -> Result<(), String> {
    let mask = WatchMask::CLOSE_WRITE
        | WatchMask::CREATE
        | WatchMask::DELETE
        | WatchMask::MOVE
        | WatchMask::ATTRIB
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
        | WatchMask::ONLYDIR;
    match inotify.watches().add(folder, mask) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(format!("cannot watch {}: {error}", folder.display()))
        }
        _ => Ok(()),
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
    fn a_folder_that_cannot_be_watched_is_told_once_and_watched_when_it_can_be() {
        let above = tempfile::tempdir().unwrap();
        let below = above.path().join("peers");
        let mut waker = Waker::new(vec![above.path().to_owned(), below.clone()]).unwrap();
        assert_eq!(waker.new_fault(), None);
        crate::sys::fs::write_atomic(&below, 0o644, b"no folder").unwrap();
        assert_eq!(waker.wait(LONG, None).unwrap(), Wake::Changed);
        let told = waker.new_fault().unwrap().to_owned();
        assert!(told.contains("peers: Not a directory"), "{told}");
        // It is tried again meanwhile; the same is no news.
        assert_eq!(waker.wait(FIRST_RETRY * 3 / 2, None).unwrap(), Wake::Tick);
        assert_eq!(waker.new_fault(), None);
        // Nobody says that it can be watched now: it is found by trying.
        waker.folders.remove(0);
        waker.inotify = None;
        std::fs::remove_file(&below).unwrap();
        crate::sys::fs::create_dir_all(&below).unwrap();
        assert_eq!(waker.wait(LONG, None).unwrap(), Wake::Changed);
        crate::sys::fs::write_atomic(&below.join("phone.toml"), 0o644, b"x").unwrap();
        assert_eq!(waker.wait(LONG, None).unwrap(), Wake::Changed);
        assert_eq!(waker.wait(Duration::from_millis(1), None).unwrap(), Wake::Tick);
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
