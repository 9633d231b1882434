//! The node's images: what `image load | ls | rm` do, and the check before a service is made.

use std::future::Future;
use std::io::Read;
use std::pin::Pin;

use bytes::Bytes;
use serde_json::{Value, json};
use swarm_images::{ImageStore, ImageSummary, Loaded, Platform, Reference, Removed};
use swarm_manager::Images;
use swarm_proto::control::Chunk;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

/// Pieces of an archive that may wait for the disk.
const QUEUE: usize = 4;

/// Asks the node's store, then the registry.
pub(crate) struct ImageCheck(pub(crate) ImageStore);

impl Images for ImageCheck {
    fn pin(
        &self,
        image: String,
    ) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send + '_>> {
        Box::pin(async move {
            let reference: Reference =
                image.parse().map_err(|e: swarm_images::ReferenceError| e.to_string())?;
            // An image that was loaded has no registry to ask.
            if self.0.has(&reference) {
                return Ok(image);
            }
            let pinned = self.0.resolve(&reference, &Platform::host()).await;
            let pinned = pinned.map_err(|e| e.to_string())?;
            Ok(pinned.familiar())
        })
    }
}

/// Docker's ImageSummary.
pub(crate) fn shape(image: &ImageSummary) -> Value {
    let familiar =
        |names: &[Reference]| -> Vec<String> { names.iter().map(Reference::familiar).collect() };
    let created = image.created.as_deref().and_then(|text| {
        time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()
    });
    json!({
        "Id": image.id.to_string(),
        "RepoTags": familiar(&image.tags),
        "RepoDigests": familiar(&image.digests),
        "Created": created.map_or(0, time::OffsetDateTime::unix_timestamp),
        "Size": image.size,
        "Architecture": image.platform,
    })
}

/// What `image load` says of each image.
pub(crate) fn loaded(image: &Loaded) -> Value {
    let names: Vec<String> = image.names.iter().map(Reference::familiar).collect();
    json!({ "Id": image.id.to_string(), "RepoTags": names })
}

/// What `image rm` says, Docker's shape.
pub(crate) fn removed(removed: &Removed) -> Vec<Value> {
    let untagged = removed.untagged.iter().map(|name| json!({ "Untagged": name }));
    let deleted = removed.deleted.iter().map(|id| json!({ "Deleted": id.to_string() }));
    untagged.chain(deleted).collect()
}

/// Stores the images of an archive that comes in pieces.
pub(crate) async fn load(
    store: &ImageStore,
    mut chunks: Streaming<Chunk>,
) -> Result<Vec<Loaded>, Status> {
    let (sender, receiver) = mpsc::channel::<Bytes>(QUEUE);
    let archive = Pieces { pieces: receiver, current: Bytes::new() };
    let platform = Platform::host();
    let loading = store.load(archive, &platform);
    let feeding = async {
        while let Some(chunk) = chunks.message().await? {
            // The store has seen enough, or failed: it says which.
            if sender.send(chunk.data).await.is_err() {
                break;
            }
        }
        drop(sender);
        Ok::<(), Status>(())
    };
    let (loaded, fed) = tokio::join!(loading, feeding);
    fed?;
    loaded.map_err(|e| Status::invalid_argument(e.to_string()))
}

/// An archive that arrives in pieces, for a reader on a blocking thread.
struct Pieces {
    pieces: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.current = piece,
                None => return Ok(0),
            }
        }
        let length = self.current.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.current.split_to(length));
        Ok(length)
    }
}
