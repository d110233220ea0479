//! `clusterctl node certs`: how long certificates are valid, new ones, and requests to an authority elsewhere.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Subcommand;
use clap::ValueHint::{DirPath, FilePath};
use serde_json::{Value, json};

use super::flags::Form;
use super::here::{self, Look};
use crate::cli::Context;
use crate::event::Events;
use crate::failure::Result;
use crate::host::machine::Machine;
use crate::host::observe;
use crate::kubernetes::moment;
use crate::kubernetes::renewal::{Expiration, Expirations};
use crate::kubernetes::token::generate_certificate_key;
use crate::node::certs::{self, KUBECONFIG_DIRECTORY, Outcome, Requested, Source, State};
use crate::ui;

/// Arguments of `node certs`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// What to do with certificates.
    #[command(subcommand)]
    verb: CertsVerb,
}

/// What can be done with certificates.
#[derive(Debug, Clone, Subcommand)]
enum CertsVerb {
    /// Say until when the certificates of this control plane are valid
    CheckExpiration(Check),
    /// Make new certificates in place of those that are there, for the same names
    #[command(after_help = RENEW_HELP)]
    Renew(Renew),
    /// Print a new key for uploading certificates with `node init --upload-certs`
    CertificateKey,
    /// Make keys and certificate signing requests, for a certificate authority elsewhere
    #[command(after_help = REQUEST_HELP)]
    GenerateCsr(Request),
}

const RENEW_HELP: &str = "\
NAME is all, or one of admin.conf, apiserver, apiserver-etcd-client, apiserver-kubelet-client,
controller-manager.conf, etcd-healthcheck-client, etcd-peer, etcd-server, front-proxy-client,
scheduler.conf, super-admin.conf. Certificate authorities are not renewed, and kubelets renew
their own certificates.

The components go on with the old certificates until they are restarted: move their files out of
/etc/kubernetes/manifests for some 20 seconds, one after the other.";

const REQUEST_HELP: &str = "\
Each key stands beside its request: etcd/peer.key and etcd/peer.csr. Save what the authority signs
beside them as .crt, and the authority's own certificates as ca.crt, front-proxy-ca.crt and
etcd/ca.crt. Into each kubeconfig go, as base64, the signed certificate of its request (client-
certificate-data) and ca.crt (certificate-authority-data). Then `node init` takes them as they are.";

/// Where the configuration comes from, as with kubeadm.
#[derive(Debug, Clone, clap::Args)]
struct From {
    /// kubeadm documents, in place of the cluster's configuration
    #[arg(long, value_name = "FILE", value_hint = FilePath)]
    config: Option<PathBuf>,
    /// Where the certificates lie, whatever the configuration says
    #[arg(long, value_name = "DIRECTORY", value_hint = DirPath)]
    cert_dir: Option<String>,
    /// The kubeconfig to ask the cluster for its configuration with
    #[arg(long, value_name = "FILE", default_value = "/etc/kubernetes/admin.conf", value_hint = FilePath)]
    kubeconfig: PathBuf,
}

impl From {
    fn source(&self) -> Source<'_> {
        Source {
            file: self.config.as_deref(),
            kubeconfig: &self.kubeconfig,
            certificates_directory: self.cert_dir.as_deref(),
        }
    }
}

/// Arguments of `check-expiration`.
#[derive(Debug, Clone, clap::Args)]
struct Check {
    #[command(flatten)]
    from: From,
    /// How to print the result
    #[arg(short = 'o', value_name = "FORM", value_enum)]
    form: Option<Form>,
}

/// Arguments of `renew`.
#[derive(Debug, Clone, clap::Args)]
struct Renew {
    /// Which certificate, or all
    name: String,
    #[command(flatten)]
    from: From,
    /// How to print the result
    #[arg(short = 'o', value_name = "FORM", value_enum)]
    form: Option<Form>,
}

/// Arguments of `generate-csr`.
#[derive(Debug, Clone, clap::Args)]
struct Request {
    /// kubeadm documents: names and addresses come from them
    #[arg(long, value_name = "FILE", value_hint = FilePath)]
    config: Option<PathBuf>,
    /// Where keys and requests go, whatever the configuration says
    #[arg(long, value_name = "DIRECTORY", value_hint = DirPath)]
    cert_dir: Option<String>,
    /// Where kubeconfigs and their requests go
    #[arg(long, value_name = "DIRECTORY", default_value = KUBECONFIG_DIRECTORY, value_hint = DirPath)]
    kubeconfig_dir: PathBuf,
    /// How to print the result
    #[arg(short = 'o', value_name = "FORM", value_enum)]
    form: Option<Form>,
}

/// Does what was asked with certificates.
pub(super) async fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode> {
    let text = match &arguments.verb {
        CertsVerb::CheckExpiration(check) => expirations(check, context).await?,
        CertsVerb::Renew(renew) => renewed(renew, context).await?,
        CertsVerb::CertificateKey => format!("{}\n", generate_certificate_key()?.expose()),
        CertsVerb::GenerateCsr(request) => requested(request, context).await?,
    };
    context.screen.print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Work that needs neither root nor the host's lock: kubeadm reads certificates and writes requests for anybody.
async fn quietly<T>(context: &Context, work: impl AsyncFnOnce(&Events) -> Result<T>) -> Result<T> {
    let (events, happened) = Events::channel();
    let display = context.screen.start(happened);
    let result = work(&events).await;
    drop(events);
    display.finish().await;
    result
}

async fn expirations(check: &Check, context: &Context) -> Result<String> {
    let found = quietly(context, async |events| {
        let cluster = certs::cluster(&Machine, &check.from.source(), events).await?;
        certs::expirations(&Machine, &cluster, Path::new(KUBECONFIG_DIRECTORY))
    });
    let found = found.await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    Ok(Form::of(check.form, context).write(&document(&found, now), || tables(&found, now)))
}

/// kubeadm's CertificateExpirationInfo.
fn document(found: &Expirations, now: i64) -> Value {
    let one = |expiration: &Expiration| {
        let mut one = json!({
            "name": expiration.name,
            "expirationDate": expiration.until_seconds.map(rfc3339),
            "residualTime": expiration.until_seconds.map_or(0, |until| until - now),
            "externallyManaged": expiration.externally_managed,
        });
        if let Some(authority) = &expiration.authority {
            one["caName"] = json!(authority);
        }
        one["missing"] = json!(expiration.until_seconds.is_none());
        one
    };
    json!({
        "kind": "CertificateExpirationInfo",
        "apiVersion": "output.kubeadm.k8s.io/v1alpha3",
        "certificates": found.certificates.iter().map(one).collect::<Vec<_>>(),
        "certificateAuthorities": found.authorities.iter().map(one).collect::<Vec<_>>(),
    })
}

fn rfc3339(seconds: i64) -> String {
    moment::rfc3339(u64::try_from(seconds).unwrap_or(0))
}

/// kubeadm's two tables.
fn tables(found: &Expirations, now: i64) -> String {
    let row = |expiration: &Expiration| {
        let Some(until) = expiration.until_seconds else { return vec![format!("!MISSING! {}", expiration.name)] };
        let mut row = vec![
            expiration.name.clone(),
            moment::short(u64::try_from(until).unwrap_or(0)),
            moment::remaining(until - now),
        ];
        row.extend(expiration.authority.clone());
        row.push(if expiration.externally_managed { "yes" } else { "no" }.to_owned());
        row
    };
    let headings = ["CERTIFICATE", "EXPIRES", "RESIDUAL TIME", "CERTIFICATE AUTHORITY", "EXTERNALLY MANAGED"];
    let certificates: Vec<_> = found.certificates.iter().map(row).collect();
    let authorities: Vec<_> = found.authorities.iter().map(row).collect();
    format!(
        "{}\n{}",
        ui::table(&headings, &certificates),
        ui::table(&["CERTIFICATE AUTHORITY", "EXPIRES", "RESIDUAL TIME", "EXTERNALLY MANAGED"], &authorities)
    )
}

async fn renewed(renew: &Renew, context: &Context) -> Result<String> {
    let name = (renew.name != "all").then_some(renew.name.as_str());
    let outcomes = here::work(context, "certs renew", &[], Look::Nothing, async |host, _, events| {
        let cluster = certs::cluster(host, &renew.from.source(), events).await?;
        certs::renew(host, &cluster, Path::new(KUBECONFIG_DIRECTORY), name).await
    });
    let outcomes = outcomes.await?;
    let state = |outcome: &Outcome| match &outcome.state {
        State::Missing => "missing",
        State::External(_) => "external",
        State::Renewed => "renewed",
    };
    let list: Vec<_> =
        outcomes.iter().map(|outcome| json!({ "name": outcome.name, "state": state(outcome) })).collect();
    Ok(Form::of(renew.form, context).write(&json!({ "certificates": list }), || sentences(&outcomes)))
}

/// kubeadm's sentences.
fn sentences(outcomes: &[Outcome]) -> String {
    let line = |outcome: &Outcome| match &outcome.state {
        State::Missing => format!("MISSING! {}\n", outcome.title),
        State::External(authority) => format!("Detected external {authority}, {} can't be renewed\n", outcome.title),
        State::Renewed => format!("{} renewed\n", outcome.title),
    };
    let mut text: String = outcomes.iter().map(line).collect();
    if outcomes.iter().any(|outcome| outcome.state == State::Renewed) {
        text.push_str(
            "\nDone renewing certificates. You must restart the kube-apiserver, kube-controller-manager, kube-scheduler \
             and etcd, so that they can use the new certificates.\n",
        );
    }
    text
}

async fn requested(request: &Request, context: &Context) -> Result<String> {
    let written = quietly(context, async |events| {
        let facts = observe::facts(&Machine).await?;
        let (file, directory) = (request.config.as_deref(), request.cert_dir.as_deref());
        let wanted = Requested::load(&Machine, &facts, file, directory, events)?;
        certs::request(&Machine, &wanted, &request.kubeconfig_dir).await
    });
    let written: Vec<_> = written.await?.iter().map(|path| path.display().to_string()).collect();
    let text = || written.iter().map(|path| format!("{path}\n")).collect();
    Ok(Form::of(request.form, context).write(&json!({ "files": written }), text))
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    fn found() -> Expirations {
        let one = |name: &str, until_seconds, authority: Option<&str>, externally_managed| Expiration {
            name: name.into(),
            until_seconds,
            authority: authority.map(str::to_owned),
            externally_managed,
        };
        Expirations {
            certificates: vec![
                one("admin.conf", Some(1_826_971_200), Some("ca"), false),
                one("etcd-peer", Some(1_795_435_200), Some("etcd-ca"), true),
                one("super-admin.conf", None, None, false),
            ],
            authorities: vec![one("ca", Some(2_110_795_200), None, false), one("etcd-ca", None, None, false)],
        }
    }

    const NOW: i64 = 1_795_435_300;

    #[test]
    fn expirations_are_tables_as_those_of_kubeadm() {
        assert_snapshot!(tables(&found(), NOW), @"
        CERTIFICATE                 EXPIRES                 RESIDUAL TIME  CERTIFICATE AUTHORITY  EXTERNALLY MANAGED
        admin.conf                  Nov 23, 2027 12:00 UTC  364d           ca                     no
        etcd-peer                   Nov 23, 2026 12:00 UTC  <invalid>      etcd-ca                yes
        !MISSING! super-admin.conf

        CERTIFICATE AUTHORITY  EXPIRES                 RESIDUAL TIME  EXTERNALLY MANAGED
        ca                     Nov 20, 2036 12:00 UTC  9y             no
        !MISSING! etcd-ca
        ");
    }

    #[test]
    fn programs_get_what_kubeadm_gives_them() {
        let document = document(&found(), NOW);
        assert_eq!(document["apiVersion"], "output.kubeadm.k8s.io/v1alpha3");
        assert_eq!(
            document["certificates"][1].to_string(),
            r#"{"name":"etcd-peer","expirationDate":"2026-11-23T12:00:00Z","residualTime":-100,"externallyManaged":true,"caName":"etcd-ca","missing":false}"#
        );
        assert_eq!(
            document["certificateAuthorities"][1].to_string(),
            r#"{"name":"etcd-ca","expirationDate":null,"residualTime":0,"externallyManaged":false,"missing":true}"#
        );
    }

    #[test]
    fn what_became_of_each_is_said() {
        let outcome = |state| Outcome { name: "x".into(), title: "certificate for serving etcd", state };
        assert_snapshot!(sentences(&[outcome(State::Missing), outcome(State::External("etcd-ca".into()))]), @"
        MISSING! certificate for serving etcd
        Detected external etcd-ca, certificate for serving etcd can't be renewed
        ");
        assert!(sentences(&[outcome(State::Renewed)]).contains("You must restart"));
    }
}
