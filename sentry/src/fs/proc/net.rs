//! `/proc/net` (`/proc/self/net`): what the network stack tells about itself.

use std::sync::Arc;

use crate::fs::pseudo::StaticDir;
use crate::vfs::Superblock;

/// Tables without entries, as a network with nothing but a loopback shows them.
const TEXTS: &[(&str, &str)] = &[];

pub(super) fn dir(sb: &Arc<Superblock>) -> StaticDir {
    let mut dir = StaticDir::new();
    for (name, text) in TEXTS {
        dir.file(sb, name, 0o444, *text);
    }
    dir
}
