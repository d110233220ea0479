//! `exec`: a command of a person on many hosts at once, over plain channels.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::connect::{Settings, open, privilege};
use crate::cancel::Cancel;
use crate::event::elapsed_milliseconds;
use crate::failure::{Failure, Kind, Result};
use crate::inventory::Host;
use crate::remote::{self, Begun, Command, Privilege};
use crate::ssh::{self, Chunk, Connection, Exit, Writer};

/// Pieces of input that may wait for one host.
const INPUT_PIECES: usize = 8;
/// Pieces of output that may wait for whoever shows them.
const OUTPUT_PIECES: usize = 1024;
/// How long a command that was told to end may take before it is told again, and in the end left alone.
const MERCY: Duration = Duration::from_secs(3);
/// How often it is looked whether its processes are still there.
const LOOK: Duration = Duration::from_millis(200);

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Order {
    /// The command.
    pub command: Command,
    /// It is ended after this long.
    pub limit: Option<Duration>,
}

/// What happens on a host, by its place in the list of hosts.
#[derive(Debug)]
pub enum Told {
    /// Something came out of the command.
    Output(usize, Chunk),
    /// It is over.
    Ended(Ended),
}

/// How a command came out.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// The place of the host in the list.
    pub host: usize,
    /// How it ended on the host, or why that is not known.
    pub result: Result<Exit>,
    /// How long it took with the login, in milliseconds.
    pub milliseconds: u64,
}

impl Ended {
    /// Whether the command ended with 0.
    pub fn success(&self) -> bool {
        self.result.as_ref().is_ok_and(Exit::success)
    }
}

/// Runs a command on all hosts at the same time; what happens comes out of the receiver, which ends when all is over.
/// `input` goes to all of them, as fast as the slowest takes it.
///
/// When the end is asked for (`settings.cancel`), the processes on the hosts are ended: first by SIGINT, then by SIGTERM.
///
/// # Errors
/// [`Kind::Configuration`] when ssh_config cannot be read.
pub fn exec(
    hosts: &[Host],
    order: &Order,
    input: Option<mpsc::Receiver<Bytes>>,
    settings: &Settings,
) -> Result<mpsc::Receiver<Told>> {
    let configuration = ssh::Configuration::of_this_machine()?;
    let (teller, told) = mpsc::channel(OUTPUT_PIECES);
    // Only logins are limited: a command that waits for others to end might wait for the input that they wait for.
    let logins = Arc::new(Semaphore::new(settings.parallel.max(1)));
    let mut tasks = JoinSet::new();
    let mut inputs = Vec::new();
    for (index, host) in hosts.iter().enumerate() {
        let (sender, receiver) = mpsc::channel(INPUT_PIECES);
        if input.is_some() {
            inputs.push(sender);
        }
        let one = One {
            index,
            host: host.clone(),
            order: order.clone(),
            input: receiver,
            teller: teller.clone(),
            cancel: settings.cancel.clone(),
        };
        let (configuration, settings, logins) = (configuration.clone(), settings.clone(), Arc::clone(&logins));
        tasks.spawn(async move {
            let (began, index, teller) = (Instant::now(), one.index, one.teller.clone());
            let result = one.run(&configuration, &settings, &logins).await;
            let milliseconds = elapsed_milliseconds(began.elapsed());
            let _ = teller.send(Told::Ended(Ended { host: index, result, milliseconds })).await;
        });
    }
    tokio::spawn(async move {
        if let Some(input) = input {
            tokio::spawn(distribute(input, inputs));
        }
        while tasks.join_next().await.is_some() {}
    });
    Ok(told)
}

/// Gives every piece of input to every host that still takes some.
async fn distribute(mut input: mpsc::Receiver<Bytes>, mut hosts: Vec<mpsc::Sender<Bytes>>) {
    while let Some(piece) = input.recv().await {
        let sent = futures::future::join_all(hosts.iter().map(|host| host.send(piece.clone()))).await;
        let mut taken = sent.into_iter().map(|sent| sent.is_ok());
        hosts.retain(|_| taken.next().unwrap_or(false));
        if hosts.is_empty() {
            return;
        }
    }
}

/// One host's part.
struct One {
    index: usize,
    host: Host,
    order: Order,
    input: mpsc::Receiver<Bytes>,
    teller: mpsc::Sender<Told>,
    cancel: Cancel,
}

impl One {
    async fn run(self, configuration: &ssh::Configuration, settings: &Settings, logins: &Semaphore) -> Result<Exit> {
        let name = self.host.name.clone();
        let work = async {
            let connection = {
                let _turn = logins.acquire().await;
                let login = open(&self.host, configuration, settings);
                tokio::select! {
                    connection = login => connection?,
                    () = self.cancel.cancelled() => return Err(Cancel::failure()),
                }
            };
            let result = self.command(&connection).await;
            // Nobody waits for goodbyes; the connection says its own when it is dropped.
            drop(connection);
            result
        };
        work.await.map_err(|failure: Failure| failure.on(name))
    }

    async fn command(self, connection: &Connection) -> Result<Exit> {
        let Self { index, host, order, input, teller, cancel } = self;
        let output = |chunk| Told::Output(index, chunk);
        conduct(connection, &privilege(&host), &order, input, &cancel, (&teller, &output)).await
    }
}

/// Runs a command to its end over a connection: input goes in, what comes out is told. When the end is asked for, or the
/// time is over, all that it has started is ended with it.
///
/// # Errors
/// As [`Command::start`]; why the command was ended; what broke the connection.
pub(super) async fn conduct<T>(
    connection: &Connection,
    privilege: &Privilege,
    order: &Order,
    input: mpsc::Receiver<Bytes>,
    cancel: &Cancel,
    (teller, output): (&mpsc::Sender<T>, &(impl Fn(Chunk) -> T + Sync)),
) -> Result<Exit> {
    let root = order.command.root;
    let stopped = stopped(order.limit, cancel);
    tokio::pin!(stopped);
    let begun = tokio::select! {
        biased;
        begun = order.command.start(connection, privilege) => begun?,
        why = &mut stopped => {
            // Whoever was to make it root is still the login user's. Without a connection the command does not begin.
            let _ = remote::interrupt(connection, false, &[], privilege, "TERM").await;
            return Err(why);
        }
    };
    let Begun { channel, first, session } = begun;
    let (writer, mut reader) = channel.split();
    let feeding = feed(writer, input);
    let taking = async {
        for chunk in first {
            let _ = teller.send(output(chunk)).await;
        }
        let mut ended = None;
        while let Some(chunk) = reader.recv().await? {
            match chunk {
                Chunk::Exit(exit) => ended = Some(exit),
                chunk => _ = teller.send(output(chunk)).await,
            }
        }
        ended.ok_or_else(|| Failure::new(Kind::Host, "the command ended without a status"))
    };
    tokio::pin!(feeding, taking);
    let mut fed = false;
    let why = loop {
        tokio::select! {
            biased;
            ended = &mut taking => return ended,
            sent = &mut feeding, if !fed => {
                sent?;
                fed = true;
            }
            why = &mut stopped => break why,
        }
    };
    let mut sessions: Vec<u32> = session.into_iter().collect();
    let mut taken = false;
    for signal in ["INT", "TERM", "KILL"] {
        sessions = remote::interrupt(connection, root, &sessions, privilege, signal).await?.sessions;
        if sessions.is_empty() {
            // There is nothing any more that could be ended.
            return Err(why);
        }
        let ending = async {
            if !taken {
                let _ = (&mut taking).await;
                taken = true;
            }
            let mut looks = tokio::time::interval(LOOK);
            loop {
                looks.tick().await;
                if remote::interrupt(connection, root, &sessions, privilege, "0").await?.processes == 0 {
                    return Ok::<(), Failure>(());
                }
            }
        };
        if let Ok(ended) = tokio::time::timeout(MERCY, ending).await {
            return Err(ended.err().unwrap_or(why));
        }
    }
    Err(why.detailed("its processes do not end"))
}

/// Waits until the command has to end, and tells why.
async fn stopped(limit: Option<Duration>, cancel: &Cancel) -> Failure {
    let late = async {
        match limit {
            Some(limit) => _ = tokio::time::timeout(limit, std::future::pending::<()>()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = cancel.cancelled() => Cancel::failure(),
        () = late => {
            let seconds = limit.unwrap_or_default().as_secs();
            let sentence = format!("the command did not end within {seconds} seconds and was ended");
            Failure::new(Kind::Host, sentence).may_pass()
        }
    }
}

/// Passes input on until it ends or the command does. Without input the command reads an end of file at once.
async fn feed(mut writer: Writer, mut input: mpsc::Receiver<Bytes>) -> Result<()> {
    while let Some(piece) = input.recv().await {
        if !writer.offer(piece).await? {
            // The command wants no more.
            return Ok(());
        }
    }
    writer.finish().await
}
