//! A checkpoint on its way from a sandbox to the command that writes the image: parts with a header each, over a pipe.
//!
//! A header is one byte for the kind of part, the length of its name, a number, and the length of what follows, all little-endian; then come
//! the name and the bytes. The last part is an end: a stream without one was cut.
//!
//! Invariant: the receiving side trusts nothing that it reads; a wrong stream is an error, and no image.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::OwnedFd;

use quicksand_checkpoint::{ImageWriter, RecordTableBuilder};
use quicksand_sentry::state::ImageSink;

use crate::error::{Context, Result};
use crate::fail;

const VALUE: u8 = 1;
const RECORD: u8 = 2;
const PAGES: u8 = 3;
const ZERO_PAGES: u8 = 4;
const END: u8 = 5;

/// Kind, length of the name, number, length.
const HEADER: usize = 1 + 2 + 8 + 8;
/// The longest part, and the longest name.
const MAX_LEN: u64 = 256 << 20;
const MAX_NAME: u16 = 255;
/// The most kinds of records.
const MAX_KINDS: usize = 256;

/// The sandbox's side.
#[derive(Debug)]
pub struct Writer(BufWriter<File>);

impl Writer {
    pub fn new(out: OwnedFd) -> Writer {
        Writer(BufWriter::with_capacity(1 << 16, File::from(out)))
    }
    /// Says that this was all.
    pub fn finish(mut self) -> io::Result<()> {
        self.part(END, "", 0, &[])?;
        self.0.flush()
    }
    fn part(&mut self, kind: u8, name: &str, number: u64, bytes: &[u8]) -> io::Result<()> {
        self.header(kind, name, number, bytes.len() as u64)?;
        self.0.write_all(bytes)
    }
    fn header(&mut self, kind: u8, name: &str, number: u64, len: u64) -> io::Result<()> {
        let too_long = || io::Error::other("a part of the image is too long");
        let name_len = u16::try_from(name.len()).ok().filter(|n| *n <= MAX_NAME).ok_or_else(too_long)?;
        if kind != ZERO_PAGES && len > MAX_LEN {
            return Err(too_long());
        }
        let mut header = [0; HEADER];
        header[0] = kind;
        header[1..3].copy_from_slice(&name_len.to_le_bytes());
        header[3..11].copy_from_slice(&number.to_le_bytes());
        header[11..].copy_from_slice(&len.to_le_bytes());
        self.0.write_all(&header)?;
        self.0.write_all(name.as_bytes())
    }
}

impl ImageSink for Writer {
    fn value(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.part(VALUE, name, 0, bytes)
    }
    fn record(&mut self, kind: &str, id: u64, bytes: &[u8]) -> io::Result<()> {
        self.part(RECORD, kind, id, bytes)
    }
    fn pages(&mut self, space: u64, start_page: u64, bytes: &[u8]) -> io::Result<()> {
        self.header(PAGES, "", space, bytes.len() as u64)?;
        self.0.write_all(&start_page.to_le_bytes())?;
        self.0.write_all(bytes)
    }
    fn zero_pages(&mut self, space: u64, start_page: u64, pages: u64) -> io::Result<()> {
        self.header(ZERO_PAGES, "", space, pages)?;
        self.0.write_all(&start_page.to_le_bytes())
    }
}

/// The command's side: all parts go into the image, which is not finished yet.
pub fn receive(from: OwnedFd, mut image: ImageWriter) -> Result<ImageWriter> {
    let doing = "reading the sandbox's state";
    let mut from = BufReader::with_capacity(1 << 16, File::from(from));
    let mut tables: BTreeMap<String, RecordTableBuilder> = BTreeMap::new();
    let mut bytes = Vec::new();
    loop {
        let mut header = [0; HEADER];
        from.read_exact(&mut header).context(doing)?;
        let name_len = u16::from_le_bytes([header[1], header[2]]);
        let word = |at: usize| -> u64 {
            let mut word = [0; 8];
            word.copy_from_slice(&header[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let (kind, number, len) = (header[0], word(3), word(11));
        if name_len > MAX_NAME || (kind != ZERO_PAGES && len > MAX_LEN) {
            fail!("{doing}: a part of {len} bytes");
        }
        let mut name = vec![0; usize::from(name_len)];
        from.read_exact(&mut name).context(doing)?;
        let Ok(name) = String::from_utf8(name) else { fail!("{doing}: a name that is no text") };
        let mut start_page = [0; 8];
        if matches!(kind, PAGES | ZERO_PAGES) {
            from.read_exact(&mut start_page).context(doing)?;
        }
        let start_page = u64::from_le_bytes(start_page);
        bytes.clear();
        if kind != ZERO_PAGES {
            // Grows as bytes come, not by what the header says.
            let read = (&mut from).take(len).read_to_end(&mut bytes).context(doing)?;
            if read as u64 != len {
                fail!("{doing}: it was cut");
            }
        }
        match kind {
            VALUE => image.add_section(&name, &bytes).context(doing)?,
            RECORD => {
                if tables.len() >= MAX_KINDS && !tables.contains_key(&name) {
                    fail!("{doing}: too many kinds of records");
                }
                let table = tables.entry(name.clone()).or_insert_with(|| RecordTableBuilder::new(name));
                table.add_raw(number, &bytes).context(doing)?;
            }
            PAGES => image.layer().add(number, start_page, &bytes).context(doing)?,
            ZERO_PAGES => image.layer().add_zero(number, start_page, len).context(doing)?,
            END => break,
            other => fail!("{doing}: a part of kind {other}"),
        }
    }
    for table in tables.into_values() {
        image.add_records(table).context(doing)?;
    }
    Ok(image)
}
