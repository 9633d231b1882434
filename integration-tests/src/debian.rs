//! Images of programs of installed Debian packages: the program, the libraries that `ldd` names, and files of the test.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use swarm_images::archive::{Builder, Built, Layer};

const ACCOUNTS: &[(&str, &str)] = &[
    ("etc/passwd", "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
];

/// An image with nginx that serves `page`.
///
/// # Panics
/// When nginx is not installed.
#[must_use]
pub fn nginx(page: &str) -> Built {
    let config = "user nobody nogroup;\ndaemon off;\nworker_processes 1;\npid /run/nginx.pid;\nerror_log /dev/stderr;\n\
        events {}\nhttp { access_log off; server { listen 80; root /srv; } }\n";
    let files = [("etc/nginx/nginx.conf", config), ("srv/index.html", page), ("run/.keep", "")];
    let files = [&files[..], &[("var/lib/nginx/.keep", ""), ("var/log/nginx/.keep", "")]].concat();
    let layers = root(&["/usr/sbin/nginx"], &files);
    let builder = layers.into_iter().fold(Builder::new(), Builder::layer);
    builder.entrypoint(&["/usr/sbin/nginx"]).expose("80/tcp").build().expect("an image")
}

/// An image with redis: server and command line.
///
/// # Panics
/// When redis is not installed.
#[must_use]
pub fn redis() -> Built {
    let layers = root(&["/usr/bin/redis-server", "/usr/bin/redis-cli"], &[("data/.keep", "")]);
    let builder = layers.into_iter().fold(Builder::new(), Builder::layer);
    builder
        .env(&["PATH=/usr/bin:/bin"])
        .working_dir("/data")
        .cmd(&["redis-server", "--protected-mode", "no", "--save", ""])
        .expose("6379/tcp")
        .build()
        .expect("an image")
}

/// One layer with the programs and their libraries, one with the files.
fn root(programs: &[&str], files: &[(&str, &str)]) -> [Layer; 2] {
    let needed: BTreeSet<String> = programs.iter().flat_map(|program| libraries(program)).collect();
    let programs = programs.iter().map(|program| (*program).to_owned()).chain(needed);
    let system = programs.fold(Layer::new(), |layer, path| {
        let content = fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}: is it installed?"));
        layer.file(path.trim_start_matches('/'), 0o755, &content).expect("a file in memory")
    });
    let own = ACCOUNTS.iter().chain(files).fold(Layer::new(), |layer, (path, content)| {
        layer.file(path, 0o644, content.as_bytes()).expect("a file in memory")
    });
    [system, own]
}

/// The files that the loader will look for.
fn libraries(program: &str) -> Vec<String> {
    assert!(Path::new(program).exists(), "{program} is not installed");
    let output = Command::new("ldd").arg(program).output().expect("ldd");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = text.lines().filter_map(|line| {
        line.split_whitespace().find(|word| word.starts_with('/')).map(str::to_owned)
    });
    words.collect()
}
