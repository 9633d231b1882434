//! `image ls`: Docker's `ImageSummary`.

use serde::Deserialize;
use serde_json::{Value, json};
use swarm_model::{Labels, Timestamp};

use crate::args::ListArgs;
use crate::error::Error;
use crate::filter::Filters;
use crate::output::{Row, size, time};

const NONE: &str = "<none>";

/// Of Docker's `ImageSummary`, what a list shows.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Image {
    id: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    repo_digests: Option<Vec<String>>,
    /// Seconds since the epoch.
    #[serde(default)]
    created: i64,
    /// Bytes.
    #[serde(default)]
    size: u64,
    #[serde(default)]
    labels: Option<Labels>,
}

/// One name of an image in a list.
#[derive(Debug)]
pub(crate) struct ImageRow {
    id: String,
    repository: String,
    tag: String,
    digest: String,
    created_at: String,
    created_since: String,
    size: String,
}

/// The rows of `image ls`: the newest image first, a row for each of its names.
pub(crate) fn images(
    mut images: Vec<Image>,
    list: &ListArgs,
    now: Timestamp,
) -> Result<Vec<ImageRow>, Error> {
    let filters = Filters::new(&list.filter, &["dangling", "label", "reference"])?;
    filters.check("dangling", &["true", "false", "1", "0"])?;
    let none = Labels::new();
    images.retain(|image| filters.labels("label", image.labels.as_ref().unwrap_or(&none)));
    images.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
    let mut rows = Vec::new();
    for image in &images {
        for (repository, tag) in names(image) {
            let dangling = tag == NONE;
            let wanted = filters.any("dangling", |value| matches!(value, "true" | "1") == dangling)
                && filters.any("reference", |pattern| refers(pattern, &repository, &tag));
            if wanted {
                rows.push(row(image, repository, tag, list.no_trunc, now));
            }
        }
    }
    Ok(rows)
}

/// Repository and tag of each name; of an image that was pulled by digest, its repository alone.
fn names(image: &Image) -> Vec<(String, String)> {
    let tags =
        image.repo_tags.as_deref().unwrap_or_default().iter().filter(|t| *t != "<none>:<none>");
    let names: Vec<_> = tags.map(|reference| split_tag(reference)).collect();
    if !names.is_empty() {
        return names;
    }
    let digests = image.repo_digests.as_deref().unwrap_or_default().iter();
    let repositories = digests.filter_map(|d| d.split_once('@')).map(|(name, _)| name.to_owned());
    let names: Vec<_> = repositories.map(|name| (name, NONE.to_owned())).collect();
    if names.is_empty() { vec![(NONE.to_owned(), NONE.to_owned())] } else { names }
}

/// `host:5000/name:tag` into `host:5000/name` and `tag`.
fn split_tag(reference: &str) -> (String, String) {
    match reference.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name.to_owned(), tag.to_owned()),
        _ => (reference.to_owned(), NONE.to_owned()),
    }
}

/// Whether `name` or `name:tag`, where `*` stands for anything, is this image's name or the end of it.
fn refers(pattern: &str, repository: &str, tag: &str) -> bool {
    let reference = format!("{repository}:{tag}");
    [repository, &reference].iter().any(|text| {
        let last = text.rsplit('/').next().unwrap_or(text);
        glob(pattern, text) || glob(pattern, last)
    })
}

fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|text| {
            let starts = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            starts.into_iter().any(|at| glob(rest, &text[at..]))
        }),
    }
}

fn row(image: &Image, repository: String, tag: String, no_trunc: bool, now: Timestamp) -> ImageRow {
    let created = Timestamp(image.created.saturating_mul(1_000_000_000));
    let id = if no_trunc {
        image.id.clone()
    } else {
        image.id.trim_start_matches("sha256:").chars().take(12).collect()
    };
    let digests = image.repo_digests.as_deref().unwrap_or_default();
    let of_name =
        digests.iter().filter_map(|d| d.split_once('@')).find(|(name, _)| *name == repository);
    ImageRow {
        id,
        digest: of_name.map_or(NONE.to_owned(), |(_, digest)| digest.to_owned()),
        repository,
        tag,
        created_at: if image.created > 0 { time::go_format(created) } else { "N/A".to_owned() },
        created_since: if image.created > 0 { time::ago(created, now) } else { "N/A".to_owned() },
        size: size::decimal(image.size),
    }
}

impl Row for ImageRow {
    const HEADERS: &'static [&'static str] = &["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"];

    fn id(&self) -> &str {
        &self.id
    }

    fn cells(&self) -> Vec<String> {
        [&self.repository, &self.tag, &self.id, &self.created_since, &self.size]
            .map(String::clone)
            .into()
    }

    fn json(&self) -> Value {
        json!({
            "ID": self.id,
            "Repository": self.repository,
            "Tag": self.tag,
            "Digest": self.digest,
            "CreatedAt": self.created_at,
            "CreatedSince": self.created_since,
            "Size": self.size,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Image, glob, images};
    use crate::args::ListArgs;
    use crate::output::Row;
    use serde_json::json;
    use swarm_model::Timestamp;

    fn all() -> Vec<Image> {
        let images = json!([
            {"Id": "sha256:0123456789abcdef", "RepoTags": ["host:5000/nginx:1", "nginx:latest"],
             "RepoDigests": ["host:5000/nginx@sha256:ff"], "Created": 100, "Size": 187_400_000},
            {"Id": "sha256:fedcba9876543210", "RepoTags": [], "RepoDigests": ["redis@sha256:aa"], "Created": 200, "Size": 5},
            {"Id": "sha256:1111111111111111", "RepoTags": null, "Created": 0, "Size": 5},
        ]);
        serde_json::from_value(images).unwrap()
    }

    fn shown(filter: &[(&str, &str)]) -> Vec<String> {
        let filter = filter.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let list = ListArgs { filter, ..ListArgs::default() };
        let rows = images(all(), &list, Timestamp(260_000_000_000)).unwrap();
        rows.iter().map(|row| row.cells().join("|")).collect()
    }

    #[test]
    fn a_row_for_each_name() {
        assert_eq!(
            shown(&[]),
            [
                "redis|<none>|fedcba987654|About a minute ago|5B",
                "host:5000/nginx|1|0123456789ab|2 minutes ago|187MB",
                "nginx|latest|0123456789ab|2 minutes ago|187MB",
                "<none>|<none>|111111111111|N/A|5B",
            ]
        );
    }

    #[test]
    fn filtered_by_reference() {
        assert_eq!(shown(&[("reference", "nginx")]).len(), 2);
        assert_eq!(shown(&[("reference", "nginx:l*")]).len(), 1);
        assert_eq!(shown(&[("reference", "*inx:1")]).len(), 1);
        assert_eq!(shown(&[("dangling", "true")]).len(), 2);
        assert!(glob("a*b*c", "aXXbYYc") && !glob("a*b*c", "aXXc") && glob("*", ""));
    }
}
