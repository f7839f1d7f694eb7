//! Capability ids, their names and both spellings of their slugs.

use livepeer_core::capabilities::Capability;

use crate::counted;

#[test]
fn every_id_has_the_names_that_the_network_uses() {
    let mut named = 0;
    for case in &counted("capabilities/pipelines.json", "table", 41) {
        let Ok(id) = u32::try_from(case["capability"].as_i64().unwrap()) else {
            // The reference's two pseudo ids. They are no capabilities here, and their names read as nothing.
            assert_eq!(
                Capability::from_name(case["go_slug"].as_str().unwrap()),
                None
            );
            continue;
        };
        let capability = Capability::new(id).unwrap();
        assert_eq!(capability.name(), case["name"].as_str(), "{id}");
        assert_eq!(capability.slug(), case["go_slug"].as_str(), "{id}");
        assert_eq!(
            capability.client_slug(),
            case["python_slug"].as_str(),
            "{id}"
        );
        named += usize::from(capability.name().is_some());
        for spelling in ["name", "go_slug", "python_slug"] {
            if let Some(text) = case[spelling].as_str() {
                assert_eq!(Capability::from_name(text), Some(capability), "{text}");
            }
        }
        if let Some(back) = case["go_slug_parses_back_to"].as_i64() {
            assert_eq!(
                i64::from(id),
                back,
                "where the reference reads it, it reads the same"
            );
        }
    }
    assert_eq!(Capability::named().count(), named);
}

/// Names that the reference cannot read and we can: it folds the first letter only.
const READ_BY_US: [(&str, u32); 15] = [
    ("TEXT-TO-IMAGE", 27),
    ("text-To-image", 27),
    ("byoc", 37),
    ("Byoc", 37),
    ("BYOC", 37),
    ("LLM", 33),
    ("gop", 11),
    ("mp4", 2),
    ("mpegts", 1),
    ("h264", 0),
    ("storage-s3", 5),
    ("hevc-decode", 15),
    ("h264-decode-yuv444-8-bit", 21),
    ("h264-Decode-YUV444-8-bit", 21),
    ("mpeg7-signature", 14),
];

#[test]
fn pipelines_read_as_in_the_reference_and_some_more() {
    let mut more = 0;
    for case in &counted("capabilities/pipelines.json", "parse", 50) {
        let text = case["pipeline"].as_str().unwrap();
        let ours = Capability::from_name(text).map(Capability::id);
        let theirs = case["capability"].as_i64();
        let extra = READ_BY_US.iter().find(|(name, _)| *name == text);
        match (theirs, extra) {
            (None, Some((_, id))) => {
                assert_eq!(ours, Some(*id), "{text}");
                more += 1;
            }
            (None, None) => assert_eq!(ours, None, "{text}"),
            // The pseudo ids.
            (Some(id), None) if id < 0 => assert_eq!(ours, None, "{text}"),
            (Some(id), None) => assert_eq!(ours.map(i64::from), Some(id), "{text}"),
            (Some(_), Some(_)) => panic!("{text} is no difference"),
        }
    }
    assert_eq!(more, READ_BY_US.len());
}
