//! `restore`: `run`, from an image.

use crate::cli::{EntryArgs, Global, RestoreArgs, RunArgs};
use crate::error::Result;

pub fn run(global: &Global, args: RestoreArgs, started_ns: u64) -> Result<u8> {
    let RestoreArgs { create, image_path, detach, keep, stats, record_working_set: record, event, .. } = args;
    let entry = EntryArgs::default();
    super::run::run(
        global,
        RunArgs { create, detach, keep, image: Some(image_path), stats, record, entry, event },
        started_ns,
    )
}
