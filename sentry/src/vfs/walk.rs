//! Path walks (`path_resolution(7)`): from a text to a place.
//!
//! A [`Walker`] holds the place reached so far and the text still to be walked: the path, and on top of it the bodies of
//! the symbolic links met. It can stop before the last component ([`Walker::parent`]) and be told to go on from a
//! symbolic link found there ([`Walker::follow`]), which is what `open(O_CREAT)` needs. Nothing is recursive.

use std::borrow::Cow;
use std::sync::Arc;

use quicksand_abi::Errno;

use super::inode::{FileKind, FileName, LinkTarget};
use super::mount::{MountFlags, Path};
use super::perm::{self, Access};
use crate::syscalls::Fd;
use crate::task::{Credentials, CurrentTask};

/// Longest path, without its NUL.
pub const PATH_MAX: usize = 4095;
/// Longest name.
pub const NAME_MAX: usize = 255;
/// Symbolic links followed in one walk, at most.
const MAX_LINKS: u32 = 40;

bitflags::bitflags! {
    /// How to walk.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct WalkFlags: u32 {
        /// A symbolic link as the last component is followed.
        const FOLLOW = 1;
        /// An empty path means the directory descriptor itself (AT_EMPTY_PATH).
        const EMPTY = 2;
        /// The result must be a directory.
        const DIRECTORY = 4;
        /// RESOLVE_NO_XDEV: never to another mount.
        const NO_XDEV = 0x10;
        /// RESOLVE_NO_MAGICLINKS.
        const NO_MAGICLINKS = 0x20;
        /// RESOLVE_NO_SYMLINKS.
        const NO_SYMLINKS = 0x40;
        /// RESOLVE_BENEATH: never above the starting directory.
        const BENEATH = 0x80;
        /// RESOLVE_IN_ROOT: the starting directory is the root.
        const IN_ROOT = 0x100;
    }
}

/// One name, by value: a component is looked at while the text it came from changes.
#[derive(Clone, Copy)]
pub struct NameBuf {
    bytes: [u8; NAME_MAX],
    len: u8,
}

impl NameBuf {
    fn new(name: &[u8]) -> Option<NameBuf> {
        let mut buf = NameBuf { bytes: [0; NAME_MAX], len: u8::try_from(name.len()).ok()? };
        buf.bytes[..name.len()].copy_from_slice(name);
        Some(buf)
    }
}
impl std::ops::Deref for NameBuf {
    type Target = FileName;
    fn deref(&self) -> &FileName {
        &self.bytes[..usize::from(self.len)]
    }
}
impl std::fmt::Debug for NameBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self))
    }
}

/// The last component of a path, as [`Walker::parent`] found it.
// Names stay on the stack: a walk allocates nothing but the bodies of links.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Copy, Debug)]
pub enum Last {
    /// An ordinary name; `trailing_slash` says that it must be, or become, a directory.
    Name {
        name: NameBuf,
        trailing_slash: bool,
    },
    Dot,
    DotDot,
    /// Longer than a name can be: ENAMETOOLONG, once it is looked up.
    TooLong,
    /// There is none: the path was `/`, or empty, or a magic link was followed.
    Root,
}

impl Last {
    /// The name, and whether a slash follows it; `otherwise` where it is no ordinary one.
    pub fn name(&self, otherwise: Errno) -> Result<(NameBuf, bool), Errno> {
        match self {
            Last::Name { name, trailing_slash } => Ok((*name, *trailing_slash)),
            Last::TooLong => Err(Errno::ENAMETOOLONG),
            Last::Dot | Last::DotDot | Last::Root => Err(otherwise),
        }
    }
}

/// A walk under way.
#[derive(Debug)]
pub struct Walker<'a> {
    task: Option<&'a CurrentTask>,
    creds: Arc<Credentials>,
    root: Path,
    /// The place reached.
    pub at: Path,
    flags: WalkFlags,
    /// Text to be walked, the innermost link's last.
    pending: Vec<(Cow<'a, [u8]>, usize)>,
    links: u32,
    must_be_dir: bool,
    /// `at` is where a magic link led, and nothing was walked since.
    jumped: bool,
}

impl<'a> Walker<'a> {
    /// A walk on behalf of a task, from its working directory or `dirfd`.
    pub fn new(
        task: &'a CurrentTask,
        dirfd: Fd,
        path: &'a [u8],
        flags: WalkFlags,
    ) -> Result<Walker<'a>, Errno> {
        Walker::with_creds(task, task.creds(), dirfd, path, flags)
    }

    /// As [`Walker::new`], with other credentials (`access(2)` uses the real ids).
    pub fn with_creds(
        task: &'a CurrentTask,
        creds: Arc<Credentials>,
        dirfd: Fd,
        path: &'a [u8],
        flags: WalkFlags,
    ) -> Result<Walker<'a>, Errno> {
        if path.is_empty() && !flags.contains(WalkFlags::EMPTY) {
            return Err(Errno::ENOENT);
        }
        let fs = task.fs();
        let scoped = flags.intersects(WalkFlags::BENEATH | WalkFlags::IN_ROOT);
        let absolute = path.first() == Some(&b'/');
        if absolute && flags.contains(WalkFlags::BENEATH) {
            return Err(Errno::EXDEV);
        }
        let root = fs.root();
        let start = if absolute && !scoped {
            root.clone()
        } else if dirfd == Fd::CWD {
            fs.cwd()
        } else {
            let file = task.file_or_path(dirfd)?;
            if !path.is_empty() && !file.inode.is_dir() {
                return Err(Errno::ENOTDIR);
            }
            file.path.clone()
        };
        let root = if scoped { start.clone() } else { root };
        Ok(Walker::at(Some(task), creds, root, start, path, flags))
    }

    /// A walk of the kernel's own (`task` is `None`) or within a given root.
    pub fn at(
        task: Option<&'a CurrentTask>,
        creds: Arc<Credentials>,
        root: Path,
        start: Path,
        path: &'a [u8],
        flags: WalkFlags,
    ) -> Walker<'a> {
        let at = if path.first() == Some(&b'/') { root.clone() } else { start };
        let pending = vec![(Cow::Borrowed(path), 0)];
        let must_be_dir = flags.contains(WalkFlags::DIRECTORY);
        Walker { task, creds, root, at, flags, pending, links: 0, must_be_dir, jumped: false }
    }

    pub fn creds(&self) -> &Arc<Credentials> {
        &self.creds
    }

    /// The next component; whether anything but slashes comes after it; whether a slash comes after it. `None` at the end.
    fn next(&mut self) -> Result<Option<(NextName, bool, bool)>, Errno> {
        loop {
            let Some((text, pos)) = self.pending.last_mut() else { return Ok(None) };
            let rest = text.get(*pos..).unwrap_or_default();
            let Some(skip) = rest.iter().position(|b| *b != b'/') else {
                self.pending.pop();
                continue;
            };
            let rest = &rest[skip..];
            let len = rest.iter().position(|b| *b == b'/').unwrap_or(rest.len());
            let name = match &rest[..len] {
                b"." => NextName::Dot,
                b".." => NextName::DotDot,
                name => NameBuf::new(name).map_or(NextName::TooLong, NextName::Name),
            };
            *pos += skip + len;
            let left = || self.pending.iter().map(|(text, pos)| text.get(*pos..).unwrap_or_default());
            let last = left().all(|text| text.iter().all(|b| *b == b'/'));
            let slash = left().any(|text| !text.is_empty());
            return Ok(Some((name, last, slash)));
        }
    }

    /// `at` must be a directory that may be searched.
    fn may_search(&self) -> Result<(), Errno> {
        if !self.at.dentry.inode.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        perm::check(&self.creds, &self.at.dentry.inode, Access::EXEC)
    }

    /// Walks to the directory that holds the last component, which becomes `at`.
    pub fn parent(&mut self) -> Result<Last, Errno> {
        while let Some((name, last, slash)) = self.next()? {
            self.may_search()?;
            self.jumped = false;
            match name {
                NextName::TooLong if last => return Ok(Last::TooLong),
                NextName::TooLong => return Err(Errno::ENAMETOOLONG),
                NextName::Dot if last => return Ok(Last::Dot),
                NextName::DotDot if last => return Ok(Last::DotDot),
                NextName::Name(name) if last => return Ok(Last::Name { name, trailing_slash: slash }),
                NextName::Dot => {}
                NextName::DotDot => self.dot_dot()?,
                NextName::Name(name) => {
                    let next = self.child(&name)?;
                    match next.dentry.inode.kind {
                        FileKind::Directory => self.at = next,
                        FileKind::Symlink => self.follow(&next)?,
                        _ => return Err(Errno::ENOTDIR),
                    }
                }
            }
        }
        Ok(Last::Root)
    }

    /// Walks to the end.
    pub fn finish(mut self) -> Result<Path, Errno> {
        loop {
            match self.parent()? {
                Last::Root | Last::Dot => break,
                Last::TooLong => return Err(Errno::ENAMETOOLONG),
                Last::DotDot => {
                    self.dot_dot()?;
                    break;
                }
                Last::Name { name, trailing_slash } => {
                    self.must_be_dir |= trailing_slash;
                    let next = self.child(&name)?;
                    let follow = trailing_slash || self.flags.contains(WalkFlags::FOLLOW);
                    if follow && next.dentry.inode.kind == FileKind::Symlink {
                        self.follow(&next)?;
                        continue;
                    }
                    self.at = next;
                    break;
                }
            }
        }
        if self.must_be_dir && !self.at.dentry.inode.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        Ok(self.at)
    }

    /// The child `name` of `at`, with whatever is mounted on it.
    pub fn child(&self, name: &FileName) -> Result<Path, Errno> {
        let dentry = self.at.dentry.lookup(name, self.task)?;
        self.enter(dentry)
    }

    /// A child of `at` already looked up, with whatever is mounted on it.
    pub fn enter(&self, dentry: Arc<super::Dentry>) -> Result<Path, Errno> {
        let next = Path::new(self.at.mount.clone(), dentry).cross_mounts();
        self.same_mount(&next)?;
        Ok(next)
    }

    fn same_mount(&self, next: &Path) -> Result<(), Errno> {
        if self.flags.contains(WalkFlags::NO_XDEV) && !Arc::ptr_eq(&next.mount, &self.at.mount) {
            return Err(Errno::EXDEV);
        }
        Ok(())
    }

    /// `..`.
    pub fn dot_dot(&mut self) -> Result<(), Errno> {
        match self.at.up(&self.root) {
            Some(parent) => {
                let parent = parent.cross_mounts();
                self.same_mount(&parent)?;
                self.at = parent;
                Ok(())
            }
            None if self.flags.contains(WalkFlags::BENEATH) => Err(Errno::EXDEV),
            None => Ok(()),
        }
    }

    /// Goes on along the symbolic link `link`, found in `at`.
    pub fn follow(&mut self, link: &Path) -> Result<(), Errno> {
        self.links += 1;
        if self.links > MAX_LINKS || self.flags.contains(WalkFlags::NO_SYMLINKS) {
            return Err(Errno::ELOOP);
        }
        if link.mount.flags().contains(MountFlags::NOSYMFOLLOW) {
            return Err(Errno::ELOOP);
        }
        let inode = &link.dentry.inode;
        touch_atime(link);
        match inode.ops.read_link(inode, self.task)? {
            LinkTarget::Jump(path) => {
                if self.flags.contains(WalkFlags::NO_MAGICLINKS) {
                    return Err(Errno::ELOOP);
                }
                if self.flags.intersects(WalkFlags::BENEATH | WalkFlags::IN_ROOT) {
                    return Err(Errno::EXDEV);
                }
                self.same_mount(&path)?;
                self.at = path;
                self.jumped = true;
            }
            LinkTarget::Path(text) => {
                if text.is_empty() {
                    return Err(Errno::ENOENT);
                }
                if text[0] == b'/' {
                    if self.flags.contains(WalkFlags::BENEATH) {
                        return Err(Errno::EXDEV);
                    }
                    self.same_mount(&self.root)?;
                    self.at = self.root.clone();
                }
                self.pending.push((Cow::Owned(text), 0));
            }
        }
        Ok(())
    }

    /// Whether the place reached is where a magic link led: it may be of any kind.
    pub fn jumped(&self) -> bool {
        self.jumped
    }

    /// What follows must lead to a directory (a trailing slash was seen).
    pub fn require_dir(&mut self) {
        self.must_be_dir = true;
    }
    pub fn must_be_dir(&self) -> bool {
        self.must_be_dir
    }
}

// As `Last`.
#[allow(clippy::large_enum_variant)]
enum NextName {
    Dot,
    DotDot,
    Name(NameBuf),
    TooLong,
}

/// The place that `path` leads to.
pub fn lookup(task: &CurrentTask, dirfd: Fd, path: &[u8], flags: WalkFlags) -> Result<Path, Errno> {
    Walker::new(task, dirfd, path, flags)?.finish()
}

/// The directory that holds the last component of `path`, and that component.
pub fn lookup_parent(task: &CurrentTask, dirfd: Fd, path: &[u8]) -> Result<(Path, Last), Errno> {
    let mut walker = Walker::new(task, dirfd, path, WalkFlags::empty())?;
    let last = walker.parent()?;
    Ok((walker.at, last))
}

/// A walk of the kernel's own, with every right, within `root` (boot, mounts of a container).
pub fn lookup_in(root: &Path, path: &[u8], flags: WalkFlags) -> Result<Path, Errno> {
    let creds = Arc::new(Credentials::root(crate::task::credentials::Caps::all()));
    Walker::at(None, creds, root.clone(), root.clone(), path, flags).finish()
}

/// Tells the file system that the file was read, where the mount keeps access times.
pub fn touch_atime(path: &Path) {
    let flags = path.mount.flags();
    let inode = &path.dentry.inode;
    if flags.intersects(MountFlags::NOATIME | MountFlags::RDONLY)
        || (flags.contains(MountFlags::NODIRATIME) && inode.is_dir())
    {
        return;
    }
    inode.ops.touch_atime(inode, super::now(), !flags.contains(MountFlags::STRICTATIME));
}
