//! `--transport openssh`: the user's own `ssh` makes the connections, one process a channel, for whatever only it can do
//! (GSSAPI, a ProxyUseFdpass, its own multiplexing). What is above a [`Channel`] does not notice.
//!
//! The host's address is what is typed after `ssh`, so that ~/.ssh/config applies as it does there; what the inventory
//! says itself comes as options and wins.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{OnceCell, mpsc, watch};

use crate::failure::{Failure, Kind, Result};
use crate::inventory::{Become, Host, HostKeys};

use super::channel::{Broken, Channel, Item, Shared, weight};
use super::half::Half;
use super::output::Exit;
use super::target::KEEPALIVE;
use super::terminal::Terminal;
use super::tunnel::Tunnel;

/// Read from a process at a time.
const PIECE: usize = 64 << 10;
/// A process is not read from while so many bytes wait for a reader.
const WAITING: usize = 16 << 20;
/// How often is looked whether they are fewer.
const LOOK: Duration = Duration::from_millis(2);
/// `ssh -G` runs the commands of `Match exec`.
const PRINT: Duration = Duration::from_secs(60);
/// The status of `ssh` when it could not do its part (ssh(1), EXIT STATUS), or when the command was killed.
const FAILED: i32 = 255;

/// How to start `ssh` for one host.
#[derive(Debug)]
pub(super) struct Openssh {
    name: String,
    options: Vec<String>,
    address: String,
    connect_limit_seconds: u64,
    /// Whether somebody wrote that an agent is asked.
    wants_agent: bool,
    /// Options that depend on what `ssh -G` prints; found out when the first channel is opened.
    more: OnceCell<Vec<String>>,
}

/// What is started.
enum What<'a> {
    Command(&'a str),
    OnTerminal(&'a Terminal, Option<&'a str>),
    Stream(&'a str, u16),
}

/// The options that an inventory asks for.
fn options(host: &Host) -> Result<Vec<String>> {
    let ssh = &host.ssh;
    let refused = |what: &str| {
        Err(Failure::new(Kind::Configuration, format!("the transport openssh cannot be given {what}"))
            .on(&host.name)
            .advise("use keys or an agent, say it in ~/.ssh/config, or leave --transport out"))
    };
    if ssh.password.is_some() {
        return refused("a password");
    }
    if !ssh.host_key.is_empty() {
        return refused("a pinned host key");
    }
    let mut options: Vec<String> = Vec::new();
    let mut add = |option: &str, value: String| options.extend([option.to_owned(), value]);
    if ssh.is_written("connect_limit_seconds") {
        add("-o", format!("ConnectTimeout={}", ssh.connect_limit_seconds));
    }
    if ssh.is_written("user") {
        add("-l", ssh.user.clone());
    }
    if ssh.is_written("port") {
        add("-p", ssh.port.to_string());
    }
    if ssh.is_written("identities") {
        ssh.identities.iter().for_each(|file| add("-i", file.display().to_string()));
    }
    if !ssh.agent {
        add("-o", "IdentityAgent=none".to_owned());
    }
    if ssh.is_written("jump") {
        let hops: Vec<String> = ssh.jump.iter().map(ToString::to_string).collect();
        add("-o", format!("ProxyJump={}", if hops.is_empty() { "none".to_owned() } else { hops.join(",") }));
    }
    if ssh.is_written("known_hosts") {
        let files: Vec<String> = ssh.known_hosts.iter().map(|file| format!("\"{}\"", file.display())).collect();
        add("-o", format!("UserKnownHostsFile={}", files.join(" ")));
        add("-o", "GlobalKnownHostsFile=none".to_owned());
    }
    if ssh.is_written("host_keys") {
        let word = match ssh.host_keys {
            HostKeys::Strict => "yes",
            HostKeys::AcceptNew => "accept-new",
        };
        add("-o", format!("StrictHostKeyChecking={word}"));
    }
    Ok(options)
}

/// What `ssh -G` prints of a keyword, in lower case.
fn printed<'a>(text: &'a str, keyword: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(keyword)?.strip_prefix(' ')).map(str::trim)
}

/// The limits that `ssh` has by itself nowhere, where neither the inventory nor ssh_config (as `ssh -G` prints it) says
/// one: a host that hangs must be given up.
fn limits(text: &str, connect_limit_seconds: u64) -> Vec<String> {
    let mut limits = Vec::new();
    let mut add = |option: String| limits.extend(["-o".to_owned(), option]);
    if matches!(printed(text, "connecttimeout"), None | Some("none" | "0")) {
        add(format!("ConnectTimeout={connect_limit_seconds}"));
    }
    if matches!(printed(text, "serveraliveinterval"), None | Some("0")) {
        add(format!("ServerAliveInterval={}", KEEPALIVE.as_secs()));
    }
    limits
}

/// The agent of the environment, where the inventory wants one and ssh_config (as `ssh -G` prints it) has none.
fn agent(text: &str, is_wanted: bool) -> Vec<String> {
    match is_wanted && printed(text, "identityagent") == Some("none") {
        true => vec!["-o".to_owned(), "IdentityAgent=SSH_AUTH_SOCK".to_owned()],
        false => Vec::new(),
    }
}

/// Puts what `ssh` says about a host's user and port in place of the inventory's defaults: whatever stands in ssh_config
/// is `ssh`'s to understand.
///
/// # Errors
/// [`Kind::Configuration`] for what `ssh` cannot be told, or does not understand of its own configuration.
pub async fn settle_by_openssh(host: &mut Host) -> Result<()> {
    let text = Openssh::new(host)?.print().await?;
    let ssh = &mut host.ssh;
    if let Some(user) = printed(&text, "user") {
        user.clone_into(&mut ssh.user);
    }
    if let Some(port) = printed(&text, "port").and_then(|port| port.parse().ok()) {
        ssh.port = port;
    }
    if !ssh.is_written("become") {
        ssh.become_root = if ssh.user == "root" { Become::None } else { Become::Sudo };
    }
    Ok(())
}

impl Openssh {
    /// For a host of the inventory.
    ///
    /// # Errors
    /// [`Kind::Configuration`] for what cannot be passed on to `ssh`.
    pub(super) fn new(host: &Host) -> Result<Self> {
        let (name, address) = (host.name.clone(), host.address.clone());
        let (options, connect_limit_seconds) = (options(host)?, host.ssh.connect_limit_seconds);
        let wants_agent = host.ssh.is_written("agent") && host.ssh.agent;
        Ok(Self { name, options, address, connect_limit_seconds, wants_agent, more: OnceCell::new() })
    }

    /// What `ssh` makes of its configuration for the host, one keyword a line.
    async fn print(&self) -> Result<String> {
        let failed = |said: String| {
            Failure::new(Kind::Configuration, format!("ssh cannot use its configuration for {}", self.address))
                .on(&self.name)
                .detailed(said.trim())
                .advise(format!("correct it until `ssh -G {}` works", self.address))
        };
        let mut command = Command::new("ssh");
        command.arg("-G").args(&self.options).args(["--", &self.address]).stdin(Stdio::null()).kill_on_drop(true);
        let printing = tokio::time::timeout(PRINT, command.output());
        let Ok(printed) = printing.await else { return Err(failed(format!("no answer within {PRINT:?}"))) };
        let output = printed.map_err(|error| self.not_started(error.to_string()))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(failed(String::from_utf8_lossy(&output.stderr).into_owned())),
        }
    }

    fn not_started(&self, cause: String) -> Failure {
        Failure::new(Kind::Connection, "cannot start ssh on this machine")
            .on(&self.name)
            .caused_by(cause)
            .advise("install OpenSSH's client, or leave --transport out")
    }

    /// Starts a command.
    pub(super) async fn exec(&self, what: String, command: &str) -> Result<Channel> {
        let (child, stdin) = self.start(What::Command(command)).await?;
        Ok(self.channel(child, Some(stdin), what))
    }

    /// Starts a command, or the login shell, on a terminal.
    pub(super) async fn terminal(&self, what: String, terminal: &Terminal, command: Option<&str>) -> Result<Channel> {
        let (child, stdin) = self.start(What::OnTerminal(terminal, command)).await?;
        Ok(self.channel(child, Some(stdin), what))
    }

    /// Opens a TCP stream from the host.
    pub(super) async fn stream(&self, what: String, host: &str, port: u16) -> Result<Tunnel> {
        let (child, stdin) = self.start(What::Stream(host, port)).await?;
        let (_, reader) = self.channel(child, None, what).split();
        Ok(Tunnel::new(reader, Box::pin(stdin)))
    }

    fn arguments(&self, more: &[String], what: &What<'_>) -> Vec<String> {
        // Many processes cannot ask at once.
        let mut all = ["-o", "BatchMode=yes", "-o", "LogLevel=ERROR"].map(str::to_owned).to_vec();
        all.extend_from_slice(&self.options);
        all.extend_from_slice(more);
        let place = ["--".to_owned(), self.address.clone()];
        match what {
            What::Command(command) => {
                all.push("-T".to_owned());
                all.extend(place);
                all.push((*command).to_owned());
            }
            What::OnTerminal(terminal, command) => {
                all.push("-tt".to_owned());
                all.extend(place);
                // ssh asks its own terminal for the size, and has none.
                let size = format!("stty rows {} cols {}", terminal.rows, terminal.columns);
                all.push(format!("{size}; {}", command.unwrap_or("exec $SHELL -l")));
            }
            What::Stream(host, port) => {
                let host = if host.contains(':') { format!("[{host}]") } else { (*host).to_owned() };
                all.extend(["-W".to_owned(), format!("{host}:{port}")]);
                all.extend(place);
            }
        }
        all
    }

    async fn start(&self, what: What<'_>) -> Result<(Child, ChildStdin)> {
        let asking = async || {
            let text = self.print().await?;
            Ok::<_, Failure>([limits(&text, self.connect_limit_seconds), agent(&text, self.wants_agent)].concat())
        };
        let more = self.more.get_or_try_init(asking).await?;
        let mut command = Command::new("ssh");
        if let What::OnTerminal(terminal, _) = &what {
            command.env("TERM", &terminal.kind);
        }
        let failed = |cause: String| self.not_started(cause);
        let mut child = command
            .args(self.arguments(more, &what))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C in our terminal is ours.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let stdin = child.stdin.take().ok_or_else(|| failed("a pipe is missing".to_owned()))?;
        Ok((child, stdin))
    }

    fn channel(&self, mut child: Child, stdin: Option<ChildStdin>, what: String) -> Channel {
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (never_lost, lost) = watch::channel(None);
        let half = Half::process(stdin, never_lost);
        let over = match &half {
            Half::Process { over, .. } => over.subscribe(),
            Half::Ours(_) => watch::channel(true).1,
        };
        let (channel, sender, shared) = Channel::over(half, &self.name, what, lost);
        tokio::spawn(async move {
            let (first, second) = (sender.clone(), sender.clone());
            let reading = async {
                futures::join!(
                    read(stdout, &first, &shared, Item::Stdout, false),
                    read(stderr, &second, &shared, Item::Stderr, true),
                );
                child.wait().await
            };
            let mut over = over;
            tokio::select! {
                status = reading => {
                    let _ = sender.send(ended(status.ok().map(|status| (status.code(), signal(status))), &shared));
                }
                _ = over.wait_for(|over| *over) => {}
                () = sender.closed() => {}
            }
            shared.ended.send_replace(true);
        });
        channel
    }
}

fn signal(status: std::process::ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&status)
}

/// How a process of ssh ended, as the end of its channel.
fn ended(status: Option<(Option<i32>, Option<i32>)>, shared: &Shared) -> Item {
    match status {
        Some((Some(FAILED), _)) => match explained(&shared.stderr_tail()) {
            Some(_) => Item::Broken(Broken::Openssh),
            None => Item::Exit(Exit::Status(255)),
        },
        Some((Some(code), _)) => Item::Exit(Exit::Status(u32::try_from(code).unwrap_or(255))),
        Some((None, number)) => Item::Exit(Exit::Signal(number.unwrap_or_default().to_string())),
        None => Item::Broken(Broken::Lost),
    }
}

/// What ssh itself complains of, by its last words; `None` where they are the command's.
pub(super) fn explained(stderr: &str) -> Option<Failure> {
    let last = stderr.lines().rev().find(|line| !line.trim().is_empty())?.trim();
    let has = |words: &[&str]| words.iter().any(|word| stderr.contains(word));
    let failure = if has(&["Host key verification failed", "REMOTE HOST IDENTIFICATION HAS CHANGED"]) {
        Failure::new(Kind::HostKey, "ssh does not trust the host's key")
            .advise("compare it with the one on the host's console; `clusterctl hosts scan` shows it")
    } else if has(&["Permission denied (", "Too many authentication failures"]) {
        Failure::new(Kind::Authentication, "ssh could not log in")
            .advise("make `ssh` to this host work without a question, or leave --transport out")
    } else if last.starts_with("ssh: ")
        || has(&["kex_exchange_identification", "Connection closed by", "Connection reset by", "Connection timed out"])
        || has(&["Timeout, server", "Bad configuration option", "stdio forwarding failed", "client_loop: "])
    {
        Failure::new(Kind::Connection, "ssh has no connection to the host")
            .advise("make `ssh` to this host work, then run the same command again")
            .may_pass()
    } else {
        return None;
    };
    let shown: String = last.chars().filter(|c| !c.is_control()).take(200).collect();
    Some(failure.caused_by(shown))
}

/// Passes a stream of a process on; not faster than somebody reads it.
async fn read(
    stream: Option<impl AsyncRead + Unpin>,
    items: &mpsc::UnboundedSender<Item>,
    shared: &Arc<Shared>,
    item: fn(Bytes) -> Item,
    is_tail: bool,
) {
    let Some(mut stream) = stream else { return };
    let mut piece = vec![0; PIECE];
    while let Ok(length @ 1..) = stream.read(&mut piece).await {
        let bytes = Bytes::copy_from_slice(&piece[..length]);
        if is_tail {
            shared.keep_tail(&bytes);
        }
        let item = item(bytes);
        let mut looks = tokio::time::interval(LOOK);
        while shared.queued.load(Ordering::Acquire) > WAITING && !items.is_closed() {
            looks.tick().await;
        }
        shared.queued.fetch_add(weight(&item), Ordering::AcqRel);
        if items.send(item).is_err() {
            return;
        }
    }
    if !is_tail {
        let _ = items.send(Item::Eof);
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use bytes::Bytes;
    use tokio::process::Command;

    use super::{Openssh, What, agent, explained, limits, settle_by_openssh};
    use crate::failure::Kind;
    use crate::inventory::{Become, Hop, HostKeys};
    use crate::ssh::output::Chunk;
    use crate::ssh::terminal::Terminal;
    use crate::ui::rehearsal;

    fn host() -> crate::inventory::Host {
        rehearsal::inventory().hosts.remove(0)
    }

    #[test]
    fn what_nobody_wrote_is_left_to_ssh() {
        let arguments = Openssh::new(&host()).expect("usable").arguments(&[], &What::Command("true"));
        let text = arguments.join(" ");
        assert!(text.ends_with("-T -- 10.0.0.11 true"), "{text}");
        for option in
            ["-l", "-p", "-i", "ProxyJump", "KnownHosts", "StrictHostKeyChecking", "ConnectTimeout", "ServerAlive"]
        {
            assert!(!arguments.iter().any(|word| word.starts_with(option)), "{option} in {text}");
        }
        // What has no limit by itself gets one, unless ssh_config has it.
        let ours = ["-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=15"];
        assert_eq!(limits("user ops\nconnecttimeout none\nserveraliveinterval 0\nserveralivecountmax 3\n", 20), ours);
        assert!(limits("connecttimeout 7\nserveraliveinterval 300\n", 20).is_empty());
    }

    #[test]
    fn an_agent_that_the_inventory_wants_is_asked_whatever_ssh_config_says() {
        let mut host = host();
        assert!(!Openssh::new(&host).expect("usable").wants_agent, "nobody wrote it");
        host.ssh.written.insert("agent");
        assert!(Openssh::new(&host).expect("usable").wants_agent);
        assert_eq!(agent("user ops\nidentityagent none\n", true), ["-o", "IdentityAgent=SSH_AUTH_SOCK"]);
        assert!(agent("user ops\nidentityagent none\n", false).is_empty());
        assert!(agent("user ops\nidentityagent /run/agent\n", true).is_empty());
    }

    #[test]
    fn what_the_inventory_says_wins() {
        let mut host = host();
        let ssh = &mut host.ssh;
        ssh.written = ["user", "port", "identities", "jump", "known_hosts", "host_keys"].into();
        ssh.port = 2222;
        ssh.identities = vec!["/k e/y".into()];
        ssh.known_hosts = vec!["/known".into()];
        ssh.jump = vec![Hop { user: Some("ops".to_owned()), host: "b".to_owned(), port: None }];
        ssh.host_keys = HostKeys::AcceptNew;
        ssh.agent = false;
        let text = Openssh::new(&host).expect("usable").arguments(&[], &What::Stream("fd00::1", 6443)).join(" ");
        let expected = "-l root -p 2222 -i /k e/y -o IdentityAgent=none -o ProxyJump=ops@b -o \
                        UserKnownHostsFile=\"/known\" -o GlobalKnownHostsFile=none -o StrictHostKeyChecking=accept-new \
                        -W [fd00::1]:6443 -- 10.0.0.11";
        assert!(text.ends_with(expected), "{text}");
        let terminal = Terminal { kind: "xterm".to_owned(), columns: 99, rows: 33 };
        let text = Openssh::new(&host).expect("usable").arguments(&[], &What::OnTerminal(&terminal, None)).join(" ");
        assert!(text.ends_with("-tt -- 10.0.0.11 stty rows 33 cols 99; exec $SHELL -l"), "{text}");
    }

    /// The real ssh says what it would do; what only it understands stops nobody, and what it does not is its to say.
    #[tokio::test]
    async fn ssh_says_who_logs_in() {
        let mut host = host();
        host.ssh.written = ["user", "connect_limit_seconds"].into();
        (host.ssh.user, host.ssh.connect_limit_seconds) = ("ops".to_owned(), 9);
        let printed = Openssh::new(&host).expect("usable").print().await.expect("printed");
        assert_eq!(super::printed(&printed, "connecttimeout"), Some("9"));
        settle_by_openssh(&mut host).await.expect("settled");
        assert_eq!((host.ssh.user.as_str(), host.ssh.port, host.ssh.become_root), ("ops", 22, Become::Sudo));
        host.ssh.written.insert("port");
        host.ssh.port = 0;
        let failure = settle_by_openssh(&mut host).await.expect_err("no port");
        assert_eq!((failure.kind, failure.host.as_deref()), (Kind::Configuration, Some("cp1")));
        assert!(failure.detail.as_deref().is_some_and(|said| said.to_lowercase().contains("port")), "{failure:?}");
    }

    #[test]
    fn what_cannot_be_passed_on_is_refused() {
        let mut host = host();
        host.ssh.host_key = vec!["SHA256:x".to_owned()];
        let failure = Openssh::new(&host).expect_err("refused");
        assert_eq!((failure.kind, failure.host.as_deref()), (Kind::Configuration, Some("cp1")));
    }

    #[tokio::test]
    async fn a_channel_outlives_the_connection_it_came_from() {
        let openssh = Openssh::new(&host()).expect("usable");
        let piped = std::process::Stdio::piped;
        let started = Command::new("cat").stdin(piped()).stdout(piped()).stderr(piped()).kill_on_drop(true).spawn();
        let mut child = started.expect("cat starts");
        let stdin = child.stdin.take();
        let mut channel = openssh.channel(child, stdin, "cat".to_owned());
        drop(openssh);
        channel.send(Bytes::from_static(b"typed")).await.expect("taken");
        channel.finish().await.expect("ended");
        let came = channel.recv().await.expect("read");
        assert!(matches!(&came, Some(Chunk::Stdout(bytes)) if bytes == "typed"), "{came:?}");
    }

    #[rstest]
    #[case("ssh: connect to host 10.0.0.11 port 22: Connection refused\r\n", Some(Kind::Connection))]
    #[case(
        "kex_exchange_identification: read: Connection reset by peer\nConnection reset by 10.0.0.11 port 22\n",
        Some(Kind::Connection)
    )]
    #[case("ops@10.0.0.11: Permission denied (publickey).\n", Some(Kind::Authentication))]
    #[case(
        "No ED25519 host key is known for x and you have requested strict checking.\nHost key verification failed.\n",
        Some(Kind::HostKey)
    )]
    #[case("cat: /x: Permission denied\n", None)]
    #[case("", None)]
    fn the_last_words_of_ssh_tell_what_went_wrong(#[case] stderr: &str, #[case] kind: Option<Kind>) {
        assert_eq!(explained(stderr).map(|failure| failure.kind), kind);
    }
}
