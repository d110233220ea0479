//! Which control plane the cluster is made on, or asked of where there is one. Pure.
//!
//! A second cluster must never be made beside one that lives: a machine that was replaced is bare again, and it may be the
//! first of the inventory. So `init` runs where the cluster is, wherever that stands in the inventory, and the bare one
//! joins like any other.

use std::collections::BTreeMap;

use crate::fact::{EtcdOrigin, Facts};
use crate::inventory::{Host, Inventory};

/// What a control plane of the inventory is to the cluster already, the most trustworthy first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// A member that works.
    Serves,
    /// The cluster was made here, or its making broke off here.
    Made,
    /// It joined, or its joining broke off.
    Joined,
    /// It runs an API server with etcd elsewhere.
    Runs,
    /// None of these.
    Bare,
}

fn standing(cluster: &str, facts: Option<&Facts>) -> Standing {
    let Some(state) = facts.map(|facts| &facts.kubernetes) else { return Standing::Bare };
    let ours = state.journal_cluster.as_deref() == Some(cluster);
    let runs = state.kubelet_conf && state.manifests.iter().any(|name| name == "kube-apiserver.yaml");
    match state.etcd {
        _ if !ours => Standing::Bare,
        _ if state.serves => Standing::Serves,
        Some(EtcdOrigin::Made) => Standing::Made,
        Some(EtcdOrigin::Joined) => Standing::Joined,
        None if runs => Standing::Runs,
        None => Standing::Bare,
    }
}

/// The control plane to make the cluster on, or to ask of; of equal ones the first in the inventory, which has one.
pub(super) fn source<'a>(inventory: &'a Inventory, facts: &BTreeMap<String, Facts>) -> Option<&'a Host> {
    inventory.control_planes().min_by_key(|host| standing(&inventory.cluster.name, facts.get(&host.name)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use rstest::rstest;

    use super::source;
    use crate::fact::{EtcdOrigin, Facts};
    use crate::inventory;

    /// `b` bare, `S` serves, `M` made, `J` joined, `R` runs without etcd, `c` only certificates, `x` of another cluster.
    fn facts(letter: char) -> Facts {
        let mut facts = Facts::default();
        let state = &mut facts.kubernetes;
        if letter != 'b' {
            state.journal_cluster = Some(if letter == 'x' { "other" } else { "demo" }.to_owned());
            state.ca_hash = Some("sha256:1".to_owned());
        }
        state.serves = letter == 'S' || letter == 'x';
        state.etcd = match letter {
            'M' | 'x' => Some(EtcdOrigin::Made),
            'J' | 'S' => Some(EtcdOrigin::Joined),
            _ => None,
        };
        if letter == 'R' {
            state.kubelet_conf = true;
            state.manifests = vec!["kube-apiserver.yaml".to_owned()];
        }
        facts
    }

    #[rstest]
    // Nothing yet: the first.
    #[case("bbb", "cp1")]
    #[case("cbb", "cp1")]
    // All is well: the first.
    #[case("SSS", "cp1")]
    // Its making broke off.
    #[case("Mbb", "cp1")]
    // The first was replaced: it joins those that live.
    #[case("bSS", "cp2")]
    // Its joining broke off in the middle.
    #[case("cSS", "cp2")]
    #[case("JSS", "cp2")]
    // The first does not work at the moment: another is asked.
    #[case("MSS", "cp2")]
    #[case("bbS", "cp3")]
    // None works, for all machines have just started: where the cluster was made, else where it is.
    #[case("JMJ", "cp2")]
    #[case("bJJ", "cp2")]
    #[case("JJJ", "cp1")]
    // etcd elsewhere.
    #[case("RRR", "cp1")]
    #[case("bRR", "cp2")]
    #[case("cRb", "cp2")]
    // What is another cluster's counts for nothing here.
    #[case("bxx", "cp1")]
    #[case("bxS", "cp3")]
    fn the_cluster_is_asked_of_where_it_is(#[case] letters: &str, #[case] expected: &str) {
        let text = "cluster: {name: demo, endpoint: built-in}\nssh: {user: root}\nhosts:\n  w1: {role: worker}\n  cp1: {role: control-plane}\n  cp2: {role: control-plane}\n  cp3: {role: control-plane}\n";
        let inventory = inventory::parse(text, Path::new("inventory.yaml"), Path::new("/home/ann"))
            .unwrap_or_else(|findings| panic!("{findings:?}"));
        let names = ["cp1", "cp2", "cp3"];
        let facts: BTreeMap<String, Facts> =
            names.iter().zip(letters.chars()).map(|(name, letter)| ((*name).to_owned(), facts(letter))).collect();
        assert_eq!(source(&inventory, &facts).map(|host| host.name.as_str()), Some(expected));
    }
}
