//! `clusterctl kubectl`: kubectl on a control plane, through the connection.

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::up::Login;
use super::{Context, exec, login, shell};
use crate::cluster::{self, FileHere, Input, Invocation};
use crate::event::Events;
use crate::failure::{Failure, Kind, Result};
use crate::ssh::{Chunk, Exit};

/// Pieces of output that may wait to be printed.
const OUTPUT_PIECES: usize = 64;

/// Arguments of `kubectl`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// How to log in to the hosts.
    #[command(flatten)]
    pub login: Login,
    /// What kubectl is to do: clusterctl kubectl -- get nodes. A file of this machine that -f names is sent along
    #[arg(last = true, required = true, value_name = "ARGUMENT")]
    pub arguments: Vec<String>,
}

/// Runs kubectl and passes on what it prints, as it comes, and its exit code.
pub async fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode> {
    let Invocation { arguments: words, input, terminal } = Invocation::of(&arguments.arguments, &here)?;
    let inventory = login::inventory(context, &arguments.login).await?;
    let settings = login::settings(context, &arguments.login, &Events::nowhere());
    if terminal && std::io::stdin().is_terminal() && context.screen.stdout_is_terminal() {
        let terminal = shell::terminal(context);
        let (channel, _session) = cluster::kubectl_on_terminal(&inventory, &settings, &words, &terminal).await?;
        return shell::converse(channel, context).await;
    }
    let input = match input {
        Input::None => mpsc::channel(1).1,
        Input::Standard => exec::standard_input(),
        Input::File(path) => of_file(&path)?,
    };
    let (teller, mut told) = mpsc::channel(OUTPUT_PIECES);
    let running = cluster::kubectl(&inventory, &settings, &words, input, teller);
    // Where nothing can be printed any more, kubectl runs on unheard.
    let printing = async move {
        while let Some(chunk) = told.recv().await {
            match chunk {
                Chunk::Stdout(bytes) => context.screen.pass(&bytes, b"")?,
                Chunk::Stderr(bytes) => context.screen.pass(b"", &bytes)?,
                Chunk::Exit(_) => {}
            }
        }
        Ok::<(), Failure>(())
    };
    let (ended, printed) = tokio::join!(running, printing);
    printed?;
    Ok(match ended? {
        Exit::Status(status) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
        Exit::Signal(_) => ExitCode::FAILURE,
    })
}

fn here(path: &Path) -> Option<FileHere> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(if metadata.is_dir() { FileHere::Folder } else { FileHere::File })
}

/// A file as one piece of input: half of one must not be applied.
fn of_file(path: &Path) -> Result<mpsc::Receiver<Bytes>> {
    let content = std::fs::read(path)
        .map_err(|error| Failure::new(Kind::Usage, format!("cannot read {}", path.display())).because(&error))?;
    let (sender, receiver) = mpsc::channel(1);
    // There is room for one.
    let _ = sender.try_send(Bytes::from(content));
    Ok(receiver)
}
