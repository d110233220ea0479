//! The laptop's way out, shared by all transfers of a run: how many at a time, how fast, how much it was.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};

/// How often the bandwidth is looked at again by who waits for it.
const LOOK: Duration = Duration::from_millis(10);

/// Bytes that may leave at once after a pause, in time of the bandwidth.
const BURST: Duration = Duration::from_millis(100);

/// The way out.
#[derive(Debug)]
pub struct Uplink {
    receivers: usize,
    uploads: Semaphore,
    pace: Option<Mutex<Pace>>,
    sent: AtomicU64,
}

impl Uplink {
    /// To so many hosts: at most `uploads` blobs at a time, and `bandwidth` bytes a second in all.
    pub fn new(hosts: usize, uploads: usize, bandwidth: Option<u64>) -> Self {
        let pace = bandwidth.map(|rate| Mutex::new(Pace::new(rate, Instant::now())));
        let receivers = hosts.min(uploads).max(1);
        Self { receivers, uploads: Semaphore::new(uploads.max(1)), pace, sent: AtomicU64::new(0) }
    }

    /// So many hosts share it at most.
    pub fn receivers(&self) -> usize {
        self.receivers
    }

    /// A place among the uploads; given back when dropped.
    pub async fn place(&self) -> Option<SemaphorePermit<'_>> {
        self.uploads.acquire().await.ok()
    }

    /// Waits until so many bytes may leave.
    pub async fn pass(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
        let Some(pace) = &self.pace else { return };
        let mut looks = tokio::time::interval(LOOK);
        loop {
            looks.tick().await;
            if pace.lock().unwrap_or_else(PoisonError::into_inner).take(bytes, Instant::now()) {
                return;
            }
        }
    }

    /// Bytes of blobs that left.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

/// A bucket that fills at the bandwidth. Who finds anything in it may take more than there is; the next one waits longer.
#[derive(Debug)]
struct Pace {
    rate: u64,
    level: f64,
    filled: Instant,
}

impl Pace {
    fn new(rate: u64, now: Instant) -> Self {
        Self { rate: rate.max(1), level: 0.0, filled: now }
    }

    fn take(&mut self, bytes: u64, now: Instant) -> bool {
        let rate = self.rate as f64;
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = now;
        self.level = (self.level + elapsed * rate).min(rate * BURST.as_secs_f64());
        if self.level < 0.0 {
            return false;
        }
        self.level -= bytes as f64;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Pace, Uplink};

    #[test]
    fn bytes_leave_at_the_bandwidth_however_large_the_pieces() {
        for piece in [1_000, 100_000, 1_000_000] {
            let start = Instant::now();
            let mut pace = Pace::new(1_000_000, start);
            let mut left = 0;
            for millisecond in 0..10_000 {
                if pace.take(piece, start + Duration::from_millis(millisecond)) {
                    left += piece;
                }
            }
            assert!((9_000_000..=11_100_000).contains(&left), "{piece}: {left}");
        }
    }

    #[tokio::test]
    async fn places_are_counted_and_no_bandwidth_means_no_waiting() {
        let uplink = Uplink::new(1, 1, None);
        let place = uplink.place().await;
        assert!(tokio::time::timeout(Duration::from_millis(20), uplink.place()).await.is_err());
        drop(place);
        assert!(uplink.place().await.is_some());
        uplink.pass(1 << 40).await;
        assert_eq!(uplink.sent(), 1 << 40);
    }
}
