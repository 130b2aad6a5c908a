//! `/proc/net` (`/proc/self/net`): what the network stack tells about itself.

use std::sync::Arc;

use crate::fs::pseudo::StaticDir;
use crate::vfs::Superblock;

pub(super) fn dir(sb: &Arc<Superblock>) -> StaticDir {
    let mut dir = StaticDir::new();
    for (name, text) in crate::net::proc_texts() {
        dir.made(sb, name, *text);
    }
    dir
}
