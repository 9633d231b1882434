//! Kills a process that loads and removes images, again and again: what the next one finds is whole.
//!
//! That process is this program, too, called with a directory; so it has a `main` of its own.

mod support;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};
use support::{file_layer, image, names, noise, oci, read};
use swarm_images::archive::{Built, Compression};
use swarm_images::{ImageStore, Options, Platform};
use tokio::runtime::Runtime;

/// The first argument of the process that is killed; a directory follows.
const WORK: &str = "work-until-killed";
const IMAGES: u64 = 6;

/// Two layers of its own, one shared with all.
fn numbered(n: u64) -> Built {
    let own = file_layer("number", n.to_string().as_bytes())
        .file("noise", 0o644, &noise(n, 200_000))
        .expect("add");
    let layers = vec![
        file_layer("shared", b"shared"),
        own.compressed(Compression::Gzip),
        file_layer("end", &[n as u8]),
    ];
    image(&format!("image:{n}"), layers)
}

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let runtime = Runtime::new().expect("start a runtime");
    if let [_, word, dir] = words.as_slice()
        && word == WORK
    {
        runtime.block_on(work_until_killed(Path::new(dir)));
        return ExitCode::SUCCESS;
    }
    let test = move || {
        runtime.block_on(nothing_half_done_survives_a_kill());
        Ok(())
    };
    let tests = vec![Trial::test("nothing_half_done_survives_a_kill", test)];
    libtest_mimic::run(&Arguments::from_args(), tests).exit_code()
}

async fn work_until_killed(dir: &Path) {
    let store = ImageStore::open(dir, Options::default()).await.expect("open the store");
    for n in (0..IMAGES).cycle() {
        let archive = std::io::Cursor::new(oci(&numbered(n)));
        store.load(archive, &Platform::host()).await.expect("load");
        store.remove(&format!("image:{}", (n + 3) % IMAGES), |_| false).await.ok();
    }
}

async fn nothing_half_done_survives_a_kill() {
    let dir = tempfile::tempdir().expect("make a temporary directory");
    let mut seen = 0;
    for round in 0..20 {
        let mut child = Command::new(std::env::current_exe().expect("own path"));
        child.arg(WORK).arg(dir.path()).process_group(0);
        let mut child = child.spawn().expect("start the worker");
        tokio::time::sleep(Duration::from_millis(40 + round * 13 % 150)).await; // each round kills at another moment
        child.kill().expect("kill the worker");
        child.wait().expect("wait for the worker");
        seen += check(dir.path()).await;
    }
    assert!(seen > 10, "only {seen} images were ever there: the worker did not get to work");
}

/// Every image listed is whole; nothing else is there.
async fn check(dir: &Path) -> usize {
    let store =
        ImageStore::open(dir, Options::default()).await.expect("open the store after a kill");
    support::wait_until_empty(&dir.join("tmp"));
    let list = store.list();
    for found in &list {
        let image = store.get(&found.tags[0]).await.expect("get a listed image");
        let n = read(image.layers[1].join("number")).parse().expect("a number");
        assert_eq!(found.id, numbered(n).id());
        assert_eq!(std::fs::read(image.layers[1].join("noise")).expect("noise"), noise(n, 200_000));
        assert_eq!(std::fs::read(image.layers[2].join("end")).expect("end"), [n as u8]);
    }
    let layers: std::collections::BTreeSet<_> =
        list.iter().flat_map(|image| &image.layers).collect();
    assert_eq!(names(&dir.join("layers")).len(), layers.len());
    assert_eq!(names(&dir.join("configs")).len(), list.len());
    list.len()
}
