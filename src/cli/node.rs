//! `clusterctl node`: kubeadm's part by hand, on the host one is logged in to, by the code the agent runs.
//!
//! kubeadm's verbs, flags and phases. What is typed becomes kubeadm documents first, laid over those of `--config`; the
//! rest is the node engine's.

use std::process::ExitCode;

use clap::Subcommand;

use super::Context;
use crate::failure::Result;

mod flags;
mod here;
mod init;
mod join;
mod join_command;
mod reset;
mod words;

/// Arguments of `node`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "The host must be prepared as for kubeadm: a container runtime and the kubelet are there, packets are \
                        forwarded. Everything here needs root."
)]
pub struct Arguments {
    /// What to do on this host.
    #[command(subcommand)]
    pub verb: NodeVerb,
}

/// What can be done on a host.
#[derive(Debug, Clone, Subcommand)]
pub enum NodeVerb {
    /// Make this host the first control plane of a new cluster
    Init(Box<init::Arguments>),
    /// Make this host a node of a cluster that is there
    Join(Box<join::Arguments>),
    /// Take apart what init or join made on this host
    Reset(reset::Arguments),
}

/// Does what was asked on this host.
pub async fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode> {
    match &arguments.verb {
        NodeVerb::Init(arguments) => init::run(arguments, context).await,
        NodeVerb::Join(arguments) => join::run(arguments, context).await,
        NodeVerb::Reset(arguments) => reset::run(arguments, context).await,
    }
}
