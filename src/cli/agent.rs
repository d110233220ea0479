//! `clusterctl agent`: our process on a host, started by another clusterctl through SSH.

/// Arguments of `agent`: none, since everything comes in messages on standard input.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {}
