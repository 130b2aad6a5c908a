//! Loading programs: ELF files, `#!` scripts, the first stack (`fs/exec.c`, `fs/binfmt_elf.c`, `fs/binfmt_script.c`).
//!
//! [`load`] makes a whole new address space and leaves the caller's alone: `execve` commits to it only when it is
//! complete. Where Linux would already be past its point of no return, the error says [`ExecError::Kill`].
//!
//! A program start is on the critical path, and every mapping is a host call: files are read once where their headers
//! allow, segments are mapped whole, and the first stack is one write.

pub mod elf;
pub mod image;
pub mod script;
pub mod stack;

use std::sync::Arc;

use quicksand_abi::elf::auxv::*;
use quicksand_abi::{Errno, PAGE_SIZE, UserAddr, UserRange};
use quicksand_platform::{AddressSpace, Prot};

use crate::mm::{Inner, Layout, Limits, MemoryManager, STACK_GUARD_GAP, VmFlags, Vma};
use crate::task::{CurrentTask, Rlimits};
use crate::vfs::OpenFile;
use elf::{ElfFile, FIRST_READ};
use image::Placed;
use stack::StackContents;

pub use stack::Arguments;

/// Personality bits that a loader looks at.
pub const ADDR_NO_RANDOMIZE: u32 = 0x0004_0000;
pub const ADDR_COMPAT_LAYOUT: u32 = 0x0020_0000;

/// `ELF_ET_DYN_BASE`: where position-independent programs go without randomisation.
const PIE_BASE: u64 = UserAddr::TASK_SIZE.0 / 3 * 2;
/// The stack is mapped this far below the first stack pointer.
const STACK_EXPAND: u64 = 128 << 10;
/// `stack_maxrandom_size`: 22 bits of pages.
const STACK_RANDOM: u64 = 0x3f_ffff << 12;
/// How deep scripts may interpret scripts.
const MAX_SCRIPT_DEPTH: usize = 5;

/// Why a program could not be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecError {
    /// `execve` returns this; the caller goes on.
    Errno(Errno),
    /// Linux finds this out when the old program is gone: the process is killed by SIGSEGV.
    Kill(Errno),
}

impl From<Errno> for ExecError {
    fn from(errno: Errno) -> ExecError {
        ExecError::Errno(errno)
    }
}

/// Whom a program will run as, for the auxiliary vector.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExecIds {
    pub uid: u32,
    pub euid: u32,
    pub gid: u32,
    pub egid: u32,
    /// AT_SECURE: the program gains rights that its caller does not have.
    pub secure: bool,
}

/// What the loader asks of the caller of `execve`.
pub trait ExecHost {
    /// Opens an interpreter by path, as `open_exec` does: followed to a regular file that may be executed, EACCES else.
    fn open_exec(&self, path: &[u8]) -> Result<Arc<OpenFile>, Errno>;
    /// Whom `program` runs as. Called once, with the file whose set-id bits count.
    fn ids(&self, program: &Arc<OpenFile>) -> Result<ExecIds, Errno>;
}

/// What a program is loaded with.
pub struct LoadContext<'a> {
    /// The task that reads the files.
    pub task: &'a CurrentTask,
    pub host: &'a dyn ExecHost,
    pub rlimits: Rlimits,
    pub personality: u32,
    /// Fresh random bytes.
    pub random: [u8; 64],
    /// The platform's new, empty address space.
    pub space: Arc<dyn AddressSpace>,
    /// For AT_MINSIGSTKSZ: the size of a signal frame, in bytes.
    pub signal_frame: u64,
}

impl std::fmt::Debug for LoadContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LoadContext({:?})", self.task)
    }
}

/// A loaded program.
#[derive(Debug)]
pub struct Loaded {
    pub mm: Arc<MemoryManager>,
    /// The first instruction: the interpreter's where there is one.
    pub entry: UserAddr,
    pub stack_pointer: UserAddr,
    /// The program's file, behind `/proc/PID/exe`. For scripts the interpreter's.
    pub exe: Arc<OpenFile>,
    pub ids: ExecIds,
}

/// Loads `file` in a new address space. `path` is what `execve` was given: AT_EXECFN, and a script's argument.
/// `path_lost` says that the path will not lead to the file after the exec (a close-on-exec descriptor): scripts are
/// refused then.
pub fn load(
    context: &LoadContext<'_>,
    file: Arc<OpenFile>,
    path: &[u8],
    path_lost: bool,
    mut arguments: Arguments,
) -> Result<Loaded, ExecError> {
    let task = context.task;
    let (exe, head) = resolve_scripts(context, file, path, path_lost, &mut arguments)?;
    let program = ElfFile::read(task, exe.clone(), &head)?;
    let interpreter = match program.interpreter(task, &head)? {
        None => None,
        Some(path) => {
            let file = open_interpreter(context, &path)?;
            let mut head = vec![0; FIRST_READ];
            let n = elf::read_at(task, &file, &mut head, 0)?;
            if n < size_of::<quicksand_abi::elf::ElfHeader>() {
                return Err(Errno::EIO.into());
            }
            head.truncate(n);
            Some(ElfFile::read(task, file, &head).map_err(|_| Errno::ELIBBAD)?)
        }
    };
    let ids = context.host.ids(&exe)?;
    // From here on Linux has no old program to return to.
    build(context, path, &arguments, program, interpreter, ids).map_err(ExecError::Kill)
}

/// Opens what a program names as its interpreter. The empty path leads to the working directory here, as in Linux, which
/// is not a file.
fn open_interpreter(context: &LoadContext<'_>, path: &[u8]) -> Result<Arc<OpenFile>, Errno> {
    if path.is_empty() { Err(Errno::EACCES) } else { context.host.open_exec(path) }
}

/// Follows `#!` lines to a file that is none. Returns it with its beginning.
fn resolve_scripts(
    context: &LoadContext<'_>,
    mut file: Arc<OpenFile>,
    path: &[u8],
    path_lost: bool,
    arguments: &mut Arguments,
) -> Result<(Arc<OpenFile>, Vec<u8>), ExecError> {
    let mut script_path = path.to_vec();
    for depth in 0.. {
        if depth > MAX_SCRIPT_DEPTH {
            return Err(Errno::ELOOP.into());
        }
        let mut head = vec![0; FIRST_READ];
        let n = elf::read_at(context.task, &file, &mut head, 0)?;
        let first: &[u8; script::HEAD] = head.first_chunk().ok_or(Errno::ENOEXEC)?;
        let Some(script) = script::parse(first) else {
            head.truncate(n);
            return Ok((file, head));
        };
        if path_lost && depth == 0 {
            return Err(Errno::ENOENT.into());
        }
        arguments.interpret(script.interpreter, script.argument, &script_path)?;
        script_path = script.interpreter.to_vec();
        file = open_interpreter(context, &script_path)?;
    }
    Err(Errno::ELOOP.into())
}

/// Random numbers for one program's layout.
#[derive(Debug)]
struct Randomness {
    enabled: bool,
    words: [u64; 6],
    bytes: [u8; 16],
}

impl Randomness {
    fn new(context: &LoadContext<'_>) -> Randomness {
        let mut words = [0; 6];
        for (word, bytes) in words.iter_mut().zip(context.random.chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&context.random[48..64]);
        Randomness { enabled: context.personality & ADDR_NO_RANDOMIZE == 0, words, bytes }
    }
    /// Page-aligned, below `limit`; zero without randomisation. Each `which` is used once.
    fn pages(&self, which: usize, limit: u64) -> u64 {
        if self.enabled { (self.words[which] % (limit / PAGE_SIZE)) * PAGE_SIZE } else { 0 }
    }
}

/// `arch_mmap_rnd`: 28 bits of pages.
const MMAP_RANDOM: u64 = (1 << 28) * PAGE_SIZE;

fn build(
    context: &LoadContext<'_>,
    path: &[u8],
    arguments: &Arguments,
    program: ElfFile,
    interpreter: Option<ElfFile>,
    ids: ExecIds,
) -> Result<Loaded, Errno> {
    use crate::task::Resource;
    let random = Randomness::new(context);
    let limits = Limits {
        address_space: context.rlimits.get(Resource::As).soft,
        data: context.rlimits.get(Resource::Data).soft,
        raw_io: context.task.creds().has(crate::task::credentials::Caps::SYS_RAWIO),
        ..Limits::NONE
    };
    let stack_limit = context.rlimits.get(Resource::Stack).soft;
    let mm = MemoryManager::new(context.space.clone());
    mm.set_stack_limit(stack_limit);
    let mut inner = mm.write();
    inner.layout = layout(&random, context.personality, stack_limit);

    // The stack comes first, so that nothing else is placed where it grows. Its contents need the addresses of
    // everything else, and are written last; their size is known by the strings alone, up to a few hundred bytes.
    let stack_top = UserAddr(UserAddr::MAP_END.0 - random.pages(0, STACK_RANDOM + PAGE_SIZE));
    let gap = if random.enabled { random.words[1] % 8192 } else { 0 };
    let strings: u64 = arguments.argv.iter().chain(&arguments.envp).map(|s| s.len() as u64 + 9).sum();
    let used = strings + path.len() as u64 + gap + 1024;
    map_stack(&mut inner, &limits, stack_top, used, stack_limit, program.executable_stack())?;

    let placed = place_program(&mut inner, &limits, &random, &program, interpreter.is_some())?;
    if image::is_bad(placed.entry) && interpreter.is_none() {
        return Err(Errno::EINVAL);
    }
    let mut base = 0;
    let mut entry = placed.entry;
    if let Some(interpreter) = &interpreter {
        let at = place_anywhere(&mut inner, &limits, interpreter)?;
        if image::is_bad(at.entry) {
            return Err(Errno::EINVAL);
        }
        base = at.bias;
        entry = at.entry;
    }

    let brk = UserAddr(placed.brk).page_ceil().ok_or(Errno::ENOMEM)?;
    // A program without interpreter that was placed among the mappings has its heap where other programs would be.
    let away = program.is_relocatable() && interpreter.is_none();
    let brk_base = if away && random.enabled { UserAddr(PIE_BASE).page_floor() } else { brk };
    let brk = UserAddr(brk_base.0 + random.pages(2, 1 << 30));

    let keeper = &context.task.kernel().clocks.keeper;
    keeper.tick();
    let vdso = match keeper.vdso_memory() {
        Some(memory) => image::map_vdso(&mut inner, &memory)?,
        None => UserAddr::NULL,
    };

    let (hwcap, hwcap2) = rustix::param::linux_hwcap();
    let mut auxv = Vec::with_capacity(24);
    if !vdso.is_null() {
        auxv.push((AT_SYSINFO_EHDR, vdso.0));
    }
    auxv.push((AT_MINSIGSTKSZ, context.signal_frame));
    auxv.extend([
        (AT_HWCAP, hwcap as u64),
        (AT_PAGESZ, PAGE_SIZE),
        (AT_CLKTCK, 100),
        (AT_PHDR, placed.phdr),
        (AT_PHENT, size_of::<quicksand_abi::elf::ProgramHeader>() as u64),
        (AT_PHNUM, u64::from(program.header.phnum)),
        (AT_BASE, base),
        (AT_FLAGS, 0),
        (AT_ENTRY, placed.entry),
        (AT_UID, u64::from(ids.uid)),
        (AT_EUID, u64::from(ids.euid)),
        (AT_GID, u64::from(ids.gid)),
        (AT_EGID, u64::from(ids.egid)),
        (AT_SECURE, u64::from(ids.secure)),
        (AT_HWCAP2, hwcap2 as u64),
    ]);
    let first = stack::build(&StackContents {
        top: stack_top,
        path,
        argv: &arguments.argv,
        envp: &arguments.envp,
        auxv: &auxv,
        random: random.bytes,
        gap,
    })?;
    inner.space.write(first.pointer, &first.bytes).map_err(|_| Errno::EFAULT)?;

    let marks = &mut inner.marks;
    marks.vdso = vdso;
    marks.start_code = UserAddr(placed.start_code);
    marks.end_code = UserAddr(placed.end_code);
    marks.start_data = UserAddr(placed.start_data);
    marks.end_data = UserAddr(placed.end_data);
    marks.start_brk = brk;
    marks.brk = brk;
    marks.start_stack = first.pointer;
    marks.arg_start = first.arg_start;
    marks.arg_end = first.arg_end;
    marks.env_start = first.arg_end;
    marks.env_end = first.env_end;
    marks.auxv = first.auxv;
    inner.exe = Some(program.file.clone());
    drop(inner);
    Ok(Loaded { mm, entry: UserAddr(entry), stack_pointer: first.pointer, exe: program.file, ids })
}

/// Where mappings go (`mmap_base`): below the stack as far as it may grow, or from a third of the address space up.
fn layout(random: &Randomness, personality: u32, stack_limit: u64) -> Layout {
    let size = UserAddr::MAP_END.0;
    let top_down = personality & ADDR_COMPAT_LAYOUT == 0;
    let offset = random.pages(3, MMAP_RANDOM);
    let mmap_base = if top_down {
        let pad = STACK_GUARD_GAP + if random.enabled { STACK_RANDOM } else { 0 };
        let gap = stack_limit.checked_add(pad).unwrap_or(stack_limit).clamp(128 << 20, size / 6 * 5);
        (size - gap - offset) & !(PAGE_SIZE - 1)
    } else {
        (size / 3 + offset) & !(PAGE_SIZE - 1)
    };
    let low_base = UserAddr(0x4000_0000 + random.pages(4, 32 << 20));
    Layout { mmap_base: UserAddr(mmap_base), top_down, low_base }
}

/// The first stack's mapping, `used` bytes and a little more (`setup_arg_pages`).
fn map_stack(
    inner: &mut Inner,
    limits: &Limits,
    top: UserAddr,
    used: u64,
    limit: u64,
    executable: bool,
) -> Result<(), Errno> {
    let used = (used + PAGE_SIZE - 1) & !(PAGE_SIZE - 1);
    // The arguments fit in any case; what is to spare is within the limit.
    let size = (used + STACK_EXPAND).min((limit & !(PAGE_SIZE - 1)).max(used));
    let start = top.checked_sub(size).ok_or(Errno::ENOMEM)?;
    let prot = Prot { read: true, write: true, execute: executable };
    let mut vma = Vma::anonymous(UserRange { start, end: top }, prot);
    vma.flags = VmFlags::GROWSDOWN;
    inner.install(limits, vma)
}

fn place_program(
    inner: &mut Inner,
    limits: &Limits,
    random: &Randomness,
    program: &ElfFile,
    has_interpreter: bool,
) -> Result<Placed, Errno> {
    if !program.is_relocatable() {
        return image::map(inner, limits, program, 0, true);
    }
    if !has_interpreter {
        return place_anywhere(inner, limits, program);
    }
    let (low, _) = program.span().ok_or(Errno::EINVAL)?;
    let base = PIE_BASE + random.pages(5, MMAP_RANDOM);
    image::map(inner, limits, program, image::bias_for(low, base, program.alignment()), true)
}

/// Places an image where any other mapping could go: interpreters, and static programs that are relocatable. An
/// interpreter that is not relocatable goes where it says.
fn place_anywhere(inner: &mut Inner, limits: &Limits, elf: &ElfFile) -> Result<Placed, Errno> {
    if !elf.is_relocatable() {
        return image::map(inner, limits, elf, 0, true);
    }
    let (low, len) = elf.span().ok_or(Errno::EINVAL)?;
    let len = UserAddr(len).page_ceil().ok_or(Errno::ENOMEM)?.0;
    // An alignment that cannot be had is not insisted on.
    for alignment in [elf.alignment(), PAGE_SIZE] {
        let Some(room) = len.checked_add(alignment - PAGE_SIZE) else { continue };
        let Ok(start) = inner.place(limits, UserAddr::NULL, room, 0) else { continue };
        let base = start.0.checked_add(alignment - 1).ok_or(Errno::ENOMEM)?;
        return image::map(inner, limits, elf, image::bias_for(low, base, alignment), true);
    }
    Err(Errno::ENOMEM)
}
