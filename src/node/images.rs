//! The images a node needs, fetched before anything waits for them (kubeadm's check ImagePull, kubeadm.md section 1.2).

use std::collections::BTreeSet;
use std::time::Duration;

use super::phase::phase;
use super::preflight::{self, Finding, Severity};
use crate::event::Events;
use crate::failure::{Failure, Result};
use crate::host::{Command, Host, containerd};
use crate::kubernetes::configuration::NodeRegistrationOptions;

/// How often one image is tried.
const TRIES: u32 = 5;

/// How long containerd may take to print its configuration.
const DUMP_LIMIT: Duration = Duration::from_secs(20);

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
    if node.image_pull_policy == "Never" {
        return Ok(Vec::new());
    }
    let Some(socket) = of_containerd(node) else {
        let socket = &node.cri_socket;
        events
            .warn(format!("ImagePull: the images of the runtime at {socket} are not looked at; kubelets fetch theirs"));
        return Ok(Vec::new());
    };
    let there = containerd::references_at(host, socket).await?;
    let lacking = lacking(wanted, &there, &node.image_pull_policy);
    if lacking.is_empty() {
        return Ok(Vec::new());
    }
    let fetching = async {
        let results: Vec<(&str, Result<()>)> = if node.image_pull_serial.unwrap_or(true) {
            let mut results = Vec::new();
            for reference in &lacking {
                results.push((*reference, pull(host, socket, reference).await));
            }
            results
        } else {
            let pulls = lacking.iter().map(|reference| async { (*reference, pull(host, socket, reference).await) });
            futures::future::join_all(pulls).await
        };
        preflight::judge(&findings(&results, &node.ignore_preflight_errors), events)?;
        let fetched = results.iter().filter(|(_, result)| result.is_ok());
        let fetched: Vec<String> = fetched.map(|(reference, _)| (*reference).to_owned()).collect();
        Ok((fetched.iter().map(|reference| format!("image {reference} fetched")).collect(), fetched))
    };
    Ok(phase(events, "images", "Fetch images", fetching).await?.1)
}

/// Path of the runtime's socket, if it is containerd's.
fn of_containerd(node: &NodeRegistrationOptions) -> Option<&str> {
    let path = node.cri_socket.strip_prefix("unix://").unwrap_or(&node.cri_socket);
    path.ends_with("/containerd.sock").then_some(path)
}

/// Warns where containerd makes the sandboxes of pods of another image than `pause`, as kubeadm's check ImagePull does; for
/// hosts that somebody else prepared. A containerd that does not tell its configuration is passed over, as is one with
/// another socket than the usual: its configuration lies elsewhere, too.
pub(super) async fn judge_sandbox(host: &dyn Host, node: &NodeRegistrationOptions, pause: &str, events: &Events) {
    let is_usual =
        of_containerd(node).is_some_and(|path| path.strip_prefix("/var").unwrap_or(path) == containerd::SOCKET);
    if node.image_pull_policy == "Never" || !is_usual {
        return;
    }
    let dump = Command::new("containerd", &["config", "dump"]).limit(DUMP_LIMIT);
    let Ok(dumped) = host.run(dump).await else { return };
    let dumped = dumped.text();
    if let Some(used) = sandbox_image(&dumped).filter(|used| *used != pause) {
        events.warn(format!(
            "ImagePull: containerd makes the sandboxes of pods of {used}, and kubeadm would of {pause}; name that as the \
             sandbox image in /etc/containerd/config.toml"
        ));
    }
}

/// The image in `containerd config dump`: `sandbox_image` up to containerd 1.7, `sandbox` among pinned images from 2.0 on.
fn sandbox_image(dumped: &str) -> Option<&str> {
    let settings = dumped.lines().filter_map(|line| line.split_once('='));
    let mut images = settings.filter(|(key, _)| matches!(key.trim(), "sandbox_image" | "sandbox"));
    images.next().map(|(_, image)| image.trim().trim_matches(['"', '\''])).filter(|image| !image.is_empty())
}

/// What is to be fetched.
fn lacking<'a>(wanted: &[&'a str], there: &BTreeSet<String>, policy: &str) -> Vec<&'a str> {
    wanted.iter().filter(|reference| policy == "Always" || !there.contains(**reference)).copied().collect()
}

/// Fetches an image; what may pass is tried again.
async fn pull(host: &dyn Host, socket: &str, reference: &str) -> Result<()> {
    let mut last = containerd::pull_at(host, socket, reference).await;
    for _ in 1..TRIES {
        if last.is_ok() {
            break;
        }
        last = containerd::pull_at(host, socket, reference).await;
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
    use rstest::rstest;

    use super::{fetch, judge_sandbox};
    use crate::event::{Event, Events, What};
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

    /// The warnings of `work`.
    async fn warned(work: impl AsyncFnOnce(&Events)) -> Vec<String> {
        let (events, mut happened) = Events::channel();
        work(&events).await;
        drop(events);
        let mut warnings = Vec::new();
        while let Some(event) = happened.recv().await {
            if let Event { what: What::Warned { sentence }, .. } = event {
                warnings.push(sentence);
            }
        }
        warnings
    }

    #[rstest]
    #[case::as_kubeadm_has_it("      sandbox = 'registry.k8s.io/pause:3.10.2'\n", None)]
    #[case::of_containerd_2("      sandbox = 'registry.k8s.io/pause:3.10'\n", Some("registry.k8s.io/pause:3.10,"))]
    #[case::of_containerd_1("    sandbox_image = \"mine/pause:1\"\n", Some("mine/pause:1,"))]
    #[case::something_else("      sandboxer = 'podsandbox'\n", None)]
    #[tokio::test]
    async fn another_image_of_sandboxes_is_said(#[case] dump: &str, #[case] used: Option<&str>) {
        let host = FakeHost::new().answer(&["containerd", "config", "dump"], 0, dump);
        let pause = "registry.k8s.io/pause:3.10.2";
        let warnings = warned(async |events| judge_sandbox(&host, &node(""), pause, events).await).await;
        assert_eq!(warnings.len(), usize::from(used.is_some()), "{warnings:?}");
        assert!(used.is_none_or(|used| warnings[0].contains(used)), "{warnings:?}");
    }

    #[tokio::test]
    async fn the_images_of_another_runtime_are_not_looked_at_and_that_is_said() {
        let other = NodeRegistrationOptions { cri_socket: "unix:///run/crio/crio.sock".into(), ..node("") };
        let host = FakeHost::new();
        let warnings = warned(async |events| drop(fetch(&host, &other, &["a:1"], events).await.unwrap())).await;
        assert!(warnings[0].contains("/run/crio/crio.sock"), "{warnings:?}");
        let never = NodeRegistrationOptions { image_pull_policy: "Never".into(), ..other };
        assert!(warned(async |events| drop(fetch(&host, &never, &["a:1"], events).await.unwrap())).await.is_empty());
    }

    #[tokio::test]
    async fn only_what_lacks_is_fetched() {
        let host = FakeHost::new().answer(&["ctr"], 0, LISTED);
        let images = ["a/there:1", "b/lacks:1"];
        assert_eq!(fetch(&host, &node("IfNotPresent"), &images, &Events::nowhere()).await.unwrap(), ["b/lacks:1"]);
        assert_eq!(fetch(&host, &node("Always"), &images, &Events::nowhere()).await.unwrap().len(), 2);
        assert!(fetch(&host, &node("Never"), &images, &Events::nowhere()).await.unwrap().is_empty());
    }

    #[rstest]
    #[case("unix:///run/containerd/containerd.sock", "/run/containerd/containerd.sock", true)]
    #[case("unix:///var/run/containerd/containerd.sock", "/var/run/containerd/containerd.sock", true)]
    #[case("unix:///run/k3s/containerd/containerd.sock", "/run/k3s/containerd/containerd.sock", false)]
    #[tokio::test]
    async fn the_containerd_that_was_named_is_asked(
        #[case] socket: &str,
        #[case] address: &str,
        #[case] has_usual_configuration: bool,
    ) {
        let host = FakeHost::new().answer(&["ctr"], 0, LISTED).answer(&["containerd"], 0, "");
        let node = NodeRegistrationOptions { cri_socket: socket.into(), ..node("") };
        fetch(&host, &node, &["a/there:1", "b/lacks:1"], &Events::nowhere()).await.unwrap();
        judge_sandbox(&host, &node, "pause:1", &Events::nowhere()).await;
        let words = |rest: &str| format!("run ctr --address {address} --namespace k8s.io images {rest}");
        let mut expected = vec![words("ls"), words("pull b/lacks:1")];
        expected.extend(has_usual_configuration.then(|| "run containerd config dump".to_owned()));
        assert_eq!(host.done(), expected);
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
