//! A failure as a person reads it: what, why, what to do, whether trying again helps.

use super::look::{Paint, paint};
use super::text::{clean, clean_lines, wrap};
use crate::failure::{Failure, Kind, Retry};

/// How many hosts are named before the rest is counted.
const NAMED_HOSTS: usize = 8;
/// How many sentences with one remedy are listed before the rest is counted.
const LISTED_SENTENCES: usize = 20;

/// Renders one failure in lines of at most `width` columns, ending with a line break.
///
/// ```text
/// error: cp1: cannot write /etc/kubernetes/pki/ca.crt
///   caused by: No space left on device
///
///   | the lines of the detail
///
/// hint: free some space on cp1
/// retry: the same command again may help
/// ```
pub fn failure(failure: &Failure, width: usize, color: bool) -> String {
    failures(std::slice::from_ref(failure), width, color)
}

/// Renders several failures. Those that differ in nothing but the host (and the detail) are shown once, with the detail
/// of the first; those that differ in their sentences too, but have one cause and one remedy, share these.
pub fn failures(failures: &[Failure], width: usize, color: bool) -> String {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for failure in failures {
        let host = failure.host.as_deref();
        match groups.iter_mut().find(|(first, _)| is_akin(first, failure) && first.sentence == failure.sentence) {
            Some((_, hosts)) => hosts.extend(host.filter(|host| !hosts.contains(host))),
            None => groups.push((failure, host.into_iter().collect())),
        }
    }
    let mut families: Vec<Vec<Group<'_>>> = Vec::new();
    for group in groups {
        match families.iter_mut().find(|family| family.iter().all(|(first, _)| has_one_remedy(first, group.0))) {
            Some(family) => family.push(group),
            None => families.push(vec![group]),
        }
    }
    let texts = families.iter().map(|family| match family.as_slice() {
        [(failure, hosts)] => group(failure, hosts, width, color),
        _ => self::family(family, width, color),
    });
    texts.collect::<Vec<_>>().join("\n")
}

/// A failure and the hosts that have it.
type Group<'a> = (&'a Failure, Vec<&'a str>);

/// Alike in all but host, sentence and detail.
fn is_akin(one: &Failure, other: &Failure) -> bool {
    one.kind == other.kind
        && one.host.is_some() == other.host.is_some()
        && one.causes == other.causes
        && one.advice == other.advice
        && one.retry == other.retry
}

/// Whether one advice serves both, and no detail would be lost.
fn has_one_remedy(one: &Failure, other: &Failure) -> bool {
    let plain = |failure: &Failure| failure.host.is_some() && failure.advice.is_some() && failure.detail.is_none();
    is_akin(one, other) && plain(one) && plain(other)
}

/// Failures with one remedy: a line each.
fn family(groups: &[Group<'_>], width: usize, color: bool) -> String {
    let hosts: usize = groups.iter().map(|(_, hosts)| hosts.len()).sum();
    let mut text = format!("{} {hosts} hosts, for one reason\n", paint(color, Paint::Bad, "error:"));
    for (failure, hosts) in groups.iter().take(LISTED_SENTENCES) {
        let line = format!("  {}{}", hosts_named(hosts), clean(&failure.sentence));
        text.push_str(&format!("{}\n", wrap(&line, width, 4)));
    }
    if let Some(more) = groups.len().checked_sub(LISTED_SENTENCES).filter(|more| *more > 0) {
        text.push_str(&format!("  and {more} more\n"));
    }
    if let Some((failure, _)) = groups.first() {
        text.push_str(&tail(failure, &[], width, color));
    }
    text
}

fn group(failure: &Failure, hosts: &[&str], width: usize, color: bool) -> String {
    let heading = format!("error: {}{}", hosts_named(hosts), clean(&failure.sentence));
    let heading = wrap(&heading, width, 2);
    let mut text = format!("{}{}\n", paint(color, Paint::Bad, "error:"), &heading["error:".len()..]);
    text.push_str(&tail(failure, hosts, width, color));
    text
}

/// Everything after the sentence: causes, detail, advice, whether to try again.
fn tail(failure: &Failure, hosts: &[&str], width: usize, color: bool) -> String {
    let mut text = String::new();
    for cause in &failure.causes {
        text.push_str(&wrap(&format!("  caused by: {}", clean(cause)), width, 4));
        text.push('\n');
    }
    if let Some(detail) = failure.detail.as_deref().filter(|detail| !detail.trim().is_empty()) {
        text.push('\n');
        if let [first, _, ..] = hosts {
            text.push_str(&format!("  on {}:\n", clean(first)));
        }
        for line in clean_lines(detail) {
            text.push_str(format!("  {} {line}", paint(color, Paint::Faint, "|")).trim_end());
            text.push('\n');
        }
        text.push('\n');
    }
    if let Some(advice) = &failure.advice {
        let advice = wrap(&format!("hint: {}", clean(advice)), width, 6);
        text.push_str(&format!("{}{}\n", paint(color, Paint::Active, "hint:"), &advice["hint:".len()..]));
    }
    if let Some(sentence) = again(failure) {
        text.push_str(&format!("{} {sentence}\n", paint(color, Paint::Active, "retry:")));
    }
    text
}

/// `cp1: `, `w1, w2 and w3: `, or the first few and a count.
fn hosts_named(hosts: &[&str]) -> String {
    let names: Vec<String> = hosts.iter().take(NAMED_HOSTS).map(|host| clean(host)).collect();
    match (names.as_slice(), hosts.len().saturating_sub(NAMED_HOSTS)) {
        ([], _) => String::new(),
        ([one], _) => format!("{one}: "),
        ([first @ .., last], 0) => format!("{} and {last}: ", first.join(", ")),
        (all, 1) => format!("{} and 1 more host: ", all.join(", ")),
        (all, more) => format!("{} and {more} more hosts: ", all.join(", ")),
    }
}

/// Whether trying again helps, in words; nothing where it goes without saying (a wrong command line stays wrong).
fn again(failure: &Failure) -> Option<&'static str> {
    match (failure.retry, failure.kind) {
        (Retry::MayHelp, Kind::Interrupted) => None,
        (Retry::MayHelp, _) => Some("the same command again may help"),
        (Retry::Useless, Kind::Usage | Kind::Configuration | Kind::Interrupted) => None,
        (Retry::Useless, _) => Some("the same command again does not help until something is changed"),
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    fn disk_full() -> Failure {
        Failure::new(Kind::Host, "cannot write /etc/kubernetes/pki/ca.crt")
            .on("cp1")
            .caused_by("cannot write /etc/kubernetes/pki/.ca.crt.tmp")
            .caused_by("No space left on device")
            .advise("free some space on the filesystem of /etc/kubernetes and run the same command again")
    }

    #[test]
    fn a_failure_says_what_why_and_what_to_do() {
        assert_snapshot!(failure(&disk_full(), 60, false), @"
        error: cp1: cannot write /etc/kubernetes/pki/ca.crt
          caused by: cannot write /etc/kubernetes/pki/.ca.crt.tmp
          caused by: No space left on device
        hint: free some space on the filesystem of /etc/kubernetes
              and run the same command again
        retry: the same command again does not help until something is changed
        ");
    }

    #[test]
    fn details_are_cleaned_and_set_apart() {
        let failure_with_log = Failure::new(Kind::Cluster, "kube-apiserver does not answer on 10.0.0.11:6443")
            .on("cp1")
            .detailed("E1123 bind: address\x1b[31m already in use\n\nexit status 1\n")
            .may_pass();
        assert_snapshot!(failure(&failure_with_log, 80, false), @r"
        error: cp1: kube-apiserver does not answer on 10.0.0.11:6443

          | E1123 bind: address\x1b[31m already in use
          |
          | exit status 1

        retry: the same command again may help
        ");
    }

    #[test]
    fn the_same_failure_of_many_hosts_is_shown_once() {
        let refused = |host: &str| {
            Failure::new(Kind::Connection, "port 22 refuses the connection")
                .on(host)
                .advise("start sshd there, or correct `ssh.port` in the inventory")
                .detailed(format!("log of {host}"))
                .may_pass()
        };
        let all = [disk_full(), refused("w1"), refused("w2"), refused("w3")];
        assert_snapshot!(failures(&all, 100, false), @"
        error: cp1: cannot write /etc/kubernetes/pki/ca.crt
          caused by: cannot write /etc/kubernetes/pki/.ca.crt.tmp
          caused by: No space left on device
        hint: free some space on the filesystem of /etc/kubernetes and run the same command again
        retry: the same command again does not help until something is changed

        error: w1, w2 and w3: port 22 refuses the connection

          on w1:
          | log of w1

        hint: start sshd there, or correct `ssh.port` in the inventory
        retry: the same command again may help
        ");
        let many: Vec<Failure> = (1..=300).map(|number| refused(&format!("w{number}"))).collect();
        let text = failures(&many, 100, false);
        assert!(text.starts_with("error: w1, w2, w3, w4, w5, w6, w7, w8 and 292 more hosts: port 22"), "{text}");
    }

    #[test]
    fn one_remedy_is_said_once() {
        let refused = |host: &str, address: &str| {
            Failure::new(Kind::Connection, format!("{address} port 22 refuses connections"))
                .on(host)
                .advise("start sshd on the host, or correct its address in the inventory")
                .may_pass()
        };
        let all = [refused("w1", "10.0.0.21"), disk_full(), refused("w2", "10.0.0.22")];
        assert_snapshot!(failures(&all, 100, false), @"
        error: 2 hosts, for one reason
          w1: 10.0.0.21 port 22 refuses connections
          w2: 10.0.0.22 port 22 refuses connections
        hint: start sshd on the host, or correct its address in the inventory
        retry: the same command again may help

        error: cp1: cannot write /etc/kubernetes/pki/ca.crt
          caused by: cannot write /etc/kubernetes/pki/.ca.crt.tmp
          caused by: No space left on device
        hint: free some space on the filesystem of /etc/kubernetes and run the same command again
        retry: the same command again does not help until something is changed
        ");
        let many: Vec<Failure> =
            (1..=300).map(|number| refused(&format!("w{number}"), &format!("10.0.1.{number}"))).collect();
        let text = failures(&many, 100, false);
        assert_eq!(text.lines().count(), 1 + LISTED_SENTENCES + 3, "{text}");
        assert!(text.contains("\n  and 280 more\n"), "{text}");
    }

    #[test]
    fn colours_only_repeat_what_the_words_say() {
        let colored = failure(&disk_full(), 80, true);
        assert!(colored.starts_with("\x1b[1;31merror:\x1b[0m cp1: cannot"), "{colored:?}");
        assert!(colored.contains("\x1b[36mhint:\x1b[0m free"), "{colored:?}");
    }
}
