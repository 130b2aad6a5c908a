//! `state`: a container's state as the OCI runtime spec has it.

use crate::cli::Global;
use crate::error::{Context, Result};
use crate::state::{Container, remove_if_stale};

pub fn run(global: &Global, id: &str) -> Result<u8> {
    let root = global.state_root();
    remove_if_stale(&root, id);
    let container = Container::open(&root, id)?;
    println!("{}", serde_json::to_string_pretty(&container.state.to_oci()).context("state")?);
    Ok(0)
}
