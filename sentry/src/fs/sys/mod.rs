//! sysfs: the few files that runtimes read to learn about processors, memory and transparent huge pages. Nearly
//! everything is fixed when the file system is made; the directories that Linux always has are there, if empty.

use std::fmt::Write;
use std::sync::Arc;

use quicksand_abi::Errno;

use super::pseudo::{self, Perm, StaticDir, Text};
use crate::task::CurrentTask;
use crate::vfs::inode::NoStorage;
use crate::vfs::{Dentry, Superblock};

/// SYSFS_MAGIC.
const MAGIC: u64 = 0x6265_6572;

/// An attribute that never changes: its line, and sysfs's size of one page.
#[derive(Debug)]
struct Attribute(String);

impl Text for Attribute {
    fn text(&self, _: &CurrentTask) -> Result<Vec<u8>, Errno> {
        Ok(self.0.clone().into_bytes())
    }
    fn size(&self) -> u64 {
        4096
    }
}

/// `node0/meminfo`: memory as it is when somebody looks.
#[derive(Debug)]
struct NodeMemory;

impl Text for NodeMemory {
    fn text(&self, task: &CurrentTask) -> Result<Vec<u8>, Errno> {
        let memory = task.kernel().machine.memory();
        let lines = [
            ("MemTotal", memory.total),
            ("MemFree", memory.free),
            ("MemUsed", memory.total.saturating_sub(memory.free)),
            ("AnonPages", memory.used),
        ];
        let mut out = String::new();
        for (name, bytes) in lines {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "Node 0 {:<15} {:>8} kB", format!("{name}:"), bytes / 1024);
        }
        for name in ["HugePages_Total", "HugePages_Free", "HugePages_Surp"] {
            let _ = writeln!(out, "Node 0 {name}: {:>5}", 0);
        }
        Ok(out.into_bytes())
    }
    fn size(&self) -> u64 {
        4096
    }
}

struct Builder<'a> {
    sb: &'a Arc<Superblock>,
    dir: StaticDir,
}

impl<'a> Builder<'a> {
    fn new(sb: &'a Arc<Superblock>) -> Builder<'a> {
        Builder { sb, dir: StaticDir::new() }
    }
    fn attr(mut self, name: &str, line: impl Into<String>) -> Builder<'a> {
        let mut line = line.into();
        line.push('\n');
        let text = Arc::new(Attribute(line));
        self.dir.add(name, pseudo::file(self.sb, self.sb.next_ino(), Perm::root(0o444), text));
        self
    }
    fn made(mut self, name: &str, text: Arc<dyn Text>) -> Builder<'a> {
        self.dir.add(name, pseudo::file(self.sb, self.sb.next_ino(), Perm::root(0o444), text));
        self
    }
    fn dir(mut self, name: &str, build: impl FnOnce(Builder<'a>) -> Builder<'a>) -> Builder<'a> {
        let child = build(Builder::new(self.sb)).dir;
        self.dir.dir(self.sb, name, child);
        self
    }
    fn empty(self, names: &[&str]) -> Builder<'a> {
        names.iter().fold(self, |b, name| b.dir(name, |d| d))
    }
}

/// `0-3`, or `0` for one.
pub(crate) fn cpu_list(cpus: usize) -> String {
    if cpus <= 1 { "0".into() } else { format!("0-{}", cpus - 1) }
}

/// A mask in groups of 32 bits, as sysfs prints one: `ff`, `1,ffffffff`.
pub(crate) fn cpu_mask(cpus: usize) -> String {
    let mut out = String::new();
    for word in (0..cpus.max(1).div_ceil(32)).rev() {
        let bits = cpus.max(1) - word * 32;
        let mask = if bits >= 32 { u32::MAX } else { (1 << bits) - 1 };
        // Writing to a String cannot fail.
        let _ = if out.is_empty() { write!(out, "{mask:x}") } else { write!(out, ",{mask:08x}") };
    }
    out
}

/// A fresh sysfs for `cpus` processors; its root.
pub fn new(cpus: usize) -> Arc<Dentry> {
    let sb = Superblock::new("sysfs", MAGIC, Box::new(NoStorage));
    let root = Builder::new(&sb)
        .empty(&["block", "bus", "dev", "firmware", "hypervisor", "module", "power"])
        .dir("class", |d| d.empty(&["block", "mem", "misc", "net", "tty"]))
        .dir("devices", |d| d.dir("system", |d| system(d, cpus)).empty(&["virtual"]))
        .dir("fs", |d| d.empty(&["cgroup"]))
        .dir("kernel", |d| d.dir("mm", |d| d.dir("transparent_hugepage", huge_pages)))
        .dir;
    Dentry::new_root(root.into_inode(&sb), b"/")
}

fn system<'a>(d: Builder<'a>, cpus: usize) -> Builder<'a> {
    d.dir("cpu", |d| processors(d, cpus)).dir("node", |d| {
        let names = ["has_cpu", "has_memory", "has_normal_memory", "online", "possible"];
        names.iter().fold(d, |d, name| d.attr(name, "0")).dir("node0", |d| {
            d.attr("cpulist", cpu_list(cpus))
                .attr("cpumap", cpu_mask(cpus))
                .attr("distance", "10")
                .made("meminfo", Arc::new(NodeMemory))
                .attr(
                    "numastat",
                    "numa_hit 0\nnuma_miss 0\nnuma_foreign 0\ninterleave_hit 0\nlocal_node 0\nother_node 0",
                )
        })
    })
}

fn processors<'a>(d: Builder<'a>, cpus: usize) -> Builder<'a> {
    let all = cpu_list(cpus);
    let d = d
        .attr("online", all.clone())
        .attr("possible", all.clone())
        .attr("present", all.clone())
        .attr("offline", "")
        .attr("isolated", "")
        .attr("kernel_max", "8191");
    (0..cpus).fold(d, |d, n| {
        d.dir(&format!("cpu{n}"), |d| {
            let d = if n > 0 { d.attr("online", "1") } else { d };
            d.dir("topology", |d| {
                d.attr("core_cpus_list", n.to_string())
                    .attr("core_id", n.to_string())
                    .attr("core_siblings_list", all.clone())
                    .attr("die_id", "0")
                    .attr("package_cpus_list", all.clone())
                    .attr("physical_package_id", "0")
                    .attr("thread_siblings_list", n.to_string())
            })
        })
    })
}

fn huge_pages(d: Builder<'_>) -> Builder<'_> {
    // Guests get 4 KiB pages; what the host does behind them is its own affair.
    d.attr("enabled", "always madvise [never]")
        .attr("defrag", "always defer defer+madvise madvise [never]")
        .attr("shmem_enabled", "always within_size advise [never] deny force")
        .attr("hpage_pmd_size", "2097152")
        .attr("use_zero_page", "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_masks_read_as_sysfs_prints_them() {
        assert_eq!((cpu_list(1), cpu_list(4)), ("0".into(), "0-3".into()));
        assert_eq!((cpu_mask(1), cpu_mask(4), cpu_mask(33)), ("1".into(), "f".into(), "1,ffffffff".into()));
    }

    #[test]
    fn the_tree_is_complete() {
        assert!(new(2).inode.is_dir());
    }
}
