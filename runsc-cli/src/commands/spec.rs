//! `spec`: a config.json to start from.

use std::io::Write;

use crate::cli::SpecArgs;
use crate::error::{Context, Error, Result};
use crate::spec::template;

pub fn run(args: SpecArgs) -> Result<u8> {
    let path = args.bundle.join("config.json");
    let text = serde_json::to_string_pretty(&template(args.command, true)).context("config.json")?;
    let mut file = std::fs::File::create_new(&path).map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => Error::new(format!("{} exists already", path.display())),
        _ => Error::new(format!("writing {}: {e}", path.display())),
    })?;
    writeln!(file, "{text}").context(format!("writing {}", path.display()))?;
    Ok(0)
}
