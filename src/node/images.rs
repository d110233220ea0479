//! The images a node needs, fetched before anything waits for them (kubeadm's check ImagePull, kubeadm.md section 1.2).

use std::collections::BTreeMap;

use super::phase::phase;
use super::preflight::{self, Finding, Severity};
use crate::event::Events;
use crate::failure::{Failure, Result};
use crate::host::{Host, containerd};
use crate::kubernetes::configuration::NodeRegistrationOptions;

/// How often one image is tried.
const TRIES: u32 = 5;

/// Fetches what `node`'s imagePullPolicy wants of `wanted`; answers with the references that were fetched. A runtime other
/// than containerd is left to its kubelet.
///
/// # Errors
/// Kind `Preflight`, under kubeadm's name ImagePull, naming the images that cannot be had.
pub async fn fetch(
    host: &dyn Host,
    node: &NodeRegistrationOptions,
    wanted: &[&str],
    events: &Events,
) -> Result<Vec<String>> {
    if node.image_pull_policy == "Never" || !node.cri_socket.ends_with("/containerd.sock") {
        return Ok(Vec::new());
    }
    let there = containerd::image_blobs(host).await?;
    let lacking = lacking(wanted, &there, &node.image_pull_policy);
    if lacking.is_empty() {
        return Ok(Vec::new());
    }
    let fetching = async {
        let results: Vec<(&str, Result<()>)> = if node.image_pull_serial.unwrap_or(true) {
            let mut results = Vec::new();
            for reference in &lacking {
                results.push((*reference, pull(host, reference).await));
            }
            results
        } else {
            let pulls = lacking.iter().map(|reference| async { (*reference, pull(host, reference).await) });
            futures::future::join_all(pulls).await
        };
        preflight::judge(&findings(&results, &node.ignore_preflight_errors), events)?;
        let fetched = results.iter().filter(|(_, result)| result.is_ok());
        let fetched: Vec<String> = fetched.map(|(reference, _)| (*reference).to_owned()).collect();
        Ok((fetched.iter().map(|reference| format!("image {reference} fetched")).collect(), fetched))
    };
    Ok(phase(events, "images", "Fetch images", fetching).await?.1)
}

/// What is to be fetched.
fn lacking<'a>(wanted: &[&'a str], there: &BTreeMap<String, Option<String>>, policy: &str) -> Vec<&'a str> {
    wanted.iter().filter(|reference| policy == "Always" || !there.contains_key(**reference)).copied().collect()
}

/// Fetches an image; what may pass is tried again.
async fn pull(host: &dyn Host, reference: &str) -> Result<()> {
    let mut last = containerd::pull(host, reference).await;
    for _ in 1..TRIES {
        if last.is_ok() {
            break;
        }
        last = containerd::pull(host, reference).await;
    }
    last
}

fn findings(results: &[(&str, Result<()>)], ignore: &[String]) -> Vec<Finding> {
    let ignored = ignore.iter().any(|name| name.eq_ignore_ascii_case("all") || name.eq_ignore_ascii_case("ImagePull"));
    let severity = if ignored { Severity::Warning } else { Severity::Error };
    let message = |failure: &Failure| failure.to_string();
    let failed = results.iter().filter_map(|(_, result)| result.as_ref().err());
    failed.map(|failure| Finding { name: "ImagePull".to_owned(), severity, message: message(failure) }).collect()
}

#[cfg(test)]
mod tests {
    use super::fetch;
    use crate::event::Events;
    use crate::failure::Kind;
    use crate::host::Output;
    use crate::host::fake::FakeHost;
    use crate::kubernetes::configuration::NodeRegistrationOptions;

    const LISTED: &str = "REF TYPE DIGEST SIZE PLATFORMS LABELS\na/there:1 t sha256:a 1 MiB linux/amd64 -\n";

    fn node(policy: &str) -> NodeRegistrationOptions {
        NodeRegistrationOptions {
            cri_socket: "unix:///run/containerd/containerd.sock".into(),
            image_pull_policy: policy.into(),
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn only_what_lacks_is_fetched() {
        let host = FakeHost::new().answer(&["ctr"], 0, LISTED);
        let images = ["a/there:1", "b/lacks:1"];
        assert_eq!(fetch(&host, &node("IfNotPresent"), &images, &Events::nowhere()).await.unwrap(), ["b/lacks:1"]);
        assert_eq!(fetch(&host, &node("Always"), &images, &Events::nowhere()).await.unwrap().len(), 2);
        assert!(fetch(&host, &node("Never"), &images, &Events::nowhere()).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_image_that_cannot_be_had_is_kubeadms_finding() {
        let host = FakeHost::new().answer_with(&["ctr"], |_, command| {
            let pulls = command.arguments.iter().any(|word| word == "pull");
            Ok(Output { status: i32::from(pulls), stdout: LISTED.into(), ..Output::default() })
        });
        let failure = fetch(&host, &node(""), &["b/lacks:1"], &Events::nowhere()).await.unwrap_err();
        assert_eq!(failure.kind, Kind::Preflight);
        assert!(failure.sentence.starts_with("ImagePull: image b/lacks:1 cannot be fetched"), "{failure}");
        let ignoring = NodeRegistrationOptions { ignore_preflight_errors: vec!["imagepull".into()], ..node("") };
        assert!(fetch(&host, &ignoring, &["b/lacks:1"], &Events::nowhere()).await.unwrap().is_empty());
    }
}
