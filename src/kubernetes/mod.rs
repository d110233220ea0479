//! Pure builders of everything Kubernetes reads: certificates, kubeconfigs, manifests, kubelet files, objects.
//!
//! No file, network or clock is touched here (key generation and tokens take random bytes, nothing else): host facts and
//! the time are parameters, results are values and texts, so that every rule of kubeadm can be tested by a table.
//!
//! ```text
//! version        what differs between Kubernetes minors, as data; image names
//! configuration  kubeadm.k8s.io/v1beta4: types, loading, defaults, validation
//! certificates   the PKI: catalogue, keys, issuing, judging what is there already
//! kubeconfig     admin.conf and its siblings, bootstrap kubeconfigs, cluster-info
//! manifests      the four static pods
//! kubelet        config.yaml, instance-config.yaml, kubeadm-flags.env
//! objects, rbac  what init writes into the cluster
//! addons         CoreDNS and kube-proxy
//! token, jws     bootstrap tokens, signatures of cluster-info
//! uploaded_certificates  the Secret kubeadm-certs: what control planes share, encrypted
//! podnetwork     CNI configuration and the routes between hosts
//! text           the YAML these files are written in
//! ```

pub mod addons;
pub mod certificates;
pub mod configuration;
pub mod jws;
pub mod kubeconfig;
pub mod kubelet;
pub mod manifests;
pub(crate) mod moment;
pub mod objects;
pub mod podnetwork;
pub mod rbac;
pub mod text;
pub mod token;
pub mod uploaded_certificates;
pub mod version;
