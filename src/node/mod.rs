//! kubeadm's phases on one host: init, join, reset; preflight checks; the pod network.
