//! Requests that are refused before anybody is asked.

use livepeer_core::wire::openai::{backend, chat, image, models as list, transcript};
use livepeer_core::wire::refused::{Code, Refused};
use serde_json::Value;

use super::{Request, cases, check_refused, models, settings};

/// Cases of keys and their limits, of backends, which the front door plays, and of Livepeer's own routes: they are not of
/// the shapes of OpenAI alone, or are about callers whom this gateway does not tell apart yet.
fn is_elsewhere(id: &str) -> bool {
    ["auth-", "scope-", "limit-", "responses-", "native-"]
        .iter()
        .any(|prefix| id.starts_with(prefix))
        || ["embed-no-input", "rerank-no-documents", "chat-embed-model"].contains(&id)
}

#[test]
fn each_bad_request_has_its_one_answer() {
    let all = cases("openai-bad-input");
    let mut seen = 0;
    for case in all.iter().filter(|case| !is_elsewhere(id(case))) {
        let reply = &case["out"]["reply"];
        check_refused(id(case), &refused(case), reply);
        seen += 1;
    }
    assert_eq!((all.len(), seen), (118, 91));
}

fn id(case: &Value) -> &str {
    case["id"].as_str().unwrap()
}

/// The refusal of a case: what the front door decides by the head alone is built as it builds it.
fn refused(case: &Value) -> Refused {
    let request = Request::of(case);
    let (method, path) = (
        &case["in"]["request"]["method"],
        &case["in"]["request"]["path"],
    );
    let (method, path) = (method.as_str().unwrap(), path.as_str().unwrap());
    match id(case) {
        "route-unknown" | "route-double-slash" => return Refused::unknown_url(method, path),
        "route-root" => return Refused::unknown_url(method, "/v1"),
        "route-method" => return Refused::method(method, path, "POST"),
        "models-post" => return Refused::method(method, path, "GET"),
        "body-too-large" => return Refused::too_large(4 << 20),
        "body-multipart" => return Refused::not_json("multipart/form-data"),
        "model-missing" => {
            return list::one("no/such", &models(), &settings(), 0).unwrap_err();
        }
        "audio-translate" => return backend::no_translation(),
        _ => {}
    }
    match request.read() {
        None => backend::refuse(&request.body, &models()),
        Some(Err(refused)) => refused,
        // A decoder finds the rest.
        Some(Ok(translated)) => match translated.request.needs() {
            Some(livepeer_core::wire::batch::Probe::Image) => image::unreadable(),
            Some(livepeer_core::wire::batch::Probe::Audio) => transcript::unreadable(),
            None => panic!("{} is good", id(case)),
        },
    }
}

#[test]
fn bounds_of_chats_are_told() {
    let chat = |more: &str, messages: usize| {
        let message = r#"{"role":"user","content":"hi"}"#;
        let messages = vec![message; messages].join(",");
        let body = format!(
            r#"{{"model":"meta-llama/Meta-Llama-3.1-8B-Instruct","messages":[{messages}]{more}}}"#
        );
        chat::read(body.as_bytes(), None, &models(), &settings())
    };
    let stop = |bytes: usize| format!(r#","stop":["{}"]"#, "s".repeat(bytes));
    let metadata = |pairs: usize| {
        let pairs: Vec<String> = (0..pairs).map(|at| format!(r#""{at}":"""#)).collect();
        format!(r#","metadata":{{{}}}"#, pairs.join(","))
    };
    assert!(chat(&stop(64), 2_048).is_ok());
    assert!(chat(&metadata(16), 1).is_ok());
    for (refused, code, param) in [
        (chat(&stop(65), 1), Code::StringAboveMaxLength, "stop"),
        (chat("", 2_049), Code::ArrayAboveMaxLength, "messages"),
        (
            chat(&metadata(17), 1),
            Code::ArrayAboveMaxLength,
            "metadata",
        ),
        (chat(r#","seed":1e400"#, 1), Code::InvalidType, ""),
        (
            chat(r#","top_k":9223372036854775808"#, 1),
            Code::InvalidType,
            "top_k",
        ),
    ] {
        let refused = refused.unwrap_err();
        assert_eq!((refused.code, refused.status()), (code, 400));
        assert_eq!(refused.param.unwrap_or_default(), param);
    }
}

#[test]
fn a_body_of_openais_routes_is_one_value_of_json_and_nothing_else() {
    let good = r#"{"model":"meta-llama/Meta-Llama-3.1-8B-Instruct","messages":[{"role":"user","content":"hi"}]"#;
    let read = |body: String| chat::read(body.as_bytes(), None, &models(), &settings());
    assert!(read(format!("{good}}} \n")).is_ok());
    for (body, why) in [
        (
            format!(r#"{good},"model":"other"}}"#),
            "duplicate key 'model'",
        ),
        (format!("{good}}} x"), "not valid JSON"),
        (format!("{good}}}{{}}"), "not valid JSON"),
        (format!(r#"{good},"user":"\ud800"}}"#), "not valid JSON"),
        (String::new(), "not valid JSON"),
    ] {
        let refused = read(body.clone()).unwrap_err();
        assert_eq!(
            (refused.code, refused.status()),
            (Code::InvalidJson, 400),
            "{body}"
        );
        assert!(refused.message.contains(why), "{body}: {}", refused.message);
    }
}
