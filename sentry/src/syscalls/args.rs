//! System call arguments: from a raw register to a typed value. Conversions truncate exactly as Linux's do (an `int` is
//! the low 32 bits).

use std::fmt;

use quicksand_abi::UserAddr;

/// A descriptor number as the guest gave it: it may be negative or not open.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fd(pub i32);

impl Fd {
    /// `AT_FDCWD`.
    pub const CWD: Fd = Fd(-100);
}

impl fmt::Debug for Fd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Fd::CWD { f.write_str("AT_FDCWD") } else { write!(f, "{}", self.0) }
    }
}

/// A type that a raw argument register can be read as.
pub trait FromArg {
    fn from_arg(raw: u64) -> Self;
}

macro_rules! from_arg {
    ($($t:ty),*) => {
        $(impl FromArg for $t {
            fn from_arg(raw: u64) -> $t { raw as $t }
        })*
    };
}
from_arg!(u64, i64, u32, i32, u16, usize);

impl FromArg for UserAddr {
    fn from_arg(raw: u64) -> UserAddr {
        UserAddr(raw)
    }
}
impl FromArg for Fd {
    fn from_arg(raw: u64) -> Fd {
        Fd(raw as i32)
    }
}
