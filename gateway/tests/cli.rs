//! The binary as its users meet it: what it prints, where, and how it exits.

use std::process::{Command, Output, Stdio};

fn gateway(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_livepeer-gateway"))
        .args(arguments)
        .env_remove("LIVEPEER_LOG")
        .env_remove("LIVEPEER_TOKEN")
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::null())
        .output()
        .expect("the binary was built with this test")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[test]
fn help_is_for_standard_output() {
    for arguments in [&["--help"][..], &["live", "-h"], &["help", "info"]] {
        let output = gateway(arguments);
        assert!(output.status.success());
        assert!(text(&output.stdout).contains("Usage: livepeer-gateway"));
        assert!(output.stderr.is_empty());
    }
    let version = text(&gateway(&["--version"]).stdout);
    assert_eq!(
        version,
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
        let output = gateway(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        let line = text(&output.stderr);
        assert!(line.starts_with("error: "), "{line}");
        assert!(line.ends_with("--help.\n"), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(!line.contains('\u{1b}'), "{line:?}");
    }
}

#[test]
fn a_reader_that_has_read_enough_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_livepeer-gateway"))
        .args(["live", "--help"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary was built with this test");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success());
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
}
