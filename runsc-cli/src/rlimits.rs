//! Resource limits by name.

/// Limit names in the order of their numbers on x86-64.
const NAMES: [&str; 16] = [
    "CPU",
    "FSIZE",
    "DATA",
    "STACK",
    "CORE",
    "RSS",
    "NPROC",
    "NOFILE",
    "MEMLOCK",
    "AS",
    "LOCKS",
    "SIGPENDING",
    "MSGQUEUE",
    "NICE",
    "RTPRIO",
    "RTTIME",
];

/// The number of `RLIMIT_NOFILE` and its like.
pub fn number(name: &str) -> Option<u32> {
    let plain = name.strip_prefix("RLIMIT_").unwrap_or(name);
    NAMES.iter().position(|n| *n == plain).and_then(|i| u32::try_from(i).ok())
}
