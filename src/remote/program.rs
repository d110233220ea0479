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
    compressed: OnceCell<Bytes>,
}

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
    pub async fn compressed(&self) -> Result<Bytes> {
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
                let failed =
                    |error: std::io::Error| Failure::new(Kind::Internal, "cannot compress the program").because(&error);
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&content).map_err(failed)?;
                encoder.finish().map(Bytes::from).map_err(failed)
            });
            task.await.unwrap_or_else(|_| Err(Failure::new(Kind::Internal, "compressing the program ended early")))
        };
        self.compressed.get_or_try_init(make).await.cloned()
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    // /proc/self/exe is read through its name's link target, so a rebuilt program is noticed by its hash.
    std::fs::read(path).map_err(|error| {
        Failure::new(Kind::Internal, format!("cannot read the program {}", path.display())).because(&error)
    })
}

#[cfg(test)]
mod tests {
    use super::{Programs, architecture};
    use crate::failure::Kind;

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
        assert!(own.compressed().await.unwrap().starts_with(&[0x1f, 0x8b]));
        for (system, machine) in [("Darwin", "arm64"), ("Linux", "riscv64")] {
            let failure = programs.for_host(system, machine).unwrap_err();
            assert_eq!(failure.kind, Kind::Preflight);
            assert!(failure.advice.is_some());
        }
    }
}
