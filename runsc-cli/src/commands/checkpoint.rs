//! `checkpoint`: a running container becomes an image.
//!
//! The sandbox has no right to make files: it writes its state to a pipe, and the image is made here. It stands still until
//! the image is durable, and ends or goes on then; where this command dies, it goes on.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use quicksand_checkpoint::{Image, ImageSpec, ImageWriter, MAX_PARENTS, Versions};
use quicksand_sentry::state::records::VERSION;

use crate::cli::{CheckpointArgs, Compression, Global, Tcp};
use crate::control::{self, Request, Response, Target};
use crate::error::{Context, Error, Result};
use crate::fail;
use crate::image_stream;
use crate::launch::{features, page_size};
use crate::state::{Container, Status};

pub fn run(global: &Global, args: &CheckpointArgs) -> Result<u8> {
    let mut container = Container::open(&global.state_root(), &args.id)?;
    match container.state.status() {
        Status::Running | Status::Paused => {}
        status => fail!("container {:?} is {}, not running", args.id, status.name()),
    }
    let how = How { compression: args.compression, tcp: args.tcp, leave_running: args.leave_running };
    let connection = control::connect(&container.control_socket())?;
    let parent = (!args.full).then(|| parent(&args.image_path, &container)).flatten();
    take(&connection, &args.image_path, how, &container.state.id, &container.state.bundle, parent)?;
    if !args.leave_running {
        container.state.paused = false;
        container.save()?;
    }
    Ok(0)
}

/// How an image is taken.
#[derive(Clone, Copy, Debug)]
pub struct How {
    pub compression: Compression,
    pub tcp: Tcp,
    pub leave_running: bool,
}

/// Takes an image of the sandbox at the other end of a connection, and ends it or lets it go on. What the parent has is not stored.
pub fn take(
    connection: &UnixStream,
    path: &Path,
    how: How,
    id: &str,
    bundle: &Path,
    parent: Option<Arc<Image>>,
) -> Result<()> {
    let begun = Instant::now();
    let writer = create(path, how, id, bundle, parent)?;
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("a pipe")?;
    // A full megabyte at a time; a smaller pipe works as well.
    let _ = rustix::pipe::fcntl_setpipe_size(&write, 1 << 20);
    control::send(connection, &Request::Checkpoint { refuse_tcp: how.tcp == Tcp::Refuse }, &[write.as_fd()])?;
    drop(write);
    let received = image_stream::receive(read, writer);
    let (objects, pages, zero_pages) = match control::receive::<Response>(connection)? {
        Some((Response::Saved { objects, pages, zero_pages }, _)) => (objects, pages, zero_pages),
        // Where we stopped reading, the sandbox only knows that its pipe broke.
        Some((Response::Failed(message), _)) => match received {
            Err(ours) if message.contains("Broken pipe") => return Err(ours),
            _ => return Err(Error::new(message)),
        },
        Some((other, _)) => fail!("the sandbox answered {other:?}"),
        None => fail!("the sandbox has ended"),
    };
    let id = received?.finish().context("writing the image")?;
    let what = match how.leave_running {
        true => Request::Resume,
        false => Request::Signal { signal: libc::SIGKILL, target: Target::All },
    };
    control::send(connection, &what, &[])?;
    // It may have ended before it could answer.
    let answered = control::receive::<Response>(connection);
    if how.leave_running {
        match answered? {
            Some((response, _)) => response.done()?,
            None => fail!("the sandbox has ended"),
        }
    }
    tracing::info!(
        "checkpoint {}: {objects} objects, {pages} pages stored, {zero_pages} known, {:.1} ms",
        id.hex(),
        begun.elapsed().as_secs_f64() * 1e3
    );
    Ok(())
}

/// The image that the container was restored from, if the new one at `path` will find it: in the same directory.
fn parent(path: &Path, container: &Container) -> Option<Arc<Image>> {
    let parent = container.state.image.as_ref()?;
    let above = path.parent().filter(|above| *above != Path::new("")).unwrap_or(Path::new("."));
    if fs::canonicalize(above).ok()?.as_path() != parent.parent()? {
        return None;
    }
    // One that has gone, or was damaged, is no reason to fail: all pages are stored then. Nor is another that has its name now:
    // pages are compared.
    let image = Image::open(parent).inspect_err(|e| tracing::info!("no delta: {e}")).ok()?;
    (image.layers() as usize <= MAX_PARENTS).then(|| Arc::new(image))
}

fn create(path: &Path, how: How, id: &str, bundle: &Path, parent: Option<Arc<Image>>) -> Result<ImageWriter> {
    if let Some(above) = path.parent().filter(|above| *above != Path::new("")) {
        fs::create_dir_all(above).context(above.display())?;
    }
    // An empty directory stands for none: engines make one.
    let _ = fs::remove_dir(path);
    // The sandbox runs on this processor as well.
    let mut spec = ImageSpec {
        versions: Versions { records: VERSION, platform: 0 },
        page_size: page_size(),
        features: features(),
        encoding: super::image::encoding(how.compression),
        parent,
        ..ImageSpec::default()
    };
    spec.annotations.insert("dev.quicksand.container".into(), id.into());
    spec.annotations.insert("dev.quicksand.bundle".into(), bundle.display().to_string());
    let mut writer = ImageWriter::create(path, spec).context(format!("the image {}", path.display()))?;
    writer.on_progress(0, crate::progress::bar("checkpoint"));
    Ok(writer)
}
