//! The README shows the example as it is.

#[test]
fn the_readme_shows_the_example_line_by_line() {
    let readme = include_str!("../../README.md");
    let (_, section) = readme.split_once("\n## Embed it\n").expect("the section");
    let (_, code) = section.split_once("```rust\n").expect("the example");
    let (shown, _) = code.split_once("```").expect("its end");
    let example = include_str!("../examples/live.rs");
    let is_code = |line: &&str| !line.starts_with("//!");
    let lines: Vec<_> = example.lines().filter(is_code).collect();
    assert_eq!(shown.trim(), lines.join("\n").trim());
    let written = shown.lines().filter(|line| !line.trim().is_empty());
    assert!(written.count() <= 15, "it fits on a page");
}
