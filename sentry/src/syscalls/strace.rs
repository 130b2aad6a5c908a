//! `--strace`: one line per system call, decoded by the table's argument kinds, in the style of `strace(1)`.

use std::fmt::Write;

use quicksand_abi::{Errno, UserAddr};

use super::table::Syscall;
use super::{SyscallError, SyscallResult};
use crate::task::CurrentTask;

/// How an argument is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Fd,
    Ptr,
    /// A NUL-terminated string, shown.
    Path,
    /// A buffer handed in, whose length is the next argument: its beginning is shown.
    Buf,
    Int,
    UInt,
    Hex,
    Oct,
    Size,
    Sig,
    OpenFlags,
    Prot,
    MapFlags,
}

/// Longest string shown, in bytes.
const SHOWN: usize = 64;

/// The call's name and arguments: `openat(AT_FDCWD, "/etc/passwd", O_RDONLY|O_CLOEXEC, 0)`.
pub fn format_call(task: &CurrentTask, call: &Syscall, raw: &[u64; 6]) -> String {
    let mut out = String::with_capacity(80);
    out.push_str(call.name);
    out.push('(');
    for (i, (_, kind)) in call.args.iter().enumerate().take(6) {
        if i > 0 {
            out.push_str(", ");
        }
        let next = raw.get(i + 1).copied().unwrap_or(0);
        format_arg(&mut out, task, *kind, raw[i], next);
    }
    out.push(')');
    out
}

/// The result as `strace` shows it: ` = 3`, ` = -1 ENOENT`.
pub fn format_result(result: &SyscallResult) -> String {
    match result {
        Ok(v) if *v > 0xffff => format!(" = {v:#x}"),
        Ok(v) => format!(" = {v}"),
        Err(SyscallError::Errno(e)) => format!(" = -1 {e}"),
        Err(SyscallError::Blocked(_)) => " ...".into(),
        Err(SyscallError::NoReturn) => " = ?".into(),
    }
}

fn format_arg(out: &mut String, task: &CurrentTask, kind: Kind, raw: u64, next: u64) {
    // Writing to a String cannot fail.
    let _ = match kind {
        Kind::Fd => write!(out, "{:?}", super::Fd(raw as i32)),
        Kind::Int => write!(out, "{}", raw as i32),
        Kind::UInt => write!(out, "{}", raw as u32),
        Kind::Size => write!(out, "{raw}"),
        Kind::Oct => write!(out, "{:#o}", raw as u32),
        Kind::Sig => write!(out, "{}", crate::signal::name(raw as i32)),
        Kind::Ptr | Kind::Hex if raw == 0 => write!(out, "0"),
        Kind::Ptr | Kind::Hex => write!(out, "{raw:#x}"),
        Kind::Path => match task.read_cstring(UserAddr(raw), 4096) {
            Ok(s) => write!(out, "{:?}", String::from_utf8_lossy(&s[..s.len().min(256)])),
            Err(Errno::EFAULT) => write!(out, "{raw:#x}"),
            Err(e) => write!(out, "{raw:#x} /* {e} */"),
        },
        Kind::Buf => {
            let mut bytes = vec![0; SHOWN.min(next as usize)];
            match task.read_bytes(UserAddr(raw), &mut bytes) {
                Ok(()) => {
                    let more = if next as usize > bytes.len() { "..." } else { "" };
                    write!(out, "{:?}{more}", String::from_utf8_lossy(&bytes))
                }
                Err(_) => write!(out, "{raw:#x}"),
            }
        }
        Kind::OpenFlags => flags(out, raw, OPEN_ACCESS[(raw & 3) as usize], OPEN_FLAGS),
        Kind::Prot => flags(out, raw, if raw == 0 { "PROT_NONE" } else { "" }, PROT_FLAGS),
        Kind::MapFlags => flags(out, raw, "", MAP_FLAGS),
    };
}

fn flags(out: &mut String, raw: u64, first: &str, names: &[(i32, &str)]) -> std::fmt::Result {
    let mut separator = "";
    if !first.is_empty() {
        out.push_str(first);
        separator = "|";
    }
    let mut rest = raw as u32;
    if std::ptr::eq(names, OPEN_FLAGS) {
        rest &= !3;
    }
    for (bits, name) in names {
        let bits = *bits as u32;
        if bits != 0 && rest & bits == bits {
            write!(out, "{separator}{name}")?;
            separator = "|";
            rest &= !bits;
        }
    }
    if rest != 0 {
        write!(out, "{separator}{rest:#x}")?;
    }
    Ok(())
}

const OPEN_ACCESS: [&str; 4] = ["O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"];
const OPEN_FLAGS: &[(i32, &str)] = &[
    (libc::O_CREAT, "O_CREAT"),
    (libc::O_EXCL, "O_EXCL"),
    (libc::O_NOCTTY, "O_NOCTTY"),
    (libc::O_TRUNC, "O_TRUNC"),
    (libc::O_APPEND, "O_APPEND"),
    (libc::O_NONBLOCK, "O_NONBLOCK"),
    (libc::O_SYNC, "O_SYNC"),
    (libc::O_DSYNC, "O_DSYNC"),
    (libc::O_TMPFILE, "O_TMPFILE"),
    (libc::O_DIRECTORY, "O_DIRECTORY"),
    (libc::O_NOFOLLOW, "O_NOFOLLOW"),
    (libc::O_CLOEXEC, "O_CLOEXEC"),
    (libc::O_PATH, "O_PATH"),
    (libc::O_DIRECT, "O_DIRECT"),
    (libc::O_NOATIME, "O_NOATIME"),
];
const PROT_FLAGS: &[(i32, &str)] =
    &[(libc::PROT_READ, "PROT_READ"), (libc::PROT_WRITE, "PROT_WRITE"), (libc::PROT_EXEC, "PROT_EXEC")];
const MAP_FLAGS: &[(i32, &str)] = &[
    (libc::MAP_SHARED_VALIDATE, "MAP_SHARED_VALIDATE"),
    (libc::MAP_SHARED, "MAP_SHARED"),
    (libc::MAP_PRIVATE, "MAP_PRIVATE"),
    (libc::MAP_FIXED_NOREPLACE, "MAP_FIXED_NOREPLACE"),
    (libc::MAP_FIXED, "MAP_FIXED"),
    (libc::MAP_ANONYMOUS, "MAP_ANONYMOUS"),
    (libc::MAP_GROWSDOWN, "MAP_GROWSDOWN"),
    (libc::MAP_NORESERVE, "MAP_NORESERVE"),
    (libc::MAP_POPULATE, "MAP_POPULATE"),
    (libc::MAP_STACK, "MAP_STACK"),
];
