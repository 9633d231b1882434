//! `image load | ls | rm`: the images of this node.

use std::io::IsTerminal;
use std::path::Path;

use futures::stream::{self, Stream};
use serde_json::Value;
use swarm_proto::control::{Chunk, Empty, Reference};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::oneshot;

use super::{all_done, fresh};
use crate::args::{ImageCommand, ListArgs};
use crate::client::{Client, ask};
use crate::error::Error;
use crate::output::{self, json, time};
use crate::rows;

/// Bytes of an archive in one message.
const CHUNK: usize = 256 << 10;

type Input = Box<dyn AsyncRead + Send + Unpin>;

pub(super) async fn run(client: Client, command: ImageCommand) -> Result<(), Error> {
    match command {
        ImageCommand::Load { input, quiet } => load(client, input.as_deref(), quiet).await,
        ImageCommand::Ls(flags) => list(client, &flags).await,
        ImageCommand::Rm { names } => remove(client, names).await,
    }
}

async fn list(mut client: Client, flags: &ListArgs) -> Result<(), Error> {
    let documents = fresh(client.node.list_images(ask(Empty {})).await?);
    let images = json::parse_all("image", &documents)?;
    output::list(&rows::images(images, flags, time::now())?, flags)
}

async fn load(mut client: Client, file: Option<&Path>, quiet: bool) -> Result<(), Error> {
    let (failed, failure) = oneshot::channel();
    let chunks = chunks(open(file).await?, failed);
    let documents = tokio::select! {
        answer = client.node.load_image(chunks) => fresh(answer?),
        Ok(source) = failure => {
            let name = file.map_or("standard input".to_owned(), |file| file.display().to_string());
            return Err(Error::io(format!("read {name}"), source));
        }
    };
    if quiet {
        return Ok(());
    }
    for document in &documents {
        output::line(&loaded(&json::parse("image", document.as_ref())?))?;
    }
    Ok(())
}

async fn open(file: Option<&Path>) -> Result<Input, Error> {
    let Some(path) = file else {
        if std::io::stdin().is_terminal() {
            return Err(Error::Usage(
                "there is no archive on standard input: give one with --input".to_owned(),
            ));
        }
        return Ok(Box::new(tokio::io::stdin()));
    };
    let file = tokio::fs::File::open(path).await;
    let file = file.map_err(|e| Error::io(format!("open {}", path.display()), e))?;
    Ok(Box::new(file))
}

/// The archive in pieces. If it cannot be read to its end, the stream stalls and `failed` says why: were it to
/// end, swarmd would take it for the whole.
fn chunks(input: Input, failed: oneshot::Sender<std::io::Error>) -> impl Stream<Item = Chunk> {
    stream::unfold((input, failed), |(mut input, failed)| async move {
        match read_chunk(&mut input).await {
            Ok(data) if data.is_empty() => None,
            Ok(data) => Some((Chunk { data: data.into() }, (input, failed))),
            Err(e) => {
                // The other side waits for it.
                let _ = failed.send(e);
                std::future::pending().await
            }
        }
    })
}

/// The next [`CHUNK`] bytes; fewer at the end, none after it.
async fn read_chunk(input: &mut Input) -> std::io::Result<Vec<u8>> {
    let mut data = Vec::with_capacity(CHUNK);
    while data.len() < CHUNK {
        let room = (CHUNK - data.len()) as u64;
        if input.take(room).read_buf(&mut data).await? == 0 {
            break;
        }
    }
    Ok(data)
}

fn loaded(image: &Value) -> String {
    let tags = image["RepoTags"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let lines: Vec<_> = tags.map(|tag| format!("Loaded image: {tag}")).collect();
    if lines.is_empty() {
        return format!("Loaded image ID: {}", image["Id"].as_str().unwrap_or_default());
    }
    lines.join("\n")
}

/// Prints what happened to each, as `Untagged: name` and `Deleted: id`.
async fn remove(mut client: Client, names: Vec<String>) -> Result<(), Error> {
    let mut failed = Vec::new();
    for name in names {
        match client.node.remove_image(ask(Reference { name })).await {
            Ok(answer) => {
                for document in &fresh(answer) {
                    output::line(&removed(&json::parse("image", document.as_ref())?))?;
                }
            }
            Err(status) => failed.push(Error::from(status)),
        }
    }
    all_done(failed)
}

fn removed(document: &Value) -> String {
    match document {
        Value::Object(fields) => {
            let line = |(key, value): (&String, &Value)| match value.as_str() {
                Some(text) => format!("{key}: {text}"),
                None => format!("{key}: {value}"),
            };
            fields.iter().map(line).collect::<Vec<_>>().join("\n")
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::{CHUNK, chunks, loaded, removed};
    use futures::StreamExt;
    use serde_json::json;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn an_archive_goes_out_whole_in_bounded_pieces() {
        let archive: Vec<u8> = (0..CHUNK * 2 + 10).map(|i| i as u8).collect();
        let (failed, _failure) = oneshot::channel();
        let pieces: Vec<_> =
            chunks(Box::new(std::io::Cursor::new(archive.clone())), failed).collect().await;
        assert!(pieces.iter().all(|piece| piece.data.len() <= CHUNK));
        let whole: Vec<u8> = pieces.iter().flat_map(|piece| piece.data.to_vec()).collect();
        assert_eq!(whole, archive);
    }

    #[tokio::test]
    async fn a_read_error_does_not_end_the_stream() {
        let input = tokio_test_reader();
        let (failed, failure) = oneshot::channel();
        let mut stream = Box::pin(chunks(input, failed));
        tokio::select! {
            _ = stream.next() => panic!("the stream went on"),
            error = failure => assert_eq!(error.unwrap().kind(), std::io::ErrorKind::IsADirectory),
        }
    }

    fn tokio_test_reader() -> super::Input {
        Box::new(tokio::fs::File::from_std(std::fs::File::open("/").unwrap()))
    }

    #[test]
    fn images_are_named() {
        assert_eq!(
            loaded(&json!({"RepoTags": ["a:1", "b:1"], "Id": "x"})),
            "Loaded image: a:1\nLoaded image: b:1"
        );
        assert_eq!(
            loaded(&json!({"RepoTags": null, "Id": "sha256:1"})),
            "Loaded image ID: sha256:1"
        );
        assert_eq!(removed(&json!({"Untagged": "a:1"})), "Untagged: a:1");
    }
}
