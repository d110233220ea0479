//! A key on a device (FIDO), through an agent: what the device does is played, the real sshd judges its signature.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use russh::keys::ssh_encoding::{Decode as _, Encode as _};
use russh::keys::ssh_key::PublicKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use crate::ssh::connection::connect_with;
use crate::ssh::login::Sources;
use crate::ssh::target::Target;
use crate::ssh::testing::{Answers, Sshd};

/// The algorithm's name (OpenSSH's PROTOCOL.u2f).
const ALGORITHM: &str = "sk-ssh-ed25519@openssh.com";
/// What the device calls what it was asked for.
const APPLICATION: &str = "ssh:";
/// Somebody touched the device.
const TOUCHED: u8 = 1;

/// Messages of agents (draft-ietf-sshm-ssh-agent).
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES: u8 = 12;
const SIGN: u8 = 13;
const SIGNED: u8 = 14;
const FAILURE: u8 = 5;

/// A device whose flags are as given: without [`TOUCHED`] a server must not believe it.
struct Device {
    key: Ed25519KeyPair,
    flags: u8,
    /// How long a person takes to touch it; it waits for one touch at a time.
    touch: Duration,
    touched: tokio::sync::Mutex<()>,
}

impl Device {
    fn public(&self) -> Vec<u8> {
        bytes_of(&[ALGORITHM.as_bytes(), self.key.public_key().as_ref(), APPLICATION.as_bytes()])
    }

    /// A signature as PROTOCOL.u2f has it: over digests, with flags and a counter.
    fn sign(&self, data: &[u8]) -> Vec<u8> {
        let counter = 7_u32.to_be_bytes();
        let application = digest(&SHA256, APPLICATION.as_bytes());
        let signed = [application.as_ref(), &[self.flags], &counter, digest(&SHA256, data).as_ref()].concat();
        let mut signature = bytes_of(&[ALGORITHM.as_bytes(), self.key.sign(&signed).as_ref()]);
        signature.push(self.flags);
        signature.extend(counter);
        signature
    }

    fn answer(&self, question: &[u8]) -> Vec<u8> {
        match question.split_first() {
            Some((&REQUEST_IDENTITIES, _)) => {
                let one = [&[IDENTITIES][..], &1_u32.to_be_bytes()].concat();
                [one, bytes_of(&[&self.public(), b"on a device"])].concat()
            }
            Some((&SIGN, mut rest)) => {
                let key = Vec::<u8>::decode(&mut rest).expect("a key");
                let data = Vec::<u8>::decode(&mut rest).expect("what is to be signed");
                match key == self.public() {
                    true => [vec![SIGNED], bytes_of(&[&self.sign(&data)])].concat(),
                    false => vec![FAILURE],
                }
            }
            _ => vec![FAILURE],
        }
    }

    async fn serve(&self, mut stream: UnixStream) -> std::io::Result<()> {
        loop {
            let mut question = vec![0; stream.read_u32().await? as usize];
            stream.read_exact(&mut question).await?;
            // An agent that waits for a device answers nobody else.
            let _alone = self.touched.lock().await;
            if question.first() == Some(&SIGN) {
                let _ = tokio::time::timeout(self.touch, std::future::pending::<()>()).await;
            }
            stream.write_all(&bytes_of(&[&self.answer(&question)])).await?;
        }
    }

    /// An agent that asks this device; it ends with the test.
    fn plug_in(self, folder: &Path) -> Sources {
        let socket = folder.join("device-agent");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let device = Arc::new(self);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let device = Arc::clone(&device);
                // It ends when the client has gone.
                tokio::spawn(async move { device.serve(stream).await });
            }
        });
        Sources { agent: Some(socket), home: None }
    }
}

/// Strings as SSH has them, one after the other.
fn bytes_of(parts: &[&[u8]]) -> Vec<u8> {
    let mut encoded = Vec::new();
    parts.iter().for_each(|part| part.encode(&mut encoded).expect("encoded"));
    encoded
}

/// A device with a key that sshd lets in, as the file of its public half.
fn device(sshd: &Sshd, flags: u8) -> (Device, PathBuf) {
    let key = Ed25519KeyPair::generate().expect("a key");
    let device = Device { key, flags, touch: Duration::ZERO, touched: tokio::sync::Mutex::default() };
    let key = sshd.folder.path().join("device");
    let public = PublicKey::from_bytes(&device.public()).expect("a public key");
    std::fs::write(key.with_extension("pub"), public.to_openssh().expect("a line") + "\n").expect("written");
    sshd.authorize(&key);
    (device, key.with_extension("pub"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_on_a_device_logs_in_through_the_agent() {
    let sshd = Sshd::start("");
    let (device, public) = device(&sshd, TOUCHED);
    let agent = device.plug_in(sshd.folder.path());
    let any = Target { agent: true, ..sshd.target(None) };
    connect_with(&any, &Answers::default(), &agent).await.expect("logged in by what the agent holds");
    let named = Target { identities_only: true, ..Target { agent: true, ..sshd.target(Some(&public)) } };
    connect_with(&named, &Answers::default(), &agent).await.expect("logged in by the key that is named");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_nobody_touched_is_refused_by_the_host() {
    let sshd = Sshd::start("");
    let (device, _) = device(&sshd, 0);
    let agent = device.plug_in(sshd.folder.path());
    let target = Target { agent: true, ..sshd.target(None) };
    let failure = connect_with(&target, &Answers::default(), &agent).await.expect_err("nobody touched it");
    assert!(failure.to_string().contains("agent key on a device (sk-ssh-ed25519@openssh.com SHA256:"), "{failure}");
}

/// Four hosts ask for a touch at once: a person touches the device four times, and the clock stands still meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_may_take_time_to_touch_the_device_for_each_host() {
    const TOUCH: Duration = Duration::from_secs(2);
    let sshd = Sshd::start("");
    let (device, _) = device(&sshd, TOUCHED);
    let agent = Device { touch: TOUCH, ..device }.plug_in(sshd.folder.path());
    let target = Target { agent: true, connect_limit: Duration::from_secs(5), ..sshd.target(None) };
    let (began, answers) = (Instant::now(), Answers::default());
    let logins = (0..4).map(|_| connect_with(&target, &answers, &agent));
    for login in futures::future::join_all(logins).await {
        login.expect("logged in when it was its turn");
    }
    assert!(began.elapsed() >= 4 * TOUCH, "{:?}", began.elapsed());
}

/// It costs each host no more than the first one, and other keys are tried.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_says_nothing_is_left_out() {
    let sshd = Sshd::start("");
    let key = sshd.user_key("user", "ed25519", "");
    let socket = sshd.folder.path().join("silent");
    let listener = UnixListener::bind(&socket).expect("a socket");
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    let sources = Sources { agent: Some(socket.clone()), home: None };
    let target = Target { agent: true, ..sshd.target(Some(&key)) };
    let (began, answers) = (Instant::now(), Answers::default());
    for login in futures::future::join_all((0..8).map(|_| connect_with(&target, &answers, &sources))).await {
        login.expect("logged in by the key file");
    }
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    let without = Target { identities: Vec::new(), ..target };
    let failure = connect_with(&without, &answers, &sources).await.expect_err("nothing else to try");
    let expected = format!("agent at {}: no answer", socket.display());
    assert!(failure.causes.iter().any(|cause| cause.starts_with(&expected)), "{failure}");
}
