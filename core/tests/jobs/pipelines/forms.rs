//! Forms: what browsers, scripts and the reference write, and what passes a bound.

use bytes::Bytes;
use livepeer_core::wire::multipart::{
    BadForm, MAX_BOUNDARY_BYTES, MAX_HEADER_BYTES, MAX_NAME_BYTES, MAX_PARTS, MAX_TEXT_BYTES, Part,
    Writer, read,
};

const FORM: &str = "multipart/form-data; boundary=b";

fn parts(body: impl Into<Vec<u8>>) -> Result<Vec<Part>, BadForm> {
    read(FORM, &Bytes::from(body.into()))
}

/// The only part of a form with this header and content.
fn only(header: &str, content: &str) -> Result<Part, BadForm> {
    let body =
        format!("--b\r\nContent-Disposition: form-data; {header}\r\n\r\n{content}\r\n--b--\r\n");
    parts(body).map(|mut parts| parts.pop().expect("one part"))
}

#[test]
fn parts_come_in_any_order_and_with_any_content() {
    let mut form = Writer::new("b");
    let contents = [
        "",
        "a",
        "\r\n",
        "--b",
        "\r\n--",
        "\r\n--bb",
        "x\r\n--b-",
        "\r\r\n--c\r\n",
        "-",
    ];
    for (n, content) in contents.into_iter().enumerate() {
        form.text(&format!("text{n}"), content);
        form.file(
            &format!("file{n}"),
            "f",
            Bytes::from_static(content.as_bytes()),
        );
    }
    let content_type = form.content_type();
    let parts = read(&content_type, &form.end().concat().into()).unwrap();
    assert_eq!(parts.len(), 2 * contents.len());
    for (n, part) in parts.iter().enumerate() {
        assert_eq!(part.content, contents[n / 2], "{}", part.name);
        assert_eq!(part.file_name.is_some(), n % 2 == 1, "{}", part.name);
    }
}

#[test]
fn a_form_that_is_cut_anywhere_is_none() {
    let mut form = Writer::new("b");
    form.text("a", "1");
    form.file("f", "x.png", Bytes::from_static(b"\x89PNG\r\n\x1a\n"));
    let body: Bytes = form.end().concat().into();
    // Behind the two last dashes nothing is missing.
    for end in 0..body.len() - 2 {
        assert!(read(FORM, &body.slice(..end)).is_err(), "cut at {end}");
    }
    assert_eq!(read(FORM, &body.slice(..body.len() - 2)).unwrap().len(), 2);
}

#[test]
fn layouts_that_others_write_are_read() {
    let head = "Content-Disposition: form-data; name=\"a\"";
    for body in [
        format!("--b\r\n{head}\r\n\r\n1\r\n--b--\r\n"),
        // Before and after the form anything may stand.
        format!("preamble\r\n--c\r\n--b\r\n{head}\r\n\r\n1\r\n--b--\r\nepilogue\r\n--b\r\n"),
        format!("\r\n--b\r\n{head}\r\n\r\n1\r\n--b--"),
        // Blanks behind a delimiter.
        format!("--b \t\r\n{head}\r\n\r\n1\r\n--b--  \r\n"),
        // Line feeds alone.
        format!("--b\n{head}\n\n1\n--b--\n"),
        format!("--b\r\ncontent-type: text/plain\r\nX-Y: z\r\n{head}\r\n\r\n1\r\n--b--\r\n"),
    ] {
        let parts = parts(body.clone()).unwrap_or_else(|bad| panic!("{body:?}: {bad}"));
        assert_eq!(parts.len(), 1, "{body:?}");
        assert_eq!(
            (&parts[0].name[..], &parts[0].content[..]),
            ("a", &b"1"[..]),
            "{body:?}"
        );
    }
    assert_eq!(parts("--b--\r\n"), Ok(Vec::new()), "a form without parts");
}

#[test]
fn names_are_read_as_they_are_quoted() {
    for (header, name, file) in [
        (r#"name="a""#, "a", None),
        ("name=a", "a", None),
        (r#"name="a b"; filename="x.png""#, "a b", Some("x.png")),
        (r#"filename=""; name="a""#, "a", Some("")),
        (r#"name="a\"b"; filename="c\\d""#, "a\"b", Some("c\\d")),
        (
            r#"name="a"; filename="C:\dir\x.png""#,
            "a",
            Some("C:\\dir\\x.png"),
        ),
        (r#"NAME="a"; FileName="x;y""#, "a", Some("x;y")),
        (r#"name="é" ; filename = "ü""#, "é", Some("ü")),
    ] {
        let part = only(header, "1").unwrap_or_else(|bad| panic!("{header}: {bad}"));
        assert_eq!(
            (&part.name[..], part.file_name.as_deref()),
            (name, file),
            "{header}"
        );
    }
}

#[test]
fn what_is_written_is_read_again_whatever_it_is_called() {
    for name in ["a", "a\"b", "a\\b", "é; x=\"y\"", "", "a=b"] {
        let mut form = Writer::new("0123");
        form.file(name, name, Bytes::from_static(b"x"));
        form.text(name, "y");
        let content_type = form.content_type();
        let parts = read(&content_type, &form.end().concat().into()).unwrap();
        let names: Vec<_> = parts.iter().map(|part| &part.name[..]).collect();
        assert_eq!(names, [name, name]);
        assert_eq!(parts[0].file_name.as_deref(), Some(name));
    }
    let mut form = Writer::new("b");
    form.text("a\r\nX: y", "1");
    let parts = read(FORM, &form.end().concat().into()).unwrap();
    assert_eq!(parts[0].name, "a%0D%0AX: y", "no header is smuggled in");
}

#[test]
fn what_is_no_form_is_refused_with_its_reason() {
    for content_type in [
        "",
        "application/json",
        "multipart/form-data",
        "multipart/form-data; charset=x",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=\"\"",
        "multipart/mixed; boundary=b",
    ] {
        let refused = read(content_type, &Bytes::from_static(b"--b--"));
        assert_eq!(refused, Err(BadForm::ContentType), "{content_type}");
    }
    for content_type in [
        "Multipart/Form-Data; Boundary=\"b\"",
        "multipart/form-data;charset=utf-8;boundary=b",
        "multipart/form-data; boundary=b; charset=utf-8",
    ] {
        assert_eq!(
            read(content_type, &Bytes::from_static(b"--b--")),
            Ok(Vec::new())
        );
    }
    for (body, why) in [
        ("", "ends before"),
        ("nothing of the kind", "ends before"),
        ("--b\r\n\r\n1\r\n--b--", "names no field"),
        (
            "--b\r\nContent-Disposition: form-data\r\n\r\n1\r\n--b--",
            "names no field",
        ),
        (
            "--b\r\nContent-Disposition: attachment; name=a\r\n\r\n1\r\n--b--",
            "form-data",
        ),
        (
            "--b\r\nContent-Disposition: form-data; name=\"a\r\n\r\n1\r\n--b--",
            "cannot be read",
        ),
        (
            "--b\r\nContent-Disposition: form-data; name=a\"b\r\n\r\n1\r\n--b--",
            "cannot be read",
        ),
        (
            "--b\r\nContent-Disposition: form-data; name\r\n\r\n1\r\n--b--",
            "cannot be read",
        ),
        ("--b\r\nno colon\r\n\r\n1\r\n--b--", "without a colon"),
        (
            "--b\r\nContent-Disposition: form-data; name=a\r\nContent-Transfer-Encoding: base64\r\n\r\n1\r\n--b--",
            "transfer encoding",
        ),
    ] {
        let said = parts(body).expect_err(body).to_string();
        assert!(said.contains(why), "{body:?}: {said}");
    }
    let body = b"--b\r\nContent-Disposition: form-data; name=\"\xff\"\r\n\r\n1\r\n--b--";
    assert_eq!(parts(*body), Err(BadForm::Header("is not UTF-8")));
}

#[test]
fn everything_a_client_can_make_long_has_a_bound() {
    let too_much = |read: Result<_, BadForm>| matches!(read, Err(BadForm::TooMuch { .. }));
    // Parts.
    let form = |count: usize| {
        let mut form = Writer::new("b");
        (0..count).for_each(|_| form.text("a", "1"));
        form.end().concat()
    };
    assert_eq!(parts(form(MAX_PARTS)).unwrap().len(), MAX_PARTS);
    assert!(too_much(parts(form(MAX_PARTS + 1))));
    // Names.
    let name = |length: usize| only(&format!("name=\"{}\"", "a".repeat(length)), "1");
    assert!(name(MAX_NAME_BYTES).is_ok());
    assert!(too_much(
        name(MAX_NAME_BYTES + 1).map(|_| Vec::<Part>::new())
    ));
    // Texts, and files, which have none but that of the form.
    let text = |length: usize| only("name=a", &"x".repeat(length));
    assert!(text(MAX_TEXT_BYTES).is_ok());
    assert!(too_much(
        text(MAX_TEXT_BYTES + 1).map(|_| Vec::<Part>::new())
    ));
    assert!(only("name=a; filename=f", &"x".repeat(MAX_TEXT_BYTES + 1)).is_ok());
    // Headers.
    let header = |length: usize| only(&format!("name=a\r\nX: {}", "x".repeat(length)), "1");
    assert!(header(MAX_HEADER_BYTES / 2).is_ok());
    assert!(too_much(
        header(MAX_HEADER_BYTES).map(|_| Vec::<Part>::new())
    ));
    // Boundaries.
    let boundary = |length: usize| {
        let boundary = "b".repeat(length);
        let content_type = format!("multipart/form-data; boundary={boundary}");
        read(&content_type, &format!("--{boundary}--").into())
    };
    assert!(boundary(MAX_BOUNDARY_BYTES).is_ok());
    assert!(too_much(boundary(MAX_BOUNDARY_BYTES + 1)));
}
