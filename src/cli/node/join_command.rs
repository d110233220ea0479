//! The command another host joins with.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::kubernetes::configuration::host_and_port;
use crate::message::Ticket;
use crate::secret::Secret;

/// What of a ticket is left out of what is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Hidden {
    /// The token.
    pub(super) token: bool,
    /// The certificate key.
    pub(super) certificate_key: bool,
}

/// What stands in place of something hidden, as with kubeadm.
const TOKEN: &str = "<value withheld>";

/// The command for a worker, on one line.
pub(super) fn worker(ticket: &Ticket, hidden: Hidden) -> String {
    let token = shown(&ticket.token, hidden.token);
    let mut command = format!("clusterctl node join {} --token {token}", ticket.endpoint);
    for hash in &ticket.ca_hashes {
        let _ = write!(command, " --discovery-token-ca-cert-hash {hash}");
    }
    command
}

/// The command for a control plane, on one line; without a certificate key the shared files must be on the host already.
pub(super) fn control_plane(ticket: &Ticket, hidden: Hidden) -> String {
    let mut command = format!("{} --control-plane", worker(ticket, hidden));
    if let Some(key) = &ticket.certificate_key {
        let _ = write!(command, " --certificate-key {}", shown(key, hidden.certificate_key));
    }
    command
}

/// The command on several lines, for a person to copy.
pub(super) fn folded(command: &str) -> String {
    format!("  {}", command.replace(" --", " \\\n    --"))
}

/// Why no other host joins by the command of this ticket, with what to do instead: its endpoint is an address that every
/// host has for itself. `None` where others may reach it.
pub(super) fn only_here(ticket: &Ticket) -> Option<String> {
    let (host, _) = host_and_port(&ticket.endpoint).ok()?;
    let own = host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    own.then(|| {
        format!(
            "no other host joins by this command: at {} it asks itself, and only hosts that `clusterctl up` made have the \
             balancer that listens there; write a line for the host into the inventory and run `clusterctl up`, or make \
             the cluster with an endpoint that all hosts reach",
            ticket.endpoint
        )
    })
}

fn shown(secret: &Secret, hidden: bool) -> &str {
    if hidden { TOKEN } else { secret.expose() }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Hidden, control_plane, folded, only_here, worker};
    use crate::message::Ticket;
    use crate::secret::Secret;

    fn ticket() -> Ticket {
        Ticket {
            endpoint: "10.0.0.11:6443".into(),
            token: Secret::new("abcdef.0123456789abcdef"),
            ca_hashes: vec!["sha256:aa".into(), "sha256:bb".into()],
            certificate_key: Some(Secret::new("f00")),
        }
    }

    #[test]
    fn commands_can_be_typed_as_they_are() {
        let hashes = "--discovery-token-ca-cert-hash sha256:aa --discovery-token-ca-cert-hash sha256:bb";
        let command = worker(&ticket(), Hidden::default());
        assert_eq!(command, format!("clusterctl node join 10.0.0.11:6443 --token abcdef.0123456789abcdef {hashes}"));
        let command = control_plane(&ticket(), Hidden::default());
        assert!(command.ends_with(&format!("{hashes} --control-plane --certificate-key f00")), "{command}");
        assert_eq!(folded("a b --c d"), "  a b \\\n    --c d");
    }

    #[rstest]
    #[case("127.0.0.1:6444", true)]
    #[case("127.8.0.1:6443", true)]
    #[case("[::1]:6444", true)]
    #[case("localhost:6443", true)]
    #[case("10.0.0.11:6443", false)]
    #[case("[fd00::1]:6443", false)]
    #[case("api.demo.example:6443", false)]
    #[case("api.demo.example:6443/path", false)]
    fn an_endpoint_that_every_host_has_for_itself_is_told(#[case] endpoint: &str, #[case] told: bool) {
        let warning = only_here(&Ticket { endpoint: endpoint.into(), ..ticket() });
        assert_eq!(warning.is_some(), told);
        assert!(warning.is_none_or(|warning| warning.contains(endpoint) && warning.contains("`clusterctl up`")));
    }

    #[test]
    fn what_is_hidden_is_not_printed() {
        let command = control_plane(&ticket(), Hidden { token: true, certificate_key: true });
        assert!(!command.contains("0123456789abcdef") && !command.contains("f00"), "{command}");
    }
}
