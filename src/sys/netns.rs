//! Network namespaces of others, entered for one piece of work.

use std::io;
use std::os::fd::BorrowedFd;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Does `work` in a network namespace, given as its opened link (`/proc/PID/ns/net`). What is done there is a thread's of
/// its own: sockets that it makes belong to that namespace for good, files and everything else are as they are here.
///
/// # Errors
/// It is no network namespace, or this process may not enter it.
pub fn within<T: Send>(network: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            move_into_link_name_space(network, Some(LinkNameSpaceType::Network))?;
            Ok(work())
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;
    use crate::sys::fs;

    #[test]
    fn only_a_network_namespace_is_entered_and_nothing_is_done_elsewhere() {
        for path in ["/proc/self/ns/mnt", "/dev/null"] {
            let link = fs::open(path.as_ref()).unwrap();
            let mut done = false;
            assert!(within(link.as_fd(), || done = true).is_err(), "{path}");
            assert!(!done, "{path}");
        }
    }
}
