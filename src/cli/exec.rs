//! `clusterctl exec`: a command on many hosts at once.

use std::io::{IsTerminal as _, Read as _};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::up::Login;
use super::{Context, login};
use crate::cluster::exec::{self, Ended, Order, Told};
use crate::event::Events;
use crate::failure::{Failure, Kind, Result};
use crate::inventory::{Host, Selector};
use crate::remote::Command;
use crate::ui::outputs::named;
use crate::ui::{Arrangement, Output, Outputs};

/// Standard input is read in pieces of this many bytes.
const PIECE: usize = 64 << 10;

/// The largest number of failed hosts that an exit code tells.
const MOST: usize = 99;

/// Arguments of `exec`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Which hosts.
    #[command(flatten)]
    pub on: On,
    /// Run it as root, by the way the inventory's `ssh.become` names
    #[arg(long)]
    pub sudo: bool,
    /// Show the output at the end, once for all hosts that agree
    #[arg(short, long)]
    pub group: bool,
    /// Do not pass standard input on; by default it goes to all hosts unless it is a terminal
    #[arg(short, long)]
    pub no_stdin: bool,
    /// End the command where it takes longer
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout: Option<u64>,
    /// How to log in to the hosts.
    #[command(flatten)]
    pub login: Login,
    /// One word is a line for the shell on the host, several are a program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// Which hosts a verb works on; the same for all verbs that can work on some.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct On {
    /// The hosts: NAME, PATTERN*, role=worker, group=G, label=KEY=VALUE, !NOT, A&B, A,B; may be given several times.
    /// Default: all
    #[arg(long = "on", visible_alias = "host", value_name = "SELECTOR")]
    pub selectors: Vec<Selector>,
}

impl On {
    /// All of them as one.
    pub fn selector(&self) -> Selector {
        Selector::any_of(&self.selectors)
    }
}

/// Runs the command; the exit code is the number of hosts on which it failed.
pub async fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode> {
    let inventory = login::chosen(context, &arguments.login, &arguments.on.selector(), arguments.sudo).await?;
    let settings = login::settings(context, &arguments.login, &Events::nowhere());
    let order = Order {
        command: Command { words: arguments.command.clone(), root: arguments.sudo, alone: true },
        limit: arguments.timeout.map(Duration::from_secs),
    };
    let hosts = &inventory.hosts;
    let input = (!arguments.no_stdin && !std::io::stdin().is_terminal()).then(standard_input);
    let mut told = exec::exec(hosts, &order, input, &settings)?;
    let is_json = context.screen.settings().output == Output::Json;
    let arrangement = match hosts.len() {
        _ if is_json => Arrangement::Json,
        _ if arguments.group => Arrangement::Grouped,
        1 if !context.screen.stdout_is_terminal() => Arrangement::Raw,
        _ => Arrangement::Live,
    };
    let mut outputs = Outputs::new(&context.screen, arrangement, hosts.iter().map(|host| host.name.clone()));
    let mut ended: Vec<Ended> = Vec::new();
    while let Some(what) = told.recv().await {
        match what {
            Told::Output(host, chunk) => outputs.take(host, &chunk)?,
            Told::Ended(end) => {
                outputs.end(end.host, &end.result, end.milliseconds)?;
                ended.push(end);
            }
        }
    }
    outputs.finish()?;
    ended.sort_by_key(|end| end.host);
    if !is_json {
        context.screen.failures(&ended.iter().filter_map(|end| end.result.clone().err()).collect::<Vec<_>>());
    }
    if let Some(sentence) = failed(hosts, &ended)
        && !is_json
    {
        context.screen.warn(&sentence);
    }
    Ok(code(&ended, context.cancel.requested()))
}

/// Who failed, in a sentence.
fn failed(hosts: &[Host], ended: &[Ended]) -> Option<String> {
    let failed: Vec<String> = ended
        .iter()
        .filter(|end| !end.success())
        .map(|end| match &end.result {
            Ok(exit) => format!("{} ({exit})", hosts[end.host].name),
            Err(_) => hosts[end.host].name.clone(),
        })
        .collect();
    let names: Vec<&str> = failed.iter().map(String::as_str).collect();
    (!names.is_empty()).then(|| format!("it failed on {} of {} hosts: {}", names.len(), hosts.len(), named(&names)))
}

fn code(ended: &[Ended], interrupted: bool) -> ExitCode {
    if interrupted {
        return ExitCode::from(Kind::Interrupted.exit_code());
    }
    let failed = ended.iter().filter(|end| !end.success()).count().min(MOST);
    ExitCode::from(u8::try_from(failed).unwrap_or(u8::MAX))
}

/// Reads standard input in a thread of its own; the program does not wait for it.
pub(super) fn standard_input() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        let mut stdin = std::io::stdin().lock();
        let mut piece = vec![0; PIECE];
        // An input that cannot be read any more has ended.
        while let Ok(length @ 1..) = stdin.read(&mut piece) {
            if sender.blocking_send(Bytes::copy_from_slice(&piece[..length])).is_err() {
                return;
            }
        }
    });
    receiver
}

/// The failure of hosts on which something else than a command was to be done, as a code.
pub(super) fn count(failures: &[Failure]) -> ExitCode {
    ExitCode::from(u8::try_from(failures.len().min(MOST)).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::{Ended, Failure, Kind, code, failed};
    use crate::ssh::Exit;
    use crate::ui::rehearsal;

    fn ended() -> Vec<Ended> {
        let gone = Failure::new(Kind::Connection, "it is gone");
        let results = [Ok(Exit::Status(0)), Ok(Exit::Status(3)), Err(gone)];
        results.into_iter().enumerate().map(|(host, result)| Ended { host, result, milliseconds: 1 }).collect()
    }

    #[test]
    fn the_code_tells_how_many_failed() {
        let text = |ended: &[Ended], interrupted| format!("{:?}", code(ended, interrupted));
        let expected = |code: u8| format!("{:?}", std::process::ExitCode::from(code));
        assert_eq!(text(&ended(), false), expected(2));
        assert_eq!(text(&ended()[..1], false), expected(0));
        assert_eq!(text(&ended(), true), expected(130));
        let many: Vec<Ended> = (0..300).map(|host| Ended { host, ..ended()[1].clone() }).collect();
        assert_eq!(text(&many, false), expected(99));
    }

    #[test]
    fn a_sentence_tells_where() {
        let hosts = rehearsal::inventory().hosts;
        assert_eq!(failed(&hosts, &ended()).as_deref(), Some("it failed on 2 of 3 hosts: w1 (status 3), worker-2"));
        assert_eq!(failed(&hosts, &ended()[..1]), None);
    }
}
