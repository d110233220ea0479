//! What facts do not tell, because finding it out takes time or leaves a trace for a moment: how fast the disk syncs, what
//! time it is, whom names are asked of and what they come to.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{Command, Host, systemd};
use crate::failure::{Failure, Kind, Result, Retry};

/// Writes to the disk, one after the other, each waited for.
const SYNCS: usize = 100;

/// What one of them writes, in bytes: an entry of etcd's log.
const SYNC_BYTES: usize = 2300;

/// Measuring ends then, however slow the disk is.
const SYNC_LIMIT: Duration = Duration::from_secs(5);

/// Longest time for looking up a name. A name server that does not answer is given up after 5 s, and the next one is asked.
const LOOK_UP_LIMIT: Duration = Duration::from_secs(12);

/// Where systemd-resolved names the servers it asks itself; the kubelet is pointed to it (kubeadm.md section 5.2).
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// What is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measure {
    /// Whether the speed of the disk is of interest, which etcd would write to.
    pub disk: bool,
    /// The directory etcd would write to.
    pub etcd_directory: String,
    /// Names that must have an address.
    pub names: Vec<String>,
    /// The resolv.conf that a person chose for pods; the kubelet's own choice without.
    pub resolv_conf: Option<String>,
}

impl Measure {
    /// What time it is, and nothing that takes time.
    pub fn clock() -> Self {
        Self { resolv_conf: Some(RESOLV_CONF.to_owned()), ..Self::default() }
    }
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Measured {
    /// The host's clock, milliseconds since the epoch.
    pub clock_milliseconds: u64,
    /// So long 99 of 100 writes take to reach the disk at most, in microseconds.
    pub sync_microseconds: Option<u64>,
    /// The resolv.conf that pods get.
    pub resolv_conf: String,
    /// The name servers in it.
    pub name_servers: Vec<String>,
    /// Names that have no address here.
    pub unknown_names: Vec<String>,
}

/// Measures.
///
/// # Errors
/// When a file that is there cannot be read, or the disk cannot be written.
pub async fn measure(host: &dyn Host, order: &Measure) -> Result<Measured> {
    let resolv_conf = match &order.resolv_conf {
        Some(chosen) => chosen.clone(),
        None if systemd::is_active(host, "systemd-resolved").await.unwrap_or(false) => RESOLVED.to_owned(),
        None => RESOLV_CONF.to_owned(),
    };
    let text = host.read(Path::new(&resolv_conf))?.unwrap_or_default();
    let mut unknown_names = Vec::new();
    for name in &order.names {
        if lacks_address(host, name).await {
            unknown_names.push(name.clone());
        }
    }
    let sync_microseconds = match order.disk {
        true => sync_speed(nearest_directory(host, Path::new(&order.etcd_directory))?).await?,
        false => None,
    };
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Measured {
        clock_milliseconds: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        sync_microseconds,
        resolv_conf,
        name_servers: name_servers(&String::from_utf8_lossy(&text)),
        unknown_names,
    })
}

/// Whether the host has no address for a name, be it that no name server answers in time.
pub(crate) async fn lacks_address(host: &dyn Host, name: &str) -> bool {
    match host.run(Command::new("getent", &["ahosts", name]).limit(LOOK_UP_LIMIT)).await {
        Ok(answer) => !answer.success(),
        // Without the program nothing is known, and nothing is said.
        Err(failure) => failure.retry == Retry::MayHelp,
    }
}

/// The servers a resolv.conf names.
fn name_servers(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::split_whitespace);
    lines
        .filter_map(|mut words| if words.next() == Some("nameserver") { words.next() } else { None })
        .map(str::to_owned)
        .collect()
}

/// A directory, or the nearest one above it that is there: they are on the same filesystem.
fn nearest_directory(host: &dyn Host, path: &Path) -> Result<PathBuf> {
    for directory in path.ancestors() {
        if host.entry(directory)?.is_some() {
            return Ok(directory.to_owned());
        }
    }
    Ok(PathBuf::from("/"))
}

/// So long 99 of 100 small writes take at most, in microseconds; `None` where it cannot be measured. The file has no name: nothing of it is left, whatever
/// happens.
async fn sync_speed(directory: PathBuf) -> Result<Option<u64>> {
    let work = move || {
        let failed = |error: std::io::Error| {
            Failure::new(Kind::Host, format!("cannot measure the disk below {}", directory.display())).because(&error)
        };
        let mut file = match unnamed(&directory) {
            Ok(file) => file,
            // A filesystem that cannot do without names is not measured: nothing may be left on it.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(failed(error.into())),
        };
        let (began, mut took) = (Instant::now(), Vec::with_capacity(SYNCS));
        while took.len() < SYNCS && began.elapsed() < SYNC_LIMIT {
            let write = Instant::now();
            file.write_all(&[0; SYNC_BYTES]).and_then(|()| file.sync_data()).map_err(failed)?;
            took.push(write.elapsed());
        }
        Ok(Some(u64::try_from(percentile(&mut took).as_micros()).unwrap_or(u64::MAX)))
    };
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(Failure::new(Kind::Internal, "measuring the disk ended early")))
}

/// A file without a name on the filesystem of a directory.
fn unnamed(directory: &Path) -> Result<std::fs::File, rustix::io::Errno> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(directory, flags, Mode::from_raw_mode(0o600))?.into())
}

/// The 99th of 100.
fn percentile(took: &mut [Duration]) -> Duration {
    took.sort_unstable();
    let at = (took.len() * 99).div_ceil(100).saturating_sub(1);
    took.get(at).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use rstest::rstest;

    use super::{Measure, lacks_address, measure, name_servers, nearest_directory, percentile, sync_speed};
    use crate::failure::{Failure, Kind};
    use crate::host::fake::FakeHost;

    #[rstest]
    #[case("# comment\nsearch a b\nnameserver 127.0.0.53\noptions edns0\n nameserver\t::1 \n", &["127.0.0.53", "::1"])]
    #[case("nameserver\n", &[])]
    #[case("", &[])]
    fn servers_of_a_resolv_conf(#[case] text: &str, #[case] servers: &[&str]) {
        assert_eq!(name_servers(text), servers);
    }

    #[test]
    fn the_99th_of_a_hundred() {
        let mut took: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&mut took), Duration::from_millis(99));
        assert_eq!(percentile(&mut [Duration::from_millis(7)]), Duration::from_millis(7));
        assert_eq!(percentile(&mut []), Duration::ZERO);
    }

    #[test]
    fn the_directory_may_not_be_there_yet() {
        let host = FakeHost::new().directory("/var/lib");
        assert_eq!(nearest_directory(&host, Path::new("/var/lib/etcd/x")).unwrap(), Path::new("/var/lib"));
    }

    #[tokio::test]
    async fn a_disk_is_measured_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let _ = sync_speed(folder.path().to_owned()).await.unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn the_kubelets_choice_of_a_resolv_conf_is_judged() {
        let host = FakeHost::new()
            .file("/etc/resolv.conf", "nameserver 127.0.0.53\n")
            .file("/run/systemd/resolve/resolv.conf", "nameserver 10.0.0.1\n")
            .answer(&["getent", "ahosts"], 2, "")
            .answer(&["systemctl", "show"], 0, "LoadState=loaded\nActiveState=active\n");
        let order = Measure { names: vec!["api.example".into()], ..Measure::default() };
        let found = measure(&host, &order).await.unwrap();
        assert_eq!((found.name_servers, found.unknown_names), (vec!["10.0.0.1".to_owned()], order.names.clone()));
        let chosen = Measure { resolv_conf: Some("/etc/resolv.conf".into()), ..Measure::default() };
        assert_eq!(measure(&host, &chosen).await.unwrap().name_servers, ["127.0.0.53"]);
    }

    #[tokio::test]
    async fn a_name_that_nobody_answers_for_has_no_address() {
        let silent = || Failure::new(Kind::Host, "getent did not end within 12 s and was killed").may_pass();
        let silent = FakeHost::new().answer_with(&["getent"], move |_, _| Err(silent()));
        assert!(lacks_address(&silent, "api.example").await);
        let missing = || Failure::new(Kind::Host, "the program getent is not installed");
        let missing = FakeHost::new().answer_with(&["getent"], move |_, _| Err(missing()));
        assert!(!lacks_address(&missing, "api.example").await);
    }
}
