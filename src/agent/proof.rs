//! That a host is as it was: what it was waits on the host until the comparison after `down` has been made, whatever ends an
//! agent in between.

use std::path::Path;
use std::time::Duration;

use super::DIRECTORY;
use crate::event::Events;
use crate::failure::Result;
use crate::host::listing::{AWAITED, BEFORE, Listing, residue};
use crate::host::{Host, journal, seen};

/// Puts the host back; how many things were altered. The listing of before stays until [`compare`] has used it.
pub(super) async fn restore(host: &dyn Host, events: &Events) -> Result<u32> {
    if host.entry(Path::new(BEFORE))?.is_some() {
        host.rename(Path::new(BEFORE), Path::new(AWAITED))?;
    }
    let changes = journal::restore(host, events).await?;
    host.remove(Path::new(seen::PATH))?;
    if !is_awaited(host)? {
        host.remove_tree(Path::new(DIRECTORY))?;
    }
    Ok(changes)
}

/// What differs from before the first change, and then nothing of ours is there any more; `None` where it is not known what
/// was there before.
pub(super) async fn compare(host: &dyn Host, events: &Events, limit: Duration) -> Result<Option<Vec<String>>> {
    let before = Listing::awaited(host).unwrap_or_else(|failure| {
        // It would be as damaged the next time.
        events.warn(failure.to_string());
        None
    });
    let left = match &before {
        Some(before) => Some(residue(host, before, limit).await),
        None => None,
    };
    if host.entry(Path::new(journal::JOURNAL))?.is_none() {
        host.remove_tree(Path::new(DIRECTORY))?;
    }
    Ok(left)
}

/// Whether a comparison is still to be made.
pub(super) fn is_awaited(host: &dyn Host) -> Result<bool> {
    Ok(host.entry(Path::new(AWAITED))?.is_some())
}

/// A host that was put back and never compared is still measured by what it was before it first became a node. Whether it is
/// such a host.
pub(super) fn recall(host: &dyn Host) -> Result<bool> {
    let awaited = is_awaited(host)?;
    if awaited {
        host.rename(Path::new(AWAITED), Path::new(BEFORE))?;
    }
    Ok(awaited)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::{compare, is_awaited, recall, restore};
    use crate::event::Events;
    use crate::host::Host as _;
    use crate::host::fake::FakeHost;
    use crate::host::journal::{Entry, JOURNAL, Journal};
    use crate::host::listing::{AWAITED, BEFORE, Listing, take};

    /// A host on which `/etc/hosts` is all there is to tell, with the journal of a cluster and the listing of before.
    async fn host() -> FakeHost {
        let host = ["ip", "iptables-save", "ip6tables-save", "nft", "systemctl", "ctr"].into_iter().fold(
            FakeHost::new().file("/etc/hosts", "127.0.0.1 localhost\n").file("/var/lib/other", ""),
            |host, program| host.answer(&[program], 1, ""),
        );
        take(&host).await.keep(&host).unwrap();
        let journal = Journal::open(&host, "demo").unwrap();
        journal.record(&host, Entry::Created { path: "/etc/made".into() }).unwrap();
        host.put(Path::new("/etc/made"), b"", 0o644);
        host
    }

    #[tokio::test]
    async fn a_comparison_that_an_agents_end_prevented_is_made_by_the_next() {
        let (host, events) = (host().await, Events::channel().0);
        restore(&host, &events).await.unwrap();
        assert_eq!((host.text(JOURNAL), host.text(BEFORE), is_awaited(&host)), (None, None, Ok(true)));
        // Here the agent ended. Whoever comes next finds a host that was put back, and something on it that was not there.
        host.put(Path::new("/etc/left"), b"", 0o600);
        restore(&host, &events).await.unwrap();
        let left = compare(&host, &events, Duration::ZERO).await.unwrap().expect("it was compared");
        assert_eq!(
            left.iter().map(|line| line.starts_with("+ file /etc/left")).collect::<Vec<_>>(),
            [true],
            "{left:?}"
        );
        assert_eq!((is_awaited(&host), host.entry(Path::new(super::DIRECTORY))), (Ok(false), Ok(None)));
        // Now nothing is known of before.
        restore(&host, &events).await.unwrap();
        assert_eq!(compare(&host, &events, Duration::ZERO).await, Ok(None));
    }

    #[tokio::test]
    async fn the_next_cluster_is_compared_with_what_was_before_the_first() {
        let (host, events) = (host().await, Events::channel().0);
        let before = Listing::kept(&host).unwrap();
        restore(&host, &events).await.unwrap();
        assert_eq!(recall(&host), Ok(true));
        assert_eq!((Listing::kept(&host), host.text(AWAITED)), (Ok(before), None));
        assert_eq!(recall(&host), Ok(false));
    }

    #[tokio::test]
    async fn a_listing_that_is_damaged_is_no_comparison() {
        let (host, events) = (host().await, Events::channel().0);
        host.put(Path::new(BEFORE), b"[", 0o600);
        restore(&host, &events).await.unwrap();
        assert_eq!(compare(&host, &events, Duration::ZERO).await, Ok(None));
        assert_eq!(is_awaited(&host), Ok(false));
    }
}
