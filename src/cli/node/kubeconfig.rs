//! `clusterctl node kubeconfig`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Subcommand, ValueHint};

use super::flags;
use crate::cli::Context;
use crate::failure::Result;
use crate::host::machine::Machine;
use crate::kubernetes::configuration::Duration;
use crate::node::{self, UserKubeconfig};
use crate::secret::Secret;

/// Arguments of `node kubeconfig`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// What to do with kubeconfigs.
    #[command(subcommand)]
    verb: KubeconfigVerb,
}

/// What can be done with kubeconfigs.
#[derive(Debug, Clone, Subcommand)]
pub enum KubeconfigVerb {
    /// Print a kubeconfig for another user, with a new certificate or a token
    User(Box<User>),
}

/// Arguments of `node kubeconfig user`.
#[derive(Debug, Clone, clap::Args)]
pub struct User {
    /// The user's name: the common name of the certificate
    #[arg(long, value_name = "NAME")]
    client_name: String,
    /// Groups of the user: the organizations of the certificate
    #[arg(long = "org", value_name = "GROUPS", value_delimiter = ',')]
    organizations: Vec<String>,
    /// How long the certificate is valid
    #[arg(long, value_name = "DURATION", value_parser = flags::duration, default_value = "8760h0m0s")]
    validity_period: Duration,
    /// A token to prove oneself with, in place of a certificate
    #[arg(long, value_name = "TOKEN", value_parser = flags::secret)]
    token: Option<Secret>,
    /// kubeadm documents with the cluster's name, endpoint and certificatesDir [default: as admin.conf has it]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
}

/// kubeadm warns about certificates that live longer than this.
const ORDINARY: Duration = Duration::from_hours(8760);

/// Prints the kubeconfig.
pub(super) async fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode> {
    let KubeconfigVerb::User(user) = &arguments.verb;
    if user.validity_period > ORDINARY {
        context.screen.warn(&format!(
            "a certificate that is valid for {} cannot be taken back for longer than the ordinary {ORDINARY}",
            user.validity_period
        ));
    }
    let documents = user.config.as_deref().map(|path| flags::documents(path, context)).transpose()?;
    let wanted = UserKubeconfig {
        name: &user.client_name,
        organizations: &user.organizations,
        validity: user.validity_period,
        token: user.token.as_ref(),
    };
    let text = node::user_kubeconfig(&Machine, documents, &wanted).await?;
    context.screen.print(text.expose())?;
    Ok(ExitCode::SUCCESS)
}
