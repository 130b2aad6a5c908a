//! The machine as guests see it: processors and memory. Taken from the host and the container's limits when the kernel is
//! made; what costs a host call is asked for when a guest asks.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

/// Processors and memory of a sandbox.
#[derive(Debug)]
pub struct Machine {
    /// The container's memory limit, where it has one.
    memory_limit: Option<u64>,
    /// The host's descriptions, opened while its proc is in sight and read when a guest asks.
    host_cpuinfo: Option<File>,
    host_meminfo: Option<File>,
    cpuinfo: OnceLock<Vec<u8>>,
}

/// Memory in bytes, for `sysinfo(2)` and `/proc/meminfo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub total: u64,
    pub free: u64,
    pub available: u64,
    pub used: u64,
}

impl Machine {
    /// `memory_limit` from the container's limits; `None` for all that the host has.
    pub fn new(memory_limit: Option<u64>) -> Machine {
        Machine {
            memory_limit,
            host_cpuinfo: File::open("/proc/cpuinfo").ok(),
            host_meminfo: File::open("/proc/meminfo").ok(),
            cpuinfo: OnceLock::new(),
        }
    }

    /// How many processors guests see, numbered from 0.
    pub fn cpus(&self) -> usize {
        crate::task::sched::cpu_count() as usize
    }

    /// Memory now: the host's, cut to the limit.
    pub fn memory(&self) -> Memory {
        let text = read_all(self.host_meminfo.as_ref());
        let field = |name: &str| -> Option<u64> {
            let line = text.lines().find(|l| l.starts_with(name) && l[name.len()..].starts_with(':'))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(1024)
        };
        let (total, free, available) = match (field("MemTotal"), field("MemFree"), field("MemAvailable")) {
            (Some(total), Some(free), Some(available)) => (total, free, available),
            // Without proc: what the system call knows.
            _ => {
                let info = rustix::system::sysinfo();
                let unit = u64::from(info.mem_unit.max(1));
                let bytes = |n: u64| n.saturating_mul(unit);
                (bytes(info.totalram as u64), bytes(info.freeram as u64), bytes(info.freeram as u64))
            }
        };
        let used = total.saturating_sub(available);
        match self.memory_limit {
            Some(limit) if limit < total => {
                let left = limit.saturating_sub(used.min(limit)).max(available.min(limit) / 2);
                Memory { total: limit, free: left, available: left, used: limit - left }
            }
            _ => Memory { total, free, available, used },
        }
    }

    /// `/proc/cpuinfo`: the host's description of its first processors, since CPUID is the host's too.
    pub fn cpuinfo(&self) -> &[u8] {
        self.cpuinfo
            .get_or_init(|| cut_cpuinfo(&read_all(self.host_cpuinfo.as_ref()), self.cpus()).into_bytes())
    }
}

/// A proc file from its beginning; empty where it cannot be read.
fn read_all(file: Option<&File>) -> String {
    let mut out = Vec::new();
    let mut piece = [0; 16384];
    while let Some(Ok(n)) = file.map(|f| f.read_at(&mut piece, out.len() as u64)) {
        if n == 0 {
            break;
        }
        out.extend_from_slice(&piece[..n]);
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn cut_cpuinfo(host: &str, cpus: usize) -> String {
    let mut out = String::new();
    for block in host.split("\n\n").filter(|b| b.starts_with("processor")).take(cpus) {
        out.push_str(block);
        out.push_str("\n\n");
    }
    if out.is_empty() {
        for n in 0..cpus {
            out.push_str(&format!("processor\t: {n}\nvendor_id\t: unknown\nmodel name\t: unknown\n\n"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpuinfo_has_one_block_a_processor() {
        let host = "processor\t: 0\nflags\t: a\n\nprocessor\t: 1\nflags\t: a\n\n";
        assert_eq!(cut_cpuinfo(host, 1), "processor\t: 0\nflags\t: a\n\n");
        assert_eq!(cut_cpuinfo("", 2).matches("processor").count(), 2);
    }

    #[test]
    fn memory_is_cut_to_the_limit() {
        let machine = Machine::new(Some(64 << 20));
        let memory = machine.memory();
        assert_eq!(memory.total, 64 << 20);
        assert!(memory.available <= memory.total && memory.used <= memory.total);
    }
}
