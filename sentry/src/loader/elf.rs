//! Reading ELF files. Everything in them is hostile: every field is checked before it is used, and arithmetic on them
//! is checked.

use std::sync::Arc;

use quicksand_abi::elf::{
    EM_X86_64, ET_DYN, ET_EXEC, ElfHeader, PF_R, PF_W, PF_X, PT_GNU_STACK, PT_INTERP, PT_LOAD, ProgramHeader,
};
use quicksand_abi::{Errno, PAGE_SIZE, UserAddr};
use quicksand_platform::Prot;
use zerocopy::{FromBytes, IntoBytes};

use crate::task::CurrentTask;
use crate::vfs::{HostMapping, IoDst, OpenFile};

/// How much of a file is read at first: with most programs that holds all that is needed.
pub const FIRST_READ: usize = 4096;
/// The most bytes of program headers.
const MAX_HEADERS: usize = 65536;

/// A program or an interpreter, as far as its headers tell.
#[derive(Debug)]
pub struct ElfFile {
    pub file: Arc<OpenFile>,
    pub header: ElfHeader,
    pub program_headers: Vec<ProgramHeader>,
    /// The file, prepared for mapping once for all of its segments.
    pub host: HostMapping,
}

/// Reads at `offset` until `buf` is full or the file ends; returns the bytes read.
pub fn read_at(task: &CurrentTask, file: &OpenFile, buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut done = 0;
    while done < buf.len() {
        let at = offset.checked_add(done as u64).filter(|a| *a <= i64::MAX as u64).ok_or(Errno::EINVAL)?;
        match file.ops.read(file, task, &mut IoDst::kernel(&mut buf[done..]), at)? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}

/// As [`read_at`]; EIO where the file is too short.
fn read_all_at(task: &CurrentTask, file: &OpenFile, buf: &mut [u8], offset: u64) -> Result<(), Errno> {
    if read_at(task, file, buf, offset)? == buf.len() { Ok(()) } else { Err(Errno::EIO) }
}

impl ElfFile {
    /// Reads the headers. `head` is what [`FIRST_READ`] bytes from the file's start gave. ENOEXEC where this is no
    /// program for this machine.
    pub fn read(task: &CurrentTask, file: Arc<OpenFile>, head: &[u8]) -> Result<ElfFile, Errno> {
        let (header, _) = ElfHeader::read_from_prefix(head).map_err(|_| Errno::ENOEXEC)?;
        let fits = header.ident.starts_with(&quicksand_abi::elf::ELFMAG)
            && matches!(header.kind, ET_EXEC | ET_DYN)
            && header.machine == EM_X86_64;
        let size = size_of::<ProgramHeader>() * usize::from(header.phnum);
        if !fits
            || usize::from(header.phentsize) != size_of::<ProgramHeader>()
            || size == 0
            || size > MAX_HEADERS
        {
            return Err(Errno::ENOEXEC);
        }
        let mut program_headers = vec![
            ProgramHeader {
                kind: 0,
                flags: 0,
                offset: 0,
                vaddr: 0,
                paddr: 0,
                filesz: 0,
                memsz: 0,
                align: 0
            };
            usize::from(header.phnum)
        ];
        let bytes = program_headers.as_mut_slice().as_mut_bytes();
        let start = usize::try_from(header.phoff).unwrap_or(usize::MAX);
        match start.checked_add(size).and_then(|end| head.get(start..end)) {
            Some(found) => bytes.copy_from_slice(found),
            None => read_all_at(task, &file, bytes, header.phoff).map_err(|_| Errno::ENOEXEC)?,
        }
        // What cannot be mapped is no program.
        let host = host_mapping(&file, &program_headers).map_err(|_| Errno::ENOEXEC)?;
        Ok(ElfFile { file, header, program_headers, host })
    }

    /// The interpreter's path, without its NUL.
    pub fn interpreter(&self, task: &CurrentTask, head: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
        let Some(header) = self.program_headers.iter().find(|h| h.kind == PT_INTERP) else { return Ok(None) };
        if header.filesz > libc::PATH_MAX as u64 || header.filesz < 2 {
            return Err(Errno::ENOEXEC);
        }
        let mut path = vec![0; header.filesz as usize];
        let start = usize::try_from(header.offset).unwrap_or(usize::MAX);
        match start.checked_add(path.len()).and_then(|end| head.get(start..end)) {
            Some(found) => path.copy_from_slice(found),
            None => read_all_at(task, &self.file, &mut path, header.offset)?,
        }
        if path.last() != Some(&0) {
            return Err(Errno::ENOEXEC);
        }
        // Only what comes before the first NUL is a path.
        let end = path.iter().position(|b| *b == 0).unwrap_or(0);
        path.truncate(end);
        Ok(Some(path))
    }

    /// What to map, in order.
    pub fn loads(&self) -> impl Iterator<Item = &ProgramHeader> {
        self.program_headers.iter().filter(|h| h.kind == PT_LOAD)
    }

    pub fn is_relocatable(&self) -> bool {
        self.header.kind == ET_DYN
    }

    /// Whether PT_GNU_STACK asks for an executable stack.
    pub fn executable_stack(&self) -> bool {
        self.program_headers.iter().rfind(|h| h.kind == PT_GNU_STACK).is_some_and(|h| h.flags & PF_X != 0)
    }

    /// The address range that all PT_LOADs span, from a page's start; `None` where there are none or it is out of bounds.
    pub fn span(&self) -> Option<(u64, u64)> {
        let low = self.loads().map(|h| h.vaddr & !(PAGE_SIZE - 1)).min()?;
        let mut high = 0;
        for load in self.loads() {
            high = high.max(load.vaddr.checked_add(load.memsz)?);
        }
        let len = high.checked_sub(low).filter(|l| *l != 0 && *l <= UserAddr::TASK_SIZE.0)?;
        Some((low, len))
    }

    /// The largest alignment that a PT_LOAD asks for, at least a page.
    pub fn alignment(&self) -> u64 {
        let asked = self.loads().map(|h| h.align).filter(|a| a.is_power_of_two()).max();
        asked.unwrap_or(0).max(PAGE_SIZE)
    }
}

/// Prepares the part of a file that its segments are mapped from.
fn host_mapping(file: &OpenFile, program_headers: &[ProgramHeader]) -> Result<HostMapping, Errno> {
    let loads = program_headers.iter().filter(|h| h.kind == PT_LOAD);
    // A segment that no file can hold is found out when it is mapped.
    let ends = loads.filter_map(|h| UserAddr(h.offset.checked_add(h.filesz)?).page_ceil());
    let end = ends.map(|e| e.0).filter(|e| *e <= i64::MAX as u64).max().unwrap_or(0).max(PAGE_SIZE);
    file.ops.mmap(file, 0, end, false)
}

/// The protection that a segment's flags ask for.
pub fn segment_prot(flags: u32) -> Prot {
    Prot { read: flags & PF_R != 0, write: flags & PF_W != 0, execute: flags & PF_X != 0 }
}
