//! For this module's tests: targets, prompts, a real sshd and a real ssh-agent on this machine, and a false server.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use russh::keys::{Algorithm, PrivateKey};
use russh::server::{self, Auth, ChannelOpenHandle, Msg, Response, Session};
use russh::{Channel, ChannelId, MethodKind, MethodSet};
use tempfile::TempDir;

use crate::secret::Secret;

use super::identity::Unlocked;
use super::login::Sources;
use super::target::{Prompt, Target};

pub(super) use self::way::Way;

use self::logins::{Login, Logins};

mod logins;
mod way;

/// A target on loopback.
pub(super) fn target(name: &str, port: u16) -> Target {
    Target { port, user: "ops".to_owned(), agent: false, ..Target::plain(name, "127.0.0.1") }
}

/// No agent and no home folder: tests must not see the keys of whoever runs them.
pub(super) fn no_sources() -> Sources {
    Sources::default()
}

/// Answers every question with the same secret and counts them.
#[derive(Default)]
pub(super) struct Answers {
    pub(super) answer: Option<&'static str>,
    pub(super) passphrases: AtomicUsize,
    pub(super) passwords: AtomicUsize,
    pub(super) others: AtomicUsize,
    /// What is answered when the first passphrase was wrong.
    pub(super) second: Option<&'static str>,
    pub(super) unlocked: Unlocked,
}

impl Answers {
    pub(super) fn with(answer: &'static str) -> Self {
        Self { answer: Some(answer), ..Self::default() }
    }
}

impl Prompt for Answers {
    fn passphrase(&self, _file: &Path, again: bool) -> Option<Secret> {
        self.passphrases.fetch_add(1, Ordering::Relaxed);
        if again { self.second.or(self.answer) } else { self.answer }.map(Secret::new)
    }

    fn unlocked(&self) -> &Unlocked {
        &self.unlocked
    }

    fn password(&self, _user: &str, _host: &str) -> Option<Secret> {
        self.passwords.fetch_add(1, Ordering::Relaxed);
        self.answer.map(Secret::new)
    }

    fn answer(&self, _user: &str, _host: &str, question: &str) -> Option<Secret> {
        self.others.fetch_add(1, Ordering::Relaxed);
        assert_eq!(question, "Verification code");
        self.answer.map(Secret::new)
    }
}

#[expect(clippy::disallowed_methods, reason = "tests start OpenSSH's own programs to compare with")]
pub(super) fn command(name: &str) -> Command {
    Command::new(name)
}

/// Runs one of OpenSSH's programs and returns what it printed, whatever its status.
pub(super) fn program(name: &str, arguments: &[&str]) -> String {
    let output = command(name).args(arguments).stdin(Stdio::null()).output();
    let output =
        output.unwrap_or_else(|error| panic!("{name} is needed by this test (install openssh-client): {error}"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Makes a key pair with ssh-keygen and returns the private file.
pub(super) fn make_key(folder: &Path, name: &str, kind: &str, passphrase: &str) -> PathBuf {
    let path = folder.join(name);
    program("ssh-keygen", &["-q", "-t", kind, "-N", passphrase, "-C", name, "-f", &path.display().to_string()]);
    assert!(path.is_file(), "ssh-keygen made no {}", path.display());
    path
}

/// A process that is ended, by its id, with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Tries `probe` every 20 ms until it succeeds.
fn until(what: &str, mut probe: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(20);
    let (_keep, never) = std::sync::mpsc::channel::<()>();
    while !probe() {
        assert!(Instant::now() < limit, "{what} within 20 seconds");
        let _ = never.recv_timeout(Duration::from_millis(20));
    }
}

/// A port that was free a moment ago.
pub(super) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// A real sshd on loopback for the user who runs the tests, with host keys of three kinds.
pub(super) struct Sshd {
    _process: Process,
    pub(super) folder: TempDir,
    pub(super) port: u16,
}

impl Sshd {
    /// Starts it; `settings` are more lines of sshd_config.
    pub(super) fn start(settings: &str) -> Self {
        let binary =
            ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd"].into_iter().find(|p| Path::new(p).is_file());
        let binary = binary.expect("a real sshd is needed by this test: install openssh-server");
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = format!(
            "ListenAddress 127.0.0.1\nPidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nAuthorizedKeysFile {}\n{settings}\n",
            folder.path().join("authorized_keys").display()
        );
        for kind in ["ed25519", "ecdsa", "rsa"] {
            let key = make_key(folder.path(), &format!("host_{kind}"), kind, "");
            config.push_str(&format!("HostKey {}\n", key.display()));
        }
        // sshd of a distribution wants its privilege separation folder; only root can start it without.
        let _ = std::fs::create_dir_all("/run/sshd");
        // Another test's server may take a port between its choice and its use; that one would answer as well.
        let started = std::iter::repeat_with(|| Self::listen(binary, folder.path(), &config)).take(5).flatten().next();
        let (process, port) = started.expect("a port that nobody takes");
        Self { _process: process, folder, port }
    }

    /// Starts it on a port of its own; `None` where somebody took that.
    fn listen(binary: &str, folder: &Path, config: &str) -> Option<(Process, u16)> {
        let port = free_port();
        std::fs::write(folder.join("sshd_config"), format!("Port {port}\n{config}")).expect("written");
        let log = std::fs::File::create(folder.join("log")).expect("a log");
        let child = command(binary)
            .args(["-D", "-e", "-f"])
            .arg(folder.join("sshd_config"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("sshd starts");
        let mut process = Process(child);
        let listens = format!("Server listening on 127.0.0.1 port {port}.");
        let mut taken = false;
        until("sshd listens", || {
            let ended = process.0.try_wait().ok().flatten();
            let said = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
            taken = said.contains("Address already in use");
            assert!(ended.is_none() || taken, "sshd: {said}");
            taken || said.contains(&listens)
        });
        (!taken).then_some((process, port))
    }

    /// Lets a key pair in and returns the private file.
    pub(super) fn authorize(&self, private: &Path) -> PathBuf {
        let mut beside = private.to_owned().into_os_string();
        beside.push(".pub");
        let mut keys = std::fs::read_to_string(self.folder.path().join("authorized_keys")).unwrap_or_default();
        keys.push_str(&std::fs::read_to_string(beside).expect("a public key"));
        std::fs::write(self.folder.path().join("authorized_keys"), keys).expect("written");
        private.to_owned()
    }

    /// A key of `kind` that is let in.
    pub(super) fn user_key(&self, name: &str, kind: &str, passphrase: &str) -> PathBuf {
        self.authorize(&make_key(self.folder.path(), name, kind, passphrase))
    }

    /// A known_hosts file with the lines for the host keys of these kinds.
    pub(super) fn known_hosts(&self, kinds: &[&str]) -> PathBuf {
        let path = self.folder.path().join(format!("known_{}", kinds.join("_")));
        let lines: Vec<String> = kinds.iter().map(|kind| self.known_line(kind)).collect();
        std::fs::write(&path, lines.concat()).expect("written");
        path
    }

    /// The known_hosts line for the host key of one kind.
    pub(super) fn known_line(&self, kind: &str) -> String {
        let public =
            std::fs::read_to_string(self.folder.path().join(format!("host_{kind}.pub"))).expect("a public key");
        format!("[127.0.0.1]:{} {public}", self.port)
    }

    /// A target that knows this host and logs in with `identity`.
    pub(super) fn target(&self, identity: Option<&Path>) -> Target {
        Target {
            user: program("id", &["-un"]).trim().to_owned(),
            identities: identity.map(Path::to_owned).into_iter().collect(),
            known_hosts: vec![self.known_hosts(&["ed25519", "ecdsa", "rsa"])],
            ..target("cp1", self.port)
        }
    }
}

/// A real ssh-agent that holds the given keys.
pub(super) struct Agent {
    _process: Process,
    _folder: TempDir,
    pub(super) socket: PathBuf,
}

impl Agent {
    pub(super) fn start(keys: &[&Path]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("agent");
        let child = command("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn();
        let process = Process(child.expect("ssh-agent is needed by this test: install openssh-client"));
        until("ssh-agent listens", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
        for key in keys {
            let added = command("ssh-add").arg("-q").arg(key).env("SSH_AUTH_SOCK", &socket).status();
            assert!(added.expect("ssh-add starts").success(), "{} was not added", key.display());
        }
        Self { _process: process, _folder: folder, socket }
    }

    pub(super) fn sources(&self) -> Sources {
        Sources { agent: Some(self.socket.clone()), home: None }
    }
}

/// What the false server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ways {
    /// Takes the password `secret`.
    Password,
    /// Takes the password `secret` as an answer to a question.
    Interactive,
    /// Takes the password `secret` and then the code `secret` as answers to questions.
    Code,
    /// Offers passwords and questions, refuses each password, and takes `secret` and the code as answers.
    Both,
    /// Takes the password, and only then the same as an answer to a question.
    InTurn,
    /// Takes the password and ends the connection when a command has sent 1 MiB.
    DropsInTransfer,
    /// Takes the password and never lets a command start.
    RefusesCommands,
    /// Shows a banner of 10 MB before it takes the password.
    HugeBanner,
    /// Takes the password after a while, and never lets a command start.
    Slow,
}

/// How long a slow login takes at least.
const SLOW: Duration = Duration::from_millis(150);

static FALSE_HOST_KEY: LazyLock<PrivateKey> = LazyLock::new(|| {
    let mut random = russh::keys::key::safe_rng();
    PrivateKey::random(&mut random, Algorithm::Ed25519).expect("a key")
});

/// Serves one way on a free port until the runtime ends, after turning away `busy` connections.
pub(super) async fn false_server(ways: Ways, busy: usize) -> FalseServer {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let config = Arc::new(server::Config {
        keys: vec![FALSE_HOST_KEY.clone()],
        auth_rejection_time: Duration::ZERO,
        methods: MethodSet::from(&[MethodKind::Password, MethodKind::KeyboardInteractive][..]),
        nodelay: true,
        ..server::Config::default()
    });
    let logins = Arc::new(Logins::default());
    let counted = Arc::clone(&logins);
    tokio::spawn(async move {
        let mut turned_away = 0;
        while let Ok((stream, _)) = listener.accept().await {
            if turned_away < busy {
                turned_away += 1;
                continue;
            }
            let login = Some(Login::begin(&counted));
            let host = FalseHost { ways, taken: 0, answered: 0, half_in: false, login };
            let serving = server::run_stream(Arc::clone(&config), stream, host);
            tokio::spawn(async move {
                if let Ok(session) = serving.await {
                    let _ = session.await;
                }
            });
        }
    });
    let public = FALSE_HOST_KEY.public_key().to_openssh().expect("a key");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("known_hosts"), format!("[127.0.0.1]:{port} {public}\n")).expect("written");
    FalseServer { folder, port, logins }
}

/// Where a false server listens, and a file that knows it.
pub(super) struct FalseServer {
    folder: TempDir,
    pub(super) port: u16,
    pub(super) logins: Arc<Logins>,
}

impl FalseServer {
    /// The file that knows this server.
    pub(super) fn known_hosts(&self) -> PathBuf {
        self.folder.path().join("known_hosts")
    }

    /// A target that knows this server.
    pub(super) fn target(&self, password: Option<&str>) -> Target {
        Target { known_hosts: vec![self.known_hosts()], password: password.map(Secret::new), ..target("w1", self.port) }
    }
}

struct FalseHost {
    ways: Ways,
    taken: usize,
    answered: usize,
    half_in: bool,
    /// Until it is let in.
    login: Option<Login>,
}

impl FalseHost {
    fn asks(&self) -> bool {
        matches!(self.ways, Ways::Interactive | Ways::Code | Ways::Both) || self.is_half_in()
    }

    /// Whether the first of two ways was gone.
    fn is_half_in(&self) -> bool {
        self.ways == Ways::InTurn && self.half_in
    }

    fn methods(&self) -> MethodSet {
        MethodSet::from(match self.ways {
            Ways::Both => &[MethodKind::Password, MethodKind::KeyboardInteractive][..],
            _ if self.asks() => &[MethodKind::KeyboardInteractive][..],
            _ => &[MethodKind::Password][..],
        })
    }
}

fn no_more() -> Auth {
    Auth::Reject { proceed_with_methods: None, partial_success: false }
}

impl server::Handler for FalseHost {
    type Error = russh::Error;

    async fn auth_password(&mut self, _user: &str, password: &str) -> Result<Auth, russh::Error> {
        if self.asks() {
            return Ok(Auth::Reject { proceed_with_methods: Some(self.methods()), partial_success: false });
        }
        if self.ways == Ways::InTurn && password == "secret" {
            self.half_in = true;
            return Ok(Auth::Reject { proceed_with_methods: Some(self.methods()), partial_success: true });
        }
        if self.ways == Ways::Slow {
            let _ = tokio::time::timeout(SLOW, std::future::pending::<()>()).await;
        }
        if password != "secret" {
            return Ok(no_more());
        }
        self.login = None;
        Ok(Auth::Accept)
    }

    async fn auth_none(&mut self, _user: &str) -> Result<Auth, russh::Error> {
        Ok(Auth::Reject { proceed_with_methods: Some(self.methods()), partial_success: false })
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _user: &str,
        _submethods: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, russh::Error> {
        let Some(mut response) = response else {
            return Ok(Auth::Partial {
                name: "".into(),
                instructions: "".into(),
                prompts: vec![("Password: ".into(), false)].into(),
            });
        };
        if response.next().as_deref() != Some(b"secret") {
            return Ok(no_more());
        }
        self.answered += 1;
        if matches!(self.ways, Ways::Code | Ways::Both) && self.answered == 1 {
            return Ok(Auth::Partial {
                name: "".into(),
                instructions: "".into(),
                prompts: vec![("Verification code: ".into(), false)].into(),
            });
        }
        Ok(Auth::Accept)
    }

    async fn authentication_banner(&mut self) -> Result<Option<String>, russh::Error> {
        Ok(Some(match self.ways {
            Ways::HugeBanner => "x".repeat(10 << 20),
            _ => "Property of the tests".to_owned(),
        }))
    }

    async fn channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        _command: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        if matches!(self.ways, Ways::RefusesCommands | Ways::Slow) {
            session.channel_failure(channel)
        } else {
            session.channel_success(channel)
        }
    }

    async fn data(&mut self, _channel: ChannelId, data: &[u8], _session: &mut Session) -> Result<(), russh::Error> {
        self.taken += data.len();
        if self.ways == Ways::DropsInTransfer && self.taken > 1 << 20 {
            return Err(russh::Error::Disconnect);
        }
        Ok(())
    }
}

/// The processes that a process has started, with theirs.
pub(super) fn descendants(of: u32) -> Vec<u32> {
    let listed = program("ps", &["-e", "-o", "pid=,ppid="]);
    let pairs: Vec<(u32, u32)> = listed
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
        })
        .collect();
    let mut found = vec![of];
    let mut at = 0;
    while at < found.len() {
        let parent = found[at];
        found.extend(pairs.iter().filter(|(_, its)| *its == parent).map(|(id, _)| *id));
        at += 1;
    }
    found.split_off(1)
}

impl Sshd {
    /// Sends a signal to all that serves connections.
    pub(super) fn signal_connections(&self, name: &str) {
        let ids: Vec<String> = descendants(self._process.0.id()).iter().map(u32::to_string).collect();
        assert!(!ids.is_empty(), "nobody is connected");
        let mut arguments = vec!["-s", name];
        arguments.extend(ids.iter().map(String::as_str));
        program("kill", &arguments);
    }
}
