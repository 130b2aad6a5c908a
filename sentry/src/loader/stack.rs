//! Arguments and the first stack: limits, reading them from the caller's memory, and the layout a program starts with.
//!
//! From the top of the stack down: eight zero bytes, the program's path, the environment's strings, the arguments'
//! strings, a random gap, the platform's name, sixteen random bytes, the auxiliary vector, `envp`, `argv`, `argc`. The
//! stack pointer points at `argc` and is 16-byte aligned.

use quicksand_abi::elf::auxv::{AT_EXECFN, AT_NULL, AT_PLATFORM, AT_RANDOM};
use quicksand_abi::{Errno, PAGE_SIZE, UserAddr};

use crate::mm::MemoryManager;

/// `MAX_ARG_STRLEN`: the longest argument, NUL included.
pub const MAX_ARG_STRLEN: usize = 32 * PAGE_SIZE as usize;
/// Three quarters of `_STK_LIM`: all arguments together, however large the stack may grow.
const MAX_ARGS: u64 = 6 << 20;
/// `ARG_MAX`: what is always allowed.
const MIN_ARGS: u64 = 128 << 10;

/// The arguments and environment of a new program, counted against the limits as they are gathered.
#[derive(Debug)]
pub struct Arguments {
    pub argv: Vec<Vec<u8>>,
    pub envp: Vec<Vec<u8>>,
    /// Bytes of strings that still fit.
    budget: u64,
}

impl Arguments {
    /// Counts the strings given. E2BIG where they are too many or too long. `path` is the program's, which lies on the
    /// stack too; `stack_limit` is RLIMIT_STACK.
    pub fn new(
        path: &[u8],
        argv: Vec<Vec<u8>>,
        envp: Vec<Vec<u8>>,
        stack_limit: u64,
    ) -> Result<Arguments, Errno> {
        let mut arguments = Arguments::empty(path, argv.len(), envp.len(), stack_limit)?;
        for string in argv.iter().chain(&envp) {
            arguments.charge(string)?;
        }
        arguments.argv = argv;
        arguments.envp = envp;
        arguments.never_empty()?;
        Ok(arguments)
    }

    /// Reads `argv` and `envp` of `execve(2)` from `mm`. A null array is an empty one.
    pub fn read(
        mm: &MemoryManager,
        path: &[u8],
        argv: UserAddr,
        envp: UserAddr,
        stack_limit: u64,
    ) -> Result<Arguments, Errno> {
        // Linux counts both arrays before it copies a string.
        let argv = read_pointers(mm, argv)?;
        let envp = read_pointers(mm, envp)?;
        let mut arguments = Arguments::empty(path, argv.len(), envp.len(), stack_limit)?;
        // The environment is copied first, each from its end: it decides which error comes first.
        arguments.envp = arguments.read_strings(mm, &envp)?;
        arguments.argv = arguments.read_strings(mm, &argv)?;
        arguments.never_empty()?;
        Ok(arguments)
    }

    fn empty(path: &[u8], argc: usize, envc: usize, stack_limit: u64) -> Result<Arguments, Errno> {
        let limit = MAX_ARGS.min(stack_limit / 4).max(MIN_ARGS);
        let pointers = (argc.max(1) as u64).saturating_add(envc as u64).saturating_mul(8);
        if limit <= pointers {
            return Err(Errno::E2BIG);
        }
        let mut arguments = Arguments { argv: Vec::new(), envp: Vec::new(), budget: limit - pointers };
        arguments.charge(path)?;
        Ok(arguments)
    }

    fn charge(&mut self, string: &[u8]) -> Result<(), Errno> {
        let len = string.len() as u64 + 1;
        if len > MAX_ARG_STRLEN as u64 || len > self.budget {
            return Err(Errno::E2BIG);
        }
        self.budget -= len;
        Ok(())
    }

    fn read_strings(&mut self, mm: &MemoryManager, pointers: &[UserAddr]) -> Result<Vec<Vec<u8>>, Errno> {
        let mut strings = Vec::with_capacity(pointers.len());
        for pointer in pointers.iter().rev() {
            let string = mm.read_cstring(*pointer, MAX_ARG_STRLEN - 1).map_err(|error| match error {
                Errno::ENAMETOOLONG => Errno::E2BIG,
                other => other,
            })?;
            self.charge(&string)?;
            strings.push(string);
        }
        strings.reverse();
        Ok(strings)
    }

    /// A program always has an `argv[0]`.
    fn never_empty(&mut self) -> Result<(), Errno> {
        if self.argv.is_empty() {
            self.charge(b"")?;
            self.argv.push(Vec::new());
        }
        Ok(())
    }

    /// Puts a script's interpreter and its argument before the script's path, in the place of `argv[0]`.
    pub fn interpret(
        &mut self,
        interpreter: &[u8],
        argument: Option<&[u8]>,
        script: &[u8],
    ) -> Result<(), Errno> {
        if !self.argv.is_empty() {
            let first = self.argv.remove(0);
            self.budget += first.len() as u64 + 1;
        }
        let new = [Some(interpreter), argument, Some(script)];
        for string in new.into_iter().flatten().rev() {
            self.charge(string)?;
            self.argv.insert(0, string.to_vec());
        }
        Ok(())
    }
}

/// A NULL-terminated array of pointers. Bounded by what could ever fit among the arguments.
fn read_pointers(mm: &MemoryManager, array: UserAddr) -> Result<Vec<UserAddr>, Errno> {
    let mut out = Vec::new();
    if array.is_null() {
        return Ok(out);
    }
    let mut at = array;
    loop {
        // Within one page, and never beyond the last pointer: the array may end right before an unmapped page.
        let in_page = (PAGE_SIZE - at.0 % PAGE_SIZE) as usize;
        let mut bytes = [0; 512];
        let take = if in_page < 8 { 8 } else { (in_page & !7).min(bytes.len()) };
        mm.read_bytes(at, &mut bytes[..take])?;
        for chunk in bytes[..take].chunks_exact(8) {
            let pointer = u64::from_ne_bytes(chunk.try_into().unwrap_or_default());
            if pointer == 0 {
                return Ok(out);
            }
            out.push(UserAddr(pointer));
        }
        if out.len() as u64 > MAX_ARGS / 8 {
            return Err(Errno::E2BIG);
        }
        at = at.checked_add(take as u64).ok_or(Errno::EFAULT)?;
    }
}

/// What goes on the stack.
#[derive(Debug)]
pub struct StackContents<'a> {
    /// The end of the stack mapping; page-aligned.
    pub top: UserAddr,
    pub path: &'a [u8],
    pub argv: &'a [Vec<u8>],
    pub envp: &'a [Vec<u8>],
    /// Entries of the auxiliary vector, without those that point into the stack.
    pub auxv: &'a [(u64, u64)],
    /// For AT_RANDOM.
    pub random: [u8; 16],
    /// Random bytes to leave between strings and vectors: less than 8192.
    pub gap: u64,
}

/// A first stack: bytes that end at `top`, and what is where.
#[derive(Debug)]
pub struct FirstStack {
    pub bytes: Vec<u8>,
    /// Where `bytes` begin: the stack pointer.
    pub pointer: UserAddr,
    pub arg_start: UserAddr,
    pub arg_end: UserAddr,
    pub env_end: UserAddr,
    /// The auxiliary vector as it lies on the stack.
    pub auxv: Vec<u8>,
}

const PLATFORM_NAME: &[u8] = b"x86_64\0";

/// Lays out the stack (`create_elf_tables`).
pub fn build(contents: &StackContents<'_>) -> Result<FirstStack, Errno> {
    let strings = |list: &[Vec<u8>]| list.iter().map(|s| s.len() as u64 + 1).sum::<u64>();
    let below = |at: u64, by: u64| at.checked_sub(by).ok_or(Errno::ENOMEM);
    let path_at = below(contents.top.0, 8 + contents.path.len() as u64 + 1)?;
    let env_at = below(path_at, strings(contents.envp))?;
    let arg_at = below(env_at, strings(contents.argv))?;
    let platform_at = below(below(arg_at, contents.gap)? & !15, PLATFORM_NAME.len() as u64)?;
    let random_at = below(platform_at, 16)?;

    let mut entries = contents.auxv.to_vec();
    entries.extend([(AT_RANDOM, random_at), (AT_EXECFN, path_at), (AT_PLATFORM, platform_at), (AT_NULL, 0)]);
    let words = 1 + contents.argv.len() + 1 + contents.envp.len() + 1 + 2 * entries.len();
    let pointer = below(random_at, words as u64 * 8)? & !15;

    let mut bytes = vec![0; (contents.top.0 - pointer) as usize];
    let mut vectors: Vec<u64> = Vec::with_capacity(words);
    vectors.push(contents.argv.len() as u64);
    let mut at = arg_at;
    for list in [contents.argv, contents.envp] {
        for string in list {
            vectors.push(at);
            let offset = (at - pointer) as usize;
            bytes[offset..offset + string.len()].copy_from_slice(string);
            at += string.len() as u64 + 1;
        }
        vectors.push(0);
    }
    let auxv_at = vectors.len() * 8;
    for (key, value) in &entries {
        vectors.extend([*key, *value]);
    }
    for (slot, word) in bytes.chunks_exact_mut(8).zip(&vectors) {
        slot.copy_from_slice(&word.to_ne_bytes());
    }
    for (at, data) in
        [(random_at, &contents.random[..]), (platform_at, PLATFORM_NAME), (path_at, contents.path)]
    {
        let offset = (at - pointer) as usize;
        bytes[offset..offset + data.len()].copy_from_slice(data);
    }
    let auxv = bytes[auxv_at..vectors.len() * 8].to_vec();
    Ok(FirstStack {
        bytes,
        pointer: UserAddr(pointer),
        arg_start: UserAddr(arg_at),
        arg_end: UserAddr(env_at),
        env_end: UserAddr(path_at),
        auxv,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout() {
        let argv = [b"prog".to_vec(), b"-x".to_vec()];
        let envp = [b"A=b".to_vec()];
        let contents = StackContents {
            top: UserAddr(0x7fff_0000_0000),
            path: b"/bin/prog",
            argv: &argv,
            envp: &envp,
            auxv: &[(6, 4096)],
            random: [7; 16],
            gap: 1000,
        };
        let stack = build(&contents).unwrap();
        assert_eq!(stack.pointer.0 % 16, 0);
        assert_eq!(stack.pointer.0 + stack.bytes.len() as u64, contents.top.0);
        let word = |at: u64| {
            let o = (at - stack.pointer.0) as usize;
            u64::from_ne_bytes(stack.bytes[o..o + 8].try_into().unwrap())
        };
        let string = |at: u64| {
            let o = (at - stack.pointer.0) as usize;
            stack.bytes[o..].split(|b| *b == 0).next().unwrap().to_vec()
        };
        let sp = stack.pointer.0;
        assert_eq!(word(sp), 2);
        assert_eq!(string(word(sp + 8)), b"prog");
        assert_eq!(string(word(sp + 16)), b"-x");
        assert_eq!(word(sp + 24), 0);
        assert_eq!(string(word(sp + 32)), b"A=b");
        assert_eq!(word(sp + 40), 0);
        assert_eq!((word(sp + 48), word(sp + 56)), (6, 4096));
        assert_eq!(word(sp + 64), AT_RANDOM);
        assert_eq!(string(word(sp + 88)), b"/bin/prog");
        assert_eq!(stack.env_end.0, word(sp + 88));
        assert_eq!(string(word(sp + 104)), b"x86_64");
        assert_eq!(stack.auxv.len(), 5 * 16);
        assert_eq!(word(contents.top.0 - 8), 0);
    }

    #[test]
    fn limits() {
        let big = vec![b'x'; MAX_ARG_STRLEN - 1];
        let new = |argv: Vec<Vec<u8>>, limit| Arguments::new(b"p", argv, Vec::new(), limit).map(|_| ());
        assert_eq!(new(vec![big.clone()], 8 << 20), Ok(()));
        assert_eq!(new(vec![vec![b'x'; MAX_ARG_STRLEN]], 8 << 20), Err(Errno::E2BIG));
        assert_eq!(new(vec![big.clone(); 15], 8 << 20), Ok(()));
        assert_eq!(new(vec![big.clone(); 16], 8 << 20), Err(Errno::E2BIG));
        assert_eq!(new(vec![big.clone(); 47], u64::MAX), Ok(()));
        assert_eq!(new(vec![big.clone(); 48], u64::MAX), Err(Errno::E2BIG));
        // The minimum holds whatever the stack's limit; here the pointers push it over.
        assert_eq!(new(vec![big], 0), Err(Errno::E2BIG));
        assert_eq!(Arguments::new(b"p", Vec::new(), Vec::new(), 0).unwrap().argv, [b""]);
    }

    #[test]
    fn interpreters_take_the_place_of_the_first_argument() {
        let argv = vec![b"name".to_vec(), b"a".to_vec()];
        let mut arguments = Arguments::new(b"p", argv, Vec::new(), 8 << 20).unwrap();
        arguments.interpret(b"/bin/sh", Some(b"-e"), b"./script").unwrap();
        assert_eq!(arguments.argv, [&b"/bin/sh"[..], b"-e", b"./script", b"a"]);
    }
}
