//! How many logins there are at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Logins at a false server: each is one from the connection to the moment in which the password is taken.
#[derive(Debug, Default)]
pub(in crate::ssh) struct Logins {
    now: AtomicUsize,
    /// The most there were at a time.
    pub(in crate::ssh) most: AtomicUsize,
    /// How many there were.
    pub(in crate::ssh) all: AtomicUsize,
}

/// A login under way.
pub(super) struct Login(Arc<Logins>);

impl Login {
    pub(super) fn begin(logins: &Arc<Logins>) -> Self {
        let now = logins.now.fetch_add(1, Ordering::AcqRel) + 1;
        logins.most.fetch_max(now, Ordering::AcqRel);
        logins.all.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(logins))
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::AcqRel);
    }
}
