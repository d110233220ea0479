//! Starting the agent: one command that uploads the program only where it is not there yet.
//!
//! The command works in every login shell that knows single quotes (it holds no quote, `!` or line end of its own) and
//! needs nothing but POSIX tools on the host. What it reads from standard input, if it asked for the program: its size in bytes
//! and the gzip stream; or, where it has `timeout`, how many shares of it other channels bring (see `shares`); or, where
//! it has `openssl` too, the size of an identity, where another host hands the program on, that host's name, a line with what to
//! ask there, and the identity. If that does not bring the program, it asks once more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::pipe::{is_far, look_at_way};
use super::privilege::Privilege;
use super::program::{Compressed, Program, Programs};
use super::shares::{HAS, Shares, TOLD};
use super::supply::{From, Supply};
use crate::agent::relay::{ask_for_program, server_name};
use crate::agent::{DIRECTORY, SHARES};
use crate::failure::{Failure, Kind, Result};
use crate::ssh::{Channel, Chunk, Connection, Exit};

/// What the host prints when it lacks the program.
const NEED: &str = "clusterctl-need";

/// The word after it of a host that can ask another one for it.
const ASKS: &str = "asks";

/// What the laptop says in place of an address where other channels bring the program.
const SHARED: &str = "shared";

/// What is on its way is there within this time, in seconds, or will not come: it was sent before the word that it was.
const GATHER_SECONDS: u8 = 15;

/// The command's exit code when the program did not arrive whole; why is on its standard error.
const NOT_WHOLE: u8 = 74;

/// Bytes sent at a time.
pub(super) const CHUNK_BYTES: usize = 256 << 10;

/// Starts agents on one host.
#[derive(Clone)]
pub struct Start {
    /// The host's name in the inventory.
    pub host: String,
    /// The connection to it.
    pub connection: Connection,
    /// The programs there are to send.
    pub programs: Programs,
    /// How to become root.
    pub privilege: Privilege,
    /// Where hosts of this run get the program from.
    pub supply: Arc<Supply>,
}

/// An agent's channel after start-up: its output begins with the bytes in `first`.
pub struct Started {
    /// The channel.
    pub channel: Channel,
    /// What was read of its output already, beyond the start-up lines.
    pub first: Vec<u8>,
    /// Bytes of the program that had to be sent; 0 where it was there.
    pub sent: u64,
}

/// A host that asks another one has the program within this time, in seconds, or turns to the laptop.
const ASK_SECONDS: u8 = 15;

/// The script that starts `clusterctl agent` with this program.
fn script(program: &Program, arguments: &str) -> String {
    let sha256 = &program.sha256;
    let file = format!("{DIRECTORY}/bin/clusterctl-{sha256}");
    let asking = format!("{DIRECTORY}/asking");
    let shares = format!("{DIRECTORY}/{SHARES}.$$");
    // Another run may bring the program at the same moment: each has a part of its own, and what is thrown away beside it is of
    // shells that are no more.
    let part = format!("{file}.part.$$");
    let clear = format!(
        r#"for old in {DIRECTORY}/bin/clusterctl-* {DIRECTORY}/{SHARES}.*; do case "$old" in {file}) ;; *.part.*|*/{SHARES}.*) kill -0 "${{old##*.}}" 2>/dev/null || rm -rf "$old" ;; *) rm -f "$old" ;; esac; done"#
    );
    let clean = format!("rm -rf {part} {asking} {shares}");
    let empty = format!("rmdir {DIRECTORY}/bin {DIRECTORY} 2>/dev/null");
    // Held open from before the first share comes: what its writer tells is kept. Nothing stays where nobody listens any more.
    let prepare = format!(
        r#"gathers=0; command -v timeout >/dev/null && mkdir -p {shares} && mkfifo {shares}/{TOLD} && exec 3<> {shares}/{TOLD} && gathers=$$; trap "{clean}; {empty}; exit 1" PIPE HUP TERM"#
    );
    let gather = format!(
        r#"[ "$(timeout {GATHER_SECONDS} head -n "$size" <&3 | grep -c {HAS})" = "$size" ] && : > {part} && for share in {shares}/share-*; do cat "$share" >> {part} || break; rm -f "$share"; done"#
    );
    // The identity lies in a folder that only root enters, for as long as it is asked with.
    let ask = format!(
        r#"read -r ask; identity=$(head -c "$size"); mkdir -m 0700 {asking} && echo "$identity" > {asking}/identity && echo "$ask" | timeout {ASK_SECONDS} openssl s_client -quiet -verify_return_error -verify_hostname "$name" -servername "$name" -connect "$address" -cert {asking}/identity -key {asking}/identity -CAfile {asking}/identity > {part} 2>/dev/null; rm -rf {asking}"#
    );
    format!(
        r#"[ -x {file} ] || {{ umask 077; {prepare}; tls=; command -v openssl >/dev/null && command -v timeout >/dev/null && tls={ASKS}; while :; do echo {NEED} $(uname -s) $(uname -m) $gathers $tls; read -r size address name || {{ {clean}; {empty}; exit 1; }}; mkdir -p {DIRECTORY}/bin; {clear}; rm -rf {asking}; if [ "$address" = {SHARED} ]; then {gather}; elif [ "$address" ]; then {ask}; else head -c "$size" | gzip -dc > {part}; fi && [ "$(sha256sum < {part} | cut -c 1-64)" = {sha256} ] && chmod 0755 {part} && sync {part} && mv {part} {file} && break; {clean}; [ -x {file} ] && break; tls=; gathers=0; [ "$address" ] || {{ {empty}; exit {NOT_WHOLE}; }}; done; rm -rf {shares}; exec 3>&-; }}; exec {file} agent {arguments}"#
    )
}

impl Start {
    /// Starts the agent with these arguments and returns when it runs.
    ///
    /// # Errors
    /// Kinds `Privilege` (no right, wrong password), `Preflight` (not Linux, no program for it), `Host` (disk full),
    /// `Connection`.
    pub async fn agent(&self, arguments: &str) -> Result<Started> {
        let likely = self.programs.likely()?;
        let mut program = likely.clone();
        let mut again = false;
        loop {
            match self.attempt(&program, arguments).await? {
                Attempt::Started(started) => return Ok(started),
                Attempt::Hindered(_) if !again => again = true,
                Attempt::Hindered(failure) => return Err(failure),
                // Once at most: from then on it is tried on a terminal first.
                Attempt::OnTerminal => {}
                Attempt::Other(right) if program.sha256 == likely.sha256 => program = right,
                Attempt::Other(_) => {
                    let sentence = "it names another architecture each time it is asked";
                    return Err(Failure::new(Kind::Host, sentence).on(&self.host));
                }
            }
        }
    }

    /// Where much will be sent, most likely, and over a long way: makes ready for that what takes round trips.
    pub fn prepare_way(&self) {
        if self.supply.is_expected_by_few() && is_far(self.connection.round_trip()) {
            let start = self.clone();
            tokio::spawn(async move { futures::join!(start.connection.open_ahead(), look_at_way(&start)) });
        }
    }

    async fn attempt(&self, program: &Arc<Program>, arguments: &str) -> Result<Attempt> {
        let script = script(program, arguments);
        // Both at once: on a long way each opening is a round trip.
        let (channel, mut shares) =
            futures::join!(self.privilege.start(&self.connection, &script, &[]), Shares::open(self));
        let attempt = self.follow(channel?, program, &mut shares).await;
        if let (Ok(Attempt::Other(_) | Attempt::OnTerminal | Attempt::Hindered(_)), Some(shares)) = (&attempt, shares) {
            shares.end().await;
        }
        attempt
    }

    /// Gives a command that was started what it asks for, until the agent runs.
    async fn follow(
        &self,
        mut channel: Channel,
        program: &Arc<Program>,
        shares: &mut Option<Shares>,
    ) -> Result<Attempt> {
        let mut seen = Seen::default();
        let mut sent = 0;
        // The place of a host that asks another one, until it says something again, which it does within a limit.
        let mut asked = None;
        loop {
            match channel.recv().await? {
                Some(Chunk::Stdout(bytes)) => {
                    seen.greeted += bytes.len();
                    seen.stdout.extend_from_slice(&bytes);
                }
                Some(Chunk::Stderr(bytes)) => seen.stderr(&bytes),
                Some(Chunk::Exit(exit)) => return self.without_agent(&seen, Some(&exit)),
                None => return self.without_agent(&seen, None),
            }
            if let Some(failure) = self.privilege.refused(&seen.stderr) {
                return Err(failure.on(&self.host));
            }
            while let Some(line) = seen.line() {
                if let Some(rest) = line.strip_prefix(NEED) {
                    let mut words = rest.split_whitespace();
                    let (system, machine) = (words.next().unwrap_or("?"), words.next().unwrap_or("?"));
                    let right = self.programs.for_host(system, machine).map_err(|failure| failure.on(&self.host))?;
                    if right.sha256 != program.sha256 {
                        return Ok(Attempt::Other(right));
                    }
                    if asked.take().is_some() {
                        self.supply.unreachable();
                    }
                    let gatherer = words.next().and_then(|number| number.parse().ok()).filter(|number| *number > 0);
                    let asks = words.next() == Some(ASKS);
                    let sharing = gatherer.and_then(|gatherer| Some((gatherer, shares.take()?)));
                    (sent, asked) = match self.supply(&mut channel, program, asks, sharing).await {
                        // The command ended before it read everything; what it says comes with the next chunks.
                        Err(failure) if failure.kind == Kind::Host => (0, None),
                        supplied => supplied?,
                    };
                } else if line.starts_with('{') {
                    let mut first = line.into_bytes();
                    first.push(b'\n');
                    first.append(&mut seen.stdout);
                    return Ok(Attempt::Started(Started { channel, first, sent }));
                }
                // Anything else is a login shell's greeting.
            }
            if seen.greeted > MAXIMUM_GREETING_BYTES {
                return Err(Failure::new(Kind::Host, "its login shell prints without end").on(&self.host));
            }
        }
    }

    /// Sends the program, or where to ask for it; returns what was sent of it, and the place of a host that asks. With `sharing`
    /// further channels bring it to the process that gathers.
    async fn supply(
        &self,
        channel: &mut Channel,
        program: &Program,
        asks: bool,
        sharing: Option<(u32, Shares)>,
    ) -> Result<(u64, Option<SemaphorePermit<'_>>)> {
        let first = match self.supply.from(&self.host, &program.sha256, asks).await {
            From::Laptop => false,
            From::LaptopFirst => true,
            From::Host(giver, place) => {
                let identity = giver.identity.in_one_file();
                let (name, ask) = (server_name(&giver.host), ask_for_program(&program.sha256));
                let head = format!("{} {} {name}\n{ask}\n", identity.expose().len(), giver.address);
                channel.send(Bytes::from(head + identity.expose())).await?;
                return Ok((0, Some(place)));
            }
        };
        // Made before the clock runs.
        let program = program.compressed().await?;
        let line = Line { supply: first.then_some(&*self.supply), all: program.size(), began: Instant::now() };
        if let Some((gatherer, shares)) = sharing
            && share(channel, &program, gatherer, shares, &line).await?
        {
            return Ok((line.all, None));
        }
        upload(channel, &program, &line).await?;
        Ok((line.all, None))
    }

    /// What to do about a command that ended before the agent said anything.
    fn without_agent(&self, seen: &Seen, exit: Option<&Exit>) -> Result<Attempt> {
        if self.privilege.turns_to_terminal(&seen.stderr) {
            return Ok(Attempt::OnTerminal);
        }
        if let Some(failure) = self.privilege.refused(&seen.stderr) {
            return Err(failure.on(&self.host));
        }
        let failure = self.ended(seen, exit);
        if seen.was_hindered(exit) { Ok(Attempt::Hindered(failure)) } else { Err(failure) }
    }

    /// Why the command ended before the agent said anything.
    fn ended(&self, seen: &Seen, exit: Option<&Exit>) -> Failure {
        let said = String::from_utf8_lossy(&seen.stderr).trim().to_owned();
        let failure = if said.contains("No space left on device") {
            Failure::new(Kind::Host, format!("there is no space for the agent below {DIRECTORY}"))
                .advise("free some space on that filesystem, then run the same command again")
        } else if said.contains("Read-only file system") {
            Failure::new(Kind::Host, format!("{DIRECTORY} is on a read-only filesystem"))
                .advise("remount it writable, then run the same command again")
        } else if let Some(failure) = self.privilege.missing(&said) {
            failure
        } else {
            let how = exit.map_or_else(|| "without a status".to_owned(), |exit| format!("with {exit}"));
            let failure = Failure::new(Kind::Host, format!("the agent did not start: its command ended {how}"));
            failure.may_pass().advise(format!(
                "see what the host said; root must be able to write and to run programs below {DIRECTORY} there"
            ))
        };
        let failure = failure.on(&self.host);
        if said.is_empty() { failure } else { failure.detailed(said) }
    }
}

/// What the first transfer of the program tells of the laptop's line; of others nothing is told.
struct Line<'a> {
    supply: Option<&'a Supply>,
    /// Bytes of the whole program, compressed.
    all: u64,
    began: Instant,
}

impl Line<'_> {
    fn tell(&self, how: impl FnOnce(&Supply, Duration)) {
        if let Some(supply) = self.supply {
            how(supply, self.began.elapsed());
        }
    }
}

/// Brings the program over further channels; whether they took it. The command that gathers it goes on, or asks once more.
async fn share(
    channel: &mut Channel,
    program: &Compressed,
    gatherer: u32,
    shares: Shares,
    line: &Line<'_>,
) -> Result<bool> {
    let (count, sent) = (shares.count(program), Semaphore::new(0));
    let arrived = |bytes| line.tell(|supply, elapsed| supply.arrived(bytes, line.all, elapsed));
    let mut bringing = std::pin::pin!(shares.bring(gatherer, program, &sent, arrived));
    let early = tokio::select! {
        biased;
        brought = &mut bringing => Some(brought),
        _ = sent.acquire_many(u32::try_from(count).unwrap_or(u32::MAX)) => None,
    };
    if let Some(Err(_)) = early {
        return Ok(false);
    }
    // Said before they have arrived: that would be one more round trip.
    channel.send(Bytes::from(format!("{count} {SHARED}\n"))).await?;
    let (mut brought, mut said) = (early.map(|brought| brought.is_ok()), Vec::new());
    while brought.is_none() {
        tokio::select! {
            biased;
            ended = &mut bringing => brought = Some(ended.is_ok()),
            chunk = channel.recv() => {
                // The agent's first word, or the question for the program once more; or the end. Standard error is only told.
                brought = match &chunk {
                    Ok(Some(Chunk::Stdout(bytes))) => Some(bytes.starts_with(b"{")),
                    Ok(Some(Chunk::Stderr(_))) => None,
                    Ok(Some(Chunk::Exit(_)) | None) | Err(_) => Some(false),
                };
                said.extend(chunk?);
            }
        }
    }
    channel.give_back(said);
    if brought == Some(true) {
        line.tell(|supply, elapsed| supply.measured(line.all, elapsed));
    }
    Ok(true)
}

/// Sends the program over the command's own channel.
async fn upload(channel: &mut Channel, program: &Compressed, line: &Line<'_>) -> Result<()> {
    channel.send(Bytes::from(format!("{}\n", line.all))).await?;
    let mut moved = 0;
    for mut rest in program.members.iter().cloned() {
        while !rest.is_empty() {
            let chunk = rest.split_to(rest.len().min(CHUNK_BYTES));
            moved += chunk.len() as u64;
            channel.send(chunk).await?;
            line.tell(|supply, elapsed| supply.moved(moved, line.all, elapsed));
        }
    }
    line.tell(|supply, elapsed| supply.measured(line.all, elapsed));
    Ok(())
}

enum Attempt {
    Started(Started),
    /// It needs the program for another architecture.
    Other(Arc<Program>),
    /// It wants to talk on a terminal first.
    OnTerminal,
    /// Something of another run came between. Why it did not start.
    Hindered(Failure),
}

/// A login shell may greet with this much, in bytes.
const MAXIMUM_GREETING_BYTES: usize = 64 << 10;

/// What the command printed so far.
#[derive(Default)]
struct Seen {
    /// Bytes of standard output so far.
    greeted: usize,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Seen {
    fn stderr(&mut self, bytes: &[u8]) {
        let room = MAXIMUM_GREETING_BYTES.saturating_sub(self.stderr.len());
        self.stderr.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Whether the command missed what it had just made, as where the end of another run (a `down`) took the folder away; or
    /// was killed, as what hangs on a lost connection is, or did not live to tell how it ended.
    fn was_hindered(&self, exit: Option<&Exit>) -> bool {
        !matches!(exit, Some(Exit::Status(_))) || self.misses_a_file()
    }

    fn misses_a_file(&self) -> bool {
        String::from_utf8_lossy(&self.stderr)
            .lines()
            .any(|line| line.contains(DIRECTORY) && (line.contains("No such file") || line.contains("not found")))
    }

    /// Takes the next whole line of standard output.
    fn line(&mut self) -> Option<String> {
        let end = self.stdout.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.stdout.drain(..=end).collect();
        Some(String::from_utf8_lossy(&line[..end]).trim_end_matches('\r').to_owned())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Exit, Seen, script};
    use crate::remote::program::Programs;

    #[test]
    fn the_script_holds_nothing_that_a_login_shell_would_take_for_its_own() {
        let program = Programs::find().unwrap().likely().unwrap();
        let script = script(&program, "");
        assert!(!script.contains(['\'', '!', '\n', '\\']), "{script}");
    }

    #[rstest]
    #[case("sh: 1: cannot open /var/lib/clusterctl/bin/clusterctl-f00.part.7: No such file", true)]
    #[case("bash: /var/lib/clusterctl/bin/clusterctl-f00.part.7: No such file or directory", true)]
    #[case("sh: 1: exec: /var/lib/clusterctl/bin/clusterctl-f00: not found", true)]
    #[case("mkdir: cannot create directory '/var/lib/clusterctl': Read-only file system", false)]
    #[case("sh: sudo: not found", false)]
    #[case("", false)]
    fn a_folder_that_another_run_takes_away_is_told_by_what_lacks(#[case] said: &str, #[case] hindered: bool) {
        let mut seen = Seen::default();
        seen.stderr(said.as_bytes());
        assert_eq!(seen.was_hindered(Some(&Exit::Status(127))), hindered);
        // Whatever it said: nobody ends the command of a host that refuses.
        assert!(seen.was_hindered(Some(&Exit::Signal("KILL".to_owned()))) && seen.was_hindered(None));
    }

    #[test]
    fn lines_are_taken_whole() {
        let mut seen = Seen::default();
        seen.stdout.extend_from_slice(b"welcome\r\nhalf");
        assert_eq!(seen.line().as_deref(), Some("welcome"));
        assert_eq!(seen.line(), None);
    }
}
