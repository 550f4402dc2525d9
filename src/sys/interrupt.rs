//! Signals that end a process, held back while something must not be left as it is.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Signals that end this process do so when the value goes, and not before.
pub struct Held {
    caught: Arc<AtomicUsize>,
    released: Arc<AtomicBool>,
}

impl Held {
    /// Holds them back from now on.
    ///
    /// # Errors
    /// The system refuses.
    pub fn new() -> io::Result<Self> {
        let held = Self { caught: Arc::default(), released: Arc::default() };
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&held.released))?;
            let number = usize::try_from(signal).unwrap_or_default();
            signal_hook::flag::register_usize(signal, Arc::clone(&held.caught), number)?;
        }
        Ok(held)
    }

    /// Whether one came.
    pub fn came(&self) -> bool {
        self.caught.load(Ordering::SeqCst) != 0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.released.store(true, Ordering::SeqCst);
        if let Ok(signal @ 1..) = i32::try_from(self.caught.load(Ordering::SeqCst)) {
            // These three end the process by default; were that to fail, there would be nothing better to do.
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
    }
}
