//! `state`: a container's state as the OCI runtime spec has it.

use crate::cli::Global;
use crate::error::{Context, Result};
use crate::state;

pub fn run(global: &Global, id: &str) -> Result<u8> {
    let state = state::read(&global.state_root(), id)?;
    crate::say!("{}", serde_json::to_string_pretty(&state.to_oci()).context("state")?);
    Ok(0)
}
