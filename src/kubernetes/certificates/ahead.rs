//! Keys that are made before anybody can take them: how many a host will need is known long before it was looked at, and
//! making them is most of the processor time of `init`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::key::{KeyAlgorithm, PrivateKey};
use crate::failure::{Failure, Kind, Result};

/// Keys under way: a process makes one host's certificates, so there is one place for them.
static UNDER_WAY: Mutex<Option<UnderWay>> = Mutex::new(None);

struct UnderWay {
    algorithm: KeyAlgorithm,
    threads: Vec<JoinHandle<Result<Vec<PrivateKey>>>>,
}

/// Begins to make keys on all cores and returns at once. The next [`super::KeyPool`] of this algorithm that is filled
/// takes them; keys that nobody takes are forgotten with the process.
pub fn make_ahead(algorithm: KeyAlgorithm, count: usize) {
    let workers = thread::available_parallelism().map_or(1, usize::from).min(count);
    let next = Arc::new(AtomicUsize::new(0));
    let work = |next: Arc<AtomicUsize>| {
        move || {
            let mut made = Vec::new();
            while next.fetch_add(1, Ordering::Relaxed) < count {
                made.push(PrivateKey::generate(algorithm)?);
            }
            Ok(made)
        }
    };
    // A thread that cannot be had is one less; the pool makes what lacks.
    let threads = (0..workers).filter_map(|_| thread::Builder::new().spawn(work(next.clone())).ok()).collect();
    *UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner) = Some(UnderWay { algorithm, threads });
}

/// The keys of that algorithm that were begun, waited for; none where none were.
pub(super) fn take(algorithm: KeyAlgorithm) -> Result<Vec<PrivateKey>> {
    let mut place = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
    let begun = place.take_if(|under_way| under_way.algorithm == algorithm);
    drop(place);
    let mut keys = Vec::new();
    for thread in begun.into_iter().flat_map(|under_way| under_way.threads) {
        let made = thread.join().map_err(|_| Failure::new(Kind::Internal, "making keys broke off"))?;
        keys.extend(made?);
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::super::{KeyAlgorithm, KeyPool};
    use super::make_ahead;

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
