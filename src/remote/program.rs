//! The program that is sent to hosts: this very file, or its sibling for another architecture.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::bundle::digest::sha256;
use crate::failure::{Failure, Kind, Result};

/// The program for one architecture.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    /// SHA-256 of the program, hex.
    pub sha256: String,
    /// Size in bytes.
    pub size: u64,
    compressed: OnceCell<Compressed>,
}

/// A program as members of a gzip stream, in order: each can be unpacked by itself, and all of them one after the other are
/// a gzip stream again (RFC 1952 section 2.2).
#[derive(Debug, Clone)]
pub struct Compressed {
    /// The members.
    pub members: Vec<Bytes>,
}

impl Compressed {
    /// Bytes of all members.
    pub fn size(&self) -> u64 {
        self.members.iter().map(|member| member.len() as u64).sum()
    }
}

/// How many members a program is compressed to.
pub const MEMBERS: usize = 6;

/// Bytes of the program that are its first member: few, so that it tells soon how fast the line is.
const FIRST_MEMBER_BYTES: usize = 2 << 20;

/// The programs there are, by Go's name of the architecture.
#[derive(Debug, Clone)]
pub struct Programs {
    by_architecture: BTreeMap<&'static str, Arc<Program>>,
}

/// What `uname -m` prints, and Go's name for it.
const MACHINES: &[(&str, &str)] = &[("x86_64", "amd64"), ("aarch64", "arm64")];

/// Go's name of an architecture that `uname -m` named.
pub fn architecture(machine: &str) -> Option<&'static str> {
    MACHINES.iter().find(|(uname, _)| *uname == machine).map(|(_, name)| *name)
}

impl Programs {
    /// This program for hosts of its own kind (if it runs on Linux), and files named
    /// `clusterctl-linux-<architecture>` beside it for the others.
    pub fn find() -> Result<Self> {
        let own = std::env::current_exe()
            .map_err(|error| Failure::new(Kind::Internal, "cannot find the running program's file").because(&error))?;
        let mut by_architecture = BTreeMap::new();
        for (_, name) in MACHINES {
            let sibling = own.with_file_name(format!("clusterctl-linux-{name}"));
            let is_own = cfg!(target_os = "linux") && architecture(std::env::consts::ARCH) == Some(name);
            let path = if is_own { own.clone() } else { sibling };
            if path.is_file() {
                by_architecture.insert(*name, Arc::new(Program::read(&path)?));
            }
        }
        Ok(Self { by_architecture })
    }

    /// The program for the architecture most hosts are expected to have: this one's, else any.
    pub fn likely(&self) -> Result<Arc<Program>> {
        let own = architecture(std::env::consts::ARCH).and_then(|name| self.by_architecture.get(name));
        own.or_else(|| self.by_architecture.values().next()).cloned().ok_or_else(|| {
            Failure::new(Kind::Host, "there is no clusterctl for Linux to send to the hosts")
                .advise("put clusterctl-linux-amd64 or clusterctl-linux-arm64 beside this program")
        })
    }

    /// The program for a host that says `uname -s` and `uname -m`.
    ///
    /// # Errors
    /// Kind `Preflight`: not Linux, or an architecture there is no program for.
    pub fn for_host(&self, system: &str, machine: &str) -> Result<Arc<Program>> {
        if system != "Linux" {
            return Err(Failure::new(Kind::Preflight, format!("it runs {system}, and nodes must run Linux"))
                .advise("take the host out of the inventory"));
        }
        let name = architecture(machine).ok_or_else(|| {
            Failure::new(Kind::Preflight, format!("its architecture {machine} is not supported"))
                .advise("take the host out of the inventory; nodes can be amd64 (x86_64) or arm64 (aarch64)")
        })?;
        self.by_architecture.get(name).cloned().ok_or_else(|| {
            Failure::new(Kind::Preflight, format!("its architecture is {name}, and there is no clusterctl for it here"))
                .advise(format!("put clusterctl-linux-{name} beside this program"))
        })
    }
}

impl Program {
    fn read(path: &Path) -> Result<Self> {
        let content = read(path)?;
        Ok(Self {
            path: path.to_owned(),
            sha256: sha256(&content),
            size: content.len() as u64,
            compressed: OnceCell::new(),
        })
    }

    /// The program as a gzip stream; made once, when the first host lacks the program.
    pub async fn compressed(&self) -> Result<Compressed> {
        let make = || async {
            let path = self.path.clone();
            let expected = self.sha256.clone();
            let task = tokio::task::spawn_blocking(move || {
                let content = read(&path)?;
                if sha256(&content) != expected {
                    return Err(Failure::new(Kind::Internal, format!("{} changed during the run", path.display()))
                        .advise("run the same command again")
                        .may_pass());
                }
                let compressed = compress(&content);
                compressed.map_err(|error| Failure::new(Kind::Internal, "cannot compress the program").because(&error))
            });
            task.await.unwrap_or_else(|_| Err(Failure::new(Kind::Internal, "compressing the program ended early")))
        };
        self.compressed.get_or_try_init(make).await.cloned()
    }
}

fn compress(content: &[u8]) -> std::io::Result<Compressed> {
    let (first, rest) = content.split_at(content.len().min(FIRST_MEMBER_BYTES));
    let others = rest.chunks(rest.len().div_ceil(MEMBERS - 1).max(1));
    let members = std::iter::once(first).chain(others).map(|member| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(member)?;
        encoder.finish().map(Bytes::from)
    });
    Ok(Compressed { members: members.collect::<std::io::Result<_>>()? })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    // /proc/self/exe is read through its name's link target, so a rebuilt program is noticed by its hash.
    std::fs::read(path).map_err(|error| {
        Failure::new(Kind::Internal, format!("cannot read the program {}", path.display())).because(&error)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::{MEMBERS, Programs, architecture, compress};
    use crate::failure::Kind;

    #[rstest::rstest]
    #[case::nothing(0, 1)]
    #[case::less_than_the_first_member(5000, 1)]
    #[case::a_byte_more_than_it((2 << 20) + 1, 2)]
    #[case::all_members(3 << 20, MEMBERS)]
    fn members_are_gzip_streams_that_are_one_together(#[case] size: usize, #[case] members: usize) {
        let content: Vec<u8> = (0..size).map(|at| (at / 7 % 251) as u8).collect();
        let compressed = compress(&content).unwrap();
        assert_eq!(compressed.members.len(), members);
        let (mut one_by_one, mut together) = (Vec::new(), Vec::new());
        for member in &compressed.members {
            flate2::read::GzDecoder::new(&member[..]).read_to_end(&mut one_by_one).unwrap();
        }
        let stream = compressed.members.concat();
        assert_eq!(stream.len() as u64, compressed.size());
        flate2::read::MultiGzDecoder::new(&stream[..]).read_to_end(&mut together).unwrap();
        assert!(one_by_one == content && together == content);
    }

    #[test]
    fn machines_have_one_name_each() {
        assert_eq!(architecture("x86_64"), Some("amd64"));
        assert_eq!(architecture("aarch64"), Some("arm64"));
        assert_eq!(architecture("riscv64"), None);
    }

    #[tokio::test]
    async fn a_host_gets_a_program_it_can_run_or_a_sentence() {
        let programs = Programs::find().unwrap();
        let own = programs.for_host("Linux", std::env::consts::ARCH).unwrap();
        assert!(own.compressed().await.unwrap().members[0].starts_with(&[0x1f, 0x8b]));
        for (system, machine) in [("Darwin", "arm64"), ("Linux", "riscv64")] {
            let failure = programs.for_host(system, machine).unwrap_err();
            assert_eq!(failure.kind, Kind::Preflight);
            assert!(failure.advice.is_some());
        }
    }
}
