//! The JSON documents that make an image a valid OCI image layout: `oci-layout`, `index.json`, the manifest and the
//! config. Only what this crate needs is read from them; what it does not know is ignored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Digest;

pub(crate) const LAYOUT_FILE: &str = "oci-layout";
pub(crate) const INDEX_FILE: &str = "index.json";
pub(crate) const BLOBS: &str = "blobs/blake3";
pub(crate) const LAYOUT: &str = "{\"imageLayoutVersion\":\"1.0.0\"}";

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const ARTIFACT: &str = "application/vnd.quicksand.func-image.v1";
pub(crate) const CONFIG: &str = "application/vnd.quicksand.func-image.config.v1+json";
pub(crate) const EAGER_INDEX: &str = "application/vnd.quicksand.func-image.index.v1";
pub(crate) const SECTIONS: &str = "application/vnd.quicksand.func-image.sections.v1";
pub(crate) const LAYER_RAW: &str = "application/vnd.quicksand.func-image.pages.v1";
pub(crate) const LAYER_ZSTD: &str = "application/vnd.quicksand.func-image.pages.v1+zstd";
pub(crate) const WORKING_SET: &str = "application/vnd.quicksand.func-image.working-set.v1";

/// Names a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
}

impl Descriptor {
    pub(crate) fn new(media_type: &str, digest: Digest, size: u64) -> Descriptor {
        Descriptor { media_type: media_type.into(), digest, size, artifact_type: None }
    }
}

/// `index.json`: exactly one manifest.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OciIndex {
    pub(crate) schema_version: u32,
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) manifests: Vec<Descriptor>,
}

/// The manifest. `layers` holds the eager index first, the other blobs, and the working set where there is one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default)]
    pub(crate) media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

impl Manifest {
    pub(crate) fn layer(&self, media_type: &str) -> Option<&Descriptor> {
        self.layers.iter().find(|layer| layer.media_type == media_type)
    }
}

/// The config: the index's header for people and tools, and the caller's annotations. The index is what counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Config {
    pub(crate) architecture: String,
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) rootfs: RootFs,
    pub(crate) func_image: Header,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RootFs {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) diff_ids: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Header {
    pub(crate) format_version: u32,
    pub(crate) records_version: u32,
    pub(crate) platform_version: u32,
    pub(crate) arch: u32,
    pub(crate) page_size: u32,
    /// Name to bits, in hexadecimal.
    pub(crate) features: BTreeMap<String, String>,
    pub(crate) parents: Vec<Digest>,
}
