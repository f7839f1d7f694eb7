//! Inputs that are worst for somebody.

/// A named input.
pub(crate) type Shape = (&'static str, Vec<u8>);

/// The text that repeats `part` up to about `size` bytes, between `head` and `tail`.
pub(crate) fn repeated(head: &str, part: &str, tail: &str, size: usize) -> Vec<u8> {
    numbered(head, |_| part.to_owned(), tail, size)
}

/// The text of numbered parts, parted by commas, up to about `size` bytes, between `head` and `tail`.
pub(crate) fn numbered(
    head: &str,
    part: impl Fn(usize) -> String,
    tail: &str,
    size: usize,
) -> Vec<u8> {
    let mut text = head.to_owned();
    for n in 0.. {
        let next = part(n);
        if text.len() + next.len() + tail.len() > size {
            break;
        }
        text.push_str(&next);
    }
    text.push_str(tail);
    text.into_bytes()
}

/// JSON of all kinds of excess.
pub(crate) fn json(size: usize) -> Vec<Shape> {
    let comma = |n: usize| if n == 0 { "" } else { "," };
    vec![
        ("brackets", repeated("", "[", "", size)),
        ("braces", repeated("", r#"{"a":"#, "", size)),
        ("blanks", repeated("", " ", "{}", size)),
        ("digits", repeated("[1", "1", "]", size)),
        ("a long string", repeated(r#"{"a":""#, "a", r#""}"#, size)),
        ("escapes", repeated(r#"{"a":""#, r"\ud800", r#""}"#, size)),
        ("backslashes", repeated(r#"{"a":""#, r"\\", r#""}"#, size)),
        (
            "text that is not UTF-8",
            [b"{\"a\":\"", &vec![0xff; size - 10][..], b"\"}"].concat(),
        ),
        (
            "one name again and again",
            numbered("{", |n| format!(r#"{}"a":1"#, comma(n)), "}", size),
        ),
        (
            "names that no two are alike",
            numbered("{", |n| format!(r#"{}"{n}":1"#, comma(n)), "}", size),
        ),
        (
            "empty objects",
            numbered("[", |n| format!("{}{{}}", comma(n)), "]", size),
        ),
        (
            "numbers",
            numbered("[", |n| format!("{}1", comma(n)), "]", size),
        ),
    ]
}

/// Protobuf messages of one field again and again: empty, as a number, and with all fields inside.
pub(crate) fn protobuf(size: usize) -> Vec<Shape> {
    let mut shapes = Vec::new();
    for field in 1..=15_u8 {
        let inside: Vec<u8> = (1..=15_u8).flat_map(|inner| [inner << 3 | 2, 0]).collect();
        shapes.push(("empty fields", [field << 3 | 2, 0].repeat(size / 2)));
        shapes.push(("numbers", [field << 3, 1].repeat(size / 2)));
        let nested = [&[field << 3 | 2, inside.len() as u8], &inside[..]].concat();
        shapes.push(("messages", nested.repeat(size / nested.len())));
    }
    shapes
}
