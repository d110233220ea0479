//! SystemVerification: kernel, its options and its control groups, by the rules of upstream's library
//! (kubeadm.md section 1.6).

use semver::Version;

use super::Found;
use crate::fact::Facts;
use crate::kubernetes::version::{KernelRule, Release};

const NAME: &str = "SystemVerification";

/// Options that every kernel must have; each group stands for one option under several names.
const REQUIRED: &[&[&str]] = &[
    &["NAMESPACES"],
    &["NET_NS"],
    &["PID_NS"],
    &["IPC_NS"],
    &["UTS_NS"],
    &["CPUSETS"],
    &["MEMCG"],
    &["INET"],
    &["EXT4_FS"],
    &["PROC_FS"],
    &["NETFILTER_XT_TARGET_REDIRECT", "IP_NF_TARGET_REDIRECT"],
    &["NETFILTER_XT_MATCH_COMMENT"],
    &["FAIR_GROUP_SCHED"],
    &["CGROUPS"],
];

/// Options that the old control groups need besides, from 1.35 on.
const REQUIRED_V1: &[&[&str]] =
    &[&["CGROUP_CPUACCT"], &["CGROUP_DEVICE"], &["CGROUP_FREEZER"], &["CGROUP_PIDS"], &["CGROUP_SCHED"]];

/// Options that the unified control groups need besides, from 1.35 on.
const REQUIRED_V2: &[&[&str]] = &[&["CGROUP_BPF"], &["CGROUP_PIDS"], &["CGROUP_SCHED"]];

/// Every option that is looked at, for whoever gathers facts.
pub(crate) fn options() -> impl Iterator<Item = &'static str> {
    [REQUIRED, REQUIRED_V1, REQUIRED_V2].into_iter().flatten().flat_map(|names| names.iter().copied())
}

/// Judges kernel and control groups for a version of Kubernetes.
pub(super) fn check(facts: &Facts, kubernetes: &Version, found: &mut Found) {
    let release = Release::nearest(kubernetes);
    kernel(facts, release, found);
    match facts.cgroup_version {
        0 => return found.error(NAME, "no control groups are mounted"),
        1 if release.kubelet_fails_on_cgroup_v1 => found.error(
            NAME,
            "the host runs cgroup v1, which kubelets from 1.35 on refuse; boot it with cgroup v2, or ignore \
             SystemVerification and set `failCgroupV1: false` in the KubeletConfiguration",
        ),
        1 => found.warning(NAME, "the host runs cgroup v1, which Kubernetes will drop"),
        _ => {}
    }
    controllers(facts, found);
}

fn kernel(facts: &Facts, release: &Release, found: &mut Found) {
    if !kernel_is_known(&facts.kernel, release.kernel_rule) {
        let message = format!("kernel {} is not among those Kubernetes is tested with", facts.kernel);
        match release.kernel_rule {
            KernelRule::AtLeast => found.error(NAME, message),
            KernelRule::LongTerm => found.warning(NAME, message),
        }
    }
    let Some(options) = &facts.kernel_options else {
        let message = "the kernel's configuration is nowhere to be found, neither as /proc/config.gz (`modprobe configs` \
                       may bring it) nor below /boot";
        return found.error(NAME, message);
    };
    let of_control_groups = match facts.cgroup_version {
        _ if !release.control_group_options => &[][..],
        0 => &[],
        1 => REQUIRED_V1,
        _ => REQUIRED_V2,
    };
    let lacks = |names: &&&[&str]| !names.iter().any(|name| options.iter().any(|there| there == name));
    let lacking: Vec<_> =
        REQUIRED.iter().chain(of_control_groups).filter(lacks).map(|names| format!("CONFIG_{}", names[0])).collect();
    if !lacking.is_empty() {
        found.error(NAME, format!("the kernel was built without {}", lacking.join(", ")));
    }
}

/// Whether a kernel's release is among those of a rule.
fn kernel_is_known(kernel: &str, rule: KernelRule) -> bool {
    let mut numbers = kernel.split(|one: char| !one.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap_or(0));
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    match rule {
        KernelRule::AtLeast => major >= 5 || (major == 4 && minor >= 19),
        KernelRule::LongTerm => major >= 6 || (major == 5 && matches!(minor, 4 | 10 | 15)),
    }
}

fn controllers(facts: &Facts, found: &mut Found) {
    let (required, optional): (&[&str], &[&str]) = match facts.cgroup_version {
        1 => (&["cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids"], &["hugetlb", "blkio"]),
        // Devices and freezer are no controllers there: every kernel that is known has them.
        _ => (&["cpu", "cpuset", "memory", "pids"], &["hugetlb", "io"]),
    };
    let lacking = |wanted: &[&str]| {
        let there = |name: &&&str| !facts.cgroup_controllers.iter().any(|there| there == *name);
        wanted.iter().filter(there).copied().collect::<Vec<_>>().join(", ")
    };
    let (required, optional) = (lacking(required), lacking(optional));
    if !required.is_empty() {
        found.error(NAME, format!("the kernel has no control group controllers {required}"));
    }
    if !optional.is_empty() {
        found.warning(NAME, format!("the kernel has no control group controllers {optional}, which some pods want"));
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use semver::Version;

    use super::super::{Found, Severity};
    use super::{check, kernel_is_known, options};
    use crate::fact::Facts;
    use crate::kubernetes::version::Release;

    fn found(facts: &Facts, minor: u64) -> Vec<String> {
        let mut found = Found::default();
        check(facts, &Version::new(1, minor, 0), &mut found);
        let line = |finding: super::super::Finding| match finding.severity {
            Severity::Error => format!("E {}", finding.message),
            Severity::Warning => format!("W {}", finding.message),
        };
        found.0.into_iter().map(line).collect()
    }

    fn facts(cgroup_version: u8, without: &[&str]) -> Facts {
        let controllers: &[&str] = match cgroup_version {
            1 => &["cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids", "hugetlb", "blkio"],
            _ => &["cpu", "cpuset", "memory", "pids", "hugetlb", "io"],
        };
        let but = |name: &&str| !without.contains(name);
        Facts {
            kernel: "6.12.0".into(),
            cgroup_version,
            cgroup_controllers: controllers.iter().copied().filter(but).map(str::to_owned).collect(),
            kernel_options: Some(options().filter(but).map(str::to_owned).collect()),
            ..Facts::default()
        }
    }

    #[rstest]
    #[case(2, 36, &[], &[])]
    #[case(2, 36, &["MEMCG", "CGROUP_BPF"], &["E the kernel was built without CONFIG_MEMCG, CONFIG_CGROUP_BPF"])]
    #[case(2, 34, &["CGROUP_BPF"], &[])]
    #[case(2, 36, &["CGROUP_CPUACCT", "NETFILTER_XT_TARGET_REDIRECT"], &[])]
    #[case(
        2, 36, &["NETFILTER_XT_TARGET_REDIRECT", "IP_NF_TARGET_REDIRECT"],
        &["E the kernel was built without CONFIG_NETFILTER_XT_TARGET_REDIRECT"]
    )]
    #[case(2, 36, &["pids"], &["E the kernel has no control group controllers pids"])]
    #[case(2, 36, &["io"], &["W the kernel has no control group controllers io, which some pods want"])]
    #[case(1, 34, &[], &["W the host runs cgroup v1, which Kubernetes will drop"])]
    fn what_kernels_lack_is_named(
        #[case] cgroup_version: u8,
        #[case] minor: u64,
        #[case] without: &[&str],
        #[case] expected: &[&str],
    ) {
        assert_eq!(found(&facts(cgroup_version, without), minor), expected);
    }

    #[test]
    fn old_control_groups_are_refused_from_1_35_on() {
        let found = found(&facts(1, &["CGROUP_CPUACCT", "devices"]), 35);
        assert!(found[0].starts_with("E the kernel was built without CONFIG_CGROUP_CPUACCT"), "{found:?}");
        assert!(found[1].starts_with("E the host runs cgroup v1, which kubelets from 1.35 on refuse"), "{found:?}");
        assert!(found[2].starts_with("E the kernel has no control group controllers devices"), "{found:?}");
    }

    #[rstest]
    #[case("6.18.44", 36, true)]
    #[case("5.15.0-91-generic", 36, true)]
    #[case("5.14.0-503.el9", 36, false)]
    #[case("5.14.0-503.el9", 33, true)]
    #[case("4.18.0-553.el8", 33, false)]
    fn kernels_are_known_by_release(#[case] release: &str, #[case] minor: u64, #[case] known: bool) {
        let rule = Release::nearest(&Version::new(1, minor, 0)).kernel_rule;
        assert_eq!(kernel_is_known(release, rule), known);
    }
}
