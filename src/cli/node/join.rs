//! `clusterctl node join`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueHint::{DirPath, FilePath};
use serde_json::json;

use super::flags::{self, Form};
use super::here::{self, Look};
use super::{rehearsed, words};
use crate::cli::Context;
use crate::failure::{Failure, Kind, Result};
use crate::kubernetes::configuration::{
    BootstrapTokenDiscovery, Documents, FileDiscovery, JoinConfiguration, JoinControlPlane, Patches,
};
use crate::message::JoinOrder;
use crate::node::{self, phases};
use crate::secret::Secret;

/// On a host that is a control plane in part it leads to the cluster (kubeadm.md section 9.3).
const ADMIN_CONF: &str = "/etc/kubernetes/admin.conf";

/// Arguments of `node join`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    override_usage = "clusterctl node join [ENDPOINT] [OPTIONS]\n       \
                      clusterctl node join phase NAME [PART] [ENDPOINT] [OPTIONS]",
    after_help = format!("{}\n\n`phase NAME` does one of them alone, `phase NAME PART` one of its parts.", phases::JOIN.help())
)]
pub struct Arguments {
    /// host:port of the API server to join; before it `phase NAME [PART]` for one phase only
    #[arg(value_name = "ENDPOINT", num_args = 0..=4)]
    words: Vec<String>,
    /// kubeadm documents: a JoinConfiguration
    #[arg(long, value_name = "FILE", value_hint = FilePath)]
    config: Option<PathBuf>,
    /// What stands in documents otherwise.
    #[command(flatten)]
    settings: Settings,
    /// The name of the Node [default: the host's name]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// Checks whose errors are only warnings, by kubeadm's names: Swap,NumCPU; `all` for all
    #[arg(long, value_name = "CHECKS", value_delimiter = ',')]
    ignore_preflight_errors: Vec<String>,
    /// Say what would be done and do nothing; files that would be written are put into a folder in /tmp
    #[arg(long)]
    dry_run: bool,
    /// Phases to leave out
    #[arg(long, value_name = "PHASES", value_delimiter = ',')]
    skip_phases: Vec<String>,
    /// How to print the result
    #[arg(short = 'o', value_name = "FORM", value_enum)]
    form: Option<Form>,
}

/// Flags for what stands in the documents of `--config` otherwise; the two cannot be mixed.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(id = "join-settings", conflicts_with = "config")]
#[command(next_help_heading = "Instead of --config")]
struct Settings {
    /// The token to find the cluster by and to get the kubelet's certificate with
    #[arg(long, value_name = "TOKEN", value_parser = flags::secret)]
    token: Option<Secret>,
    /// The token to find the cluster by, if it is another
    #[arg(long, value_name = "TOKEN", value_parser = flags::secret)]
    discovery_token: Option<Secret>,
    /// The hash of the cluster's CA certificate, as `init` prints it; may be given several times
    #[arg(long, value_name = "HASH", value_delimiter = ',')]
    discovery_token_ca_cert_hash: Vec<String>,
    /// Trust whoever answers and knows the token
    #[arg(long)]
    discovery_token_unsafe_skip_ca_verification: bool,
    /// A kubeconfig to find the cluster by: a file, or an https URL
    #[arg(long, value_name = "FILE", value_hint = FilePath)]
    discovery_file: Option<String>,
    /// The token to get the kubelet's certificate with, if it is another
    #[arg(long, value_name = "TOKEN", value_parser = flags::secret)]
    tls_bootstrap_token: Option<Secret>,
    /// Make the host a further control plane
    #[arg(long)]
    control_plane: bool,
    /// The key of the uploaded certificates, as `init --upload-certs` prints it
    #[arg(long, value_name = "KEY", value_parser = flags::secret, requires = "control_plane")]
    certificate_key: Option<Secret>,
    /// The address this control plane's API server is reached at [default: that of the default route's interface]
    #[arg(long, value_name = "ADDRESS", requires = "control_plane")]
    apiserver_advertise_address: Option<String>,
    /// The port of this control plane's API server [default: 6443]
    #[arg(long, value_name = "PORT", requires = "control_plane")]
    apiserver_bind_port: Option<u16>,
    /// The socket of the container runtime [default: the one that is there]
    #[arg(long, value_name = "SOCKET")]
    cri_socket: Option<String>,
    /// A folder with patches: kubeletconfiguration+merge.yaml
    #[arg(long, value_name = "FOLDER", value_hint = DirPath)]
    patches: Option<String>,
}

impl Settings {
    /// With the host's own admin.conf for finding the cluster, where it can serve and a control plane is wanted that is
    /// told of no other way.
    fn or_by(mut self, admin_conf: bool) -> Self {
        if self.control_plane && admin_conf {
            self.discovery_file.get_or_insert_with(|| ADMIN_CONF.to_owned());
        }
        self
    }

    /// The document these flags stand for.
    fn document(&self, endpoint: Option<&str>) -> JoinConfiguration {
        let mut join = JoinConfiguration::default();
        join.discovery.tls_bootstrap_token = self.tls_bootstrap_token.clone().or_else(|| self.token.clone());
        join.discovery.file = self.discovery_file.clone().map(|path| FileDiscovery { kube_config_path: path });
        join.discovery.bootstrap_token = endpoint.map(|endpoint| BootstrapTokenDiscovery {
            token: self.discovery_token.clone().or_else(|| self.token.clone()),
            api_server_endpoint: endpoint.to_owned(),
            ca_cert_hashes: self.discovery_token_ca_cert_hash.clone(),
            unsafe_skip_ca_verification: self.discovery_token_unsafe_skip_ca_verification,
        });
        if self.control_plane {
            let mut control_plane =
                JoinControlPlane { certificate_key: self.certificate_key.clone(), ..Default::default() };
            let local = &mut control_plane.local_api_endpoint;
            local.advertise_address = self.apiserver_advertise_address.clone().unwrap_or_default();
            local.bind_port = self.apiserver_bind_port.unwrap_or(0);
            join.control_plane = Some(control_plane);
        }
        join.node_registration.cri_socket = self.cri_socket.clone().unwrap_or_default();
        join.patches = self.patches.clone().map(|directory| Patches { directory });
        join
    }
}

impl Arguments {
    /// The document of the file or the flags, with the flags laid over that may stand beside `--config`.
    /// `admin_conf` says whether the host has one.
    fn document(&self, endpoint: Option<&str>, admin_conf: bool, context: &Context) -> Result<JoinConfiguration> {
        let settings = self.settings.clone().or_by(admin_conf && endpoint.is_none());
        let mut join = match (&self.config, endpoint) {
            (Some(_), Some(endpoint)) => {
                return Err(Failure::new(
                    Kind::Usage,
                    format!("the endpoint {endpoint} cannot be used with --config FILE"),
                )
                .advise("write it into discovery.bootstrapToken.apiServerEndpoint of the file"));
            }
            (Some(path), None) => flags::documents(path, context)?.join.ok_or_else(|| {
                Failure::new(Kind::Configuration, format!("{} holds no JoinConfiguration", path.display()))
            })?,
            (None, None) if settings.discovery_file.is_none() => {
                return Err(Failure::new(Kind::Usage, "nothing says which cluster to join").advise(
                    "give the endpoint, --token and --discovery-token-ca-cert-hash, as \
                     `clusterctl node token create --print-join-command` prints them, or --discovery-file or --config",
                ));
            }
            (None, endpoint) => settings.document(endpoint),
        };
        if let Some(name) = &self.node_name {
            join.node_registration.name.clone_from(name);
        }
        flags::add_to(&mut join.node_registration.ignore_preflight_errors, &self.ignore_preflight_errors);
        if !self.skip_phases.is_empty() {
            join.skip_phases.clone_from(&self.skip_phases);
        }
        join.dry_run |= self.dry_run;
        Ok(join)
    }
}

/// Joins this host.
pub(super) async fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode> {
    let words = words::read(&arguments.words, &phases::JOIN, true)?;
    let join = arguments.document(words.endpoint.as_deref(), Path::new(ADMIN_CONF).exists(), context)?;
    let control_plane = join.control_plane.is_some();
    let form = Form::of(arguments.form, context);
    let ignore = join.node_registration.ignore_preflight_errors.clone();
    let only = words.phase.as_deref();
    let folder = if join.dry_run { Some(here::folder("join")?) } else { None };
    let order = JoinOrder { configuration: Documents { join: Some(join), ..Documents::default() }.to_text() };
    if let Some(folder) = folder {
        let told = here::work(context, "join", &ignore, Look::Everything, async |host, facts, events| {
            node::rehearse_join(host, facts, &order, only, &folder, events).await
        });
        context.screen.print(&rehearsed::write(&told.await?, form))?;
        return Ok(ExitCode::SUCCESS);
    }
    let joined = here::work(context, "join", &ignore, Look::Everything, async |host, facts, events| {
        node::join_by_hand(host, facts, &order, only, events).await
    });
    let joined = joined.await?;
    let role = if control_plane { "a control plane" } else { "a node" };
    let document = json!({ "node": joined.node, "changes": joined.changes });
    let text =
        || format!("{} is {role} of the cluster. On a control plane, `kubectl get nodes` shows it.\n", joined.node);
    context.screen.print(&form.write(&document, text))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::Settings;

    #[rstest]
    #[case::a_control_plane_in_part(true, true, None, Some("/etc/kubernetes/admin.conf"))]
    #[case::a_file_is_named(true, true, Some("/root/found"), Some("/root/found"))]
    #[case::there_is_none(true, false, None, None)]
    #[case::a_worker(false, true, None, None)]
    fn the_hosts_own_admin_conf_may_stand_for_discovery(
        #[case] control_plane: bool,
        #[case] admin_conf: bool,
        #[case] file: Option<&str>,
        #[case] expected: Option<&str>,
    ) {
        let settings = Settings { control_plane, discovery_file: file.map(str::to_owned), ..Settings::default() };
        let discovery = settings.or_by(admin_conf).document(None).discovery;
        assert_eq!(discovery.file.map(|file| file.kube_config_path).as_deref(), expected);
    }
}
