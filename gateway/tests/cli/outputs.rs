//! Files that commands write, and what was in them before.

use std::fs::{self, File};

use crate::files::Folder;
use crate::process::{CLIP, Running, gateway};
use crate::run::{Ended, run};

fn job(input: &str, output: &str, more: &[&str]) -> Ended {
    let job = ["live", "--orchestrator", "127.0.0.1:1", "--offchain"];
    run(&[&job[..], &["--input", input, "--output", output], more].concat())
}

/// Refused as a command line that cannot be meant.
fn same_file(ended: &Ended, options: &str) {
    assert_eq!(ended.code(), Some(2), "{}", ended.stderr);
    let told = format!("error: {options} name the same file");
    assert!(ended.stderr.starts_with(&told), "{}", ended.stderr);
}

#[test]
fn an_input_is_never_written_over_whatever_its_other_name() {
    let folder = Folder::new("names");
    let input = folder.path("in.ts");
    fs::copy(CLIP, &input).expect("there is room");
    let (soft, hard) = (folder.path("soft.ts"), folder.path("hard.ts"));
    std::os::unix::fs::symlink(&input, &soft).expect("a link");
    fs::hard_link(&input, &hard).expect("a link");
    for output in [&input, &folder.path("./in.ts"), &soft, &hard] {
        same_file(&job(&input, output, &[]), "--input and --output");
    }
    // What a shell redirects has a name too.
    let mut redirected = gateway();
    redirected.args(["live", "--orchestrator", "127.0.0.1:1", "--offchain"]);
    redirected.args(["--input", "-", "--output", &hard]);
    redirected.stdin(File::open(&input).expect("it is there"));
    let ended = Running::start(&mut redirected).end(Vec::new());
    same_file(&ended, "--input and --output");
    assert!(fs::read(&input).expect("it is there") == fs::read(CLIP).expect("the clip"));
}

#[test]
fn no_two_options_write_one_file() {
    let folder = Folder::new("twice");
    let (one, input) = (folder.path("one"), CLIP);
    let key = folder.private("key", &"04".repeat(32));
    same_file(
        &job(input, &one, &["--store", &one]),
        "--output and --store",
    );
    same_file(&job(input, &one, &["--pins", &one]), "--output and --pins");
    same_file(&job(input, "-", &["--pins", input]), "--input and --pins");
    let own = ["--store", &one, "--static-chain", "--key-file", &key];
    let paid = ["live", "--orchestrator", "127.0.0.1:1", "--input", input];
    let ended = run(&[&paid[..], &["--output", &key], &own].concat());
    same_file(&ended, "--output and --key-file");
    let pins = ["--pins", &one, "--store", &one];
    let ended = run(&[&["discover", "--orchestrator", "127.0.0.1:1"], &pins[..]].concat());
    same_file(&ended, "--store and --pins");
    assert!(!fs::exists(&one).expect("a folder"), "nothing was made");
    let kept = fs::read_to_string(&key).expect("it is there");
    assert_eq!(kept, "04".repeat(32));
}

#[test]
fn what_was_there_stays_until_there_is_something_else() {
    let folder = Folder::new("kept");
    let output = folder.path("out.ts");
    fs::write(&output, "precious").expect("there is room");
    assert_eq!(job(CLIP, &output, &[]).code(), Some(1));
    let nobody = "http://127.0.0.1:1/x";
    let ended = run(&[
        "trickle", "sub", nobody, "--wait", "100ms", "--output", &output,
    ]);
    assert_eq!(ended.code(), Some(1), "{}", ended.stderr);
    assert_eq!(fs::read(&output).expect("it is there"), b"precious");
}
