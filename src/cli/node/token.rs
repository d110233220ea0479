//! `clusterctl node token`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Subcommand, ValueHint};
use serde_json::{Value, json};

use super::flags::{self, Form};
use super::join_command::{self, Hidden};
use crate::api::Client;
use crate::cli::Context;
use crate::failure::Result;
use crate::host::machine::Machine;
use crate::kubernetes::configuration::{BootstrapToken, Documents, Duration};
use crate::kubernetes::token::Token;
use crate::node::token;
use crate::secret::Secret;
use crate::ui;

/// Arguments of `node token`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// The kubeconfig to talk to the cluster with
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        value_hint = ValueHint::FilePath,
        default_value = flags::ADMIN_KUBECONFIG
    )]
    kubeconfig: PathBuf,
    /// Have the cluster judge what would be done, and do nothing
    #[arg(long, global = true)]
    dry_run: bool,
    /// What to do with tokens.
    #[command(subcommand)]
    verb: TokenVerb,
}

/// What can be done with tokens.
#[derive(Debug, Clone, Subcommand)]
pub enum TokenVerb {
    /// Make a token in the cluster and print it
    Create(Box<Create>),
    /// List the tokens of the cluster
    List {
        /// How to print them
        #[arg(short = 'o', value_name = "FORM", value_enum)]
        form: Option<Form>,
    },
    /// Remove tokens from the cluster
    Delete {
        /// Tokens, or their ids: the six characters before the dot
        #[arg(required = true, value_name = "TOKEN", value_parser = flags::secret)]
        tokens: Vec<Secret>,
    },
    /// Print a random token and leave the cluster alone
    Generate,
}

/// Arguments of `node token create`.
#[derive(Debug, Clone, clap::Args)]
pub struct Create {
    /// The token; a random one when left out
    #[arg(value_name = "TOKEN", value_parser = flags::secret)]
    token: Option<Secret>,
    /// kubeadm documents: the bootstrapTokens of an InitConfiguration
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// What stands in documents otherwise.
    #[command(flatten)]
    settings: Settings,
    /// Print the whole command other hosts join with
    #[arg(long)]
    print_join_command: bool,
    /// How to print the token
    #[arg(short = 'o', value_name = "FORM", value_enum)]
    form: Option<Form>,
}

/// Flags for what stands in the documents of `--config` otherwise; the two cannot be mixed.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "token-settings", conflicts_with = "config")]
struct Settings {
    /// How long it is valid; 0 for ever
    #[arg(long, value_name = "DURATION", value_parser = flags::duration)]
    ttl: Option<Duration>,
    /// What it may be used for
    #[arg(long, value_name = "USAGES", value_delimiter = ',')]
    usages: Vec<String>,
    /// Groups of whoever proves himself with it
    #[arg(long, value_name = "GROUPS", value_delimiter = ',')]
    groups: Vec<String>,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// The key of the uploaded certificates: the command is then one for control planes
    #[arg(long, value_name = "KEY", value_parser = flags::secret, requires = "print_join_command")]
    certificate_key: Option<Secret>,
}

/// Does what was asked with tokens.
pub(super) async fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode> {
    match &arguments.verb {
        TokenVerb::Create(create) => make(create, arguments, context).await?,
        TokenVerb::List { form } => list(*form, arguments, context).await?,
        TokenVerb::Delete { tokens } => {
            let client = arguments.client().await?;
            let done = if arguments.dry_run { "would be deleted" } else { "deleted" };
            for given in tokens {
                let id = token::delete(&client, given.expose()).await?;
                context.screen.print(&format!("bootstrap token {id} {done}\n"))?;
            }
        }
        TokenVerb::Generate => context.screen.print(&format!("{}\n", Token::generate()?.text().expose()))?,
    }
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    async fn client(&self) -> Result<Client> {
        let client = token::client(&Machine, &self.kubeconfig).await?;
        Ok(if self.dry_run { client.dry() } else { client })
    }
}

impl Create {
    /// The tokens to make, completed and valid.
    fn tokens(&self, context: &Context) -> Result<Vec<BootstrapToken>> {
        let mut init = match &self.config {
            Some(path) => flags::documents(path, context)?.init.unwrap_or_default(),
            None => Documents::default().init.unwrap_or_default(),
        };
        if init.bootstrap_tokens.is_empty() {
            let settings = &self.settings;
            init.bootstrap_tokens.push(BootstrapToken {
                token: self.token.clone(),
                description: settings.description.clone().unwrap_or_default(),
                ttl: settings.ttl,
                expires: None,
                usages: settings.usages.clone(),
                groups: settings.groups.clone(),
            });
        }
        for token in &mut init.bootstrap_tokens {
            token.complete()?;
        }
        init.validate_tokens()?;
        Ok(init.bootstrap_tokens)
    }
}

async fn make(create: &Create, arguments: &Arguments, context: &Context) -> Result<()> {
    let tokens = create.tokens(context)?;
    let client = arguments.client().await?;
    let form = Form::of(create.form, context);
    if arguments.dry_run {
        context.screen.say("a dry run: the cluster takes this token, and does not keep it");
    }
    let mut only_here = None;
    for settings in &tokens {
        let made = token::create(&client, settings).await?;
        let key = create.settings.certificate_key.clone();
        let ticket = match create.print_join_command {
            true => Some(token::ticket(&Machine, &arguments.kubeconfig, &made, key)?),
            false => None,
        };
        only_here = only_here.or_else(|| join_command::only_here(ticket.as_ref()?));
        let command = ticket.map(|ticket| match ticket.certificate_key {
            Some(_) => join_command::control_plane(&ticket, Hidden::default()),
            None => join_command::worker(&ticket, Hidden::default()),
        });
        let text = made.text();
        let document = json!({ "token": text.expose(), "joinCommand": command });
        context
            .screen
            .print(&form.write(&document, || format!("{}\n", command.as_deref().unwrap_or(text.expose()))))?;
    }
    if let Some(sentence) = only_here {
        context.screen.warn(&sentence);
    }
    Ok(())
}

async fn list(form: Option<Form>, arguments: &Arguments, context: &Context) -> Result<()> {
    let client = arguments.client().await?;
    let (tokens, unusable) = token::list(&client).await?;
    unusable.iter().for_each(|sentence| context.screen.warn(sentence));
    let text = match Form::of(form, context) {
        Form::Text => {
            let rows: Result<Vec<Vec<String>>> = tokens.iter().map(row).collect();
            ui::table(&["TOKEN", "TTL", "EXPIRES", "USAGES", "DESCRIPTION", "EXTRA GROUPS"], &rows?)
        }
        form => {
            let separator = if form == Form::Yaml { "---\n" } else { "" };
            let documents: Vec<String> = tokens.iter().map(|token| form.write(&document(token), String::new)).collect();
            documents.join(separator)
        }
    };
    context.screen.print(&text)
}

/// A token as kubeadm's output.kubeadm.k8s.io/v1alpha3 has it.
fn document(token: &BootstrapToken) -> Value {
    let mut document = serde_json::to_value(token).unwrap_or_default();
    document["apiVersion"] = json!("output.kubeadm.k8s.io/v1alpha3");
    document["kind"] = json!("BootstrapToken");
    document
}

fn row(token: &BootstrapToken) -> Result<Vec<String>> {
    let or = |text: String, none: &str| if text.is_empty() { none.to_owned() } else { text };
    Ok(vec![
        token.token.as_ref().map(|token| token.expose().to_owned()).unwrap_or_default(),
        token::seconds_left(token)?.map_or_else(|| "<forever>".to_owned(), short),
        token.expires.clone().unwrap_or_else(|| "<never>".to_owned()),
        or(token.usages.join(","), "<none>"),
        or(token.description.clone(), "<none>"),
        or(token.groups.join(","), "<none>"),
    ])
}

/// A time to live as kubeadm shortens it: `23h`.
fn short(seconds: i64) -> String {
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        86_400..31_536_000 => format!("{}d", seconds / 86_400),
        _ => format!("{}y", seconds / 31_536_000),
    }
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn times_to_live_are_short() {
        let shortened: Vec<String> = [-5, 0, 59, 86_399, 90_000, 40_000_000].map(short).to_vec();
        assert_eq!(shortened, ["<invalid>", "0s", "59s", "23h", "1d", "1y"]);
    }
}
