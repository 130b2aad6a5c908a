//! Mapping an ELF file's segments into a new address space.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use quicksand_abi::elf::{PF_W, PF_X, ProgramHeader};
use quicksand_abi::{Errno, PAGE_SIZE, UserAddr, UserRange};
use quicksand_platform::Prot;
use quicksand_vdso::{DATA_BYTES, IMAGE};

use super::elf::{ElfFile, segment_prot};
use crate::mm::{Inner, Limits, VmFlags, Vma, VmaBacking};

/// Where an image came to lie.
#[derive(Clone, Copy, Debug, Default)]
pub struct Placed {
    /// What was added to the file's addresses.
    pub bias: u64,
    pub entry: u64,
    /// Where the program headers are in memory; 0 where no segment holds them.
    pub phdr: u64,
    pub start_code: u64,
    pub end_code: u64,
    pub start_data: u64,
    pub end_data: u64,
    /// The end of the highest segment.
    pub brk: u64,
}

fn page_floor(at: u64) -> u64 {
    at & !(PAGE_SIZE - 1)
}
fn page_ceil(at: u64) -> Result<u64, Errno> {
    UserAddr(at).page_ceil().map(|a| a.0).ok_or(Errno::EINVAL)
}

/// Whether an address is outside user space (`BAD_ADDR`).
pub fn is_bad(addr: u64) -> bool {
    addr >= UserAddr::TASK_SIZE.0
}

/// Maps all segments with `bias` added to their addresses. What a segment covers is replaced, so that hostile headers
/// can only spoil their own program; `first_fixed` says that the whole span must be free beforehand.
pub fn map(
    inner: &mut Inner,
    limits: &Limits,
    elf: &ElfFile,
    bias: u64,
    first_fixed: bool,
) -> Result<Placed, Errno> {
    let (low, len) = elf.span().ok_or(Errno::EINVAL)?;
    let span = UserRange::new(UserAddr(low.wrapping_add(bias)), page_ceil(len)?).ok_or(Errno::EINVAL)?;
    if first_fixed && (span.end > UserAddr::MAP_END || inner.tree.overlaps(span)) {
        return Err(if span.end > UserAddr::MAP_END { Errno::ENOMEM } else { Errno::EEXIST });
    }
    let mut placed = Placed { bias, start_code: u64::MAX, ..Placed::default() };
    for load in elf.loads() {
        check(load, bias)?;
        let start = load.vaddr.wrapping_add(bias);
        map_segment(inner, limits, elf, load, start)?;
        let phoff = elf.header.phoff;
        if load.offset <= phoff && phoff - load.offset < load.filesz && placed.phdr == 0 {
            placed.phdr = start + (phoff - load.offset);
        }
        let file_end = start + load.filesz;
        if load.flags & PF_X != 0 {
            placed.start_code = placed.start_code.min(start);
            placed.end_code = placed.end_code.max(file_end);
        }
        placed.start_data = placed.start_data.max(start);
        placed.end_data = placed.end_data.max(file_end);
        placed.brk = placed.brk.max(start + load.memsz);
    }
    placed.entry = elf.header.entry.wrapping_add(bias);
    if placed.start_code == u64::MAX {
        placed.start_code = 0;
    }
    Ok(placed)
}

fn check(load: &ProgramHeader, bias: u64) -> Result<(), Errno> {
    let start = load.vaddr.wrapping_add(bias);
    let size = UserAddr::TASK_SIZE.0;
    if is_bad(start) || load.filesz > load.memsz || load.memsz > size || size - load.memsz < start {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// One segment: file pages, the rest of the last one cleared, zero pages behind it.
fn map_segment(
    inner: &mut Inner,
    limits: &Limits,
    elf: &ElfFile,
    load: &ProgramHeader,
    start: u64,
) -> Result<(), Errno> {
    let prot = segment_prot(load.flags);
    let first_page = page_floor(start);
    let in_page = start - first_page;
    let file_end = start + load.filesz;
    let mut zero_from = first_page;
    if load.filesz != 0 {
        // The file's page and the memory's page must agree.
        let offset =
            load.offset.checked_sub(in_page).filter(|o| o.is_multiple_of(PAGE_SIZE)).ok_or(Errno::EINVAL)?;
        let range = UserRange { start: UserAddr(first_page), end: UserAddr(page_ceil(file_end)?) };
        // As `mmap`: no file is that long.
        offset.checked_add(range.len()).filter(|end| *end <= i64::MAX as u64).ok_or(Errno::EOVERFLOW)?;
        let mut vma = Vma::anonymous(range, prot);
        vma.backing = VmaBacking::File {
            file: elf.file.clone(),
            offset,
            host: elf.host.fd.clone(),
            host_offset: elf.host.offset.checked_add(offset).ok_or(Errno::EINVAL)?,
            host_writable: false,
        };
        place(inner, limits, vma)?;
        zero_from = range.end.0;
        if load.memsz > load.filesz && load.flags & PF_W != 0 {
            let rest = (zero_from - file_end) as usize;
            let zeroes = [0; PAGE_SIZE as usize];
            // Fails where the file ends before this page: then there is nothing to clear, and Linux refuses.
            inner.space.write_forced(UserAddr(file_end), &zeroes[..rest]).map_err(|_| Errno::EFAULT)?;
        }
    }
    let zero_to = page_ceil(start + load.memsz)?;
    if zero_to > zero_from {
        let range = UserRange { start: UserAddr(zero_from), end: UserAddr(zero_to) };
        let prot = Prot { read: true, write: true, execute: load.flags & PF_X != 0 };
        place(inner, limits, Vma::anonymous(range, prot))?;
    }
    Ok(())
}

fn place(inner: &mut Inner, limits: &Limits, vma: Vma) -> Result<(), Errno> {
    if vma.range.is_empty() {
        return Ok(());
    }
    if vma.range.end > UserAddr::MAP_END {
        return Err(Errno::ENOMEM);
    }
    inner.place(limits, vma.range.start, vma.range.len(), libc::MAP_FIXED as u32)?;
    inner.install(limits, vma)
}

/// The bias that puts an image whose lowest address is `low` at `base`, rounded down to `alignment`.
pub fn bias_for(low: u64, base: u64, alignment: u64) -> u64 {
    (base & !(alignment - 1)).wrapping_sub(page_floor(low))
}

/// Maps the vDSO: its data page, shared and read-only, and the image behind it. Returns where the image begins.
pub fn map_vdso(inner: &mut Inner, memory: &Arc<OwnedFd>) -> Result<UserAddr, Errno> {
    let image = (IMAGE.len() as u64).next_multiple_of(PAGE_SIZE);
    let start = inner.place(&Limits::NONE, UserAddr::NULL, DATA_BYTES + image, 0)?;
    let image_start = UserAddr(start.0 + DATA_BYTES);
    let data = UserRange { start, end: image_start };
    let code = UserRange { start: image_start, end: UserAddr(image_start.0 + image) };
    let special = |range, prot, name, offset| {
        let mut vma = Vma::anonymous(range, prot);
        vma.flags = VmFlags::SPECIAL;
        vma.backing = VmaBacking::Special { name, fd: memory.clone(), offset };
        vma
    };
    let mut page = special(data, Prot::R, "[vvar]", 0);
    // Shared, so that it changes under the program; shown as private, as Linux shows it.
    page.max_prot = Prot::R;
    inner.install(&Limits::NONE, page)?;
    inner.install(&Limits::NONE, special(code, Prot::RX, "[vdso]", DATA_BYTES))?;
    Ok(image_start)
}
