//! Progress on standard error: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::image::fetch::Progress;

/// Shows how downloads and unpacking go on.
#[derive(Debug, Default)]
pub struct Shown(Mutex<Option<(ProgressBar, String)>>);

impl Shown {
    fn with<T>(&self, act: impl FnOnce(&mut Option<(ProgressBar, String)>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl Progress for Shown {
    fn start(&self, what: &str, count: usize, bytes: u64) {
        let files = if count == 1 { "file" } else { "files" };
        let what = format!("{what} {count} {files} ({})", HumanBytes(bytes));
        if !std::io::stderr().is_terminal() {
            eprintln!("{what}");
            return;
        }
        let bar = ProgressBar::new(bytes);
        let style = ProgressStyle::with_template("{msg} [{wide_bar}] {percent:>3} % {eta}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        bar.set_message(what.clone());
        bar.enable_steady_tick(Duration::from_millis(200));
        self.with(|shown| *shown = Some((bar, what)));
    }

    fn advance(&self, bytes: i64) {
        self.with(|shown| {
            if let Some((bar, _)) = shown {
                if bytes < 0 {
                    bar.set_position(bar.position().saturating_sub(bytes.unsigned_abs()));
                } else {
                    bar.inc(bytes.unsigned_abs());
                }
            }
        });
    }

    fn finish(&self) {
        if let Some((bar, what)) = self.with(Option::take) {
            bar.finish_and_clear();
            eprintln!("{what}");
        }
    }
}
