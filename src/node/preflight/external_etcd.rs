//! ExternalEtcdVersion and ExternalEtcdClientCertificates: somebody else's etcd before a cluster is built on it.

use std::path::Path;
use std::time::Duration;

use semver::Version;
use serde_json::Value;

use super::Found;
use crate::api::wait::{Look, Wait};
use crate::failure::{Failure, Kind, Result};
use crate::host::Host;
use crate::https::Https;
use crate::kubernetes::configuration::ExternalEtcd;
use crate::kubernetes::version::Release;
use crate::node::files;
use crate::secret::Secret;

/// Longest time for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Longest time for an etcd that does not answer, and between two tries.
const LIMIT: Duration = Duration::from_secs(20);
const EVERY: Duration = Duration::from_secs(2);

/// A version is a few dozen bytes.
const ANSWER_BYTES: usize = 64 << 10;

/// Judges files and versions.
pub(super) async fn check(host: &dyn Host, etcd: &ExternalEtcd, kubernetes: &Version, found: &mut Found) -> Result<()> {
    if !files_are_there(host, etcd, found)? {
        return Ok(());
    }
    let client = match client(host, etcd) {
        Ok(client) => client,
        Err(failure) => {
            found.error("ExternalEtcdVersion", failure.to_string());
            return Ok(());
        }
    };
    let endpoints = if etcd.http_endpoints.is_empty() { &etcd.endpoints } else { &etcd.http_endpoints };
    let answers = endpoints.iter().map(|endpoint| version(&client, endpoint));
    let least = Release::nearest(kubernetes).least_external_etcd(kubernetes);
    for (endpoint, answer) in endpoints.iter().zip(futures::future::join_all(answers).await) {
        match answer {
            Ok(version) if version < least => found.error(
                "ExternalEtcdVersion",
                format!("the etcd at {endpoint} is of version {version}, and {least} is the oldest that will do"),
            ),
            Ok(_) => {}
            Err(failure) => found.error("ExternalEtcdVersion", failure.to_string()),
        }
    }
    Ok(())
}

/// Judges the files alone; whether all that are named are there.
pub(super) fn files_are_there(host: &dyn Host, etcd: &ExternalEtcd, found: &mut Found) -> Result<bool> {
    let files = [("caFile", &etcd.ca_file), ("certFile", &etcd.cert_file), ("keyFile", &etcd.key_file)];
    let mut complete = true;
    for (field, path) in files.into_iter().filter(|(_, path)| !path.is_empty()) {
        if host.entry(Path::new(path))?.is_none() {
            complete = false;
            found.error("ExternalEtcdClientCertificates", format!("there is no {path}, the {field} of etcd.external"));
        }
    }
    Ok(complete)
}

fn client(host: &dyn Host, etcd: &ExternalEtcd) -> Result<Https> {
    let text = |path: &str| -> Result<String> {
        if path.is_empty() { Ok(String::new()) } else { Ok(files::text(host, Path::new(path))?.unwrap_or_default()) }
    };
    let ca_pem = text(&etcd.ca_file)?;
    if etcd.cert_file.is_empty() {
        return Https::anonymous(&ca_pem, ANSWER_LIMIT, ANSWER_BYTES);
    }
    let (certificate, key) = (text(&etcd.cert_file)?, Secret::new(text(&etcd.key_file)?));
    Https::new(&ca_pem, &certificate, &key, ANSWER_LIMIT, ANSWER_BYTES)
}

/// Asks one member for its version; one that does not answer or fails is asked again for a while.
async fn version(client: &Https, endpoint: &str) -> Result<Version> {
    let url = format!("{}/version", endpoint.trim_end_matches('/'));
    let wait = Wait::new(format!("the etcd at {endpoint}"), "tell its version", LIMIT).every(EVERY);
    let body = wait.until(async || {
        Ok(match client.get(&url).await {
            Ok(answer) if answer.status < 500 => Look::There(answer.body),
            Ok(answer) => Look::NotYet(format!("it answered {}", answer.status)),
            Err(reason) => Look::NotYet(reason),
        })
    });
    let told: Value = serde_json::from_slice(&body.await?).unwrap_or_default();
    let text = told["etcdserver"].as_str().unwrap_or_default();
    Version::parse(text)
        .map_err(|_| Failure::new(Kind::Preflight, format!("the etcd at {endpoint} tells {text:?} for its version")))
}
