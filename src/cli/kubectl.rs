//! `clusterctl kubectl`: kubectl on a control plane, through the connection.

use std::io::{IsTerminal as _, Read as _};
use std::process::ExitCode;

use super::up::Login;
use super::{Context, login};
use crate::cluster;
use crate::event::Events;
use crate::failure::{Failure, Kind, Result};

/// Arguments of `kubectl`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// How to log in to the hosts.
    #[command(flatten)]
    pub login: Login,
    /// What kubectl is to do: clusterctl kubectl -- get nodes
    #[arg(last = true, required = true, value_name = "ARGUMENT")]
    pub arguments: Vec<String>,
}

/// kubectl may read this much from standard input, in bytes.
const MAXIMUM_INPUT_BYTES: u64 = 3 << 20;

/// Runs kubectl and passes on what it prints and its exit code. What is piped in reaches it.
pub async fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode> {
    let inventory = login::inventory(context, &arguments.login).await?;
    let settings = login::settings(context, &arguments.login, &Events::nowhere());
    let input = input(&arguments.arguments)?;
    let ran = cluster::kubectl(&inventory, &settings, &arguments.arguments, input).await?;
    context.screen.pass(&ran.stdout, &ran.stderr)?;
    Ok(ExitCode::from(u8::try_from(ran.status).unwrap_or(1)))
}

/// Standard input, where kubectl is told to read it (`-f -`).
fn input(arguments: &[String]) -> Result<Vec<u8>> {
    let wanted = arguments.iter().any(|argument| argument == "-" || argument == "-f-" || argument.ends_with("=-"));
    let stdin = std::io::stdin();
    if !wanted || stdin.is_terminal() {
        return Ok(Vec::new());
    }
    let mut bytes = Vec::new();
    let read = stdin.lock().take(MAXIMUM_INPUT_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::new(Kind::Usage, "cannot read standard input").because(&error))?;
    if bytes.len() as u64 > MAXIMUM_INPUT_BYTES {
        return Err(Failure::new(Kind::Usage, format!("standard input is longer than {MAXIMUM_INPUT_BYTES} bytes"))
            .advise("apply the objects in parts"));
    }
    Ok(bytes)
}
