//! A directory of images: what `image ls` and `image rm` do.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::dir::{clean, names, open_dir, open_subdir, remove_at_once};
use crate::index::check_name;
use crate::oci;
use crate::part::{Part, read_manifest};
use crate::{Digest, Image, ImageError, StoreError};

/// A directory whose subdirectories are images.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    dir: OwnedFd,
}

/// A subdirectory that says it is an image.
#[derive(Debug)]
pub struct Entry {
    pub name: String,
    pub path: PathBuf,
    /// The image, or why it cannot be opened.
    pub image: Result<Image, ImageError>,
}

impl Store {
    /// Opens the store at `path`, a directory.
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        let dir =
            open_dir(path).map_err(|source| StoreError::Io { path: path.display().to_string(), source })?;
        Ok(Store { path: path.into(), dir })
    }

    fn io(&self, source: io::Error) -> StoreError {
        StoreError::Io { path: self.path.display().to_string(), source }
    }

    /// Where the image `name` is or would be.
    pub fn path_of(&self, name: &str) -> Result<PathBuf, StoreError> {
        check_name(name).map_err(|reason| StoreError::Name { name: name.into(), reason })?;
        Ok(self.path.join(name))
    }

    /// All images, by name. What dead writers left is removed; directories that are no images are passed over.
    pub fn list(&self) -> Result<Vec<Entry>, StoreError> {
        clean(&self.dir).map_err(|error| self.io(error))?;
        let mut entries = Vec::new();
        for name in names(&self.dir).map_err(|error| self.io(error))? {
            if check_name(&name).is_err() || open_subdir(&self.dir, &name).is_err() {
                continue;
            }
            let path = self.path.join(&name);
            match Image::open(&path) {
                Err(ImageError::NotAnImage { .. }) if !self.lacks_index(&name) => {}
                image => entries.push(Entry { name, path, image }),
            }
        }
        Ok(entries)
    }

    /// Whether it is an image layout that has lost its `index.json`: that is worth a word.
    fn lacks_index(&self, name: &str) -> bool {
        open_subdir(&self.dir, name)
            .is_ok_and(|dir| has(&dir, oci::LAYOUT_FILE) && !has(&dir, oci::INDEX_FILE))
    }

    /// The name of the image with this id.
    pub fn find(&self, id: Digest) -> Result<Option<String>, StoreError> {
        let names = names(&self.dir).map_err(|error| self.io(error))?;
        Ok(names.into_iter().find(|name| self.id(name) == Some(id)))
    }

    /// The id of an image, with nothing but its manifest read.
    fn id(&self, name: &str) -> Option<Digest> {
        check_name(name).ok()?;
        let dir = open_subdir(&self.dir, name).ok()?;
        let (manifest, _) = read_manifest(&dir, &name.into()).ok()?;
        Some(manifest.layer(oci::EAGER_INDEX)?.digest)
    }

    /// Removes an image, however damaged. One whose pages another image in the store needs stays, unless `force`.
    /// Instances that run go on: they hold its files.
    pub fn remove(&self, name: &str, force: bool) -> Result<(), StoreError> {
        check_name(name).map_err(|reason| StoreError::Name { name: name.into(), reason })?;
        clean(&self.dir).map_err(|error| self.io(error))?;
        let not_found =
            |_| StoreError::NotFound { name: name.into(), store: self.path.display().to_string() };
        let dir = open_subdir(&self.dir, name).map_err(not_found)?;
        // Nothing but images is removed, whatever is called so.
        if !has(&dir, oci::LAYOUT_FILE) && !has(&dir, oci::INDEX_FILE) {
            return Err(StoreError::NotAnImage { name: name.into() });
        }
        if let Some(id) = self.id(name).filter(|_| !force) {
            for child in names(&self.dir).map_err(|error| self.io(error))? {
                // A copy of the image may stand in for it.
                if child != name && self.needs(&child, id) && self.copies(id)? < 2 {
                    return Err(StoreError::InUse { name: name.into(), child });
                }
            }
        }
        remove_at_once(&self.dir, name).map_err(|error| self.io(error))
    }

    /// Whether the image `child` uses the layer of the one with this id.
    fn needs(&self, child: &str, id: Digest) -> bool {
        let part = check_name(child).ok().and_then(|()| open_subdir(&self.dir, child).ok());
        let part = part.and_then(|dir| Part::open(dir, child.into()).ok());
        part.is_some_and(|part| part.index.parents.iter().any(|parent| parent.id == id))
    }

    fn copies(&self, id: Digest) -> Result<usize, StoreError> {
        let names = names(&self.dir).map_err(|error| self.io(error))?;
        Ok(names.iter().filter(|name| self.id(name) == Some(id)).count())
    }
}

fn has(dir: &OwnedFd, file: &str) -> bool {
    rustix::fs::statat(dir, file, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_ok()
}
