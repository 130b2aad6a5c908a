//! Signals by name, and those that a waiting command passes on.

use quicksand_host::signal::SignalFd;

use crate::error::{Context, Error, Result};

/// Signals that `run` and `exec` pass on to the program they wait for.
const FORWARDED: [i32; 12] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGCONT,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGWINCH,
];

/// Takes the signals that are to be passed on.
pub fn take() -> Result<SignalFd> {
    SignalFd::new(&FORWARDED).context("signals")
}

/// Names by number, from 1 on.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// A signal's number from its name, with or without `SIG`, or from digits.
pub fn parse(text: &str) -> Result<i32> {
    let unknown = || Error::new(format!("{text:?} is no signal"));
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=64).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |base: i32, rest: &str, sign: i32| match rest {
        "" => Some(base),
        rest => rest[1..].parse::<i32>().ok().map(|n| base + sign * n),
    };
    let number = match name {
        "POLL" => Some(libc::SIGIO),
        "IOT" => Some(libc::SIGABRT),
        "CLD" => Some(libc::SIGCHLD),
        _ if name.starts_with("RTMIN") => real_time(34, &name[5..], 1),
        _ if name.starts_with("RTMAX") => real_time(64, &name[5..], -1),
        _ => NAMES.iter().position(|n| *n == name).and_then(|i| i32::try_from(i + 1).ok()),
    };
    number.filter(|n| (1..=64).contains(n)).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn signals_have_names_and_numbers() {
        assert_eq!(parse("TERM").unwrap(), 15);
        assert_eq!(parse("sigkill").unwrap(), 9);
        assert_eq!(parse("RTMIN+3").unwrap(), 37);
        assert_eq!(parse("9").unwrap(), 9);
        assert!(parse("65").is_err() && parse("NOPE").is_err() && parse("RTMIN+99").is_err());
    }
}
