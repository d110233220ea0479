//! `clusterctl node config`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Subcommand, ValueEnum, ValueHint};
use serde_json::json;

use super::flags::{self, Form};
use super::here::{self, Look};
use super::migrate;
use crate::cli::Context;
use crate::failure::{Failure, Kind, Result};
use crate::host::machine::Machine;
use crate::host::observe;
use crate::kubernetes::addons;
use crate::kubernetes::configuration::{self, ClusterConfiguration, Documents, NodeRegistrationOptions};
use crate::kubernetes::{kubelet, version};
use crate::node;

/// Arguments of `node config`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Taken for kubeadm's sake: nothing here asks the cluster
    #[arg(long, global = true, hide = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    kubeconfig: Option<PathBuf>,
    /// What to do with configurations.
    #[command(subcommand)]
    verb: ConfigVerb,
}

/// What can be done with configurations.
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigVerb {
    /// Print documents with every default, to begin with
    Print {
        /// Which documents.
        #[command(subcommand)]
        verb: Defaults,
    },
    /// Say everything that is wrong with kubeadm documents
    Validate {
        /// The documents
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        config: PathBuf,
        /// Do not warn about documents of versions that are deprecated
        #[arg(long)]
        allow_deprecated_api: bool,
        /// As kubeadm takes it; there is no experimental version that is accepted here
        #[arg(long)]
        allow_experimental_api: bool,
    },
    /// Write a configuration of an older version as the newest has it
    Migrate(migrate::Arguments),
    /// List or fetch the images of a control plane
    Images {
        /// What to do with them.
        #[command(subcommand)]
        verb: ImagesVerb,
    },
}

/// Which documents are printed.
#[derive(Debug, Clone, Subcommand)]
pub enum Defaults {
    /// InitConfiguration and ClusterConfiguration
    #[command(name = "init-defaults")]
    Init {
        /// Print these component configurations, too
        #[arg(long, value_enum, value_name = "KINDS", value_delimiter = ',')]
        component_configs: Vec<Component>,
    },
    /// JoinConfiguration
    #[command(name = "join-defaults")]
    Join,
    /// ResetConfiguration
    #[command(name = "reset-defaults")]
    Reset,
    /// UpgradeConfiguration
    #[command(name = "upgrade-defaults")]
    Upgrade,
}

/// A component with a configuration of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Component {
    /// The kubelet
    #[value(name = "KubeletConfiguration")]
    Kubelet,
    /// kube-proxy
    #[value(name = "KubeProxyConfiguration")]
    KubeProxy,
}

/// What is done with images.
#[derive(Debug, Clone, Subcommand)]
pub enum ImagesVerb {
    /// List them
    List {
        /// Of which cluster.
        #[command(flatten)]
        images: Images,
        /// How to print them
        #[arg(short = 'o', value_name = "FORM", value_enum)]
        form: Option<Form>,
    },
    /// Fetch them into the container runtime of this host
    Pull {
        /// Of which cluster.
        #[command(flatten)]
        images: Images,
        /// The socket of the container runtime [default: the one that is there]
        #[arg(long, value_name = "SOCKET")]
        cri_socket: Option<String>,
    },
}

/// Which images.
#[derive(Debug, Clone, clap::Args)]
pub struct Images {
    /// kubeadm documents: a ClusterConfiguration
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// What stands in documents otherwise.
    #[command(flatten)]
    settings: Settings,
}

/// Flags for what stands in the documents of `--config` otherwise; the two cannot be mixed.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "images-settings", conflicts_with = "config")]
struct Settings {
    /// The Kubernetes version
    #[arg(long, value_name = "VERSION", default_value = version::DEFAULT_VERSION)]
    kubernetes_version: String,
    /// Where images come from [default: registry.k8s.io]
    #[arg(long, value_name = "REPOSITORY")]
    image_repository: Option<String>,
    /// kubeadm's feature gates: Name=true
    #[arg(long, value_name = "GATES", value_delimiter = ',', value_parser = flags::gate)]
    feature_gates: Vec<(String, bool)>,
}

impl Images {
    fn documents(&self, context: &Context) -> Result<Documents> {
        let mut documents = match &self.config {
            Some(path) => flags::documents(path, context)?,
            None => {
                let settings = &self.settings;
                let cluster = ClusterConfiguration {
                    kubernetes_version: settings.kubernetes_version.clone(),
                    image_repository: settings.image_repository.clone().unwrap_or_default(),
                    feature_gates: settings.feature_gates.iter().cloned().collect(),
                    ..ClusterConfiguration::default()
                };
                Documents { cluster: Some(cluster), ..Documents::default() }
            }
        };
        let cluster = documents.cluster.get_or_insert_default();
        cluster.complete(6443)?;
        cluster.validate()?;
        Ok(documents)
    }
}

/// Does what was asked with configurations.
pub(super) async fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode> {
    match &arguments.verb {
        ConfigVerb::Print { verb } => print(verb, context).await?,
        ConfigVerb::Validate { config, allow_deprecated_api, .. } => {
            validate(config, *allow_deprecated_api, context)?;
            context.screen.print("ok\n")?;
        }
        ConfigVerb::Migrate(arguments) => return migrate::run(arguments, context),
        ConfigVerb::Images { verb: ImagesVerb::List { images, form } } => {
            let documents = images.documents(context)?;
            let cluster = documents.cluster.unwrap_or_default();
            let images = version::images(&cluster)?;
            let images = images.wanted(&cluster, true);
            let document =
                json!({ "apiVersion": "output.kubeadm.k8s.io/v1alpha3", "kind": "Images", "images": images });
            let text = || images.iter().map(|image| format!("{image}\n")).collect();
            context.screen.print(&Form::of(*form, context).write(&document, text))?;
        }
        ConfigVerb::Images { verb: ImagesVerb::Pull { images, cri_socket } } => {
            let documents = images.documents(context)?;
            pull(documents, cri_socket.as_deref(), context).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn print(verb: &Defaults, context: &Context) -> Result<()> {
    let documents = match verb {
        Defaults::Init { component_configs } => {
            let mut documents = configuration::init_defaults()?;
            let cluster = documents.cluster.clone().unwrap_or_default();
            if component_configs.contains(&Component::Kubelet) {
                documents.kubelet = Some(kubelet::configuration(None, &cluster).document);
            }
            if component_configs.contains(&Component::KubeProxy) {
                documents.kube_proxy = Some(addons::configuration(None, "", false, false));
            }
            documents
        }
        Defaults::Join => {
            let facts = observe::facts(&Machine).await?;
            configuration::join_defaults(&facts.hostname)?
        }
        Defaults::Reset => configuration::reset_defaults(),
        Defaults::Upgrade => configuration::upgrade_defaults(),
    };
    context.screen.print(documents.to_text().expose())
}

/// Judges documents as strictly as can be: what is only warned about elsewhere is an error.
fn validate(path: &Path, deprecated: bool, context: &Context) -> Result<()> {
    let text = flags::text(path)?;
    let findings = configuration::judge(&text, deprecated);
    findings.warnings.iter().for_each(|warning| context.screen.warn(&format!("{}: {warning}", path.display())));
    match findings.errors.as_slice() {
        [] => Ok(()),
        [only] => Err(Failure::new(Kind::Configuration, format!("{}: {only}", path.display()))),
        several => {
            let sentence = format!("{} has {} errors", path.display(), several.len());
            Err(Failure::new(Kind::Configuration, sentence).detailed(several.join("\n")))
        }
    }
}

async fn pull(documents: Documents, socket: Option<&str>, context: &Context) -> Result<()> {
    let cluster = documents.cluster.unwrap_or_default();
    let node = documents.init.map(|init| init.node_registration).unwrap_or_default();
    let fetched = here::work(context, "config images pull", &[], Look::Everything, async |host, facts, events| {
        let mut node = NodeRegistrationOptions { image_pull_policy: String::new(), ..node };
        if let Some(socket) = socket {
            socket.clone_into(&mut node.cri_socket);
        }
        let node = node::completed(host, facts, node)?;
        let images = version::images(&cluster)?;
        node::fetch_images(host, &node, &images.wanted(&cluster, true), events).await
    });
    for reference in fetched.await? {
        context.screen.print(&format!("{reference}\n"))?;
    }
    Ok(())
}
