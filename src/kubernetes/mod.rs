//! Pure builders of everything Kubernetes reads: certificates, kubeconfigs, manifests, kubelet files, objects.
