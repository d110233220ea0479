//! What was typed becomes settings; one short file per verb.
//!
//! A verb is a struct of arguments, whose comments are its help, and `run(arguments, &context)`. It returns the exit
//! code, or the failure that [`main`] shows and turns into one.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;

use clap::{Parser, Subcommand};

use crate::cancel::Cancel;
use crate::failure::{Failure, Kind, Result};
use crate::ui::{Color, Output, Prompts, Screen, Settings};

pub mod agent;
pub mod balancer;
pub mod bundle;
pub mod check;
pub mod completion;
pub mod copy;
pub mod down;
pub mod exec;
pub mod hosts;
pub mod inventory;
pub mod kubectl;
mod login;
pub mod node;
pub mod plan;
pub mod report;
pub mod run;
pub mod shell;
pub mod status;
mod supervise;
pub mod tunnel;
pub mod up;
pub mod version;

/// Makes Kubernetes clusters out of machines you reach by SSH
#[derive(Debug, Parser)]
#[command(
    name = "clusterctl",
    version,
    max_term_width = 100,
    propagate_version = true,
    after_help = "Exit codes tell what went wrong: see README.md, section \"Exit codes\"."
)]
pub struct CommandLine {
    /// What every verb understands.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options of every verb.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// The inventory: the machines, and the cluster they shall be
    #[arg(
        short,
        long,
        global = true,
        value_name = "FILE",
        env = "CLUSTERCTL_INVENTORY",
        default_value = "inventory.yaml",
        value_hint = clap::ValueHint::FilePath
    )]
    pub inventory: PathBuf,
    /// For whom to write
    #[arg(long, global = true, value_enum, value_name = "FORM", default_value_t)]
    pub output: Output,
    /// When to use colours
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t)]
    pub color: Color,
    /// Say nothing but warnings and failures
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say every change
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// Add everything that happens to a file, as JSON lines, whatever the screen shows
    #[arg(long, global = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub log: Option<PathBuf>,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make the cluster, finish it, or find that nothing is to do
    Up(up::Arguments),
    /// Say what `up` would do, on every host, and do nothing
    Plan(plan::Arguments),
    /// Say whether the machines fit: all conditions on all of them, before anything is changed
    Check(check::Arguments),
    /// Take the cluster away and give the machines back as they were
    Down(down::Arguments),
    /// Show hosts and nodes side by side
    Status(status::Arguments),
    /// Gather everything for a bug report into one archive, without secrets
    Report(report::Arguments),
    /// Run kubectl on a control plane, through the connection
    Kubectl(kubectl::Arguments),
    /// Run a command on the hosts, all at once
    Exec(exec::Arguments),
    /// Copy files and folders to hosts, or from them
    Copy(copy::Arguments),
    /// Open a shell on a host
    Shell(shell::Arguments),
    /// Open a port here that leads to the API server, and write a kubeconfig for it
    Tunnel(tunnel::Arguments),
    /// Run a playbook of your own on the hosts
    Run(run::Arguments),
    /// Show and pin the host keys of the machines
    Hosts(hosts::Arguments),
    /// Make, list and check bundles: one Kubernetes version in one file
    Bundle(bundle::Arguments),
    /// Do kubeadm's part by hand, on this host: init, join, reset, token...
    Node(node::Arguments),
    /// Our process on a host
    #[command(hide = true)]
    Agent(agent::Arguments),
    /// The way from a node to the API servers
    #[command(hide = true)]
    Balancer(balancer::Arguments),
    /// Print an example inventory, its schema, or what is wrong with yours
    Inventory(inventory::Arguments),
    /// Print the script that completes commands in your shell
    Completion(completion::Arguments),
    /// Print the version of clusterctl and the Kubernetes versions it supports
    Version,
}

/// What a verb works with besides its arguments.
#[derive(Debug, Clone)]
pub struct Context {
    /// The inventory file, which may not exist.
    pub inventory: PathBuf,
    /// Where things are shown.
    pub screen: Screen,
    /// The wish to stop.
    pub cancel: Cancel,
    /// Who asks for passwords.
    pub prompts: Prompts,
}

/// The one place where verbs are told apart.
async fn dispatch(verb: Verb, context: &Context) -> Result<ExitCode> {
    match verb {
        Verb::Up(arguments) => up::run(&arguments, context).await,
        Verb::Plan(arguments) => plan::run(&arguments, context).await,
        Verb::Check(arguments) => check::run(&arguments, context).await,
        Verb::Down(arguments) => down::run(&arguments, context).await,
        Verb::Status(arguments) => status::run(&arguments, context).await,
        Verb::Report(arguments) => report::run(&arguments, context).await,
        Verb::Kubectl(arguments) => kubectl::run(&arguments, context).await,
        Verb::Exec(arguments) => exec::run(&arguments, context).await,
        Verb::Copy(arguments) => copy::run(&arguments, context).await,
        Verb::Shell(arguments) => shell::run(&arguments, context).await,
        Verb::Tunnel(arguments) => tunnel::run(&arguments, context).await,
        Verb::Run(arguments) => run::run(&arguments, context).await,
        Verb::Hosts(arguments) => hosts::run(&arguments, context).await,
        Verb::Bundle(arguments) => bundle::run(&arguments, context).await,
        Verb::Node(arguments) => node::run(&arguments, context).await,
        Verb::Agent(arguments) => agent::run(&arguments).await,
        Verb::Balancer(arguments) => balancer::run(&arguments, context).await,
        Verb::Inventory(arguments) => inventory::run(&arguments, context).await,
        Verb::Completion(arguments) => completion::run(&arguments, context),
        Verb::Version => version::run(context),
    }
}

/// The program: parses what was typed, runs the verb, shows the failure, returns the exit code.
pub fn main() -> ExitCode {
    let typed = match CommandLine::try_parse_from(node::understood(std::env::args_os())) {
        Ok(typed) => typed,
        // Help and version are among these; clap knows the stream and the code. A reader that has gone is fine.
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Kind::Usage.exit_code()));
        }
    };
    let Global { inventory, output, color, quiet, verbose, log } = typed.global;
    let screen = Screen::new(Settings { output, color, quiet, verbose });
    report_defects(&screen);
    if let Some(log) = log
        && let Err(failure) = screen.log_to(&log)
    {
        screen.failure(&failure);
        return ExitCode::from(failure.kind.exit_code());
    }
    let code = with_runtime(&screen, |cancel| {
        let prompts = Prompts::new(&screen, &cancel);
        let context = Context { inventory, screen: screen.clone(), cancel, prompts };
        async move { dispatch(typed.verb, &context).await }
    });
    screen.restore();
    code
}

fn with_runtime<Work>(screen: &Screen, work: impl FnOnce(Cancel) -> Work) -> ExitCode
where
    Work: Future<Output = Result<ExitCode>>,
{
    // An error only means that a provider is there already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let workers = std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            screen.failure(&Failure::new(Kind::Internal, "cannot start the threads of the program").because(&error));
            return ExitCode::from(Kind::Internal.exit_code());
        }
    };
    let cancel = Cancel::new();
    let code = runtime.block_on(supervise::supervise(screen, &cancel, work(cancel.clone())));
    // Threads that wait for a terminal or a file must not hold up the end.
    runtime.shutdown_background();
    code
}

/// A panic is a defect of clusterctl: it is said as such, with the terminal as it was before.
fn report_defects(screen: &Screen) {
    static SCREEN: OnceLock<Screen> = OnceLock::new();
    if SCREEN.set(screen.clone()).is_err() {
        return;
    }
    std::panic::set_hook(Box::new(|panic| {
        let Some(screen) = SCREEN.get() else { return };
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
        let message = text.unwrap_or("no message");
        let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        let failure = Failure::new(Kind::Internal, format!("clusterctl has a defect, found at {place}: {message}"))
            .advise("report it with this text, `clusterctl version` and what you typed; running it again is safe");
        screen.restore();
        screen.failure(&failure);
    }));
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use insta::assert_snapshot;
    use rstest::rstest;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn a_mistyped_verb_is_answered_with_the_nearest() {
        let error = CommandLine::try_parse_from(["clusterctl", "verison"]).expect_err("there is no such verb");
        assert_eq!(error.exit_code(), i32::from(Kind::Usage.exit_code()));
        assert_snapshot!(error.to_string(), @"
        error: unrecognized subcommand 'verison'

          tip: a similar subcommand exists: 'version'

        Usage: clusterctl [OPTIONS] <COMMAND>

        For more information, try '--help'.
        ");
    }

    #[test]
    fn options_of_every_verb_may_follow_it() {
        let typed =
            CommandLine::try_parse_from(["clusterctl", "version", "-i", "other.yaml", "--output", "json", "-q"])
                .expect("the command line is right");
        assert_eq!(typed.global.inventory, PathBuf::from("other.yaml"));
        assert_eq!(typed.global.output, Output::Json);
        assert!(typed.global.quiet);
    }

    #[rstest]
    #[case("up --prune --drain-limit 1m", None)]
    #[case("up --drain-limit 1m", Some("--prune"))]
    #[case("up --batch 0", Some("--batch"))]
    #[case("up --dry-run --max-failures 0 --prune", None)]
    #[case("plan --max-failures 0 --prune", None)]
    fn what_belongs_together_is_typed_together(#[case] line: &str, #[case] wanted: Option<&str>) {
        let typed = CommandLine::try_parse_from(["clusterctl"].into_iter().chain(line.split(' ')));
        let refused = typed.err().map(|error| error.to_string());
        assert_eq!(refused.is_some(), wanted.is_some(), "{refused:?}");
        assert!(wanted.is_none_or(|wanted| refused.is_some_and(|error| error.contains(wanted))));
    }

    /// All kinds; the match makes the compiler ask for a new one.
    fn kinds() -> Vec<Kind> {
        let next = |kind: Kind| match kind {
            Kind::Usage => Some(Kind::Configuration),
            Kind::Configuration => Some(Kind::Connection),
            Kind::Connection => Some(Kind::Authentication),
            Kind::Authentication => Some(Kind::HostKey),
            Kind::HostKey => Some(Kind::Privilege),
            Kind::Privilege => Some(Kind::Preflight),
            Kind::Preflight => Some(Kind::Bundle),
            Kind::Bundle => Some(Kind::Host),
            Kind::Host => Some(Kind::Cluster),
            Kind::Cluster => Some(Kind::Busy),
            Kind::Busy => Some(Kind::Interrupted),
            Kind::Interrupted => Some(Kind::Internal),
            Kind::Internal => None,
        };
        std::iter::successors(Some(Kind::Usage), |kind| next(*kind)).collect()
    }

    #[test]
    fn what_the_readme_tells_to_type_can_be_typed() {
        let readme = include_str!("../../README.md");
        let commands: Vec<&str> = readme
            .lines()
            .filter_map(|line| line.strip_prefix("    "))
            .map(|line| line.trim_start_matches("$ "))
            .filter(|line| line.starts_with("clusterctl ") && !line.contains("──") && !line.contains(": cluster "))
            .collect();
        assert!(commands.len() > 12, "{commands:?}");
        for command in commands {
            let typed = command.split(['#', '>']).next().unwrap_or_default();
            // `-o` of `bundle create` and of `node` are not that of every verb; three dots stand for what a person has.
            let words = typed.split_whitespace().map(|word| word.trim_end_matches("..."));
            let words = words.map(|word| if word.is_empty() { "abcdef.0123456789abcdef" } else { word });
            if let Err(error) = CommandLine::try_parse_from(words) {
                panic!("`{command}` of the README: {error}");
            }
        }
    }

    #[test]
    fn the_readme_lists_the_exit_codes_in_order_of_weight() {
        let readme = include_str!("../../README.md");
        let section = readme.split("## Exit codes").nth(1).and_then(|rest| rest.split("\n## ").next());
        let rows: Vec<(String, String)> = section
            .unwrap_or_default()
            .lines()
            .filter_map(|line| {
                let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
                let kind = cells.get(1)?.strip_prefix('`')?.strip_suffix('`')?;
                Some((cells.first()?.to_string(), kind.to_owned()))
            })
            .collect();
        let mut kinds = kinds();
        kinds.sort();
        let expected: Vec<(String, String)> = kinds
            .into_iter()
            .map(|kind| {
                let name = serde_json::to_value(kind).ok().and_then(|name| name.as_str().map(str::to_owned));
                (kind.exit_code().to_string(), name.unwrap_or_default())
            })
            .collect();
        assert_eq!(rows, expected);
    }
}
