//! `clusterctl node`: kubeadm's part by hand, on the host one is logged in to, by the code the agent runs.
//!
//! kubeadm's verbs, flags and phases. What is typed becomes kubeadm documents first, laid over those of `--config`; the
//! rest is the node engine's.

use std::process::ExitCode;

use clap::Subcommand;

pub(super) use self::level::understood;
use super::Context;
use crate::failure::Result;

mod certs;
mod config;
mod flags;
mod here;
mod init;
mod join;
mod join_command;
mod kubeconfig;
mod level;
mod migrate;
mod rehearsed;
mod reset;
mod token;
mod words;

/// Arguments of `node`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "The host must be prepared as for kubeadm: a container runtime and the kubelet are there, packets are \
                        forwarded. Everything here needs root."
)]
pub struct Arguments {
    /// kubeadm's flag for another root folder
    #[arg(long, global = true, hide = true, value_name = "FOLDER", value_parser = without_rootfs)]
    rootfs: Option<String>,
    /// kubeadm's flag for levels by source file
    #[arg(long, global = true, hide = true, value_name = "PATTERNS", value_parser = without_vmodule)]
    vmodule: Option<String>,
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
    /// Make, list and remove the tokens others join with
    Token(token::Arguments),
    /// Look after the certificates of this control plane
    #[command(alias = "certificates")]
    Certs(certs::Arguments),
    /// Print, judge, look through and migrate kubeadm documents
    Config(config::Arguments),
    /// Print kubeconfigs for other users
    Kubeconfig(kubeconfig::Arguments),
}

/// For clap: what kubeadm's `--rootfs` is answered with.
fn without_rootfs(_: &str) -> Result<String, &'static str> {
    Err("units and mounts are this system's, whatever folder is its root: run `chroot FOLDER clusterctl node ...`")
}

/// For clap: what kubeadm's `--vmodule` is answered with.
fn without_vmodule(_: &str) -> Result<String, &'static str> {
    Err("there is one level of detail for all that is done: -v")
}

/// Does what was asked on this host.
pub async fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode> {
    match &arguments.verb {
        NodeVerb::Init(arguments) => init::run(arguments, context).await,
        NodeVerb::Join(arguments) => join::run(arguments, context).await,
        NodeVerb::Reset(arguments) => reset::run(arguments, context).await,
        NodeVerb::Token(arguments) => token::run(arguments, context).await,
        NodeVerb::Certs(arguments) => certs::run(arguments, context).await,
        NodeVerb::Config(arguments) => config::run(arguments, context).await,
        NodeVerb::Kubeconfig(arguments) => kubeconfig::run(arguments, context).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use rstest::rstest;

    use crate::cli::CommandLine;

    fn parse(line: &str) -> Result<CommandLine, String> {
        CommandLine::try_parse_from(line.split(' ')).map_err(|error| error.to_string())
    }

    #[rstest]
    #[case("init --config f --upload-certs --dry-run --node-name n --skip-phases a,b --ignore-preflight-errors all")]
    #[case("init --skip-token-print --skip-certificate-key-print --config f -o json")]
    #[case("init phase certs apiserver --cert-dir /pki --apiserver-cert-extra-sans a,b -o yaml")]
    #[case("init phase control-plane all --apiserver-extra-args v=4,authorization-mode=RBAC")]
    #[case(
        "init --token abcdef.0123456789abcdef --token-ttl 2h --feature-gates NodeLocalCRISocket=false --output json"
    )]
    #[case(
        "join 10.0.0.11:6443 --token t --discovery-token-ca-cert-hash sha256:a --discovery-token-ca-cert-hash sha256:b"
    )]
    #[case("join 10.0.0.11:6443 --token t --control-plane --certificate-key k --apiserver-bind-port 6444")]
    #[case("join phase kubelet-start 10.0.0.11:6443 --token t --discovery-token-unsafe-skip-ca-verification")]
    #[case("join --config f --node-name n --dry-run")]
    #[case("reset -f --cert-dir /pki --cri-socket unix:///s --cleanup-tmp-dir --dry-run")]
    #[case("reset phase cleanup-node --config f --skip-phases remove-etcd-member")]
    #[case("token create abcdef.0123456789abcdef --ttl 0 --usages signing --groups g --description d")]
    #[case("token create --print-join-command --certificate-key k --kubeconfig /k")]
    #[case("token list -o json")]
    #[case("token create --dry-run")]
    #[case("init phase kubeconfig admin --kubeconfig-dir /srv")]
    #[case("init phase addon all --kubeconfig /root/k --print-manifest")]
    #[case("reset --kubeconfig /root/k")]
    #[case("config print upgrade-defaults --kubeconfig /root/k")]
    #[case("token delete abcdef 012345")]
    #[case("config print init-defaults --component-configs KubeletConfiguration,KubeProxyConfiguration")]
    #[case("config validate --config f --allow-deprecated-api")]
    #[case("config images list --kubernetes-version 1.36.3 --image-repository r -o yaml")]
    #[case("config images pull --config f --cri-socket unix:///s")]
    #[case("kubeconfig user --client-name ann --org a,b --validity-period 24h")]
    fn what_kubeadm_takes_is_taken(#[case] rest: &str) {
        let parsed = parse(&format!("clusterctl node {rest}"));
        assert!(parsed.is_ok(), "{}", parsed.unwrap_err());
    }

    #[rstest]
    #[case("init --config f --pod-network-cidr n", &["--config", "--pod-network-cidr"])]
    #[case("init --config f --token t", &["--config", "--token"])]
    #[case("join --config f --control-plane", &["--config", "--control-plane"])]
    #[case("join h:1 --certificate-key k", &["--control-plane"])]
    #[case("reset --config f --force", &["--config", "--force"])]
    #[case("token create --config f --ttl 1h", &["--config", "--ttl"])]
    #[case("token create --certificate-key k", &["--print-join-command"])]
    #[case("config images list --config f --kubernetes-version 1", &["--config", "--kubernetes-version"])]
    #[case("init --feature-gates A", &["--feature-gates", "is no gate"])]
    #[case("init --tokn t", &["--token"])]
    #[case("init --rootfs /mnt", &["--rootfs", "chroot FOLDER"])]
    #[case("token list --vmodule a=5", &["--vmodule", "-v"])]
    fn what_contradicts_is_named(#[case] rest: &str, #[case] named: &[&str]) {
        let error = parse(&format!("clusterctl node {rest}")).unwrap_err();
        let missing: Vec<_> = named.iter().filter(|part| !error.contains(**part)).collect();
        assert!(missing.is_empty(), "{error}");
    }
}
