//! Files brought to the content and mode they should have, and left alone where they have it.

use std::path::Path;

use crate::failure::{Failure, Kind, Result};
use crate::host::{EntryKind, Host, NewFile};

/// Makes or replaces a file unless it has this content and mode; parents are made with 0755. `true` when something was
/// altered.
pub(super) fn ensure(host: &dyn Host, path: &Path, content: &[u8], mode: u32) -> Result<bool> {
    if host.read(path)?.is_some_and(|there| there == content) {
        return match host.entry(path)? {
            Some(entry) if entry.kind == EntryKind::File && entry.mode != mode => {
                host.set_mode(path, mode).map(|()| true)
            }
            _ => Ok(false),
        };
    }
    if let Some(parent) = path.parent() {
        host.create_directory(parent, 0o755)?;
    }
    host.write(path, content, mode)?;
    Ok(true)
}

/// [`ensure`] of several files that belong together: the disk is waited for once.
pub(super) fn ensure_together(host: &dyn Host, files: &[NewFile<'_>]) -> Result<()> {
    let mut different = Vec::new();
    for file in files {
        if host.read(file.path)?.is_some_and(|there| there == file.content) {
            ensure(host, file.path, file.content, file.mode)?;
            continue;
        }
        if let Some(parent) = file.path.parent() {
            host.create_directory(parent, 0o755)?;
        }
        different.push(*file);
    }
    host.write_together(&different)
}

/// What is written in PEM, which is a text, and sometimes brought in DER, which is none.
const PEM: &[&str] = &["crt", "key", "pub", "pem", "csr"];

/// Text of a file; `None` where there is none.
///
/// # Errors
/// Kind `Configuration` when it is no text: somebody put it there. Else what reading meets.
pub(super) fn text(host: &dyn Host, path: &Path) -> Result<Option<String>> {
    let Some(content) = host.read(path)? else { return Ok(None) };
    String::from_utf8(content).map(Some).map_err(|_| {
        let failure = Failure::new(Kind::Configuration, format!("{} is not text", path.display()));
        let extension = path.extension().and_then(|extension| extension.to_str());
        failure.advise(match extension.is_some_and(|extension| PEM.contains(&extension)) {
            true => {
                "put it there in PEM, whose first line is -----BEGIN ...-----: `openssl x509 -inform DER` turns a certificate \
                 into that, `openssl pkey -inform DER` a private key"
            }
            false => "put a text there, or remove the file",
        })
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rstest::rstest;

    use super::{ensure, ensure_together, text};
    use crate::failure::Kind;
    use crate::host::fake::FakeHost;
    use crate::host::{Host as _, NewFile};

    #[test]
    fn of_several_files_those_that_differ_are_written() {
        let host = FakeHost::new();
        let (one, other) = (Path::new("/etc/pki/ca.crt"), Path::new("/etc/pki/etcd/ca.crt"));
        ensure(&host, one, b"a", 0o600).unwrap();
        let file = |path| NewFile { path, content: b"a", mode: 0o644 };
        ensure_together(&host, &[file(one), file(other)]).unwrap();
        assert_eq!(host.text("/etc/pki/etcd/ca.crt").as_deref(), Some("a"));
        assert!(!host.done().contains(&"write /etc/pki/ca.crt 0644".to_owned()), "{:?}", host.done());
        assert_eq!(ensure(&host, one, b"a", 0o644), Ok(false));
    }

    #[rstest]
    #[case("/etc/kubernetes/pki/ca.crt", "PEM")]
    #[case("/etc/kubernetes/pki/ca.key", "PEM")]
    #[case("/etc/kubernetes/admin.conf", "put a text there")]
    fn what_is_no_text_is_named_with_what_to_do(#[case] path: &str, #[case] advice: &str) {
        let host = FakeHost::new();
        host.create_directory(Path::new("/etc/kubernetes/pki"), 0o755).unwrap();
        // How a certificate in DER begins.
        host.write(Path::new(path), &[0x30, 0x82, 0x03, 0xff], 0o644).unwrap();
        let failure = text(&host, Path::new(path)).unwrap_err();
        assert_eq!((failure.kind, failure.sentence), (Kind::Configuration, format!("{path} is not text")));
        assert!(failure.advice.unwrap().contains(advice));
    }

    #[test]
    fn a_file_is_written_only_where_it_differs() {
        let host = FakeHost::new();
        let path = Path::new("/etc/kubernetes/admin.conf");
        assert_eq!(ensure(&host, path, b"a", 0o600), Ok(true));
        assert_eq!(ensure(&host, path, b"a", 0o600), Ok(false));
        assert_eq!(ensure(&host, path, b"a", 0o644), Ok(true));
        assert_eq!(ensure(&host, path, b"b", 0o644), Ok(true));
        assert_eq!(ensure(&host, path, b"b", 0o644), Ok(false));
    }
}
