//! Recording an image's working set: the pages that a restored container used until its first output.
//!
//! Done from outside, by the command that restored: the host's page tables tell which pages of the image's layers a process of
//! the sandbox has mapped, and which of those it has copied. It is a hint: nothing depends on its being right.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use quicksand_checkpoint::{Extents, Image, PageRun, Source, WorkingSet};
use rustix::event::{PollFd, PollFlags, poll};

use crate::error::{Context, Result};
use crate::fail;

/// Pages that nobody used between others that were: cheaper mapped with them than apart.
const GAP: u64 = 2;

/// Guests have nothing from here on.
const MAP_END: u64 = quicksand_abi::UserAddr::MAP_END.0;

/// Records once, when the container has put out something for the first time.
#[derive(Debug)]
pub struct Recorder {
    pub image: PathBuf,
    /// A byte arrives here then; it closes where that will never be.
    pub first_output: OwnedFd,
}

impl Recorder {
    /// Waits for the first output, and records.
    pub fn wait(self, pid: i32) {
        let mut fds = [PollFd::new(&self.first_output, PollFlags::IN)];
        while let Err(rustix::io::Errno::INTR) = poll(&mut fds, None) {}
        self.record(pid);
    }

    /// Records the working set of the sandbox whose first process is `pid`, now that `first_output` is readable. That it could
    /// not be is no reason to fail.
    pub fn record(self, pid: i32) {
        let mut byte = [0];
        if rustix::io::read(&self.first_output, &mut byte) != Ok(1) {
            return; // it ended before
        }
        match self.try_record(pid) {
            Ok(runs) => tracing::debug!("recorded a working set of {runs} runs in {}", self.image.display()),
            Err(e) => tracing::debug!("the working set of {} is not recorded: {e}", self.image.display()),
        }
    }

    fn try_record(&self, pid: i32) -> Result<usize> {
        let image = Image::open(&self.image).context(self.image.display())?;
        let mut used = Used::default();
        for pid in crate::restored::family(pid) {
            // It may be gone, or be nobody's to look at.
            let _ = add_process(&image, pid, &mut used);
        }
        let runs = runs(&image, used)?;
        let count = runs.len();
        if count == 0 {
            fail!("there is nothing to be seen of it (any more)");
        }
        let set = WorkingSet { runs, files: Vec::new() };
        image.set_working_set(&set).context("writing it")?;
        Ok(count)
    }
}

/// Pages that were used.
#[derive(Debug, Default)]
struct Used {
    /// Of the image, by layer and number there, and whether they were written to.
    of_image: BTreeMap<(u32, u64), bool>,
    /// Of other files that are mapped, by space and guest page.
    of_files: BTreeMap<(u64, u64), bool>,
}

const PAGE: u64 = 4096;

/// The space that a process is, where its addresses are the guest's: told by where it has the image's pages.
fn space_of(extents: &Extents, layers: &[(u32, String)], maps: &str) -> Option<u64> {
    maps.lines().filter_map(mapping).find_map(|(start, _, offset, name)| {
        let layer = layers.iter().find(|(_, digest)| digest == name)?.0;
        let source = Source::Layer { layer, page: offset / PAGE };
        extents
            .spaces()
            .find(|space| extents.find(*space, start / PAGE).is_some_and(|extent| extent.source == source))
    })
}

fn add_process(image: &Image, pid: i32, used: &mut Used) -> std::io::Result<()> {
    const PRESENT: u64 = 1 << 63;
    const OF_FILE: u64 = 1 << 61;
    let layers: Vec<(u32, String)> = (0..image.layers())
        .filter_map(|number| Some((number, image.layer(number)?.digest().hex())))
        .collect();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
    let extents = image.extents().map_err(std::io::Error::other)?;
    let space = space_of(&extents, &layers, &maps);
    for line in maps.lines() {
        let Some((start, end, offset, name)) = mapping(line) else { continue };
        let layer = layers.iter().find(|(_, digest)| digest == name).map(|(layer, _)| *layer);
        if layer.is_none() && (space.is_none() || end > MAP_END) {
            continue; // not the guest's
        }
        let pages = (end - start) / PAGE;
        let mut entries = vec![0; usize::try_from(pages * 8).unwrap_or(0)];
        pagemap.read_exact_at(&mut entries, start / PAGE * 8)?;
        for (i, entry) in (0..).zip(entries.chunks_exact(8)) {
            let entry = u64::from_ne_bytes(entry.try_into().unwrap_or_default());
            let of_file = entry & OF_FILE != 0;
            match (layer, space) {
                _ if entry & PRESENT == 0 => {}
                (Some(layer), _) => {
                    *used.of_image.entry((layer, offset / PAGE + i)).or_default() |= !of_file;
                }
                (None, Some(space)) if of_file => {
                    used.of_files.insert((space, start / PAGE + i), false);
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// `START-END perms OFFSET device inode path`: start, end, offset, and the file's name.
fn mapping(line: &str) -> Option<(u64, u64, u64, &str)> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let offset = words.nth(1)?;
    let name = words.nth(2)?.rsplit('/').next()?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    Some((hex(start)?, hex(end)?, hex(offset)?, name))
}

/// The pages that were used, where the guest has them.
fn runs(image: &Image, used: Used) -> Result<Vec<PageRun>> {
    let extents = image.extents().context("the image's pages")?;
    let mut pages = used.of_files;
    for extent in extents.all() {
        let Source::Layer { layer, page } = extent.source else { continue };
        for ((_, at), written) in used.of_image.range((layer, page)..(layer, page + extent.pages)) {
            pages.insert((extent.space, extent.start_page + (at - page)), *written);
        }
    }
    let mut runs: Vec<PageRun> = Vec::new();
    for ((space, start_page), written) in pages {
        let gap = if written { 0 } else { GAP };
        match runs.last_mut() {
            Some(last)
                if (last.space, last.written) == (space, written)
                    && start_page - (last.start_page + last.pages) <= gap =>
            {
                last.pages = start_page + 1 - last.start_page;
            }
            _ => runs.push(PageRun { space, start_page, pages: 1, written }),
        }
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quicksand_checkpoint::{ImageSpec, ImageWriter};

    #[test]
    fn lines_are_read() {
        let line = "7f00-9f00 rw-p 00003000 fd:01 77                  /images/one/blobs/blake3/abcd";
        assert_eq!(mapping(line), Some((0x7f00, 0x9f00, 0x3000, "abcd")));
        assert_eq!(mapping("7f00-9f00 rw-p 00000000 00:00 0"), None);
        assert_eq!(mapping(""), None);
    }

    #[test]
    fn runs_are_of_one_kind() {
        let path = std::env::temp_dir().join(format!("working-set-{}", std::process::id()));
        let mut writer = ImageWriter::create(&path, ImageSpec::default()).unwrap();
        for page in 100..120u64 {
            writer.layer().add(3, page, &[page as u8; 4096]).unwrap();
        }
        writer.finish().unwrap();
        let image = Image::open(&path).unwrap();
        let of_image = [(0, false), (2, false), (3, true), (4, true), (6, true), (19, false)]
            .into_iter()
            .map(|(page, written)| ((0, page), written))
            .collect();
        let used = Used { of_image, of_files: BTreeMap::from([((3, 7), false)]) };
        let found: Vec<_> = runs(&image, used)
            .unwrap()
            .iter()
            .map(|run| (run.space, run.start_page, run.pages, run.written))
            .collect();
        let expected =
            [(3, 7, 1, false), (3, 100, 3, false), (3, 103, 2, true), (3, 106, 1, true), (3, 119, 1, false)];
        fs::remove_dir_all(&path).unwrap();
        assert_eq!(found, expected);
    }
}
