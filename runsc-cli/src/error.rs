//! Errors of the command line: one clear message each.

use std::fmt;

/// What went wrong, for a person to read. Printed once, by `main`.
#[derive(Debug)]
pub struct Error(String);

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A message that quotes what somebody else wrote may be of any length: its middle goes.
    pub fn new(message: impl Into<String>) -> Error {
        const MOST: usize = 2000;
        let mut message = message.into();
        if message.len() > MOST {
            let head = message.floor_char_boundary(MOST / 2);
            let tail = message.ceil_char_boundary(message.len() - MOST / 2);
            message.replace_range(head..tail, " [...] ");
        }
        Error(message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Says what was being done when something failed.
pub trait Context<T> {
    fn context(self, doing: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, doing: impl fmt::Display) -> Result<T> {
        self.map_err(|e| Error::new(format!("{doing}: {e}")))
    }
}

/// Ends the function with an [`Error`] made by `format!`.
#[macro_export]
macro_rules! fail {
    ($($arg:tt)*) => {
        return Err($crate::error::Error::new(format!($($arg)*)))
    };
}

/// Prints a line; ends the function with an error where nobody takes it.
#[macro_export]
macro_rules! say {
    ($($arg:tt)*) => {
        $crate::error::print_line(format_args!($($arg)*))?
    };
}

/// Writes a line to standard output.
pub fn print_line(line: fmt::Arguments<'_>) -> Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("standard output")
}

/// Writes a line to standard error, where somebody may or may not read it.
pub fn complain(line: fmt::Arguments<'_>) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
