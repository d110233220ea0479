//! What of the pod network a host has already, by what `ip` and `bridge` show: only what lacks is set.

use crate::failure::Result;
use crate::host::{Command, Host};
use crate::kubernetes::podnetwork::{Arguments, VXLAN};

/// What the programs show; empty where they show nothing.
#[derive(Debug, Default)]
pub(super) struct There {
    routes: String,
    /// The VXLAN link with its addresses.
    link: String,
    neighbours: String,
    forwarding: String,
}

/// Looks, at the VXLAN link only where it is wanted.
///
/// # Errors
/// When a program cannot be run.
pub(super) async fn look(host: &dyn Host, vxlan: bool) -> Result<There> {
    let shown = async |program: &str, arguments: &[&str]| -> Result<String> {
        let output = host.run(Command::new(program, arguments)).await?;
        Ok(if output.success() { output.text() } else { String::new() })
    };
    let mut there = There { routes: shown("ip", &["route", "show"]).await?, ..There::default() };
    there.routes.push_str(&shown("ip", &["-6", "route", "show"]).await?);
    if vxlan {
        there.link = shown("ip", &["address", "show", "dev", VXLAN]).await?;
        there.neighbours = shown("ip", &["neigh", "show", "dev", VXLAN]).await?;
        there.neighbours.push_str(&shown("ip", &["-6", "neigh", "show", "dev", VXLAN]).await?);
        there.forwarding = shown("bridge", &["fdb", "show", "dev", VXLAN]).await?;
    }
    Ok(there)
}

impl There {
    /// Whether a command of the setup would alter nothing.
    pub(super) fn has(&self, arguments: &Arguments) -> bool {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["ip", "route", "replace", network, "via", gateway, rest @ ..] => {
                let network = single(network);
                let device = rest.iter().skip_while(|word| **word != "dev").nth(1);
                self.routes.lines().map(words_of).any(|line| {
                    line.starts_with(&[network, "via", *gateway])
                        && device.is_none_or(|device| follows(&line, "dev", device))
                })
            }
            ["ip", "link", "add", _, "address", address, "mtu", mtu, ..] => {
                let header = words_of(self.link.lines().next().unwrap_or_default());
                self.link.lines().map(words_of).any(|line| follows(&line, "link/ether", address))
                    && follows(&header, "mtu", mtu)
            }
            ["ip", "address", "replace", address, ..] => self
                .link
                .lines()
                .map(words_of)
                .any(|line| follows(&line, "inet", address) || follows(&line, "inet6", address)),
            ["ip", "link", "set", _, "up"] => {
                let header = self.link.lines().next().unwrap_or_default();
                let flags = header.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
                flags.is_some_and(|(flags, _)| flags.split(',').any(|flag| flag == "UP"))
            }
            ["bridge", "fdb", "replace", address, "dev", _, "dst", host, ..] => {
                let mut lines = self.forwarding.lines().map(words_of);
                lines.any(|line| line.first() == Some(address) && follows(&line, "dst", host))
            }
            ["ip", "neigh", "replace", gateway, "lladdr", address, ..] => {
                let mut lines = self.neighbours.lines().map(words_of);
                lines.any(|line| line.first() == Some(gateway) && follows(&line, "lladdr", address))
            }
            _ => false,
        }
    }
}

fn words_of(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// Whether a word stands right behind another.
fn follows(line: &[&str], word: &str, next: &str) -> bool {
    line.windows(2).any(|pair| pair == [word, next])
}

/// A network of one address is shown without its length.
fn single(network: &str) -> &str {
    network.strip_suffix("/32").or_else(|| network.strip_suffix("/128")).unwrap_or(network)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::There;

    const ROUTES: &str = "default via 10.0.0.1 dev eth0 \n10.244.1.0/24 via 10.0.0.21 dev eth0 \n\
                          10.244.2.0/24 via 10.244.2.0 dev clusterctl-vx onlink \n10.244.3.7 via 10.0.0.23 dev eth0\n";
    const LINK: &str = "7: clusterctl-vx: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1450 qdisc noqueue state UNKNOWN\n    \
                        link/ether 0e:c1:0a:00:00:0b brd ff:ff:ff:ff:ff:ff\n    \
                        inet 10.244.0.0/32 scope global clusterctl-vx\n";
    const FORWARDING: &str = "0e:c1:0a:09:00:15 dst 10.9.0.21 self permanent\n";
    const NEIGHBOURS: &str = "10.244.2.0 lladdr 0e:c1:0a:09:00:15 PERMANENT\n";

    #[rstest]
    #[case("ip route replace 10.244.1.0/24 via 10.0.0.21", true)]
    #[case("ip route replace 10.244.1.0/24 via 10.0.0.22", false)]
    #[case("ip route replace 10.244.4.0/24 via 10.0.0.21", false)]
    #[case("ip route replace 10.244.3.7/32 via 10.0.0.23", true)]
    #[case("ip route replace 10.244.2.0/24 via 10.244.2.0 dev clusterctl-vx onlink", true)]
    #[case("ip route replace 10.244.1.0/24 via 10.0.0.21 dev clusterctl-vx onlink", false)]
    #[case("ip link add clusterctl-vx address 0e:c1:0a:00:00:0b mtu 1450 type vxlan id 4289", true)]
    #[case("ip link add clusterctl-vx address 0e:c1:0a:00:00:0b mtu 1400 type vxlan id 4289", false)]
    #[case("ip address replace 10.244.0.0/32 dev clusterctl-vx", true)]
    #[case("ip address replace 10.244.9.0/32 dev clusterctl-vx", false)]
    #[case("ip link set clusterctl-vx up", true)]
    #[case("bridge fdb replace 0e:c1:0a:09:00:15 dev clusterctl-vx dst 10.9.0.21 self permanent", true)]
    #[case("bridge fdb replace 0e:c1:0a:09:00:15 dev clusterctl-vx dst 10.9.0.22 self permanent", false)]
    #[case("ip neigh replace 10.244.2.0 lladdr 0e:c1:0a:09:00:15 dev clusterctl-vx nud permanent", true)]
    #[case("ip neigh replace 10.244.5.0 lladdr 0e:c1:0a:09:00:15 dev clusterctl-vx nud permanent", false)]
    #[case("something else", false)]
    fn what_is_shown_is_there(#[case] command: &str, #[case] is_there: bool) {
        let there = There {
            routes: ROUTES.into(),
            link: LINK.into(),
            neighbours: NEIGHBOURS.into(),
            forwarding: FORWARDING.into(),
        };
        assert_eq!(there.has(&command.split_whitespace().map(str::to_owned).collect()), is_there);
    }

    #[test]
    fn nothing_shown_is_nothing_there() {
        let there = There::default();
        assert!(!there.has(&["ip", "link", "set", "clusterctl-vx", "up"].map(str::to_owned).to_vec()));
    }
}
