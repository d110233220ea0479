//! `clusterctl node reset`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueHint::{DirPath, FilePath};
use serde_json::json;

use super::flags::{self, Form};
use super::here::{self, Look};
use super::{rehearsed, words};
use crate::cancel::Cancel;
use crate::cli::Context;
use crate::failure::{Failure, Kind, Result};
use crate::kubernetes::configuration::ResetConfiguration;
use crate::message::ResetOrder;
use crate::node::{self, phases};

/// Arguments of `node reset`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    override_usage = "clusterctl node reset [OPTIONS]\n       clusterctl node reset phase NAME [OPTIONS]",
    after_help = phases::RESET.help()
)]
pub struct Arguments {
    /// `phase NAME`: only this phase
    #[arg(value_name = "PHASE", hide = true, num_args = 0..=3)]
    words: Vec<String>,
    /// kubeadm documents: a ResetConfiguration
    #[arg(long, value_name = "FILE", value_hint = FilePath)]
    config: Option<PathBuf>,
    /// What stands in documents otherwise.
    #[command(flatten)]
    settings: Settings,
    /// Say what would be done and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Checks whose errors are only warnings, by kubeadm's names
    #[arg(long, value_name = "CHECKS", value_delimiter = ',')]
    ignore_preflight_errors: Vec<String>,
    /// The kubeconfig to ask the cluster where its etcd is with [default: /etc/kubernetes/admin.conf]
    #[arg(long, value_name = "FILE", value_hint = FilePath)]
    kubeconfig: Option<PathBuf>,
    /// Phases to leave out
    #[arg(long, value_name = "PHASES", value_delimiter = ',')]
    skip_phases: Vec<String>,
    /// Do not ask; unlike with --force, etcd still does not lose its quorum
    #[arg(long)]
    yes: bool,
    /// How to print the result
    #[arg(short = 'o', value_name = "FORM", value_enum)]
    form: Option<Form>,
}

/// Flags for what stands in the documents of `--config` otherwise; the two cannot be mixed.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(id = "reset-settings", conflicts_with = "config")]
#[command(next_help_heading = "Instead of --config")]
struct Settings {
    /// Do not ask, as with --yes, and go on although etcd loses its quorum: what kubeadm's scripts say
    #[arg(short, long)]
    force: bool,
    /// Remove this folder of certificates, too [default: the one the control plane uses]
    #[arg(long, value_name = "FOLDER", value_hint = DirPath)]
    cert_dir: Option<String>,
    /// The socket of the container runtime [default: the one that is there]
    #[arg(long, value_name = "SOCKET")]
    cri_socket: Option<String>,
    /// Empty /etc/kubernetes/tmp, too
    #[arg(long)]
    cleanup_tmp_dir: bool,
}

impl Arguments {
    fn document(&self, context: &Context) -> Result<ResetConfiguration> {
        let mut reset = match &self.config {
            Some(path) => flags::documents(path, context)?.reset.ok_or_else(|| {
                Failure::new(Kind::Configuration, format!("{} holds no ResetConfiguration", path.display()))
            })?,
            None => ResetConfiguration {
                force: self.settings.force,
                certificates_dir: self.settings.cert_dir.clone().unwrap_or_default(),
                cri_socket: self.settings.cri_socket.clone().unwrap_or_default(),
                cleanup_tmp_dir: self.settings.cleanup_tmp_dir,
                ..ResetConfiguration::default()
            },
        };
        reset.dry_run |= self.dry_run;
        flags::add_to(&mut reset.ignore_preflight_errors, &self.ignore_preflight_errors);
        if !self.skip_phases.is_empty() {
            reset.skip_phases.clone_from(&self.skip_phases);
        }
        reset.complete();
        reset.validate()?;
        Ok(reset)
    }
}

/// Takes the node apart.
pub(super) async fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode> {
    let words = words::read(&arguments.words, &phases::RESET, false)?;
    let reset = arguments.document(context)?;
    let ignore = reset.ignore_preflight_errors.clone();
    here::must_be_root(&ignore)?;
    if is_asked(arguments.yes, &reset) {
        confirm(context).await?;
    }
    let form = Form::of(arguments.form, context);
    let dry_run = reset.dry_run;
    let kubeconfig = arguments.kubeconfig.as_ref().map(|path| path.display().to_string());
    let order = order(reset, words.phase, kubeconfig);
    if dry_run {
        let folder = here::folder("reset")?;
        let told = here::work(context, "reset", &ignore, Look::Nothing, async |host, _, events| {
            node::rehearse_reset(host, &order, &folder, events).await
        });
        context.screen.print(&rehearsed::write(&told.await?, form))?;
        return Ok(ExitCode::SUCCESS);
    }
    let changes = here::work(context, "reset", &ignore, Look::Nothing, async |host, _, events| {
        node::reset(host, &order, events).await
    });
    let changes = changes.await?;
    let text = || "This host is no node any more. $HOME/.kube/config stays where it is.\n".to_owned();
    context.screen.print(&form.write(&json!({ "changes": changes }), text))?;
    Ok(ExitCode::SUCCESS)
}

/// What a completed document comes to.
fn order(reset: ResetConfiguration, only: Option<String>, kubeconfig: Option<String>) -> ResetOrder {
    let limit = reset.timeouts.etcd_api_call.0;
    ResetOrder {
        force: reset.force,
        only,
        skip_phases: reset.skip_phases,
        certificates: Some(reset.certificates_dir),
        kubeconfig,
        cri_socket: Some(reset.cri_socket).filter(|socket| !socket.is_empty()),
        keep_temporary: !reset.cleanup_tmp_dir,
        // A part of a second counts as one.
        etcd_limit_seconds: Some(limit.as_secs() + u64::from(limit.subsec_nanos() > 0)),
        ..ResetOrder::default()
    }
}

/// Whether a person has to say yes first.
fn is_asked(yes: bool, reset: &ResetConfiguration) -> bool {
    !yes && !reset.force && !reset.dry_run
}

async fn confirm(context: &Context) -> Result<()> {
    let question = "What `node init` or `node join` did on this host will be undone. Are you sure you want to proceed?";
    match context.prompts.confirm(question).await {
        Some(true) => Ok(()),
        Some(false) if context.cancel.requested() => Err(Cancel::failure()),
        Some(false) => Err(Failure::new(Kind::Interrupted, "the reset was not confirmed; nothing was altered")),
        None => Err(Failure::new(Kind::Usage, "there is no terminal to ask on whether to reset this host")
            .advise("give --yes to reset it without a question")),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{is_asked, order};
    use crate::kubernetes::configuration::{ResetConfiguration, load};

    #[rstest]
    #[case::nothing(false, false, false, true)]
    #[case::yes(true, false, false, false)]
    #[case::force(false, true, false, false)]
    #[case::dry_run(false, false, true, false)]
    fn a_person_is_asked(#[case] yes: bool, #[case] force: bool, #[case] dry_run: bool, #[case] expected: bool) {
        let reset = ResetConfiguration { force, dry_run, ..ResetConfiguration::default() };
        assert_eq!(is_asked(yes, &reset), expected);
    }

    #[rstest]
    #[case("", 120)]
    #[case("timeouts: {etcdAPICall: 30s}", 30)]
    #[case("timeouts: {etcdAPICall: 1500ms}", 2)]
    fn etcd_is_tried_as_long_as_the_document_says(#[case] text: &str, #[case] seconds: u64) {
        let text = format!("apiVersion: kubeadm.k8s.io/v1beta4\nkind: ResetConfiguration\n{text}");
        let mut reset = load(&text).unwrap().reset.unwrap();
        reset.complete();
        assert_eq!(order(reset, None, None).etcd_limit_seconds, Some(seconds));
    }

    #[test]
    fn a_document_comes_to_an_order() {
        let text = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ResetConfiguration\nforce: true\ncriSocket: /run/crio/crio.sock\n\
                    cleanupTmpDir: true\nskipPhases: [cleanup-node]\n";
        let mut reset = load(text).unwrap().reset.unwrap();
        reset.complete();
        let order = order(reset, Some("remove-etcd-member".into()), Some("/a".into()));
        assert!(order.force && !order.keep_temporary && !order.whole_cluster);
        assert_eq!(order.cri_socket.as_deref(), Some("unix:///run/crio/crio.sock"));
        assert_eq!(order.certificates.as_deref(), Some("/etc/kubernetes/pki"));
        assert_eq!((order.only.as_deref(), order.kubeconfig.as_deref()), (Some("remove-etcd-member"), Some("/a")));
        assert_eq!(order.skip_phases, ["cleanup-node"]);
    }
}
