//! The only user of kube: client, apply, wait conditions.
