//! `image`: looks after the images that `checkpoint` makes.

use std::path::Path;

use quicksand_checkpoint::{Encoding, FlattenOptions, Image, Store, Summary, flatten};

use crate::cli::{Compression, ImageCommand};
use crate::error::{Context, Result};
use crate::fail;
use crate::progress;

pub fn run(command: ImageCommand) -> Result<u8> {
    match command {
        ImageCommand::Ls { dir, quiet } => list(&dir, quiet),
        ImageCommand::Inspect { image } => {
            let summary = open(&image)?.inspect().context(image.display())?;
            crate::say!("{}", serde_json::to_string_pretty(&summary).context("inspect")?);
            Ok(())
        }
        ImageCommand::Verify { images } => images.iter().try_for_each(|image| verify(image)),
        ImageCommand::Flatten { image, new, compression } => {
            let options = FlattenOptions { encoding: encoding(compression) };
            let bar = progress::bar("flattening");
            let id = flatten(&open(&image)?, &new, options, Some(bar)).context(new.display())?;
            crate::say!("{}", id.hex());
            Ok(())
        }
        ImageCommand::Rm { images, force } => images.iter().try_for_each(|image| remove(image, force)),
    }
    .map(|()| 0)
}

/// How a layer is written.
pub fn encoding(compression: Compression) -> Encoding {
    match compression {
        Compression::None => Encoding::Raw,
        Compression::Zstd => Encoding::Zstd,
    }
}

fn open(path: &Path) -> Result<Image> {
    Image::open(path).context(format!("the image {}", path.display()))
}

fn list(dir: &Path, quiet: bool) -> Result<()> {
    let entries = Store::open(dir).and_then(|store| store.list()).context(dir.display())?;
    let width = entries.iter().map(|entry| entry.name.len()).max().unwrap_or(0).max(5);
    if !quiet {
        crate::say!("{:width$}  {:12}  {:>10}  {:>10}  PARENTS", "IMAGE", "ID", "PAGES", "ON DISK");
    }
    for entry in entries {
        let name = &entry.name;
        if quiet {
            crate::say!("{name}");
            continue;
        }
        match entry.image.and_then(|image| image.inspect()) {
            Ok(summary) => crate::say!("{name:width$}  {}", line(&summary)),
            Err(error) => crate::say!("{name:width$}  {error}"),
        }
    }
    Ok(())
}

fn line(summary: &Summary) -> String {
    let id: String = summary.id.hex().chars().take(12).collect();
    let parents = summary.layers.len().saturating_sub(1);
    format!(
        "{id}  {:>10}  {:>10}  {parents}",
        mib(summary.pages.total * u64::from(summary.page_size)),
        mib(summary.disk_bytes)
    )
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn verify(image: &Path) -> Result<()> {
    let found = open(image)?.verify(Some(progress::bar("verifying"))).context(image.display())?;
    crate::say!(
        "{}: intact: {} sections, {} records, {} pages, {}",
        image.display(),
        found.sections,
        found.records,
        found.pages,
        mib(found.bytes)
    );
    Ok(())
}

fn remove(image: &Path, force: bool) -> Result<()> {
    let Some(name) = image.file_name().and_then(|name| name.to_str()) else {
        fail!("{}: no image's name", image.display());
    };
    let above = image.parent().filter(|above| *above != Path::new("")).unwrap_or(Path::new("."));
    Store::open(above).and_then(|store| store.remove(name, force)).context("image rm")
}
