//! The emulated machine: QEMU without any acceleration, two processors with AMD's virtualisation, one disk, two serial
//! ports. The first port is the console, the second carries the results, line by line.
//!
//! Both processors are emulated by one thread. With a thread each, QEMU 7.2 on a busy host now and then shuts a nested
//! guest down (a triple fault), in programs too that only make system calls, or does not get out of it any more; that
//! has not been seen with one thread, which is as fast.

use super::cpio::Cpio;
use super::kernel::Kernel;
use crate::process;
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How often the results are looked at while the machine runs.
const POLL: Duration = Duration::from_millis(500);

/// The first program in the machine: loads the modules, finds the disk, and goes there.
fn init_script(kernel: &Kernel) -> String {
    let mut script = String::from("#!/bin/busybox sh\n/bin/busybox mount -t devtmpfs dev /dev\n");
    for module in &kernel.modules {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        script.push_str(&format!("/bin/busybox insmod /modules/{name} || echo \"MODULE FAILED: {name}\"\n"));
    }
    script.push_str(
        "/bin/busybox mount -t ext4 /dev/vda /root || { echo DISK FAILED; /bin/busybox poweroff -f; }\n\
         /bin/busybox mount --move /dev /root/dev\n\
         exec /bin/busybox switch_root /root /sbin/start\n",
    );
    script
}

/// Writes the initramfs: busybox, the modules, and the script above.
pub(super) fn initramfs(kernel: &Kernel, to: &Path) -> Result<()> {
    let mut cpio = Cpio::new(Vec::new());
    for dir in ["bin", "dev", "root", "modules"] {
        cpio.directory(dir)?;
    }
    cpio.character_device("dev/console", 5, 1)?;
    cpio.file("bin/busybox", &fs::read("/usr/bin/busybox").context("/usr/bin/busybox")?)?;
    for module in &kernel.modules {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        cpio.file(&format!("modules/{name}"), &fs::read(module)?)?;
    }
    cpio.file("init", init_script(kernel).as_bytes())?;
    fs::write(to, cpio.finish()?).with_context(|| to.display().to_string())
}

/// Makes an ext4 disk image from a folder.
pub(super) fn disk(folder: &Path, to: &Path) -> Result<()> {
    let size = process::text(Command::new("du").arg("-sm").arg(folder), Duration::from_secs(60))?;
    let used: u64 = size.split_whitespace().next().and_then(|size| size.parse().ok()).unwrap_or(512);
    let mut command = Command::new("/usr/sbin/mke2fs");
    command.args(["-q", "-t", "ext4", "-O", "^has_journal", "-E", "root_owner=0:0", "-F", "-d"]);
    command.arg(folder).arg(to).arg(format!("{}M", used * 5 / 4 + 512));
    process::text(&mut command, Duration::from_secs(300)).map(|_| ())
}

/// What to boot, and where what it says goes.
pub(super) struct Machine<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) initramfs: &'a Path,
    pub(super) disk: &'a Path,
    /// A folder for `console.log` and `results.jsonl`.
    pub(super) out: &'a Path,
    pub(super) limit: Duration,
}

impl Machine<'_> {
    pub(super) fn console(&self) -> PathBuf {
        self.out.join("console.log")
    }

    /// Runs the machine until it switches itself off; hands over each result line as it comes.
    pub(super) fn run(&self, mut each: impl FnMut(&str)) -> Result<()> {
        let results = self.out.join("results.jsonl");
        for file in [&results, &self.console()] {
            File::create(file).with_context(|| file.display().to_string())?;
        }
        let mut command = self.command(&results);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().context("cannot start qemu-system-x86_64")?;
        let _killed_when_dropped = process::Group::of(&child)?;
        let deadline = Instant::now() + self.limit;
        let mut lines = Lines::open(&results)?;
        loop {
            let ended = process::wait_for(&mut child, POLL)?;
            lines.read(&mut each)?;
            match ended {
                Some(status) if status.success() => return Ok(()),
                Some(status) => {
                    let mut words = String::new();
                    if let Some(mut stderr) = child.stderr.take() {
                        stderr.read_to_string(&mut words).context("qemu's stderr")?;
                    }
                    bail!("qemu: {}\n{}", process::describe_status(status), words.trim_end());
                }
                None if Instant::now() > deadline => {
                    bail!(
                        "the emulated machine was not done after {} s; it last said:\n{}",
                        self.limit.as_secs(),
                        tail(&self.console())
                    );
                }
                None => {}
            }
        }
    }

    fn command(&self, results: &Path) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-accel", "tcg,thread=single", "-cpu", "max,+svm,+npt", "-smp", "2", "-m", "4G"])
            .args(["-nodefaults", "-display", "none", "-no-reboot"])
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(self.initramfs)
            .args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off"])
            .arg("-drive")
            .arg(format!("file={},if=virtio,format=raw,snapshot=on", self.disk.display()))
            .arg("-serial")
            .arg(format!("file:{}", self.console().display()))
            .arg("-serial")
            .arg(format!("file:{}", results.display()));
        command
    }
}

/// The last lines of a file, for a message.
pub(super) fn tail(file: &Path) -> String {
    let text = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}

/// Whole lines of a file that grows.
struct Lines {
    file: File,
    partial: Vec<u8>,
}

impl Lines {
    fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path).with_context(|| path.display().to_string())?;
        file.seek(SeekFrom::Start(0))?;
        Ok(Self { file, partial: Vec::new() })
    }

    fn read(&mut self, each: &mut impl FnMut(&str)) -> Result<()> {
        self.file.read_to_end(&mut self.partial).context("the results")?;
        while let Some(end) = self.partial.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            each(String::from_utf8_lossy(&line).trim());
        }
        Ok(())
    }
}
