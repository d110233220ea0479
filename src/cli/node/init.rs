//! `clusterctl node init`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueHint::{DirPath, FilePath};
use serde_json::{Value, json};

use super::flags::{self, Form};
use super::here::{self, Look};
use super::join_command::{self, Hidden};
use super::{rehearsed, words};
use crate::cli::Context;
use crate::event::Events;
use crate::fact::Facts;
use crate::failure::{Failure, Kind, Result};
use crate::host::Host;
use crate::host::machine::Machine;
use crate::host::observe::{self, Unknown};
use crate::kubernetes::certificates::{CATALOGUE, make_ahead};
use crate::kubernetes::configuration::{Arg, BootstrapToken, Documents, Duration, Patches};
use crate::kubernetes::kubeconfig;
use crate::kubernetes::objects::INIT_TOKEN_DESCRIPTION;
use crate::kubernetes::text::yaml;
use crate::message::{InitOrder, Initialised};
use crate::node::{self, ByHand, phases};
use crate::secret::Secret;

/// Arguments of `node init`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    override_usage = "clusterctl node init [OPTIONS]\n       clusterctl node init phase NAME [PART] [OPTIONS]",
    after_help = format!("{}\n\n`phase NAME` does one of them alone, `phase NAME PART` one of its parts.", phases::INIT.help())
)]
pub struct Arguments {
    /// `phase NAME [PART]`: only this phase
    #[arg(value_name = "PHASE", hide = true, num_args = 0..=3)]
    words: Vec<String>,
    /// kubeadm documents: InitConfiguration, ClusterConfiguration, KubeletConfiguration, KubeProxyConfiguration
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
    /// Phases to leave out: addon/kube-proxy,mark-control-plane
    #[arg(long, value_name = "PHASES", value_delimiter = ',')]
    skip_phases: Vec<String>,
    /// Say what would be done and do nothing; files that would be written are put into a folder in /tmp
    #[arg(long)]
    dry_run: bool,
    /// Store the shared certificates in the cluster, encrypted, for other control planes to join with
    #[arg(long)]
    upload_certs: bool,
    /// Do not print the key of the uploaded certificates
    #[arg(long)]
    skip_certificate_key_print: bool,
    /// Do not print the bootstrap token
    #[arg(long)]
    skip_token_print: bool,
    /// With `phase kubeconfig`: where to write [default: /etc/kubernetes]
    #[arg(long, value_name = "FOLDER", value_hint = DirPath)]
    kubeconfig_dir: Option<PathBuf>,
    /// With a phase that works in the cluster: the kubeconfig to do it with [default: /etc/kubernetes/admin.conf]
    #[arg(long, value_name = "FILE", value_hint = FilePath)]
    kubeconfig: Option<PathBuf>,
    /// With `phase addon`: print the objects instead of deploying them
    #[arg(long)]
    print_manifest: bool,
    /// How to print the result
    #[arg(short = 'o', value_name = "FORM", value_enum)]
    form: Option<Form>,
}

/// Flags for what stands in the documents of `--config` otherwise; the two cannot be mixed.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(id = "init-settings", conflicts_with = "config")]
#[command(next_help_heading = "Instead of --config")]
struct Settings {
    /// The address the API server is reached at [default: that of the default route's interface]
    #[arg(long, value_name = "ADDRESS")]
    apiserver_advertise_address: Option<String>,
    /// The port of the API server [default: 6443]
    #[arg(long, value_name = "PORT")]
    apiserver_bind_port: Option<u16>,
    /// More names and addresses for the API server's certificate
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    apiserver_cert_extra_sans: Vec<String>,
    /// Flags of the API server: name=value
    #[arg(long, value_name = "FLAGS", value_delimiter = ',', value_parser = flags::argument)]
    apiserver_extra_args: Vec<Arg>,
    /// Flags of the controller manager: name=value
    #[arg(long, value_name = "FLAGS", value_delimiter = ',', value_parser = flags::argument)]
    controller_manager_extra_args: Vec<Arg>,
    /// Flags of the scheduler: name=value
    #[arg(long, value_name = "FLAGS", value_delimiter = ',', value_parser = flags::argument)]
    scheduler_extra_args: Vec<Arg>,
    /// Where certificates and keys lie [default: /etc/kubernetes/pki]
    #[arg(long, value_name = "FOLDER", value_hint = DirPath)]
    cert_dir: Option<String>,
    /// The key to encrypt the uploaded certificates with, 64 hexadecimal digits
    #[arg(long, value_name = "KEY", value_parser = flags::secret)]
    certificate_key: Option<Secret>,
    /// host:port that all nodes reach the control planes by, now and later
    #[arg(long, value_name = "ENDPOINT")]
    control_plane_endpoint: Option<String>,
    /// The socket of the container runtime [default: the one that is there]
    #[arg(long, value_name = "SOCKET")]
    cri_socket: Option<String>,
    /// kubeadm's feature gates: Name=true
    #[arg(long, value_name = "GATES", value_delimiter = ',', value_parser = flags::gate)]
    feature_gates: Vec<(String, bool)>,
    /// Where images come from [default: registry.k8s.io]
    #[arg(long, value_name = "REPOSITORY")]
    image_repository: Option<String>,
    /// The Kubernetes version [default: that of the kubelet on this host]
    #[arg(long, value_name = "VERSION")]
    kubernetes_version: Option<String>,
    /// A folder with patches: kube-apiserver0+merge.yaml
    #[arg(long, value_name = "FOLDER", value_hint = DirPath)]
    patches: Option<String>,
    /// The network of pods: 10.244.0.0/16
    #[arg(long, value_name = "NETWORK")]
    pod_network_cidr: Option<String>,
    /// The network of services [default: 10.96.0.0/12]
    #[arg(long, value_name = "NETWORK")]
    service_cidr: Option<String>,
    /// The domain of services [default: cluster.local]
    #[arg(long, value_name = "DOMAIN")]
    service_dns_domain: Option<String>,
    /// The bootstrap token others join with [default: a random one]
    #[arg(long, value_name = "TOKEN", value_parser = flags::secret)]
    token: Option<Secret>,
    /// How long the token is valid; 0 for ever [default: 24h0m0s]
    #[arg(long, value_name = "DURATION", value_parser = flags::duration)]
    token_ttl: Option<Duration>,
}

impl Settings {
    /// The documents these flags stand for.
    fn documents(&self) -> Documents {
        let text = |given: &Option<String>| given.clone().unwrap_or_default();
        let mut documents = Documents::default();
        let cluster = documents.cluster.get_or_insert_default();
        cluster.api_server.cert_sans.clone_from(&self.apiserver_cert_extra_sans);
        cluster.api_server.extra_args.clone_from(&self.apiserver_extra_args);
        cluster.controller_manager.extra_args.clone_from(&self.controller_manager_extra_args);
        cluster.scheduler.extra_args.clone_from(&self.scheduler_extra_args);
        cluster.certificates_dir = text(&self.cert_dir);
        cluster.control_plane_endpoint = text(&self.control_plane_endpoint);
        cluster.feature_gates = self.feature_gates.iter().cloned().collect();
        cluster.image_repository = text(&self.image_repository);
        cluster.kubernetes_version = text(&self.kubernetes_version);
        cluster.networking.pod_subnet = text(&self.pod_network_cidr);
        cluster.networking.service_subnet = text(&self.service_cidr);
        cluster.networking.dns_domain = text(&self.service_dns_domain);
        let init = documents.init.get_or_insert_default();
        init.local_api_endpoint.advertise_address = text(&self.apiserver_advertise_address);
        init.local_api_endpoint.bind_port = self.apiserver_bind_port.unwrap_or(0);
        init.node_registration.cri_socket = text(&self.cri_socket);
        init.certificate_key.clone_from(&self.certificate_key);
        init.patches = self.patches.clone().map(|directory| Patches { directory });
        let description = INIT_TOKEN_DESCRIPTION.to_owned();
        let token =
            BootstrapToken { token: self.token.clone(), ttl: self.token_ttl, description, ..Default::default() };
        init.bootstrap_tokens.push(token);
        documents
    }
}

/// Phases that a flag of single phases concerns.
const OF_PHASES: &[(&str, &[&str])] = &[
    ("--kubeconfig-dir", &["kubeconfig"]),
    ("--kubeconfig", &["addon", "bootstrap-token", "upload-certs", "upload-config"]),
    ("--print-manifest", &["addon"]),
];

/// A flag of single phases is refused elsewhere, as kubeadm does.
fn belongs(flag: &str, only: Option<&str>) -> Result<()> {
    let phases = OF_PHASES.iter().find(|(name, _)| *name == flag).map_or(&[] as &[&str], |(_, phases)| phases);
    let phase = only.map(|path| path.split('/').next().unwrap_or(path));
    let phase = phase.map(|name| match name {
        "bootstraptoken" => "bootstrap-token",
        "uploadconfig" => "upload-config",
        name => name,
    });
    if phase.is_some_and(|phase| phases.contains(&phase)) {
        return Ok(());
    }
    let places: Vec<String> = phases.iter().map(|phase| format!("`phase {phase}`")).collect();
    Err(Failure::new(Kind::Usage, format!("{flag} belongs to {}", places.join(", ")))
        .advise("leave it out, or name the phase: `clusterctl node init phase NAME`"))
}

impl Arguments {
    fn by_hand<'a>(&'a self, only: Option<&'a str>) -> Result<ByHand<'a>> {
        let given = [
            ("--kubeconfig-dir", self.kubeconfig_dir.is_some()),
            ("--kubeconfig", self.kubeconfig.is_some()),
            ("--print-manifest", self.print_manifest),
        ];
        given.iter().filter(|(_, given)| *given).try_for_each(|(flag, _)| belongs(flag, only))?;
        Ok(ByHand {
            only,
            kubeconfig_directory: self.kubeconfig_dir.as_deref(),
            kubeconfig: self.kubeconfig.as_deref(),
        })
    }

    /// Flags that may stand beside `--config`, laid over the documents.
    fn lay_over(&self, documents: &mut Documents) -> Result<()> {
        if documents.init.is_none() && documents.cluster.is_none() {
            return Err(Failure::new(
                Kind::Configuration,
                "there is neither an InitConfiguration nor a ClusterConfiguration",
            ));
        }
        let init = documents.init.get_or_insert_default();
        if let Some(name) = &self.node_name {
            init.node_registration.name.clone_from(name);
        }
        flags::add_to(&mut init.node_registration.ignore_preflight_errors, &self.ignore_preflight_errors);
        if !self.skip_phases.is_empty() {
            init.skip_phases.clone_from(&self.skip_phases);
        }
        init.dry_run |= self.dry_run;
        Ok(())
    }
}

/// Makes the control plane, or does one phase of it.
pub(super) async fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode> {
    let words = words::read(&arguments.words, &phases::INIT, false)?;
    let mut documents = match &arguments.config {
        Some(path) => flags::documents(path, context)?,
        None => arguments.settings.documents(),
    };
    arguments.lay_over(&mut documents)?;
    let only = words.phase.as_deref();
    let by_hand = arguments.by_hand(only)?;
    let form = Form::of(arguments.form, context);
    if arguments.print_manifest {
        return print_manifests(documents, only.unwrap_or_default(), context).await;
    }
    if only == Some("upload-certs") && !arguments.upload_certs {
        context.screen.warn("nothing is uploaded without --upload-certs");
    }
    let ignore = documents.init.as_ref().map(|init| init.node_registration.ignore_preflight_errors.clone());
    let ignore = ignore.unwrap_or_default();
    let folder = match documents.init.as_ref().is_some_and(|init| init.dry_run) {
        true => Some(here::folder("init")?),
        false => None,
    };
    if folder.is_none() {
        begin_keys(&documents, only);
    }
    let look = match folder {
        None => look(&documents, only),
        Some(_) => Look::Everything,
    };
    let done = here::work(context, "init", &ignore, look, async |host, facts, events| {
        let order = order(documents, facts, arguments.upload_certs);
        match &folder {
            None => Ok((node::init_by_hand(host, facts, &order, by_hand, events).await?, None)),
            Some(folder) => {
                let (done, told) = node::rehearse_init(host, facts, &order, by_hand, folder, events).await?;
                Ok((done, Some(told)))
            }
        }
    });
    let (done, told) = done.await?;
    if let Some(told) = told {
        context.screen.print(&rehearsed::write(&told, form))?;
        return Ok(ExitCode::SUCCESS);
    }
    let hidden = Hidden { token: arguments.skip_token_print, certificate_key: arguments.skip_certificate_key_print };
    context.screen.print(&form.write(&document(&done, hidden), || text(&done, hidden, only.is_none())))?;
    if let Some(sentence) = done.ticket.as_ref().and_then(join_command::only_here) {
        context.screen.warn(&sentence);
    }
    Ok(ExitCode::SUCCESS)
}

/// How closely the host is looked at: only the checks of phase preflight want to know everything.
fn look(documents: &Documents, only: Option<&str>) -> Look {
    if only.is_none_or(|phase| phase == "preflight") {
        return Look::Everything;
    }
    let address = documents.init.as_ref().is_none_or(|init| init.local_api_endpoint.is_told_by_host());
    let kubelet = documents.cluster.as_ref().is_none_or(|cluster| cluster.kubernetes_version.is_empty());
    Look::NameCard(Unknown { address, kubelet })
}

/// The order, of the version of the host's kubelet where nobody named one.
fn order(mut documents: Documents, facts: &Facts, upload_certificates: bool) -> InitOrder {
    let cluster = documents.cluster.get_or_insert_default();
    if cluster.kubernetes_version.is_empty()
        && let Some(kubelet) = &facts.kubernetes.kubelet_version
    {
        cluster.kubernetes_version.clone_from(kubelet);
    }
    InitOrder { configuration: documents.to_text(), issue_ticket: true, upload_certificates }
}

/// `--print-manifest`: for this nobody has to be root, and nothing is locked.
async fn print_manifests(documents: Documents, only: &str, context: &Context) -> Result<ExitCode> {
    let facts = observe::facts(&Machine).await?;
    let order = order(documents, &facts, false);
    for object in node::addon_manifests(&Machine, &facts, &order, only, &Events::nowhere())? {
        context.screen.print(&format!("---\n{}", yaml(&object)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Begins to make the keys this run will want, while the host is looked at; none where certificates lie already. A guess
/// that is wrong costs time, nothing else.
fn begin_keys(documents: &Documents, only: Option<&str>) {
    let certificates = CATALOGUE.len() + 1;
    let count = match only {
        None => certificates + kubeconfig::CATALOGUE.len(),
        Some("certs" | "certs/all") => certificates,
        Some(_) => return,
    };
    let cluster = documents.cluster.clone().unwrap_or_default();
    let directory = match cluster.certificates_dir.as_str() {
        "" => "/etc/kubernetes/pki",
        directory => directory,
    };
    let there = Machine.entry(&Path::new(directory).join("apiserver.key"));
    if let (Ok(None), Ok(algorithm)) = (there, cluster.key_algorithm().parse()) {
        make_ahead(algorithm, count);
    }
}

/// The result for a program.
fn document(done: &Initialised, hidden: Hidden) -> Value {
    let ticket = done.ticket.as_ref();
    json!({
        "node": done.joined.node,
        "changes": done.joined.changes,
        "endpoint": ticket.map(|ticket| &ticket.endpoint),
        "token": ticket.filter(|_| !hidden.token).map(|ticket| ticket.token.expose()),
        "caCertHashes": ticket.map(|ticket| &ticket.ca_hashes),
        "certificateKey": done
            .certificate_key
            .as_ref()
            .filter(|_| !hidden.certificate_key)
            .map(|key| key.expose()),
        "joinCommand": ticket.map(|ticket| join_command::worker(ticket, hidden)),
        "controlPlaneJoinCommand": ticket.map(|ticket| join_command::control_plane(ticket, hidden)),
    })
}

/// The result for a person.
fn text(done: &Initialised, hidden: Hidden, whole: bool) -> String {
    let mut parts = Vec::new();
    if whole {
        parts.push(format!(
            "{} is the first control plane of the cluster.\n\n\
             To use it as root:\n\n  export KUBECONFIG=/etc/kubernetes/admin.conf\n\n\
             To use it as yourself:\n\n  mkdir -p $HOME/.kube\n  \
             sudo cp -i /etc/kubernetes/admin.conf $HOME/.kube/config\n  \
             sudo chown $(id -u):$(id -g) $HOME/.kube/config\n\n\
             Nodes become Ready when the cluster has a pod network: apply one with kubectl.\n",
            done.joined.node
        ));
    }
    if let Some(ticket) = &done.ticket {
        if ticket.certificate_key.is_some() {
            parts.push(format!(
                "Control planes join by this command, as root; the key in it opens the cluster's certificates, and what \
                 is uploaded goes after two hours:\n\n{}\n",
                join_command::folded(&join_command::control_plane(ticket, hidden))
            ));
        }
        parts.push(format!(
            "Workers join by this command, as root:\n\n{}\n",
            join_command::folded(&join_command::worker(ticket, hidden))
        ));
    }
    if let (None, Some(key), false) = (&done.ticket, &done.certificate_key, hidden.certificate_key) {
        parts.push(format!("The uploaded certificates are opened by this key, for two hours: {}\n", key.expose()));
    }
    parts.join("\n")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::look;
    use crate::cli::node::here::Look;
    use crate::host::observe::Unknown;
    use crate::kubernetes::configuration;

    #[rstest]
    #[case(None, "", "", Look::Everything)]
    #[case(Some("preflight"), "", "", Look::Everything)]
    #[case(Some("certs/all"), "10.0.0.11", "v1.36.3", Look::NameCard(Unknown { address: false, kubelet: false }))]
    #[case(Some("certs/all"), "", "v1.36.3", Look::NameCard(Unknown { address: true, kubelet: false }))]
    #[case(Some("kubeconfig"), "10.0.0.11", "", Look::NameCard(Unknown { address: false, kubelet: true }))]
    fn a_phase_that_checks_nothing_looks_at_little(
        #[case] only: Option<&str>,
        #[case] address: &str,
        #[case] version: &str,
        #[case] expected: Look,
    ) {
        let text = format!(
            "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\n\
             localAPIEndpoint: {{advertiseAddress: '{address}'}}\n---\n\
             apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: '{version}'\n"
        );
        assert_eq!(look(&configuration::load(&text).unwrap(), only), expected);
    }
}
