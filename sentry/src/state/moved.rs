//! Files of a lower tree that an overlay has under another name.
//!
//! A restored overlay finds a lower file by its name. One that was moved, or has a further name, is stored with the path that it
//! has below. Nobody keeps that; but whatever lost its name left a trace in the directory that had it, so it is looked for there.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::fs::overlay;
use crate::vfs::{DeviceId, Inode};

/// Paths in the lower tree of files whose names have changed, by device and number.
#[derive(Debug, Default)]
pub(super) struct Origins(HashMap<(DeviceId, u64), Vec<u8>>);

impl Origins {
    /// Looks for them in the overlay with this root.
    pub(super) fn of(root: &Arc<Inode>) -> Origins {
        let mut origins = Origins::default();
        // Directories, and their paths below. Of one that was moved, that is known once its trace is found.
        let mut work: VecDeque<(Arc<Inode>, Vec<u8>)> = VecDeque::from([(root.clone(), Vec::new())]);
        let mut moved: Vec<Arc<Inode>> = Vec::new();
        loop {
            while let Some((dir, path)) = work.pop_front() {
                origins.look(&dir, Some(&path), &mut work, &mut moved);
            }
            let mut progress = false;
            for dir in std::mem::take(&mut moved) {
                if overlay::changes(&dir).is_none_or(|changes| changes.lower.is_none()) {
                    // A new one: only what is in it matters.
                    origins.look(&dir, None, &mut work, &mut moved);
                    progress = true;
                } else if let Some(path) = origins.find(&dir) {
                    work.push_back((dir, path));
                    progress = true;
                } else {
                    moved.push(dir);
                }
            }
            if !progress {
                return origins;
            }
        }
    }

    /// Where a file is in the lower tree.
    pub(super) fn find(&self, file: &Inode) -> Option<Vec<u8>> {
        let lower = overlay::changes(file)?.lower?;
        self.0.get(&(lower.sb.dev, lower.ino)).cloned()
    }

    fn look(
        &mut self,
        dir: &Arc<Inode>,
        path: Option<&[u8]>,
        work: &mut VecDeque<(Arc<Inode>, Vec<u8>)>,
        moved: &mut Vec<Arc<Inode>>,
    ) {
        let Some(changes) = overlay::changes(dir) else { return };
        for (name, child) in changes.entries {
            let child_changes = child.as_deref().and_then(overlay::changes);
            let untouched = child_changes.as_ref().is_some_and(|c| c.lower.is_some() && !c.renamed);
            let below = match (&changes.lower, path) {
                (Some(lower), Some(path)) => {
                    let at = [path, b"/", &*name].concat();
                    // What has never had another name is where it was, without a look.
                    if untouched {
                        Some((at, None))
                    } else {
                        lower.ops.lookup(lower, &name, None).ok().map(|found| (at, Some(found)))
                    }
                }
                _ => None,
            };
            let in_place = match (&below, child_changes.and_then(|c| c.lower)) {
                (Some((_, None)), _) => true,
                (Some((_, Some(found))), Some(lower)) => {
                    found.ino == lower.ino && found.sb.dev == lower.sb.dev
                }
                _ => false,
            };
            if let Some((at, Some(found))) = &below {
                self.0.insert((found.sb.dev, found.ino), at.clone());
            }
            match (child.filter(|child| child.is_dir()), below) {
                (Some(child), Some((at, _))) if in_place => work.push_back((child, at)),
                (Some(child), _) => moved.push(child),
                (None, _) => {}
            }
        }
    }
}
