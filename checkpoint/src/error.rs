//! What can go wrong: one enum per kind of operation. A message names the image, the part and what to do.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::Digest;

/// The three versions of an image, which change independently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// How the directory, the index and the sections are laid out: this crate's.
    Format,
    /// What the records mean: the kernel's.
    Records,
    /// What the platform's own state means: the platform's.
    Platform,
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Axis::Format => "format",
            Axis::Records => "records",
            Axis::Platform => "platform state",
        })
    }
}

/// Why an image, or a part of one, cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    #[error("{image}: not a func-image: {reason}")]
    NotAnImage { image: Arc<str>, reason: String },

    #[error("{image}: cannot read {part}: {source}")]
    Io { image: Arc<str>, part: Arc<str>, source: io::Error },

    #[error(
        "{image}: {part} is damaged at offset {offset}: {problem}; use an intact copy or take the checkpoint again"
    )]
    Damaged { image: Arc<str>, part: Arc<str>, offset: u64, problem: String },

    #[error(
        "{image}: {axis} version {found}, but this build reads {supported}; take the checkpoint again with this build"
    )]
    Version { image: Arc<str>, axis: Axis, found: u32, supported: u32 },

    #[error(
        "{image}: written for machine {found} (ELF number), but this host is {host}; restore it on such a machine"
    )]
    Arch { image: Arc<str>, found: u32, host: u32 },

    #[error(
        "{image}: written for pages of {found} bytes, but this host's have {host}; restore it on such a host"
    )]
    PageSize { image: Arc<str>, found: u32, host: u32 },

    #[error(
        "{image}: this CPU lacks features that the image needs: {missing}; restore it on a CPU that has them"
    )]
    Features { image: Arc<str>, missing: String },

    #[error(
        "{image}: its parent image {name:?} ({id}) is neither beside it nor among the parents given; \
         put it there, or name its path"
    )]
    MissingParent { image: Arc<str>, name: String, id: Digest },

    #[error("{image}: there is no {part} in it; it was written by another build, or for another purpose")]
    NoSuchPart { image: Arc<str>, part: String },

    #[error("{image}: {part} has no record {id}")]
    NoSuchRecord { image: Arc<str>, part: Arc<str>, id: u64 },
}

/// Why an image could not be written. Nothing of it is visible then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    #[error("cannot write {what}: {source}")]
    Io { what: String, source: io::Error },

    #[error("{path}: already there; remove it first, or choose another name")]
    Exists { path: String },

    #[error("{path}: no name for an image: {reason}")]
    Name { path: String, reason: &'static str },

    #[error("the image was given {what}")]
    Invalid { what: String },

    #[error(
        "guest page {page:#x} of space {space} came after page {last_page:#x} of space {last_space}; \
         pages must be added in ascending order"
    )]
    Order { space: u64, page: u64, last_space: u64, last_page: u64 },

    #[error("the image would need the layers of {count} others, {max} at most; flatten its parent first")]
    TooManyParents { count: usize, max: usize },

    #[error("record {id} of kind {kind} cannot be archived: {problem}")]
    Record { kind: String, id: u64, problem: String },

    #[error(transparent)]
    Source(#[from] ImageError),
}

/// Why a store of images could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    #[error("{path}: {source}")]
    Io { path: String, source: io::Error },

    #[error("{name:?} is no name of an image: {reason}")]
    Name { name: String, reason: &'static str },

    #[error("there is no image {name:?} in {store}")]
    NotFound { name: String, store: String },

    #[error("{name:?} is no func-image; remove it by hand if it is not needed")]
    NotAnImage { name: String },

    #[error("image {name:?} holds pages of {child:?}; remove or flatten that one first, or force it")]
    InUse { name: String, child: String },
}

/// A part of an image, for messages: `section "task"`, `layer 0`, `index.json`.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) image: Arc<str>,
    pub(crate) part: Arc<str>,
}

impl Place {
    pub(crate) fn new(image: &Arc<str>, part: impl Into<Arc<str>>) -> Place {
        Place { image: image.clone(), part: part.into() }
    }

    pub(crate) fn io(&self, source: io::Error) -> ImageError {
        ImageError::Io { image: self.image.clone(), part: self.part.clone(), source }
    }

    pub(crate) fn damaged(&self, offset: u64, problem: impl Into<String>) -> ImageError {
        ImageError::Damaged {
            image: self.image.clone(),
            part: self.part.clone(),
            offset,
            problem: problem.into(),
        }
    }
}

impl WriteError {
    pub(crate) fn io<E: Into<io::Error>>(what: &str) -> impl FnOnce(E) -> WriteError + '_ {
        move |source| WriteError::Io { what: what.into(), source: source.into() }
    }
}
