//! Guest memory: from address spaces to pages of an image, and back to mappings of it.
//!
//! Stored are the private pages that differ from what is behind them: of anonymous memory those that are not zero, of a
//! private mapping of a file those that do not hold the file's contents. A restored address space maps the files anew and
//! the image's pages over them, `MAP_PRIVATE`: nothing is read before it is touched.
//!
//! Invariant: pages of an image are mapped only within private mappings of the address space that they were stored for.

use std::sync::Arc;

use quicksand_abi::{PAGE_SIZE, UserAddr, UserRange};
use quicksand_checkpoint::{Extent, Image, PageBacking, PageRun, WorkingSet};
use quicksand_platform::{Advice, Backing, Mapping, Prot};

use super::records as rec;
use super::restore::RestoreError;
use super::save::SaveError;
use super::sink::ImageSink;
use crate::mm::numa::MemPolicy;
use crate::mm::{Inner, Layout, Marks, MemoryManager, SharedMemory, VmFlags, Vma, VmaBacking};
use crate::vfs::OpenFile;

/// How many pages are copied in one go.
const WINDOW: u64 = 256;
/// How many pages are asked about in one go: most of a large mapping was never touched.
const STRETCH: u64 = 64 * WINDOW;
/// Marks that a record holds, in its order.
const MARKS: usize = 12;

fn marks_to_array(m: &Marks) -> [u64; MARKS] {
    [
        m.start_code,
        m.end_code,
        m.start_data,
        m.end_data,
        m.start_brk,
        m.brk,
        m.start_stack,
        m.arg_start,
        m.arg_end,
        m.env_start,
        m.env_end,
        m.vdso,
    ]
    .map(|addr| addr.0)
}

fn marks_from(array: [u64; MARKS], auxv: Vec<u8>) -> Marks {
    let [
        start_code,
        end_code,
        start_data,
        end_data,
        start_brk,
        brk,
        start_stack,
        arg_start,
        arg_end,
        env_start,
        env_end,
        vdso,
    ] = array.map(UserAddr);
    Marks {
        start_code,
        end_code,
        start_data,
        end_data,
        start_brk,
        brk,
        start_stack,
        arg_start,
        arg_end,
        env_start,
        env_end,
        vdso,
        auxv,
    }
}

fn prot_bits(prot: Prot) -> u8 {
    u8::from(prot.read) | u8::from(prot.write) << 1 | u8::from(prot.execute) << 2
}
fn prot_from(bits: u8) -> Prot {
    Prot { read: bits & 1 != 0, write: bits & 2 != 0, execute: bits & 4 != 0 }
}

/// The record of an address space, and the open files and the shared memory that it names.
type Described = (rec::Mm, Vec<Arc<OpenFile>>, Vec<Arc<SharedMemory>>);

/// Spaces of shared memory are numbered from here: address spaces have lower numbers, files higher ones.
const FIRST_SHARED: u64 = 1 << 47;

/// Describes an address space.
pub(super) fn describe(mm: &MemoryManager) -> Result<Described, SaveError> {
    let inner = mm.read();
    let mut files: Vec<Arc<OpenFile>> = inner.exe.iter().cloned().collect();
    let mut shared = Vec::new();
    let mut vmas = Vec::with_capacity(inner.tree.len());
    for vma in inner.tree.iter() {
        let backing = match &vma.backing {
            VmaBacking::Anon => rec::Backing::Anon,
            VmaBacking::File { file, offset, host_writable, .. } => {
                files.push(file.clone());
                rec::Backing::File { file: file.id, offset: *offset, may_write: *host_writable }
            }
            VmaBacking::Special { name, offset, .. } => {
                rec::Backing::Special { name: (*name).to_owned(), offset: *offset }
            }
            VmaBacking::SharedAnon { memory, offset } => {
                shared.push(memory.clone());
                rec::Backing::Shared { memory: memory.id, offset: *offset }
            }
        };
        vmas.push(rec::Vma {
            start: vma.start().0,
            end: vma.end().0,
            prot: prot_bits(vma.prot),
            max_prot: prot_bits(vma.max_prot),
            flags: vma.flags.bits(),
            policy: vma.policy.bits(),
            backing,
            anon_name: vma.anon_name.as_ref().map(|name| name.to_vec()),
        });
    }
    let record = rec::Mm {
        mmap_base: inner.layout.mmap_base.0,
        top_down: inner.layout.top_down,
        low_base: inner.layout.low_base.0,
        marks: marks_to_array(&inner.marks),
        auxv: inner.marks.auxv.clone(),
        default_flags: inner.default_flags.bits(),
        exe: inner.exe.as_ref().map(|exe| exe.id),
        stack_limit: mm.stack_limit(),
        vmas,
    };
    Ok((record, files, shared))
}

/// Stores shared memory; returns its size.
pub(super) fn save_shared(
    memory: &SharedMemory,
    sink: &mut dyn ImageSink,
    stored: &mut u64,
) -> Result<u64, SaveError> {
    let failed = |errno: rustix::io::Errno| SaveError::Memory(format!("shared memory: {errno}"));
    let size = u64::try_from(rustix::fs::fstat(&*memory.fd).map_err(failed)?.st_size).unwrap_or(0);
    let mut data = vec![0; (WINDOW * PAGE_SIZE) as usize];
    let mut at = 0;
    while at < size {
        // Holes are not stored.
        at = match rustix::fs::seek(&*memory.fd, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => data - data % PAGE_SIZE,
            Err(rustix::io::Errno::NXIO) => break,
            Err(errno) => return Err(failed(errno)),
        };
        let want = usize::try_from(size - at).unwrap_or(data.len()).min(data.len());
        let got = rustix::io::pread(&*memory.fd, &mut data[..want], at).map_err(failed)?;
        let whole = got - got % PAGE_SIZE as usize;
        if whole == 0 {
            break;
        }
        sink.pages(FIRST_SHARED + memory.id, at / PAGE_SIZE, &data[..whole])?;
        *stored += whole as u64 / PAGE_SIZE;
        at += whole as u64;
    }
    Ok(size)
}

/// Makes shared memory from its record.
pub(super) fn restore_shared(
    id: u64,
    record: &rec::Shared,
    image: &Image,
) -> Result<Arc<SharedMemory>, RestoreError> {
    let wrong = || RestoreError::Record(format!("shared memory {id}"));
    let memory = crate::mm::syscalls::shared_memory(record.size, libc::MAP_NORESERVE as u32, record.key)
        .map_err(|_| wrong())?;
    for extent in image.extents()?.space(FIRST_SHARED.checked_add(id).ok_or_else(wrong)?) {
        image.read_pages(extent, |page, bytes| {
            let at = page.checked_mul(PAGE_SIZE).filter(|at| *at < record.size).ok_or_else(wrong)?;
            let mut done = 0;
            while done < bytes.len() {
                done += rustix::io::pwrite(&*memory.fd, &bytes[done..], at + done as u64)
                    .map_err(|errno| RestoreError::Memory(format!("shared memory: {errno}")))?;
            }
            Ok::<(), RestoreError>(())
        })?;
    }
    Ok(memory)
}

/// Stores the private pages of an address space. Returns how many were stored, and how many were found to be zero.
pub(super) fn save_pages(mm: &MemoryManager, sink: &mut dyn ImageSink) -> Result<(u64, u64), SaveError> {
    let inner = mm.read();
    let (mut stored, mut zero) = (0, 0);
    for vma in inner.tree.iter() {
        if vma.is_shared() || matches!(vma.backing, VmaBacking::Special { .. }) {
            continue;
        }
        let (pages, zeroes) = save_vma(mm.id, &inner, vma, sink)?;
        stored += pages;
        zero += zeroes;
    }
    Ok((stored, zero))
}

fn save_vma(space: u64, inner: &Inner, vma: &Vma, sink: &mut dyn ImageSink) -> Result<(u64, u64), SaveError> {
    let (mut stored, mut zero) = (0, 0);
    let mut data = vec![0; (WINDOW * PAGE_SIZE) as usize];
    let mut behind = Vec::new();
    let mut at = vma.start();
    let mut known = Vec::new();
    while at < vma.end() {
        if (at.0 - vma.start().0).is_multiple_of(STRETCH * PAGE_SIZE) {
            let end = UserAddr(at.0 + STRETCH * PAGE_SIZE).min(vma.end());
            known = vec![false; ((end.0 - at.0) / PAGE_SIZE) as usize];
            let stretch = UserRange { start: at, end };
            match &vma.backing {
                // An image's pages may lie over the file, and zeroes.
                VmaBacking::File { .. } if inner.layered => known.fill(true),
                // They may lie here as well, and nobody need have touched them.
                _ if inner.layered => inner.space.has_contents(stretch, &mut known),
                _ => inner.space.resident(stretch, &mut known),
            }
            if !known.contains(&true) {
                at = end;
                continue;
            }
        }
        let end = UserAddr(at.0 + WINDOW * PAGE_SIZE).min(vma.end());
        let window = UserRange { start: at, end };
        let from = ((at.0 - vma.start().0) / PAGE_SIZE % STRETCH) as usize;
        let mut resident = known[from..from + (window.len() / PAGE_SIZE) as usize].to_vec();
        if resident.contains(&true) {
            let readable = Readable::make(inner, vma, window)?;
            let page = PAGE_SIZE as usize;
            for (i, bytes) in data[..window.len() as usize].chunks_exact_mut(page).enumerate() {
                let addr = UserAddr(at.0 + (i * page) as u64);
                // What cannot be read lies beyond the end of the file behind it.
                resident[i] = resident[i] && inner.space.read(addr, bytes).is_ok();
            }
            drop(readable);
            let filled = read_behind(vma, window, &mut behind)?;
            let differs = |i: usize| {
                let range = i * page..(i + 1) * page;
                let now = &data[range.clone()];
                match filled.and_then(|len| behind.get(range).filter(|_| (i + 1) * page <= len)) {
                    Some(before) => now != before,
                    None => now.iter().any(|byte| *byte != 0),
                }
            };
            let wanted: Vec<bool> = resident.iter().enumerate().map(|(i, r)| *r && differs(i)).collect();
            zero += resident.iter().zip(&wanted).filter(|(r, w)| **r && !**w).count() as u64;
            let mut i = 0;
            while i < wanted.len() {
                let run = wanted[i..].iter().take_while(|w| **w == wanted[i]).count();
                if wanted[i] {
                    let start_page = at.0 / PAGE_SIZE + i as u64;
                    sink.pages(space, start_page, &data[i * page..(i + run) * page])?;
                    stored += run as u64;
                }
                i += run;
            }
        }
        at = end;
    }
    Ok((stored, zero))
}

/// What the file behind a private mapping holds there, and how many bytes of it. `None` for anonymous memory.
fn read_behind(vma: &Vma, window: UserRange, out: &mut Vec<u8>) -> Result<Option<usize>, SaveError> {
    let VmaBacking::File { host, host_offset, .. } = &vma.backing else { return Ok(None) };
    out.clear();
    out.resize(window.len() as usize, 0);
    let from = host_offset + (window.start.0 - vma.start().0);
    let mut done = 0;
    while done < out.len() {
        match rustix::io::pread(&**host, &mut out[done..], from + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(SaveError::Memory(format!("the file behind a mapping: {errno}"))),
        }
    }
    // The rest of a file's last page is zero in memory as well.
    let pages = done.div_ceil(PAGE_SIZE as usize);
    Ok(Some(pages * PAGE_SIZE as usize))
}

/// While it lives, a mapping that the guest must not read can be read here. No guest runs meanwhile.
struct Readable<'a>(Option<(&'a Inner, UserRange, Prot)>);

impl<'a> Readable<'a> {
    fn make(inner: &'a Inner, vma: &Vma, range: UserRange) -> Result<Readable<'a>, SaveError> {
        if vma.prot.read || vma.prot.write {
            return Ok(Readable(None));
        }
        let failed = |errno| SaveError::Memory(format!("{:#x}: {errno:?}", range.start.0));
        inner.space.protect(range, Prot::R).map_err(failed)?;
        Ok(Readable(Some((inner, range, vma.prot))))
    }
}

impl Drop for Readable<'_> {
    fn drop(&mut self) {
        if let Some((inner, range, prot)) = &self.0
            && let Err(errno) = inner.space.protect(*range, *prot)
        {
            tracing::error!("protecting {:#x} again: {errno:?}", range.start.0);
        }
    }
}

/// Fills a fresh address space: its mappings, and the image's pages over them.
pub(super) fn restore(
    mm: &MemoryManager,
    id: u64,
    record: &rec::Mm,
    image: &Image,
    vdso: Option<&Arc<std::os::fd::OwnedFd>>,
    file_of: &mut dyn FnMut(u64) -> Result<Arc<OpenFile>, RestoreError>,
    shared_of: &mut dyn FnMut(u64) -> Result<(Arc<SharedMemory>, u64), RestoreError>,
) -> Result<(), RestoreError> {
    let wrong = |what: &str| RestoreError::Record(format!("address space {id}: {what}"));
    let exe = record.exe.map(&mut *file_of).transpose()?;
    let mut made = Vec::with_capacity(record.vmas.len());
    for vma in &record.vmas {
        made.push(make_vma(vma, vdso, file_of, shared_of, &wrong)?);
    }
    let mut inner = mm.write();
    inner.layout = Layout {
        mmap_base: UserAddr(record.mmap_base.min(UserAddr::MAP_END.0)),
        top_down: record.top_down,
        low_base: UserAddr(record.low_base.min(UserAddr::MAP_END.0)),
    };
    inner.marks = marks_from(record.marks, record.auxv.clone());
    if inner.marks.brk < inner.marks.start_brk || inner.marks.brk > UserAddr::MAP_END {
        return Err(wrong("the end of its heap"));
    }
    inner.default_flags = VmFlags::from_bits_truncate(record.default_flags);
    inner.exe = exe;
    inner.layered = true;
    if made.windows(2).any(|pair| pair[0].end() > pair[1].start()) {
        return Err(wrong("mappings that overlap"));
    }
    let extents = image.extents()?;
    let extents = extents.space(id);
    check_pages(&made, extents, &wrong)?;
    inner
        .map_fresh(&made, &lay_out(&made, extents, image))
        .map_err(|errno| RestoreError::Memory(format!("mapping address space {id}: {errno:?}")))?;
    inner.adopt(made);
    for extent in extents.iter().filter(|e| matches!(image.backing(e), PageBacking::Compressed { .. })) {
        // What cannot be mapped is copied.
        image.read_pages(extent, |page, bytes| {
            let addr = UserAddr(page.saturating_mul(PAGE_SIZE));
            let failed = |fault| RestoreError::Memory(format!("writing pages: {fault:?}"));
            inner.space.write_forced(addr, bytes).map_err(failed)
        })?;
    }
    drop(inner);
    mm.set_stack_limit(record.stack_limit);
    Ok(())
}

/// Fetches what the image's working set says will be used. Whatever it says, it is only a hint.
pub(super) fn prefetch(mm: &MemoryManager, id: u64, set: &WorkingSet) {
    // What is only read first: it takes the least time, unless it comes from a disk, and then it is what would be waited for.
    let mut runs: Vec<_> = set.runs.iter().filter(|run| run.space == id).collect();
    runs.sort_by_key(|run| run.written);
    // A little at a time: whoever changes mappings meanwhile waits.
    for runs in runs.chunks(32) {
        prefetch_some(mm, id, runs);
    }
}

fn prefetch_some(mm: &MemoryManager, id: u64, runs: &[&PageRun]) {
    let inner = mm.read();
    let mut advice = Vec::new();
    for run in runs {
        let start = run.start_page.saturating_mul(PAGE_SIZE).min(UserAddr::MAP_END.0);
        let end = start.saturating_add(run.pages.saturating_mul(PAGE_SIZE)).min(UserAddr::MAP_END.0);
        let range = UserRange { start: UserAddr(start), end: UserAddr(end) };
        for vma in inner.tree.overlapping(range) {
            let write = run.written && vma.prot.write;
            if let Some(part) = vma.range.intersect(range).filter(|_| !vma.is_shared() && vma.prot.any()) {
                advice.push((part, Advice::Populate { write }));
            }
        }
    }
    if let Err(errno) = inner.space.advise_all(&advice) {
        tracing::debug!("prefetching address space {id}: {errno:?}");
    }
}

fn make_vma(
    record: &rec::Vma,
    vdso: Option<&Arc<std::os::fd::OwnedFd>>,
    file_of: &mut dyn FnMut(u64) -> Result<Arc<OpenFile>, RestoreError>,
    shared_of: &mut dyn FnMut(u64) -> Result<(Arc<SharedMemory>, u64), RestoreError>,
    wrong: &dyn Fn(&str) -> RestoreError,
) -> Result<Vma, RestoreError> {
    let range = UserRange { start: UserAddr(record.start), end: UserAddr(record.end) };
    let aligned = range.start.is_page_aligned() && range.end.is_page_aligned();
    if !aligned || range.start >= range.end || range.end > UserAddr::MAP_END {
        return Err(wrong("a mapping's range"));
    }
    let mut vma = Vma::anonymous(range, prot_from(record.prot));
    vma.max_prot = prot_from(record.max_prot);
    vma.flags = VmFlags::from_bits_truncate(record.flags);
    vma.policy = MemPolicy::from_bits(record.policy).ok_or_else(|| wrong("a memory policy"))?;
    vma.anon_name = record.anon_name.as_deref().map(Arc::from);
    match &record.backing {
        rec::Backing::Anon if vma.is_shared() => return Err(wrong("shared memory without a file")),
        rec::Backing::Anon => {}
        rec::Backing::File { file, offset, may_write } => {
            let file = file_of(*file)?;
            let host = file
                .ops
                .mmap(&file, *offset, range.len(), vma.is_shared())
                .map_err(|errno| RestoreError::Memory(format!("{:?}: {errno:?}", file.path.dentry)))?;
            let host_writable = host.writable && *may_write && file.flags().can_write();
            if vma.is_shared() && !host_writable {
                // The platform is never asked for what the descriptor does not allow.
                vma.prot.write = false;
                vma.max_prot.write = false;
            }
            vma.backing = VmaBacking::File {
                offset: *offset,
                host: host.fd,
                host_offset: host.offset,
                host_writable,
                file,
            };
        }
        rec::Backing::Shared { memory, offset } => {
            let (memory, size) = shared_of(*memory)?;
            let end = offset.checked_add(range.len());
            if !vma.is_shared() || !offset.is_multiple_of(PAGE_SIZE) || end.is_none_or(|end| end > size) {
                return Err(wrong("a mapping of shared memory"));
            }
            vma.backing = VmaBacking::SharedAnon { memory, offset: *offset };
        }
        rec::Backing::Special { name, offset } => {
            let fd = vdso.cloned().ok_or_else(|| wrong("a vDSO, which this host does not give"))?;
            let name = ["[vvar]", "[vdso]"].into_iter().find(|known| known == name);
            let name = name.ok_or_else(|| wrong("a special mapping"))?;
            let end = offset.checked_add(range.len());
            if !offset.is_multiple_of(PAGE_SIZE)
                || end.is_none_or(|end| end > crate::time::timekeeper::VDSO_BYTES)
            {
                return Err(wrong("a special mapping's offset"));
            }
            vma.prot.write = false;
            vma.max_prot.write = false;
            vma.flags |= VmFlags::SPECIAL;
            vma.backing = VmaBacking::Special { name, fd, offset: *offset };
        }
    }
    Ok(vma)
}

fn range_of(extent: &Extent) -> Option<UserRange> {
    let start = extent.start_page.checked_mul(PAGE_SIZE)?;
    let end = extent.end_page().checked_mul(PAGE_SIZE)?;
    Some(UserRange { start: UserAddr(start), end: UserAddr(end) })
}

/// All pages belong to private mappings. Both are in ascending order.
fn check_pages(
    vmas: &[Vma],
    extents: &[Extent],
    wrong: &dyn Fn(&str) -> RestoreError,
) -> Result<(), RestoreError> {
    let mut vmas = vmas.iter().peekable();
    for extent in extents {
        let range = range_of(extent).ok_or_else(|| wrong("pages beyond the end of memory"))?;
        let mut at = range.start;
        while at < range.end {
            while vmas.next_if(|vma| vma.end() <= at).is_some() {}
            let vma = vmas.peek().filter(|vma| vma.start() <= at);
            let vma = vma.ok_or_else(|| wrong("pages where nothing is mapped"))?;
            if vma.is_shared() || matches!(vma.backing, VmaBacking::Special { .. }) {
                return Err(wrong("pages of a shared mapping"));
            }
            at = vma.end();
        }
    }
    Ok(())
}

/// What the host is to map, from below: the image's pages where it has some, else what is behind each VMA.
fn lay_out<'a>(vmas: &'a [Vma], extents: &[Extent], image: &'a Image) -> Vec<Mapping<'a>> {
    let mut mappings = Vec::with_capacity(vmas.len() + extents.len());
    let mut extents = extents.iter().filter_map(|e| Some((range_of(e)?, image.backing(e)))).peekable();
    for vma in vmas {
        let mut at = vma.start();
        while at < vma.end() {
            while extents.next_if(|(range, _)| range.end <= at).is_some() {}
            let (end, backing) = match extents.peek() {
                Some((range, backing)) if range.start <= at => (range.end, Some(*backing)),
                Some((range, _)) => (range.start, None),
                None => (vma.end(), None),
            };
            let part = UserRange { start: at, end: end.min(vma.end()) };
            let backing = match (backing, extents.peek()) {
                (Some(PageBacking::File { fd, offset }), Some((range, _))) => {
                    Backing::PrivateFile { fd, offset: offset + (at.0 - range.start.0) }
                }
                (Some(PageBacking::Zero), _) => Backing::Anonymous,
                _ => vma.platform_backing(part),
            };
            mappings.push(Mapping { range: part, prot: vma.prot, backing });
            at = part.end;
        }
    }
    mappings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vma(start: u64, end: u64) -> Vma {
        let range = UserRange { start: UserAddr(start * PAGE_SIZE), end: UserAddr(end * PAGE_SIZE) };
        Vma::anonymous(range, Prot::RW)
    }
    fn extent(start_page: u64, pages: u64) -> Extent {
        Extent { space: 1, start_page, pages, source: quicksand_checkpoint::Source::Zero }
    }
    fn wrong(what: &str) -> RestoreError {
        RestoreError::Record(what.into())
    }

    #[test]
    fn pages_are_only_where_something_is_mapped() {
        let vmas = [vma(10, 20), vma(20, 25), vma(30, 40)];
        assert!(check_pages(&vmas, &[extent(10, 15), extent(30, 1), extent(39, 1)], &wrong).is_ok());
        assert!(check_pages(&vmas, &[extent(9, 2)], &wrong).is_err());
        assert!(check_pages(&vmas, &[extent(24, 2)], &wrong).is_err());
        assert!(check_pages(&vmas, &[extent(24, 7)], &wrong).is_err());
        assert!(check_pages(&vmas, &[extent(40, 1)], &wrong).is_err());
        assert!(check_pages(&vmas, &[extent(1 << 52, 1)], &wrong).is_err());
        let mut shared = vma(10, 20);
        shared.flags |= VmFlags::SHARED;
        assert!(check_pages(&[shared], &[extent(10, 1)], &wrong).is_err());
    }

    #[test]
    fn every_page_of_a_vma_is_mapped_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        let mut writer =
            quicksand_checkpoint::ImageWriter::create(&path, quicksand_checkpoint::ImageSpec::default())
                .unwrap();
        for page in [12, 13, 18, 19, 20, 31] {
            writer.layer().add(1, page, &vec![page as u8; PAGE_SIZE as usize]).unwrap();
        }
        writer.layer().add_zero(1, 33, 20).unwrap();
        writer.finish().unwrap();
        let image = Image::open(&path).unwrap();
        let extents = image.extents().unwrap();
        let vmas = [vma(10, 20), vma(20, 25), vma(30, 40)];
        let mappings = lay_out(&vmas, extents.space(1), &image);
        let found: Vec<_> = mappings
            .iter()
            .map(|m| {
                let (start, end) = (m.range.start.0 / PAGE_SIZE, m.range.end.0 / PAGE_SIZE);
                let page = match m.backing {
                    Backing::PrivateFile { offset, .. } => Some(offset / PAGE_SIZE),
                    _ => None,
                };
                (start, end, page)
            })
            .collect();
        assert_eq!(
            found,
            [
                (10, 12, None),
                (12, 14, Some(0)),
                (14, 18, None),
                (18, 20, Some(2)),
                (20, 21, Some(4)),
                (21, 25, None),
                (30, 31, None),
                (31, 32, Some(5)),
                (32, 33, None),
                (33, 40, None),
            ]
        );
    }
}
