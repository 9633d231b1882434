//! The program: what it says when it cannot do what is asked, and under which name.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Exit status, standard output and standard error, of the program under a name.
fn run(name: &str, words: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_swarm-playground"));
    let output = command.arg0(name).args(words.split_whitespace()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn every_command_fails_in_one_form() {
    let nobody = "error: no playground node nobody-1 is up; see `swarmctl playground ls`\n";
    for words in [
        "exec nobody-1 -- true",
        "kill nobody-1",
        "start nobody-1",
        "pause nobody-1",
        "resume nobody-1",
        "cut nobody-1",
        "heal nobody-1",
    ] {
        let ran = run("swarm-playground", words);
        assert_eq!(ran, (Some(1), String::new(), nobody.to_owned()), "{words}");
    }
    for words in ["up --nodes 0", "down --name A"] {
        let (code, out, said) = run("swarm-playground", words);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{words}: {said}");
        assert!(said.starts_with("error: ") && said.lines().count() == 1, "{words}: {said}");
    }
    for command in ["up", "ls", "down", "exec", "kill", "start", "pause", "resume", "cut", "heal"] {
        for name in ["swarm-playground", "swarmctl playground"] {
            let (code, out, said) = run(name, &format!("{command} --nonsense"));
            assert_eq!((code, out.as_str()), (Some(2), ""), "{command}: {said}");
            assert!(said.starts_with("error: ") && said.lines().count() == 1, "{said}");
            let help = format!("(see '{name} {command} --help')\n");
            assert!(said.ends_with(&help), "it names the form that was typed: {said}");
        }
    }
    assert_eq!(run("x", "host").0, Some(2), "not for people");
}
