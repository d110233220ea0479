//! `clusterctl bundle`: the files of one Kubernetes version in one file.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum, ValueHint};

/// Arguments of `bundle`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// What to do with a bundle.
    #[command(subcommand)]
    pub verb: BundleVerb,
}

/// What can be done with a bundle.
#[derive(Debug, Clone, Subcommand)]
pub enum BundleVerb {
    /// Make a bundle out of a folder of binaries and image archives
    Create(Create),
    /// List what a bundle holds
    Inspect {
        /// The bundle
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Read a whole bundle and compare every checksum
    Verify {
        /// The bundle
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
}

/// Arguments of `bundle create`.
#[derive(Debug, Clone, clap::Args)]
pub struct Create {
    /// The folder with the binaries and image archives
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub from: PathBuf,
    /// The Kubernetes version of what is in the folder: 1.36.3
    #[arg(long, value_name = "VERSION", value_parser = kubernetes_version)]
    pub kubernetes: semver::Version,
    /// The architecture of the hosts
    #[arg(long, value_enum, value_name = "NAME", default_value_t = Architecture::of_this_machine())]
    pub arch: Architecture,
    /// The bundle to write
    #[arg(short = 'o', long = "file", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
}

/// An architecture by Go's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Architecture {
    /// x86_64
    Amd64,
    /// aarch64
    Arm64,
}

impl Architecture {
    /// Go's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Architecture::Amd64 => "amd64",
            Architecture::Arm64 => "arm64",
        }
    }

    /// The architecture of the machine we run on.
    pub fn of_this_machine() -> Self {
        if std::env::consts::ARCH == "aarch64" { Architecture::Arm64 } else { Architecture::Amd64 }
    }
}

/// A version with or without `v`.
fn kubernetes_version(text: &str) -> Result<semver::Version, String> {
    semver::Version::parse(text.strip_prefix('v').unwrap_or(text))
        .map_err(|error| format!("{error}; a version looks like 1.36.3"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::kubernetes_version;

    #[rstest]
    #[case("1.36.3", Some("1.36.3"))]
    #[case("v1.36.3", Some("1.36.3"))]
    #[case("1.36", None)]
    #[case("latest", None)]
    fn versions_are_whole(#[case] text: &str, #[case] version: Option<&str>) {
        assert_eq!(kubernetes_version(text).ok().map(|version| version.to_string()).as_deref(), version);
    }
}
