//! The output of the program, where it goes, and the exit status.

use crate::process::{Running, gateway};
use crate::run::run;

#[test]
fn help_is_for_standard_output() {
    for arguments in [&["--help"][..], &["live", "-h"], &["help", "info"]] {
        let ended = run(arguments);
        ended.succeeded();
        assert!(ended.text().contains("Usage: livepeer-gateway"));
        assert!(ended.stderr.is_empty());
    }
    assert_eq!(
        run(&["--version"]).text(),
        format!("livepeer-gateway {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn a_wrong_command_line_is_one_line_and_exit_code_two() {
    for arguments in [
        &["lve"][..],
        &["live"],
        &["live", "--input", "-", "--output", "-", "--token", "%"],
        &["info", "ftp://example"],
        &["demo", "--speed", "\u{1b}[31mfast\n"],
        &["--log", "=", "devnet"],
    ] {
        let ended = run(arguments);
        assert_eq!(ended.code(), Some(2), "{arguments:?}");
        assert!(ended.stdout.is_empty(), "{arguments:?}");
        let line = ended.stderr;
        assert!(line.starts_with("error: "), "{line}");
        assert!(line.ends_with("--help.\n"), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(!line.contains('\u{1b}'), "{line:?}");
    }
}

#[test]
fn where_json_is_wanted_a_failure_is_told_in_it_too() {
    let ended = run(&["info", "127.0.0.1:9", "--json"]);
    let line = ended.error();
    let told = ended.json();
    let cause = told["error"]["cause"].as_str().expect("text");
    assert!(line.contains(cause) && !cause.is_empty(), "{told} {line}");
}

#[test]
fn a_reader_that_has_read_enough_is_no_failure() {
    let mut help = Running::start(gateway().args(["live", "--help"]));
    drop(help.0.stdout.take());
    let ended = help.end(Vec::new());
    ended.succeeded();
    assert!(ended.stderr.is_empty(), "{}", ended.stderr);
}
