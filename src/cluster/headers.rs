//! The headers of a tar archive that a host sends, seen before the library sees them: it keeps long names and their kin
//! whole in memory, however long they say they are.

use std::io::{self, ErrorKind, Read};

/// A block of an archive, in bytes.
const BLOCK: usize = 512;

/// An extension of a header, a long name for example, may be this long, in bytes.
const MAXIMUM_EXTENSION_BYTES: u64 = 1 << 20;

/// A reader of an archive that ends with an error at an extension that is too long.
pub(super) struct Headers<R> {
    inner: R,
    /// What was read already and is to be handed on first.
    held: Vec<u8>,
    at: usize,
    /// Bytes of the member under way that are still to come, with what fills its last block.
    left: u64,
    /// The size of the next member, where an extension says it.
    size: Option<u64>,
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("the archive has {what}"))
}

/// With what fills the last block.
fn in_blocks(size: u64) -> io::Result<u64> {
    size.checked_next_multiple_of(BLOCK as u64).ok_or_else(|| wrong("a member of a size that cannot be"))
}

impl<R: Read> Headers<R> {
    pub(super) fn of(inner: R) -> Self {
        Self { inner, held: Vec::new(), at: 0, left: 0, size: None }
    }

    /// Reads the next header, and the extension behind it where that tells a size.
    fn header(&mut self) -> io::Result<()> {
        self.held.clear();
        self.at = 0;
        self.inner.by_ref().take(BLOCK as u64).read_to_end(&mut self.held)?;
        if self.held.len() < BLOCK || self.held.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let header = tar::Header::from_byte_slice(&self.held);
        let (kind, size) = (header.entry_type(), header.entry_size()?);
        let is_local = kind.is_pax_local_extensions();
        let is_extension = is_local || kind.is_gnu_longname() || kind.is_gnu_longlink();
        if (is_extension || kind.is_pax_global_extensions()) && size > MAXIMUM_EXTENSION_BYTES {
            return Err(wrong(&format!("a header that is longer than {MAXIMUM_EXTENSION_BYTES} bytes")));
        }
        if kind.is_gnu_sparse() {
            return Err(wrong("a file with holes, which we do not ask for"));
        }
        if is_local {
            let from = self.held.len();
            self.inner.by_ref().take(in_blocks(size)?).read_to_end(&mut self.held)?;
            let text = self.held.get(from..from + size as usize).unwrap_or_default();
            let mut records = tar::PaxExtensions::new(text).map_while(Result::ok);
            let size = records.find(|record| record.key() == Ok("size"));
            self.size = size.and_then(|record| record.value().ok()?.parse().ok());
            return Ok(());
        }
        let size = if is_extension || kind.is_pax_global_extensions() { size } else { self.size.unwrap_or(size) };
        if !is_extension {
            self.size = None;
        }
        self.left = in_blocks(size)?;
        Ok(())
    }
}

impl<R: Read> Read for Headers<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.held.len() && self.left == 0 {
            self.header()?;
        }
        if self.at < self.held.len() {
            let count = buffer.len().min(self.held.len() - self.at);
            buffer[..count].copy_from_slice(&self.held[self.at..self.at + count]);
            self.at += count;
            return Ok(count);
        }
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.inner.read(&mut buffer[..wanted])?;
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::{Headers, MAXIMUM_EXTENSION_BYTES};

    fn member(kind: tar::EntryType, size: u64, content: &[u8]) -> Vec<u8> {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_cksum();
        let mut all = [header.as_bytes().as_slice(), content].concat();
        all.resize(all.len().next_multiple_of(512), 0);
        all
    }

    fn through(archive: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut passed = Vec::new();
        Headers::of(archive).read_to_end(&mut passed)?;
        Ok(passed)
    }

    #[test]
    fn an_archive_passes_unchanged() {
        let mut builder = tar::Builder::new(Vec::new());
        let name = format!("{}/file", "long".repeat(100));
        for (name, size) in [("a", 0), ("b", 512), (name.as_str(), 1000), ("c", 100_000)] {
            let mut header = tar::Header::new_gnu();
            header.set_size(size);
            builder.append_data(&mut header, name, std::io::repeat(b'x').take(size)).unwrap();
        }
        let archive = builder.into_inner().unwrap();
        assert!(through(&archive).unwrap() == archive);
        // Cut anywhere, it is cut there.
        for end in [0, 100, 512, 1030, archive.len() - 1] {
            assert!(through(&archive[..end]).unwrap() == archive[..end], "{end}");
        }
    }

    #[test]
    fn an_extension_is_found_wherever_a_member_ends_for_the_library() {
        let long = member(tar::EntryType::GNULongName, MAXIMUM_EXTENSION_BYTES + 1, b"x");
        for kind in [tar::EntryType::GNULongLink, tar::EntryType::XHeader, tar::EntryType::XGlobalHeader] {
            assert!(through(&member(kind, MAXIMUM_EXTENSION_BYTES + 1, b"x")).is_err(), "{kind:?}");
        }
        // The header says 100 GB and its extension nothing at all: what follows is the next header.
        let nothing = member(tar::EntryType::XHeader, 9, b"9 size=0\n");
        let hiding = [nothing, member(tar::EntryType::Regular, 100 << 30, b""), long.clone()].concat();
        assert!(through(&hiding).is_err());
        // Inside of a file it is only bytes.
        let inside = member(tar::EntryType::Regular, long.len() as u64, &long);
        assert!(through(&inside).unwrap() == inside);
        assert!(through(&member(tar::EntryType::GNUSparse, 0, b"")).is_err());
    }
}
