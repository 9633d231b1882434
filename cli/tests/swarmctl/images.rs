//! Images of this node.

use std::io::Write;
use std::process::Stdio;

use serde_json::json;

use crate::fake::Fake;
use crate::support::{finish, run, spawn, swarmctl};

#[test]
fn an_archive_is_loaded_from_a_file_or_standard_input() {
    let fake = Fake::new();
    let archive = vec![7u8; 1_000_000];
    let file = fake.folder().join("image.tar");
    std::fs::write(&file, &archive).unwrap();
    let loaded = run(&fake, &format!("image load -i {}", file.display())).ok();
    assert_eq!(loaded, "Loaded image: whoami:latest\n");
    assert_eq!(fake.world().loaded_bytes, archive.len());

    let mut child = spawn(swarmctl(&fake, "image load").stdin(Stdio::piped()));
    child.stdin.take().unwrap().write_all(&archive).unwrap();
    assert_eq!(finish(child).ok(), "Loaded image: whoami:latest\n");
    assert_eq!(fake.world().loaded_bytes, 2 * archive.len());
}

#[test]
fn an_archive_that_cannot_be_read_is_not_loaded() {
    let fake = Fake::new();
    run(&fake, "image load -i /no/such/file")
        .failed("error: cannot open /no/such/file: No such file or directory (os error 2)");
    run(&fake, "image load -i /").failed("error: cannot read /: Is a directory (os error 21)");
}

#[test]
fn images_are_listed_and_removed() {
    let fake = Fake::new();
    fake.world().images = vec![
        json!({"Id": "sha256:0123456789abcdef", "RepoTags": ["whoami:latest"], "Created": 0, "Size": 5_530_000}),
    ];
    assert_eq!(
        run(&fake, "image ls").ok(),
        "REPOSITORY   TAG       IMAGE ID       CREATED   SIZE\n\
         whoami       latest    0123456789ab   N/A       5.53MB\n"
    );
    assert_eq!(run(&fake, "image ls -q").ok(), "0123456789ab\n");
    assert_eq!(run(&fake, "image rm whoami").ok(), "Untagged: whoami\n");
}
