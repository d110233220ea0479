//! The two add-ons kubeadm deploys (kubeadm.md section 11): every object in the order of writing.

mod coredns;
mod kube_proxy;

pub use coredns::{Coredns, coredns};
pub use kube_proxy::{KubeProxy, configuration, kube_proxy};
