//! The keywords of ssh_config(5): what their values look like, and whether they mean something to us.

/// What a keyword's value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// `yes` or `no`.
    Flag,
    /// One of these words, each with the one word it means.
    Choice(&'static [(&'static str, &'static str)]),
    /// One word.
    Text,
    /// A time: `30`, `1m30s`; or `none`.
    Time,
    /// A whole number that is not negative.
    Number,
    /// A TCP port.
    Port,
    /// Several words; `none` stands alone.
    List,
    /// One word each time; all of them count.
    Several,
    /// Several words each time; all of them count.
    Words,
    /// `NAME=VALUE`, several.
    Environment,
    /// The line as it is, to its end.
    Line,
    /// Hops separated by commas.
    Jump,
    /// Names separated by commas, perhaps after `+`, `-` or `^`.
    Algorithms,
    /// Whatever it is, nobody looks at it.
    Any,
}

/// What a keyword means to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Regard {
    /// We do what it says.
    Used,
    /// It changes nothing about how a host is reached: forwarded ports, terminals, the look of messages.
    Quiet,
    /// We cannot do what it says, unless it says one of these.
    Unsupported(&'static [&'static str]),
}

/// A keyword.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Keyword {
    /// As the manual writes it.
    pub(super) name: &'static str,
    /// What its value looks like.
    pub(super) shape: Shape,
    /// What it means to us.
    pub(super) regard: Regard,
}

const NO: &[&str] = &["no"];
const NONE: &[&str] = &["none"];

const STRICT: &[(&str, &str)] = &[
    ("yes", "true"),
    ("true", "true"),
    ("no", "false"),
    ("off", "false"),
    ("false", "false"),
    ("ask", "ask"),
    ("accept-new", "accept-new"),
];
const FAMILY: &[(&str, &str)] = &[("any", "any"), ("inet", "inet"), ("inet6", "inet6")];
const PUBLIC_KEY: &[(&str, &str)] = &[
    ("yes", "true"),
    ("true", "true"),
    ("no", "false"),
    ("false", "false"),
    ("unbound", "unbound"),
    ("host-bound", "host-bound"),
];
const CANONICALIZE: &[(&str, &str)] =
    &[("yes", "true"), ("true", "true"), ("no", "no"), ("false", "no"), ("always", "always")];
const YES_NO_ASK: &[(&str, &str)] = &[("yes", "true"), ("true", "true"), ("no", "no"), ("false", "no"), ("ask", "ask")];

const fn used(name: &'static str, shape: Shape) -> Keyword {
    Keyword { name, shape, regard: Regard::Used }
}

const fn quiet(name: &'static str) -> Keyword {
    Keyword { name, shape: Shape::Any, regard: Regard::Quiet }
}

const fn unsupported(name: &'static str, shape: Shape, harmless: &'static [&'static str]) -> Keyword {
    Keyword { name, shape, regard: Regard::Unsupported(harmless) }
}

/// All keywords but `Host`, `Match`, `Include` and `IgnoreUnknown`, which steer the reading.
pub(super) static KEYWORDS: &[Keyword] = &[
    used("HostName", Shape::Text),
    used("User", Shape::Text),
    used("Port", Shape::Port),
    used("IdentityFile", Shape::Several),
    used("CertificateFile", Shape::Several),
    used("IdentitiesOnly", Shape::Flag),
    used("IdentityAgent", Shape::Text),
    used("ProxyJump", Shape::Jump),
    used("ProxyCommand", Shape::Line),
    used("UserKnownHostsFile", Shape::List),
    used("GlobalKnownHostsFile", Shape::List),
    used("HostKeyAlias", Shape::Text),
    used("StrictHostKeyChecking", Shape::Choice(STRICT)),
    used("HashKnownHosts", Shape::Flag),
    used("ConnectTimeout", Shape::Time),
    used("ServerAliveInterval", Shape::Time),
    used("ServerAliveCountMax", Shape::Number),
    used("Ciphers", Shape::Algorithms),
    used("KexAlgorithms", Shape::Algorithms),
    used("MACs", Shape::Algorithms),
    used("HostKeyAlgorithms", Shape::Algorithms),
    used("PubkeyAcceptedAlgorithms", Shape::Algorithms),
    used("PreferredAuthentications", Shape::Text),
    used("PubkeyAuthentication", Shape::Choice(PUBLIC_KEY)),
    used("PasswordAuthentication", Shape::Flag),
    used("KbdInteractiveAuthentication", Shape::Flag),
    used("BatchMode", Shape::Flag),
    used("AddressFamily", Shape::Choice(FAMILY)),
    used("BindAddress", Shape::Text),
    used("SetEnv", Shape::Environment),
    used("Tag", Shape::Text),
    unsupported("BindInterface", Shape::Text, &[]),
    used("CanonicalizeHostname", Shape::Choice(CANONICALIZE)),
    used("CanonicalDomains", Shape::List),
    used("CanonicalizeFallbackLocal", Shape::Flag),
    used("CanonicalizeMaxDots", Shape::Number),
    used("KnownHostsCommand", Shape::Line),
    used("RevokedHostKeys", Shape::Text),
    used("RefuseConnection", Shape::Text),
    used("SendEnv", Shape::Words),
    unsupported("AddKeysToAgent", Shape::Line, &["no", "false"]),
    unsupported("ConnectionAttempts", Shape::Number, &["1"]),
    unsupported("IPQoS", Shape::Line, &["none", "none none", "af21 cs1", "ef none", "lowdelay throughput"]),
    // Each secret is asked for once, and a passphrase that was mistyped once more.
    unsupported("NumberOfPasswordPrompts", Shape::Number, &["1", "2", "3"]),
    unsupported("PermitLocalCommand", Shape::Flag, NO),
    unsupported("RekeyLimit", Shape::Line, &["default", "default none"]),
    unsupported("TCPKeepAlive", Shape::Flag, &["yes"]),
    unsupported("CanonicalizePermittedCNAMEs", Shape::Line, NONE),
    unsupported("CASignatureAlgorithms", Shape::Algorithms, &[]),
    unsupported("CheckHostIP", Shape::Flag, NO),
    unsupported("ForwardAgent", Shape::Text, &["no", "false"]),
    unsupported("GSSAPIAuthentication", Shape::Flag, NO),
    unsupported("GSSAPIKeyExchange", Shape::Flag, NO),
    unsupported("HostbasedAuthentication", Shape::Flag, NO),
    unsupported("NoHostAuthenticationForLocalhost", Shape::Flag, NO),
    unsupported("PKCS11Provider", Shape::Text, NONE),
    unsupported("ProxyUseFdpass", Shape::Flag, NO),
    unsupported("RemoteCommand", Shape::Line, NONE),
    unsupported("RequiredRSASize", Shape::Number, &["1024"]),
    unsupported("SecurityKeyProvider", Shape::Text, &["internal"]),
    unsupported("VerifyHostKeyDNS", Shape::Choice(YES_NO_ASK), NO),
    quiet("ChannelTimeout"),
    quiet("ClearAllForwardings"),
    // What is worth it travels compressed already.
    quiet("Compression"),
    quiet("ControlMaster"),
    quiet("ControlPath"),
    quiet("ControlPersist"),
    quiet("DynamicForward"),
    quiet("EnableEscapeCommandline"),
    quiet("EnableSSHKeysign"),
    quiet("EscapeChar"),
    quiet("ExitOnForwardFailure"),
    quiet("FingerprintHash"),
    quiet("ForkAfterAuthentication"),
    quiet("ForwardX11"),
    quiet("ForwardX11Timeout"),
    quiet("ForwardX11Trusted"),
    quiet("GatewayPorts"),
    quiet("GSSAPIClientIdentity"),
    quiet("GSSAPIDelegateCredentials"),
    quiet("GSSAPIKexAlgorithms"),
    quiet("GSSAPIRenewalForcesRekey"),
    quiet("GSSAPIServerIdentity"),
    quiet("GSSAPITrustDns"),
    quiet("HostbasedAcceptedAlgorithms"),
    quiet("KbdInteractiveDevices"),
    // Without PermitLocalCommand it does nothing.
    quiet("LocalCommand"),
    quiet("LocalForward"),
    quiet("LogLevel"),
    quiet("LogVerbose"),
    quiet("ObscureKeystrokeTiming"),
    quiet("PermitRemoteOpen"),
    quiet("RemoteForward"),
    quiet("RequestTTY"),
    quiet("SessionType"),
    quiet("StdinNull"),
    quiet("StreamLocalBindMask"),
    quiet("StreamLocalBindUnlink"),
    quiet("SyslogFacility"),
    quiet("Tunnel"),
    quiet("TunnelDevice"),
    quiet("UpdateHostKeys"),
    quiet("VersionAddendum"),
    quiet("VisualHostKey"),
    quiet("WarnWeakCrypto"),
    quiet("XAuthLocation"),
    // What OpenSSH itself no longer looks at.
    quiet("AFSTokenPassing"),
    quiet("Cipher"),
    quiet("CompressionLevel"),
    quiet("FallBackToRsh"),
    quiet("GlobalKnownHostsFile2"),
    quiet("KerberosAuthentication"),
    quiet("KerberosTGTPassing"),
    quiet("Protocol"),
    quiet("RhostsAuthentication"),
    quiet("RhostsRSAAuthentication"),
    quiet("RSAAuthentication"),
    quiet("UsePrivilegedPort"),
    quiet("UserKnownHostsFile2"),
    quiet("UseRoaming"),
    quiet("UseRsh"),
];

/// Other names of keywords, in lower case.
const ALIASES: &[(&str, &str)] = &[
    ("challengeresponseauthentication", "KbdInteractiveAuthentication"),
    ("dsaauthentication", "PubkeyAuthentication"),
    ("hostbasedkeytypes", "HostbasedAcceptedAlgorithms"),
    ("identityfile2", "IdentityFile"),
    ("keepalive", "TCPKeepAlive"),
    ("pubkeyacceptedkeytypes", "PubkeyAcceptedAlgorithms"),
    ("skeyauthentication", "KbdInteractiveAuthentication"),
    ("smartcarddevice", "PKCS11Provider"),
    ("tisauthentication", "KbdInteractiveAuthentication"),
];

/// The keyword of this name, in any case.
pub(super) fn keyword(name: &str) -> Option<&'static Keyword> {
    let alias = ALIASES.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(name)).map(|(_, name)| *name);
    let name = alias.unwrap_or(name);
    KEYWORDS.iter().find(|keyword| keyword.name.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::{ALIASES, KEYWORDS, keyword};

    #[test]
    fn every_name_is_there_once() {
        for known in KEYWORDS {
            assert!(std::ptr::eq(keyword(known.name).expect("found"), known), "{}", known.name);
        }
        for (alias, name) in ALIASES {
            assert_eq!(keyword(alias).expect("found").name, *name);
        }
        assert_eq!(keyword("nonsense"), None);
    }
}
