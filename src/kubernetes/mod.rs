//! Pure builders of everything Kubernetes reads: certificates, kubeconfigs, manifests, kubelet files, objects.
//!
//! No file, network or clock is touched here (key generation and tokens take random bytes, nothing else): host facts and
//! the time are parameters, results are values and texts, so that every rule of kubeadm can be tested by a table.
//!
//! ```text
//! version        what differs between Kubernetes minors, as data; image names
//! configuration  kubeadm.k8s.io/v1beta4: types, loading, defaults, validation
//! certificates   the PKI: catalogue, keys, issuing, judging what is there already
//! renewal        how long certificates are valid, new ones in their place
//! kubeconfig     admin.conf and its siblings, bootstrap kubeconfigs, cluster-info
//! manifests      the four static pods
//! kubelet        config.yaml, instance-config.yaml, kubeadm-flags.env
//! component      configurations of components, as upstream writes them out
//! objects, rbac  what init writes into the cluster
//! addons         CoreDNS and kube-proxy
//! token, jws     bootstrap tokens, signatures of cluster-info
//! tag            tags of images, and which of two etcds is newer
//! patches        what a person lays over manifests, the kubelet's configuration and add-ons
//! uploaded_certificates  the Secret kubeadm-certs: what control planes share, encrypted
//! podnetwork     CNI configuration and the routes between hosts
//! text           the YAML these files are written in
//! ```

pub mod addons;
pub mod certificates;
pub mod component;
pub mod configuration;
pub mod jws;
pub mod kubeconfig;
pub mod kubelet;
pub mod manifests;
pub(crate) mod moment;
pub mod objects;
pub mod patches;
pub mod podnetwork;
pub mod rbac;
pub mod renewal;
pub mod tag;
pub mod text;
pub mod token;
pub mod uploaded_certificates;
pub mod version;
