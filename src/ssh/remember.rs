//! Appends a host's key to known_hosts, whole or not at all, beside others that do the same.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::known_hosts::{HostKey, KnownHosts, Verdict, verdict};

/// What is written for a new key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Manner {
    /// Whether the host's name is hashed.
    pub(super) hashed: bool,
    /// Whether a host that is known by keys of other kinds is given this one, too: a person has compared it.
    pub(super) compared: bool,
}

/// Makes `host` known by `key` in `file` and returns what the file says about it then.
///
/// Under a lock, because ten hosts connect at once: the file is judged again first, and only an unknown host is added,
/// with one write and a sync. The folder is made with mode 0700, the file with 0600.
///
/// # Errors
/// Of the file system; nothing is written then.
pub(super) fn remember(path: &Path, host: &str, port: u16, key: &HostKey, manner: Manner) -> io::Result<Verdict> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    // /dev/null and the like: whoever names it wants nothing remembered.
    if !file.metadata()?.is_file() {
        return Ok(Verdict::Trusted);
    }
    lock(&file)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let known = KnownHosts { path: path.to_owned(), text: String::from_utf8_lossy(&bytes).into_owned() };
    match verdict(&[known], host, port, key) {
        Verdict::Unknown { .. } => {}
        Verdict::OtherAlgorithm(_) if manner.compared => {}
        decided => return Ok(decided),
    }
    let mut line = String::new();
    if bytes.last().is_some_and(|&last| last != b'\n') {
        line.push('\n');
    }
    line.push_str(&if manner.hashed { key.hashed_line(host, port)? } else { key.line(host, port) });
    line.push('\n');
    let end = file.seek(SeekFrom::End(0))?;
    if let Err(error) = file.write_all(line.as_bytes()).and_then(|()| file.sync_all()) {
        // Half a line would hide the next one from every reader.
        let _ = file.set_len(end);
        return Err(error);
    }
    Ok(Verdict::Trusted)
}

/// Waits for the lock: holders keep it for one read and one write.
fn lock(file: &File) -> io::Result<()> {
    loop {
        match flock(file, FlockOperation::LockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::{Manner, remember};
    use crate::ssh::known_hosts::{HostKey, Verdict};

    const PLAIN: Manner = Manner { hashed: false, compared: false };

    fn key(fill: u8) -> HostKey {
        let mut blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20".to_vec();
        blob.extend([fill; 32]);
        HostKey::from_blob(blob).expect("a whole key")
    }

    #[test]
    fn a_new_host_is_appended_once_with_tight_modes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("home/.ssh/known_hosts");
        for _ in 0..2 {
            assert_eq!(remember(&path, "10.0.0.1", 2222, &key(1), PLAIN).expect("written"), Verdict::Trusted);
        }
        let text = std::fs::read_to_string(&path).expect("readable");
        assert_eq!(text, format!("{}\n", key(1).line("10.0.0.1", 2222)));
        let mode = |path: &std::path::Path| path.metadata().expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().expect("a parent"))), (0o600, 0o700));
    }

    #[test]
    fn an_unfinished_last_line_stays_apart_and_a_changed_key_is_not_added() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("known_hosts");
        std::fs::write(&path, "# mine").expect("written");
        assert_eq!(remember(&path, "a", 22, &key(1), PLAIN).expect("written"), Verdict::Trusted);
        assert!(matches!(remember(&path, "a", 22, &key(2), PLAIN).expect("read"), Verdict::Changed(_)));
        assert_eq!(std::fs::read_to_string(&path).expect("readable"), format!("# mine\n{}\n", key(1).line("a", 22)));
    }

    #[test]
    fn many_writers_leave_whole_lines() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("known_hosts");
        std::thread::scope(|scope| {
            for host in 0..16_u8 {
                let path = &path;
                scope.spawn(move || remember(path, &format!("h{host}"), 22, &key(host), PLAIN).expect("written"));
            }
        });
        let text = std::fs::read_to_string(&path).expect("readable");
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        let mut expected: Vec<String> = (0..16).map(|host| key(host).line(&format!("h{host}"), 22)).collect();
        expected.sort_unstable();
        assert_eq!(lines, expected);
    }

    #[test]
    fn names_are_hashed_when_that_is_wanted() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("known_hosts");
        let hashed = Manner { hashed: true, compared: false };
        for _ in 0..2 {
            assert_eq!(remember(&path, "web1", 2222, &key(1), hashed).expect("written"), Verdict::Trusted);
        }
        let text = std::fs::read_to_string(&path).expect("readable");
        assert!(text.starts_with("|1|") && text.lines().count() == 1 && !text.contains("web1"), "{text}");
        let found =
            crate::ssh::testing::program("ssh-keygen", &["-F", "[web1]:2222", "-f", &path.display().to_string()]);
        assert!(found.contains("|1|"), "{found}");
    }

    #[test]
    fn what_is_no_file_takes_nothing() {
        let null = std::path::Path::new("/dev/null");
        assert_eq!(remember(null, "web1", 22, &key(1), PLAIN).expect("nothing to do"), Verdict::Trusted);
    }
}
