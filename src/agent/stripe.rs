//! One stream over several channels: sshd grants each channel 2 MiB that are not acknowledged yet, so on a long way one
//! channel carries 2 MiB a round trip, whatever the line could do.
//!
//! The stream is cut into frames, a head of twelve bytes (number and length, big-endian) and as many bytes; each channel
//! carries frames in rising order, whichever channel has room takes the next. The receiver reads those of its own channel
//! from standard input, and those of the others from the standard inputs of `clusterctl agent --stripe`, which it is given
//! over a socket (unix(7), SCM_RIGHTS): no byte goes through another process of ours.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};

use super::DIRECTORY;
use crate::failure::{Failure, Kind, Result};

/// The length of a frame's head.
pub const FRAME_HEAD_BYTES: usize = 12;

/// The longest frame, in bytes.
const MAXIMUM_FRAME_BYTES: usize = 256 << 10;

/// So many frames may be ahead of the one that is missing.
const AHEAD: u64 = 128;

/// What a receiver's socket is called, before its name.
const SOCKET: &str = "stripe-";

/// A receiver that is started with its channels is there so soon.
const APPEARS: Duration = Duration::from_secs(5);

/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(5);

/// The head of a frame.
pub fn frame(number: u64, length: u32) -> [u8; FRAME_HEAD_BYTES] {
    let mut head = [0; FRAME_HEAD_BYTES];
    head[..8].copy_from_slice(&number.to_be_bytes());
    head[8..].copy_from_slice(&length.to_be_bytes());
    head
}

fn socket(folder: &Path, name: u32) -> PathBuf {
    folder.join(format!("{SOCKET}{name}"))
}

#[derive(Default)]
struct State {
    frames: BTreeMap<u64, Vec<u8>>,
    next: u64,
    /// Channels that have not ended.
    open: usize,
    broken: Option<String>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes frames from one channel until it ends.
    fn feed(&self, mut channel: impl Read) {
        let ended = self.frames(&mut channel);
        self.ended(ended);
    }

    fn ended(&self, ended: io::Result<()>) {
        let mut state = self.lock();
        state.open -= 1;
        if let Err(error) = ended {
            state.broken.get_or_insert(error.to_string());
        }
        self.changed.notify_all();
    }

    /// Takes frames from the channel that another process gives, and lets that process go when they have come to their end.
    fn feed_from(&self, mut giver: UnixStream) {
        let taken = match take(&giver) {
            Ok(Some(mut channel)) => self.frames(&mut channel),
            // Somebody only looked whether there is anybody.
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if taken.is_ok() {
            // Before this one counts as ended: with the last one the receiver itself may be gone.
            let _ = giver.write_all(b"t");
        }
        self.ended(taken);
    }

    fn frames(&self, channel: &mut impl Read) -> io::Result<()> {
        loop {
            let mut head = [0; FRAME_HEAD_BYTES];
            let count = channel.read(&mut head)?;
            if count == 0 {
                return Ok(());
            }
            channel.read_exact(&mut head[count..])?;
            let (number, length) = head.split_at(8);
            let number = number.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
            let length = length.iter().fold(0_usize, |length, byte| length << 8 | usize::from(*byte));
            if length > MAXIMUM_FRAME_BYTES {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is too long"));
            }
            let mut bytes = vec![0; length];
            channel.read_exact(&mut bytes)?;
            let mut state = self.lock();
            while number >= state.next + AHEAD && state.broken.is_none() {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if number < state.next || state.frames.insert(number, bytes).is_some() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame came twice"));
            }
            self.changed.notify_all();
        }
    }
}

/// The stream that arrives on several channels, in order.
pub struct Stripes {
    shared: Arc<Shared>,
    path: PathBuf,
    frame: io::Cursor<Vec<u8>>,
}

impl Stripes {
    /// Reads frames from `first` and from every channel that [`join`]s under this name.
    ///
    /// # Errors
    /// Kind `Host` when there can be no socket.
    pub fn open(name: u32, first: impl Read + Send + 'static) -> Result<Self> {
        Self::open_at(Path::new(DIRECTORY), name, first)
    }

    fn open_at(folder: &Path, name: u32, first: impl Read + Send + 'static) -> Result<Self> {
        remove_old(folder);
        let path = socket(folder, name);
        // Under its name only when it listens: before that whoever joins is refused.
        let silent = path.with_extension("new");
        let listener = UnixListener::bind(&silent).and_then(|listener| {
            std::fs::rename(&silent, &path)?;
            Ok(listener)
        });
        let listener = listener.map_err(|error| {
            Failure::new(Kind::Host, format!("cannot make the socket {}", path.display())).because(&error)
        })?;
        let shared = Arc::new(Shared::default());
        shared.lock().open = 1;
        let feeding = shared.clone();
        std::thread::spawn(move || feeding.feed(first));
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                accepting.lock().open += 1;
                let feeding = accepting.clone();
                std::thread::spawn(move || feeding.feed_from(stream));
            }
        });
        Ok(Self { shared, path, frame: io::Cursor::default() })
    }
}

impl Read for Stripes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.frame.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            let mut state = self.shared.lock();
            loop {
                let next = state.next;
                if let Some(frame) = state.frames.remove(&next) {
                    state.next += 1;
                    self.frame = io::Cursor::new(frame);
                    self.shared.changed.notify_all();
                    break;
                }
                if let Some(why) = &state.broken {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why.clone()));
                }
                if state.open == 0 {
                    return match state.frames.is_empty() {
                        true => Ok(0),
                        false => Err(io::ErrorKind::UnexpectedEof.into()),
                    };
                }
                state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

impl Drop for Stripes {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Hands `input` to the receiver of this name, and returns when that has taken everything.
///
/// # Errors
/// Kind `Host` when there is no such receiver, kind `Connection` when the input or the receiver breaks off.
pub fn join(name: u32, input: impl AsFd, output: impl Write) -> Result<()> {
    join_at(Path::new(DIRECTORY), name, input, output)
}

fn join_at(folder: &Path, name: u32, input: impl AsFd, mut output: impl Write) -> Result<()> {
    let broke =
        |error: io::Error| Failure::new(Kind::Connection, "a channel of several broke").because(&error).may_pass();
    let gone =
        |error: io::Error| Failure::new(Kind::Host, "the receiver of the other channels is gone").because(&error);
    let mut receiver = connect(&socket(folder, name)).map_err(gone)?;
    give(&receiver, input.as_fd()).map_err(gone)?;
    // Says that it runs, as the agent's `Ready` does; before that it is given nothing that could be lost.
    output.write_all(b"{\"stripe\":\"ready\"}\n").and_then(|()| output.flush()).map_err(broke)?;
    let mut taken = [0; 1];
    receiver.read_exact(&mut taken).map_err(broke)
}

/// Gives an open file to the process at the other end.
fn give(receiver: &UnixStream, file: BorrowedFd<'_>) -> io::Result<()> {
    let files = [file];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&files));
    rustix::net::sendmsg(receiver, &[IoSlice::new(b"f")], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Takes the open file that [`give`] sends; none where the other end went away without a word.
fn take(sender: &UnixStream) -> io::Result<Option<File>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut word = [0; 1];
    let received =
        rustix::net::recvmsg(sender, &mut [IoSliceMut::new(&mut word)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let files = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    match files.flatten().next() {
        Some(file) => Ok(Some(File::from(file))),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "a channel gives no file")),
    }
}

/// Connects to a receiver, which is started at the same time.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let deadline = Instant::now() + APPEARS;
    loop {
        match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && Instant::now() < deadline => {
                std::thread::park_timeout(LOOK);
            }
            result => return result,
        }
    }
}

/// Removes the sockets of receivers that were killed: nobody answers there.
fn remove_old(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_socket =
            entry.file_name().to_str().is_some_and(|name| name.starts_with(SOCKET) && !name.ends_with(".new"));
        let refuses = |path: &Path| {
            UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        };
        if is_socket && refuses(&entry.path()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read as _};

    use rstest::rstest;

    use super::{Stripes, frame, join_at};

    fn channel(frames: &[(u64, &str)]) -> Cursor<Vec<u8>> {
        let mut bytes = Vec::new();
        for (number, text) in frames {
            bytes.extend_from_slice(&frame(*number, u32::try_from(text.len()).unwrap()));
            bytes.extend_from_slice(text.as_bytes());
        }
        Cursor::new(bytes)
    }

    /// The same in a pipe that has ended.
    fn piped(frames: &[(u64, &str)]) -> std::io::PipeReader {
        let (reader, mut writer) = std::io::pipe().unwrap();
        std::io::copy(&mut channel(frames), &mut writer).unwrap();
        reader
    }

    #[test]
    fn frames_of_several_channels_come_out_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let (receiver, mut first) = std::io::pipe().unwrap();
        let mut stripes = Stripes::open_at(folder.path(), 7, receiver).unwrap();
        join_at(folder.path(), 7, piped(&[(1, "b"), (3, "d")]), std::io::sink()).unwrap();
        std::io::copy(&mut channel(&[(0, "a"), (2, "c")]), &mut first).unwrap();
        let mut four = [0; 4];
        stripes.read_exact(&mut four).unwrap();
        assert_eq!(&four, b"abcd");
        std::io::copy(&mut channel(&[(4, "e")]), &mut first).unwrap();
        drop(first);
        let mut rest = String::new();
        stripes.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "e");
    }

    #[rstest]
    #[case(channel(&[(0, "a"), (0, "a")]))]
    #[case(channel(&[(1, "b")]))]
    #[case(Cursor::new(frame(0, 1 << 30).to_vec()))]
    #[case(Cursor::new(frame(0, 4).to_vec()))]
    fn what_is_no_stream_is_an_error(#[case] first: Cursor<Vec<u8>>) {
        let folder = tempfile::tempdir().unwrap();
        let mut stripes = Stripes::open_at(folder.path(), 7, first).unwrap();
        let mut text = String::new();
        assert!(stripes.read_to_string(&mut text).is_err());
    }

    #[test]
    fn a_channel_does_not_end_well_where_its_frames_are_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let (receiver, first) = std::io::pipe().unwrap();
        let mut stripes = Stripes::open_at(folder.path(), 7, receiver).unwrap();
        // The same number again.
        let twice = join_at(folder.path(), 7, piped(&[(1, "b"), (1, "b")]), std::io::sink());
        assert_eq!(twice.unwrap_err().kind, crate::failure::Kind::Connection);
        drop(first);
        assert!(stripes.read_to_string(&mut String::new()).is_err());
    }

    #[test]
    fn a_channel_may_be_there_before_its_receiver_and_sockets_of_killed_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let old = folder.path().join("stripe-1");
        drop(std::os::unix::net::UnixListener::bind(&old).unwrap());
        let path = folder.path().to_owned();
        let joining = std::thread::spawn(move || join_at(&path, 7, piped(&[(1, "b")]), std::io::sink()));
        let (receiver, mut first) = std::io::pipe().unwrap();
        let mut stripes = Stripes::open_at(folder.path(), 7, receiver).unwrap();
        assert!(!old.exists());
        std::io::copy(&mut channel(&[(0, "a")]), &mut first).unwrap();
        joining.join().unwrap().unwrap();
        let mut two = [0; 2];
        stripes.read_exact(&mut two).unwrap();
        assert_eq!(&two, b"ab");
        // One that lives keeps its socket.
        let other = Stripes::open_at(folder.path(), 8, std::io::empty()).unwrap();
        let mut said = Vec::new();
        join_at(folder.path(), 7, piped(&[]), &mut said).unwrap();
        assert!(said.starts_with(b"{"));
        // And goes on, whoever looked whether it lives.
        std::io::copy(&mut channel(&[(2, "c")]), &mut first).unwrap();
        drop(first);
        let mut rest = String::new();
        stripes.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "c");
        drop((stripes, other));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
