//! A key on a device (FIDO), through an agent: what the device does is played, the real sshd judges its signature.

use std::path::{Path, PathBuf};

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
            stream.write_all(&bytes_of(&[&self.answer(&question)])).await?;
        }
    }

    /// An agent that asks this device; it ends with the test.
    fn plug_in(self, folder: &Path) -> Sources {
        let socket = folder.join("device-agent");
        let listener = UnixListener::bind(&socket).expect("a socket");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // It ends when the client has gone.
                let _ = self.serve(stream).await;
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
    let device = Device { key: Ed25519KeyPair::generate().expect("a key"), flags };
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
