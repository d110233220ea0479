//! Dry runs: the same steps, over a host that only notes and an API server that is only played. What waits for something
//! that does not come then is left out.

use serde_json::{Value, json};

use super::{init, network, phases, refresh};
use crate::api::{Client, Rehearsal, Written};
use crate::change::{Action, Change, Kind, difference};
use crate::event::{Events, What};
use crate::fact::Facts;
use crate::failure::{Failure, Kind as FailureKind, Result};
use crate::host::overlay::Overlay;
use crate::kubernetes::text::yaml;
use crate::message::{Foreseen, Request};
use crate::secret::Secret;

/// How the steps of this run reach the API server.
#[derive(Debug, Clone, Default)]
pub(super) enum Door {
    /// Over the network.
    #[default]
    Real,
    /// Not at all.
    Rehearsed(Rehearsal),
}

impl Door {
    /// A client by a kubeconfig.
    ///
    /// # Errors
    /// As [`Client::from_kubeconfig`].
    pub(super) async fn client(&self, kubeconfig: &Secret) -> Result<Client> {
        match self {
            Door::Real => Client::from_kubeconfig(kubeconfig).await,
            Door::Rehearsed(rehearsal) => Ok(Client::rehearsed(rehearsal)),
        }
    }
}

/// What a dry run would have done.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rehearsed {
    /// On the host, in order, one line each.
    pub host: Vec<String>,
    /// Objects that would be written, without what is secret in them.
    pub objects: Vec<Value>,
    /// Phases that were left out because they wait for something that does not come in a dry run.
    pub left_out: Vec<String>,
}

/// What stands in place of a secret value.
const HIDDEN: &str = "***";

impl Rehearsed {
    /// Gathers what overlay and played server were told.
    pub(super) fn of(overlay: &Overlay<'_>, server: &Rehearsal, left_out: &[&str]) -> Self {
        let mut objects = server.written();
        objects.iter_mut().for_each(hide);
        Self { host: overlay.told(), objects, left_out: left_out.iter().map(|&phase| phase.to_owned()).collect() }
    }
}

/// Says on an overlay what a request to the node engine would alter besides what the overlay notes by itself: phases, objects
/// of the cluster, and what is not known before it is done. Warnings go to `events`.
///
/// # Errors
/// As the request itself, as far as it shows before anything runs; kind `Internal` for a request of another sort.
pub async fn rehearse(host: &Overlay<'_>, facts: &Facts, request: &Request, events: &Events) -> Result<Foreseen> {
    let (heard, mut happened) = Events::channel();
    let mut foreseen = Foreseen::default();
    let fresh = !facts.kubernetes.kubelet_conf;
    match request {
        Request::Init(order) => {
            let (written, unknown) = init::rehearse_up(host, facts, order, &heard).await?;
            foreseen.unknown = unknown;
            foreseen.changes = written.iter().map(of_object).collect();
        }
        Request::Refresh(order) if fresh => {
            refresh::rehearse_newcomer(host, facts, order, &heard).await?;
            foreseen.unknown.push("certificates and credentials come from the cluster when the host joins".to_owned());
        }
        Request::Refresh(order) => {
            refresh::rehearse_refresh(host, facts, order, &heard).await?;
        }
        Request::Network(order) => {
            network::network(host, facts, order, &heard).await?;
        }
        _ => return Err(Failure::new(FailureKind::Internal, "a request cannot be rehearsed")),
    }
    drop(heard);
    let mut titles = Vec::new();
    let mut changed = Vec::new();
    while let Some(event) = happened.recv().await {
        match event.what {
            What::StepStarted { step, title } => titles.push((step, title)),
            What::Changed { step, .. } if !changed.contains(&step) => changed.push(step),
            warned @ What::Warned { .. } => events.send(warned),
            _ => {}
        }
    }
    let phases: Vec<(String, String)> = match request {
        Request::Refresh(order) if fresh => refresh::phases_of_joining(host, facts, order)?,
        Request::Init(order) if fresh => whole_init(order.upload_certificates),
        Request::Network(_) => Vec::new(),
        _ => {
            titles.into_iter().filter(|(step, _)| changed.contains(step)).map(|(step, title)| (step.0, title)).collect()
        }
    };
    let phase = |(name, does): (String, String)| Change::new(Kind::Phase, Action::Run, name).detailed(does);
    foreseen.changes.splice(0..0, phases.into_iter().map(phase));
    Ok(foreseen)
}

/// All phases of an `init` that ends with nodes that can join.
fn whole_init(upload_certificates: bool) -> Vec<(String, String)> {
    let left_out = |name: &str| name == "show-join-command" || (name == "upload-certs" && !upload_certificates);
    let done = phases::INIT.phases.iter().filter(|phase| !left_out(phase.name));
    done.map(|phase| (phase.name.to_owned(), phase.does.to_owned())).collect()
}

/// An object that would be written, with its diff.
fn of_object(written: &Written) -> Change {
    let action = match (&written.before, &written.after) {
        (None, _) => Action::Create,
        (_, None) => Action::Remove,
        _ => Action::Update,
    };
    let text = |object: &Option<Value>| {
        let mut object = object.clone()?;
        hide(&mut object);
        // What the server keeps for itself.
        for pointer in ["/metadata/managedFields", "/metadata/resourceVersion", "/status"] {
            let (parent, key) = pointer.rsplit_once('/').unwrap_or_default();
            if let Some(fields) = object.pointer_mut(parent).and_then(Value::as_object_mut) {
                fields.shift_remove(key);
            }
        }
        Some(yaml(&object).into_bytes())
    };
    let (before, after) = (text(&written.before), text(&written.after));
    Change::new(Kind::Object, action, &written.object).with(difference(before.as_deref(), after.as_deref()))
}

/// Takes the values of a Secret out, and what the played server added.
fn hide(object: &mut Value) {
    if object["kind"] == "Secret" {
        for part in ["data", "stringData"] {
            for value in
                object.get_mut(part).and_then(Value::as_object_mut).into_iter().flatten().map(|(_, value)| value)
            {
                *value = json!(HIDDEN);
            }
        }
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.shift_remove("uid");
    }
}

/// The Node that a kubelet registers, as far as others look at it.
pub(super) fn node(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Rehearsed;
    use crate::api::{Client, Rehearsal};
    use crate::host::fake::FakeHost;
    use crate::host::overlay::Overlay;

    #[tokio::test]
    async fn secrets_are_not_told() {
        let host = FakeHost::new();
        let server = Rehearsal::default();
        let client = Client::rehearsed(&server);
        let secret =
            json!({"kind": "Secret", "metadata": {"name": "a", "namespace": "b"}, "data": {"key": "c2VjcmV0"}});
        client.create(&secret).await.unwrap();
        let rehearsed = Rehearsed::of(&Overlay::new(&host, "/dry"), &server, &["wait-control-plane"]);
        assert_eq!(rehearsed.objects[0]["data"], json!({"key": "***"}));
        assert!(rehearsed.objects[0]["metadata"].get("uid").is_none());
        assert_eq!(rehearsed.left_out, ["wait-control-plane"]);
    }
}
