//! OCI images on one node: references, pulls, archives, and the store of unpacked layers.
//!
//! | module | idea |
//! |---|---|
//! | [`mod@reference`] | Docker-style image names |
//! | [`digest`], [`platform`], [`config`] | the small types everything is named by |
//! | [`store`] | [`ImageStore`]: what is on this node; pull, load, list, remove |
//! | [`image`] | what it says of them |
//! | [`archive`] | makes images and archives programmatically |
//! | `pull`, `registry`, `download`, `flight` | the registry client; resumed, verified downloads; one pull for many callers |
//! | `load` | reads `docker save` and OCI layout archives |
//! | `catalog`, `layers`, `index`, `lease`, `reaper` | what there is, kept in step: layer directories, the durable index, what must stay, what goes |
//! | `unpack`, `rooted`, `tar_stream`, `decompress` | a layer's tar stream to files, never outside the layer's root |
//! | `blocking` | work that waits for the disk |
//!
//! `OVERVIEW.md` beside this crate's manifest describes the layout on disk and the guarantees.

#![forbid(unsafe_code)]

pub mod archive;
mod blocking;
mod catalog;
pub mod config;
mod decompress;
pub mod digest;
mod download;
pub mod error;
mod flight;
pub mod image;
mod index;
mod layers;
mod lease;
mod load;
mod manifest;
pub mod platform;
mod pull;
mod reaper;
pub mod reference;
mod registry;
mod rooted;
pub mod store;
mod tar_stream;
mod unpack;

pub use config::{ImageConfig, tcp_ports};
pub use digest::{Digest, ImageId};
pub use error::{Error, Result};
pub use image::{Image, ImageSummary, Loaded, Removed};
pub use platform::Platform;
pub use reference::{Reference, ReferenceError};
pub use store::{ImageStore, Options, PullPolicy};
pub use unpack::Limits;
