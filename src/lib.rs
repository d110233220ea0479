//! clusterctl: Kubernetes on machines you own, over SSH.
//!
//! Two things with one seam between them: a *remote engine* on the laptop and a *node engine* on each host; the same
//! program is both. Imports point down only:
//!
//! ```text
//! main.rs, lib.rs       thin
//! cli/                  what was typed -> settings; one short file per verb; one file turns failures into exit codes
//! ui/                   the only consumer of events; the only printer of failures
//! cluster/              many hosts: plan, lanes, up, down, status as literal tables of steps
//! remote/               one host from the laptop: agent client, blob transfer, tunnel
//! agent/                one host from inside: the message loop, the lock, dispatch to what is below
//! node/                 kubeadm's phases: init, join, reset as tables; preflight checks; the pod network
//! balancer/             the built-in endpoint: a TCP balancer on every node in front of all API servers
//! playbook/             model, load, tasks: plan(arguments, observation) -> changes; apply(change)
//! kubernetes/           pure builders: certificates, kubeconfigs, manifests, kubelet files, add-ons; kubeadm's API types
//! ssh/                  the only user of russh: ssh_config, authentication, known hosts, bastions, channels
//! api/                  the only user of kube: client, apply, wait conditions
//! https                 the only user of reqwest: requests to servers that are no API servers
//! bundle/               the blobs of one Kubernetes version in one file
//! host/                 this machine: files (atomic), commands, units, the journal
//! inventory/            model, load, validate
//! cancel, change, event, fact, failure, mask, message, pattern, secret, yaml   leaves
//! ```

pub mod agent;
pub mod api;
pub mod balancer;
pub mod bundle;
pub mod cancel;
pub mod change;
pub mod cli;
pub mod cluster;
pub mod event;
pub mod fact;
pub mod failure;
pub mod host;
pub mod https;
pub mod inventory;
pub mod kubernetes;
pub mod mask;
pub mod message;
pub mod node;
pub mod pattern;
pub mod playbook;
pub mod remote;
pub mod secret;
pub mod ssh;
pub mod ui;
pub mod yaml;
