//! SHA-256 and size of what flows through a reader or a writer.

use std::io::{Read, Result, Write};

use aws_lc_rs::digest::{Context, SHA256};

/// What flowed through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// SHA-256, lower-case hex.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// SHA-256 of a text or file in memory, lower-case hex.
pub fn sha256(content: &[u8]) -> String {
    hex(aws_lc_rs::digest::digest(&SHA256, content).as_ref())
}

/// A reader that hashes what is read through it.
pub struct Hashing<R> {
    inner: R,
    context: Context,
    size: u64,
}

impl<R> Hashing<R> {
    /// Begins with nothing read.
    pub fn new(inner: R) -> Self {
        Self { inner, context: Context::new(&SHA256), size: 0 }
    }

    /// Bytes read so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The digest of all that was read.
    pub fn finish(self) -> Digest {
        Digest { sha256: hex(self.context.finish().as_ref()), size: self.size }
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let count = self.inner.read(buffer)?;
        self.context.update(&buffer[..count]);
        self.size += count as u64;
        Ok(count)
    }
}

/// A writer that hashes what is written through it.
pub struct HashingWriter<W> {
    inner: W,
    context: Context,
    size: u64,
}

impl<W> HashingWriter<W> {
    /// Begins with nothing written.
    pub fn new(inner: W) -> Self {
        Self { inner, context: Context::new(&SHA256), size: 0 }
    }

    /// The digest of all that was written.
    pub fn finish(self) -> Digest {
        Digest { sha256: hex(self.context.finish().as_ref()), size: self.size }
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> Result<usize> {
        let count = self.inner.write(buffer)?;
        self.context.update(&buffer[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::{Hashing, HashingWriter, sha256};

    const OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn readers_and_writers_agree_with_the_known_digest() {
        let mut reader = Hashing::new(&b"abc"[..]);
        reader.read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(reader.finish().sha256, OF_ABC);
        let mut writer = HashingWriter::new(Vec::new());
        writer.write_all(b"abc").unwrap();
        let digest = writer.finish();
        assert_eq!((digest.sha256.as_str(), digest.size), (OF_ABC, 3));
        assert_eq!(sha256(b"abc"), OF_ABC);
    }
}
