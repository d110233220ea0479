//! Dry runs: the same steps, over a host that only notes and an API server that is only played. What waits for something
//! that does not come then is left out.

use serde_json::{Value, json};

use crate::api::{Client, Rehearsal};
use crate::failure::Result;
use crate::host::overlay::Overlay;
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
