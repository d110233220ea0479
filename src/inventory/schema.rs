//! The inventory as a JSON Schema, for editors: what completes and underlines while somebody types.

use serde_json::{Value, json};

use super::{DEFAULT_KUBERNETES, cluster, grammar, hosts, ssh, transfer};

/// JSON Schema (draft 2020-12) of an inventory. Editors check shapes with it; what only the whole shows (duplicate
/// addresses, overlapping networks) is found by [`super::judge`].
pub fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "clusterctl inventory",
        "description": "The machines and the Kubernetes cluster they shall be",
        "type": "object",
        "additionalProperties": false,
        "required": ["hosts"],
        "properties": {
            "cluster": nullable(cluster_schema()),
            "ssh": nullable(json!({
                "$ref": "#/$defs/ssh",
                "description": "How all hosts are reached; a host's own `ssh` is laid over it",
            })),
            "transfer": nullable(transfer_schema()),
            "hosts": {
                "description": "The machines: a list of names, or names with what is special about each",
                "oneOf": [
                    {
                        "type": "array",
                        "minItems": 1,
                        "uniqueItems": true,
                        "items": {"$ref": "#/$defs/name"},
                    },
                    {
                        "type": "object",
                        "minProperties": 1,
                        "propertyNames": {"$ref": "#/$defs/name"},
                        "additionalProperties": nullable(host_schema()),
                    },
                ],
            },
        },
        "$defs": {
            "name": {
                "type": "string",
                "maxLength": 253,
                "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
            },
            "paths": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
            "secret": secret_schema(),
            "ssh": ssh_schema(),
        },
    })
}

fn cluster_schema() -> Value {
    json!({
        "type": "object",
        "description": "What cluster the hosts shall be",
        "additionalProperties": false,
        "properties": {
            "name": {
                "type": "string",
                "default": "kubernetes",
                "maxLength": 63,
                "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
                "description": "Names the kubeconfig and the records on the hosts",
            },
            "kubernetes": {
                "type": "string",
                "default": DEFAULT_KUBERNETES.to_string(),
                "pattern": "^v?1\\.[0-9]+\\.[0-9]+",
                "description": "Kubernetes version with all three numbers",
            },
            "endpoint": {
                "type": "string",
                "description": "By what all nodes reach the API: `built-in` (a balancer on every node), or the \
                                `host:port` of one you have; needed from two control planes on",
                "examples": ["built-in", "api.demo.example:6443"],
            },
            "network": nullable(network_schema()),
            "kubeadm": {
                "description": "kubeadm's own documents: a path, or the documents themselves",
                "oneOf": [
                    {"type": "string"},
                    {"type": "object"},
                    {"type": "array", "items": {"type": "object"}},
                ],
            },
            "bundle": {"type": "string", "description": "The bundle's file or folder; relative to the inventory"},
            "containerd": nullable(json!({
                "type": "object",
                "description": "Settings of the container runtime",
                "additionalProperties": false,
                "properties": {
                    "restrict_oom_score_adj": {
                        "type": "boolean",
                        "default": false,
                        "description": "For hosts without CAP_SYS_RESOURCE, such as containers",
                    },
                },
            })),
            "ignore_checks": {
                "description": "Names of checks whose errors only warn; `all`",
                "oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
            },
            "adopt": {
                "type": "string",
                "pattern": "^sha256:[0-9a-f]{64}$",
                "description": "The CA of a cluster that another tool made and that is taken over",
            },
        },
    })
}

fn network_schema() -> Value {
    json!({
        "type": "object",
        "description": "The networks inside of the cluster",
        "additionalProperties": false,
        "properties": {
            "pods": {"type": "string", "default": "10.244.0.0/16", "description": "Network of the pods"},
            "services": {"type": "string", "default": "10.96.0.0/12", "description": "Network of the services"},
            "plugin": {
                "enum": words(&cluster::PLUGINS),
                "default": "bridge",
                "description": "Who makes the pod network; `none` leaves it to you",
            },
            "domain": {"type": "string", "default": "cluster.local", "description": "DNS domain of the cluster"},
        },
    })
}

fn transfer_schema() -> Value {
    json!({
        "type": "object",
        "description": "How bytes get to the machines",
        "additionalProperties": false,
        "properties": {
            "relay": {
                "enum": words(&transfer::RELAY),
                "default": "auto",
                "description": "Whether machines hand files on to each other; `auto` where it saves time",
            },
            "bandwidth": {
                "type": "string",
                "pattern": "^[0-9]+[KMG]?$",
                "description": "Bytes a second that leave your computer at most: `500K`, `10M`, `1G`; no limit if absent",
            },
            "uploads": {
                "type": "integer",
                "minimum": 1,
                "maximum": transfer::MAXIMUM_UPLOADS,
                "default": 16,
                "description": "How many files leave your computer at a time",
            },
            "fetch": {
                "enum": words(&transfer::FETCH),
                "default": "bundle",
                "description": "Where files come from: a bundle on your computer, or each machine downloads its own",
            },
            "mirrors": nullable(json!({
                "description": "Servers that machines download from instead of the official ones, `NAME=URL`",
                "oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
            })),
        },
    })
}

fn host_schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "address": {
                "type": "string",
                "description": "What SSH connects to: `host`, `host:port` or `[IPv6]:port`; the host's name if absent",
            },
            "node_address": {
                "type": "string",
                "description": "IP address that other nodes reach it by; `address` if that is one, else found out",
            },
            "role": {
                "enum": words(&hosts::ROLES),
                "default": "worker",
                "description": "What it becomes; if no host has a role, the first is the control plane",
            },
            "labels": {
                "type": ["object", "null"],
                "description": "Labels of the node",
                "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
            },
            "groups": {
                "description": "Groups it belongs to, for `--on group=NAME`",
                "anyOf": [{"$ref": "#/$defs/paths"}, {"type": "null"}],
            },
            "taints": {
                "description": "Taints of the node as `key=value:Effect`; `[]` for none, kubeadm's default if absent",
                "type": ["array", "null"],
                "items": {"type": "string", "pattern": format!("^[^=:]+(=[^:]*)?:({})$", grammar::EFFECTS.join("|"))},
            },
            "ssh": nullable(json!({
                "$ref": "#/$defs/ssh",
                "description": "What is different from the `ssh` for all",
            })),
        },
    })
}

fn ssh_schema() -> Value {
    let secret = |description: &str| nullable(json!({"$ref": "#/$defs/secret", "description": description}));
    let paths = |description: &str| nullable(json!({"$ref": "#/$defs/paths", "description": description}));
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "user": {"type": "string", "description": "Login name; your own if absent"},
            "port": {"type": "integer", "minimum": 1, "maximum": 65535, "default": 22, "description": "TCP port"},
            "jump": nullable(json!({
                "description": "Bastions on the way, `[user@]host[:port]`, the nearest first; `none` for none",
                "oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
            })),
            "identity": paths("Private key file or files"),
            "identities": paths("The same as `identity`"),
            "agent": {"type": "boolean", "default": true, "description": "Whether a running ssh-agent is asked"},
            "password": secret("Where the login password comes from"),
            "become": {
                "enum": words(&ssh::BECOME),
                "description": "How to become root; by default `none` for the user root, else `sudo`",
            },
            "become_password": secret("Where the password of `become` comes from; `password` if absent"),
            "known_hosts": paths("known_hosts file or files; new keys go into the first"),
            "host_keys": {
                "enum": words(&ssh::HOST_KEYS),
                "default": "strict",
                "description": "What to do about an unknown host key: refuse, or accept and remember",
            },
            "host_key": nullable(json!({
                "description": "The host's key: a fingerprint `SHA256:...` or a public key; several as a list",
                "oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
            })),
            "connect_limit_seconds": {
                "type": "integer",
                "minimum": 1,
                "maximum": 3600,
                "default": 20,
                "description": "Longest time to connect and log in",
            },
        },
    })
}

fn secret_schema() -> Value {
    let [ask, file, command] = ssh::SECRET_KEYS;
    let one = |key: &str, value: Value| json!({"type": "object", "additionalProperties": false, "required": [key], "properties": {key: value}});
    json!({
        "oneOf": [
            one(ask, json!({"const": true, "description": "Asked once on the terminal"})),
            one(file, json!({"type": "string", "description": "First line of a file only you may read"})),
            one(command, json!({"type": "string", "description": "First line that a command prints"})),
        ],
    })
}

/// A key with nothing behind it counts as absent.
fn nullable(schema: Value) -> Value {
    json!({"anyOf": [schema, {"type": "null"}]})
}

fn words<T>(choices: &[(&str, T)]) -> Vec<Value> {
    choices.iter().map(|(word, _)| json!(word)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::schema;
    use crate::inventory::{EXAMPLE, KEYS, cluster, hosts, ssh, transfer};

    fn keys(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(object) => {
                if let Some(Value::Object(properties)) = object.get("properties") {
                    found.extend(properties.keys().cloned());
                }
                object.values().for_each(|value| keys(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| keys(item, found)),
            _ => {}
        }
    }

    #[test]
    fn the_schema_has_the_keys_that_are_read() {
        let mut found = BTreeSet::new();
        keys(&schema(), &mut found);
        let read: BTreeSet<String> = [
            &KEYS[..],
            &cluster::KEYS,
            &cluster::NETWORK_KEYS,
            &cluster::CONTAINERD_KEYS,
            &transfer::KEYS,
            &hosts::KEYS,
            &ssh::KEYS,
            &ssh::SECRET_KEYS,
        ]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect();
        assert_eq!(found, read);
    }

    #[test]
    fn the_example_has_every_key_of_the_schema() {
        let mut found = BTreeSet::new();
        keys(&schema(), &mut found);
        let missing: Vec<&String> = found.iter().filter(|key| !EXAMPLE.contains(&format!("{key}:"))).collect();
        assert_eq!(missing, Vec::<&String>::new());
    }
}
