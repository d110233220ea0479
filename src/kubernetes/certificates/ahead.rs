//! Keys that are made before anybody can take them: how many a host will need is known long before it was looked at, and
//! making them is most of the processor time of `init`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::key::{KeyAlgorithm, PrivateKey};
use crate::failure::Result;

/// Keys under way: a process makes one host's certificates, so there is one place for them.
static UNDER_WAY: Mutex<Option<Batch>> = Mutex::new(None);

/// Keys that threads are making.
pub(super) struct Batch {
    algorithm: KeyAlgorithm,
    count: usize,
    made: Receiver<Result<PrivateKey>>,
}

impl Batch {
    /// Begins to make `count` keys on all cores and returns at once.
    ///
    /// How long a prime is looked for is luck: one key takes four times as long as another. So a core that finds all keys
    /// begun does not wait for the slowest, but begins one more; the first `count` that are done are the batch, and what
    /// comes later is dropped.
    pub(super) fn begin(algorithm: KeyAlgorithm, count: usize) -> Self {
        let workers = thread::available_parallelism().map_or(1, usize::from).min(count);
        let (send, made) = mpsc::channel();
        let done = Arc::new(AtomicUsize::new(0));
        for _ in 0..workers {
            let (send, done) = (send.clone(), done.clone());
            let work = move || {
                while done.load(Ordering::Relaxed) < count {
                    let key = PrivateKey::generate(algorithm);
                    let is_last = key.is_err();
                    // Nobody listens any more when enough are done.
                    if done.fetch_add(1, Ordering::Relaxed) >= count || send.send(key).is_err() || is_last {
                        break;
                    }
                }
            };
            // A thread that cannot be had is one less; the pool makes what lacks.
            let _ = thread::Builder::new().spawn(work);
        }
        Self { algorithm, count, made }
    }

    /// Waits for the keys; fewer than were asked for where threads could not be had.
    pub(super) fn wait(self) -> Result<Vec<PrivateKey>> {
        self.made.into_iter().take(self.count).collect()
    }
}

/// Begins to make keys on all cores and returns at once. The next [`super::KeyPool`] of this algorithm that is filled
/// takes them; keys that nobody takes are forgotten with the process.
pub fn make_ahead(algorithm: KeyAlgorithm, count: usize) {
    let begun = Batch::begin(algorithm, count);
    *UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner) = Some(begun);
}

/// The keys of that algorithm that were begun, waited for; none where none were.
pub(super) fn take(algorithm: KeyAlgorithm) -> Result<Vec<PrivateKey>> {
    let mut place = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
    let begun = place.take_if(|batch| batch.algorithm == algorithm);
    drop(place);
    begun.map_or_else(|| Ok(Vec::new()), Batch::wait)
}

#[cfg(test)]
mod tests {
    use super::super::{KeyAlgorithm, KeyPool};
    use super::{Batch, make_ahead};

    #[test]
    fn a_batch_is_as_many_as_were_asked_for() {
        for count in [0, 1, 2, 9] {
            assert_eq!(Batch::begin(KeyAlgorithm::EcdsaP256, count).wait().unwrap().len(), count);
        }
    }

    /// The only test that begins keys with this algorithm: the place for them is the process's.
    #[test]
    fn keys_that_were_begun_are_taken_by_the_pool_that_wants_them() {
        make_ahead(KeyAlgorithm::EcdsaP384, 5);
        let mut other = KeyPool::new(KeyAlgorithm::EcdsaP256);
        other.fill(1).unwrap();
        let mut pool = KeyPool::new(KeyAlgorithm::EcdsaP384);
        pool.fill(7).unwrap();
        let mut keys: Vec<_> = (0..7).map(|_| pool.take().unwrap().public_pem()).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 7);
    }
}
