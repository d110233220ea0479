//! Which hosts a person means: one small language for every verb that works on some of the hosts. Pure.
//!
//! ```text
//! w1              the host of that name
//! w*, rack-?      names by pattern
//! role=worker     hosts of a role
//! group=west      hosts of a group (`groups:` in the inventory)
//! label=disk      hosts with a label; label=disk=ssd: with that value, which may be a pattern, too
//! all             every host
//! !TERM           not those
//! A&B             both
//! A,B             either; an alternative that is a `!TERM` alone is taken away from all others
//! ```

use super::{Host, Inventory, Role};
use crate::failure::{Failure, Kind, Result};
use crate::pattern::matches_pattern;
use crate::yaml::did_you_mean;

/// A choice of hosts as a person wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    text: String,
    /// Alternatives, each a list of terms that must all hold.
    alternatives: Vec<Vec<Term>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    negated: bool,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    All,
    /// A name, or a pattern of names.
    Name(String),
    Role(Role),
    Group(String),
    Label(String, Option<String>),
}

/// The words before `=`.
const KEYS: [&str; 3] = ["role", "group", "label"];

impl Default for Selector {
    /// All hosts.
    fn default() -> Self {
        Self { text: "all".to_owned(), alternatives: vec![vec![Term { negated: false, what: What::All }]] }
    }
}

impl std::str::FromStr for Selector {
    type Err = String;

    /// Reads a selector.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence.
    fn from_str(text: &str) -> Result<Self, String> {
        let alternatives = text
            .split(',')
            .map(|alternative| alternative.split('&').map(term).collect::<Result<Vec<Term>, String>>())
            .collect::<Result<Vec<_>, String>>()?;
        Ok(Self { text: text.to_owned(), alternatives })
    }
}

fn term(text: &str) -> Result<Term, String> {
    let text = text.trim();
    let (negated, text) = match text.strip_prefix('!') {
        Some(rest) => (true, rest.trim()),
        None => (false, text),
    };
    let what = match text.split_once('=') {
        _ if text.is_empty() => return Err("there is nothing where a host should be named".to_owned()),
        None if text == "all" => What::All,
        None => What::Name(text.to_owned()),
        Some(("role", role)) => What::Role(match role {
            "control-plane" => Role::ControlPlane,
            "worker" => Role::Worker,
            other => {
                return Err(format!(
                    "there is no role `{other}`: {}",
                    did_you_mean(other, ["control-plane", "worker"])
                ));
            }
        }),
        Some(("group", group)) if !group.is_empty() => What::Group(group.to_owned()),
        Some(("label", label)) if !label.is_empty() => match label.split_once('=') {
            Some((key, value)) => What::Label(key.to_owned(), Some(value.to_owned())),
            None => What::Label(label.to_owned(), None),
        },
        Some((key, _)) if KEYS.contains(&key) => return Err(format!("nothing follows `{key}=`")),
        Some((key, _)) => return Err(format!("hosts are not chosen by `{key}=`: {}", did_you_mean(key, KEYS))),
    };
    Ok(Term { negated, what })
}

impl Term {
    fn holds(&self, host: &Host) -> bool {
        let holds = match &self.what {
            What::All => true,
            What::Name(pattern) => matches_pattern(pattern.as_bytes(), host.name.as_bytes()),
            What::Role(role) => host.role == *role,
            What::Group(pattern) => {
                host.groups.iter().any(|group| matches_pattern(pattern.as_bytes(), group.as_bytes()))
            }
            What::Label(key, None) => host.labels.contains_key(key),
            What::Label(key, Some(pattern)) => {
                host.labels.get(key).is_some_and(|value| matches_pattern(pattern.as_bytes(), value.as_bytes()))
            }
        };
        holds != self.negated
    }

    /// The name, where it can mean one host only.
    fn exact(&self) -> Option<&str> {
        match &self.what {
            What::Name(name) if !name.contains(['*', '?']) => Some(name),
            _ => None,
        }
    }
}

impl Selector {
    /// The selectors together: a host is chosen if one of them chooses it. None means all hosts.
    pub fn any_of(selectors: &[Selector]) -> Self {
        let texts: Vec<&str> = selectors.iter().map(|selector| selector.text.as_str()).collect();
        match selectors {
            [] => Self::default(),
            _ => Self {
                text: texts.join(","),
                alternatives: selectors.iter().flat_map(|selector| selector.alternatives.clone()).collect(),
            },
        }
    }

    /// The hosts that are meant, in the inventory's order.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a name that no host has, or when no host is meant.
    pub fn select<'a>(&self, inventory: &'a Inventory) -> Result<Vec<&'a Host>> {
        for name in self.alternatives.iter().flatten().filter_map(Term::exact) {
            if inventory.hosts.iter().all(|host| host.name != name) {
                let names = inventory.hosts.iter().map(|host| host.name.as_str());
                return Err(Failure::new(
                    Kind::Usage,
                    format!("there is no host {name} in {}", inventory.path.display()),
                )
                .advise(did_you_mean(name, names)));
            }
        }
        let is_exclusion = |terms: &&Vec<Term>| terms.iter().all(|term| term.negated);
        let chosen: Vec<&Vec<Term>> = self.alternatives.iter().filter(|terms| !is_exclusion(terms)).collect();
        let excluded: Vec<&Vec<Term>> = self.alternatives.iter().filter(is_exclusion).collect();
        let is_meant = |host: &&Host| {
            let holds = |terms: &&Vec<Term>| terms.iter().all(|term| term.holds(host));
            (chosen.is_empty() || chosen.iter().any(holds)) && excluded.iter().all(holds)
        };
        let hosts: Vec<&Host> = inventory.hosts.iter().filter(is_meant).collect();
        if hosts.is_empty() {
            return Err(Failure::new(
                Kind::Usage,
                format!("no host of {} is meant by `{}`", inventory.path.display(), self.text),
            )
            .advise("choose by name, pattern, role=..., group=... or label=...; `all` means every host"));
        }
        Ok(hosts)
    }

    /// The one host that is meant.
    ///
    /// # Errors
    /// As [`Selector::select`], and [`Kind::Usage`] when several are meant.
    pub fn one<'a>(&self, inventory: &'a Inventory) -> Result<&'a Host> {
        match self.select(inventory)?.as_slice() {
            [host] => Ok(host),
            hosts => Err(Failure::new(
                Kind::Usage,
                format!("`{}` means {} hosts, and only one can be used", self.text, hosts.len()),
            )
            .advise("name one host")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rstest::rstest;

    use super::Selector;
    use crate::failure::Kind;
    use crate::inventory::{Inventory, parse};

    const HOSTS: &str = concat!(
        "ssh: {user: ops}\n",
        "hosts:\n",
        "  cp1: {role: control-plane, groups: [west]}\n",
        "  cp2: {role: control-plane, groups: east}\n",
        "  w1: {labels: {disk: ssd, zone: a}, groups: [west, db]}\n",
        "  w2: {labels: {disk: hdd}}\n",
        "  rack-1: {labels: {example.com/rack: a7}}\n",
        "cluster: {endpoint: built-in}\n",
    );

    fn inventory() -> Inventory {
        parse(HOSTS, Path::new("inventory.yaml"), Path::new("/home/ops")).expect("a good inventory")
    }

    fn names(selector: &Selector) -> Vec<String> {
        let inventory = inventory();
        selector.select(&inventory).expect("some hosts").iter().map(|host| host.name.clone()).collect()
    }

    #[rstest]
    #[case("all", "cp1 cp2 w1 w2 rack-1")]
    #[case("w2", "w2")]
    #[case("w2,cp1", "cp1 w2")]
    #[case("w*", "w1 w2")]
    #[case("?p2", "cp2")]
    #[case("role=worker", "w1 w2 rack-1")]
    #[case("role=worker,!w2", "w1 rack-1")]
    #[case("!w2,role=worker", "w1 rack-1")]
    #[case("!role=worker", "cp1 cp2")]
    #[case("!cp1,!w*", "cp2 rack-1")]
    #[case("group=west", "cp1 w1")]
    #[case("group=west & role=worker", "w1")]
    #[case("group=*st", "cp1 cp2 w1")]
    #[case("label=disk", "w1 w2")]
    #[case("label=disk=ssd", "w1")]
    #[case("label=disk=*d,rack-1", "w1 w2 rack-1")]
    #[case("label=example.com/rack=a7", "rack-1")]
    #[case("label=disk&!group=db", "w2")]
    fn hosts_are_chosen(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(names(&text.parse().expect("a selector")).join(" "), expected);
    }

    #[test]
    fn several_selectors_are_one() {
        assert_eq!(names(&Selector::any_of(&[])).len(), 5);
        let both = ["w1", "cp*,!cp1"].map(|text| text.parse().expect("a selector"));
        assert_eq!(names(&Selector::any_of(&both)), ["cp2", "w1"]);
    }

    #[rstest]
    #[case("", "nothing where a host should be named")]
    #[case("w1,", "nothing where a host should be named")]
    #[case("role=wroker", "did you mean `worker`?")]
    #[case("group=", "nothing follows `group=`")]
    #[case("lable=x", "did you mean `label`?")]
    #[case("disk=ssd", "hosts are not chosen by `disk=`")]
    fn mistakes_are_sentences(#[case] text: &str, #[case] expected: &str) {
        let said = text.parse::<Selector>().expect_err("a mistake");
        assert!(said.contains(expected), "{said}");
    }

    #[rstest]
    #[case("w3", "there is no host w3 in inventory.yaml")]
    #[case("all,!w9", "there is no host w9")]
    #[case("x*", "no host of inventory.yaml is meant by `x*`")]
    #[case("w1&cp1", "is meant by")]
    fn a_choice_of_nothing_is_refused(#[case] text: &str, #[case] expected: &str) {
        let selector: Selector = text.parse().expect("a selector");
        let failure = selector.select(&inventory()).expect_err("nothing is meant");
        assert_eq!(failure.kind, Kind::Usage);
        assert!(failure.sentence.contains(expected) && failure.advice.is_some(), "{failure}");
    }

    #[test]
    fn one_host_is_one() {
        let inventory = inventory();
        let one =
            |text: &str| text.parse::<Selector>().expect("a selector").one(&inventory).map(|host| host.name.clone());
        assert_eq!(one("rack*"), Ok("rack-1".to_owned()));
        assert!(one("w*").expect_err("two").sentence.contains("means 2 hosts"));
    }
}
