//! `clusterctl shell`: a session on one host.

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use super::up::Login;
use super::{Context, login};
use crate::cancel::Cancel;
use crate::cluster;
use crate::event::Events;
use crate::failure::{Failure, Kind, Result};
use crate::inventory::Selector;
use crate::ssh::{Channel, Chunk, Exit, Terminal};
use crate::ui::keyboard::Escape;

/// Arguments of `shell`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// The host, by name or any selector that means one
    #[arg(value_name = "HOST")]
    pub host: Selector,
    /// As root, by the way the inventory's `ssh.become` names
    #[arg(long)]
    pub sudo: bool,
    /// How to log in to the host.
    #[command(flatten)]
    pub login: Login,
    /// A command to run on a terminal there, instead of the shell
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// Opens the shell and passes everything on, as `ssh` does; a line that is `~.` ends it. The exit code is the shell's.
pub async fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode> {
    let inventory = login::chosen(context, &arguments.login, &arguments.host, false).await?;
    let host = arguments.host.one(&inventory)?;
    let settings = login::settings(context, &arguments.login, &Events::nowhere());
    let channel = cluster::shell(host, &arguments.command, arguments.sudo, &terminal(context), &settings).await?;
    converse(channel, context).await
}

/// The terminal of this program, as a host has to know it.
pub(super) fn terminal(context: &Context) -> Terminal {
    let (columns, rows) = context.screen.terminal_size();
    let kind = std::env::var("TERM").ok().filter(|kind| !kind.is_empty()).unwrap_or_else(|| "dumb".to_owned());
    Terminal { kind, columns, rows }
}

/// Gives the person's terminal to what runs on a terminal on a host, until that ends or a line that is `~.` ends it.
pub(super) async fn converse(channel: Channel, context: &Context) -> Result<ExitCode> {
    let mut resized = signal(SignalKind::window_change())
        .map_err(|error| Failure::new(Kind::Internal, "cannot watch the terminal's size").because(&error))?;
    let mut keyboard = context.screen.hand_over().ok_or_else(|| {
        Failure::new(Kind::Usage, "there is no terminal to give to the host")
            .advise("run single commands with `clusterctl exec`")
    })?;
    let (mut writer, mut reader) = channel.split();
    let mut escape = Escape::default();
    let ended = loop {
        tokio::select! {
            chunk = reader.recv() => match chunk? {
                Some(Chunk::Stdout(bytes)) => context.screen.pass(&bytes, b"")?,
                Some(Chunk::Stderr(bytes)) => context.screen.pass(b"", &bytes)?,
                Some(Chunk::Exit(exit)) => break Some(exit),
                None => break None,
            },
            typed = keyboard.keys.recv() => match typed.and_then(|typed| escape.pass(&typed)) {
                Some(typed) => _ = writer.offer(typed).await?,
                None => break None,
            },
            _ = resized.recv() => {
                let (columns, rows) = context.screen.terminal_size();
                writer.resize(columns, rows).await?;
            }
            () = context.cancel.cancelled() => return Err(Cancel::failure()),
        }
    };
    drop(keyboard);
    Ok(match ended {
        Some(Exit::Status(status)) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
        Some(Exit::Signal(_)) => ExitCode::FAILURE,
        None => ExitCode::from(Kind::Connection.exit_code()),
    })
}
