//! Jobs for containers: signed as orchestrators know it, under the same guards as payments, and nothing is paid.

use livepeer_core::wire::byoc::{
    JobRequest, SIGN_JOB_PATH, Scheme, SignRequest, read_job_signature,
};

use super::*;

fn job() -> JobRequest {
    JobRequest {
        id: "job-1".into(),
        request: "{\"text\": \"abc\"}".into(),
        parameters: String::new(),
        capability: "text-reverse".into(),
        timeout_seconds: 30,
    }
}

fn ask(server: &mut Server, body: &[u8]) -> (u16, Value) {
    let (status, _, body) = server.call(Method::Post, SIGN_JOB_PATH, Headers::new(), body);
    (status, serde_json::from_slice(&body).expect("JSON"))
}

#[test]
fn a_job_is_signed_in_the_way_that_is_configured_and_nothing_is_paid() {
    for scheme in Scheme::ALL {
        let mut server = Server::new(|config, _| config.job_scheme = scheme);
        let body = SignRequest(job()).to_json();
        let (status, said) = ask(&mut server, &body);
        assert_eq!(status, 200, "{said}");
        let (signed, as_what) =
            read_job_signature(said.to_string().as_bytes(), &job()).expect("signed");
        assert_eq!((signed.sender, as_what), (key().address(), scheme));
        assert!(server.kept.is_empty(), "no nonce is spent");
        assert!(matches!(
            &server.events[..],
            [Event::JobSigned { capability, .. }] if capability == "text-reverse"
        ));
        assert_eq!(server.signer.figures().answers(SIGN_JOB_PATH, 200), 1);
    }
}

#[test]
fn what_is_no_job_is_refused_with_its_reason() {
    let with = |change: fn(&mut JobRequest)| {
        let mut job = job();
        change(&mut job);
        SignRequest(job).to_json().to_vec()
    };
    for (body, why) in [
        (with(|job| job.id.clear()), "id is required"),
        (with(|job| job.capability.clear()), "capability is required"),
        (
            with(|job| job.timeout_seconds = 0),
            "timeout_seconds is required",
        ),
        // Whatever else this key signs is not JSON.
        (with(|job| job.request = "0xf39F".into()), "job request"),
        (with(|job| job.parameters = "x".into()), "job parameters"),
        (b"[]".to_vec(), "job request"),
        (Vec::new(), "job request"),
        (
            br#"{"id":"a","capability":"b","timeout_seconds":4294967296}"#.to_vec(),
            "timeout_seconds",
        ),
    ] {
        let mut server = Server::new(|_, _| {});
        let (status, said) = ask(&mut server, &body);
        assert_eq!(status, 400, "{said}");
        let message = text(&said["error"]["message"]);
        assert!(message.contains(why), "{message}");
        assert_eq!(server.signer.open_exchanges(), 0);
    }
    let mut server = Server::new(|_, _| {});
    let (status, headers, _) = server.call(Method::Get, SIGN_JOB_PATH, Headers::new(), b"");
    assert_eq!((status, headers.get("allow")), (405, Some("POST")));
    let (status, _) = ask(&mut server, &vec![b' '; (1 << 20) + 1]);
    assert_eq!(status, 413);
}

#[test]
fn the_webhook_has_the_last_word_on_jobs_too() {
    let body = SignRequest(job()).to_json();
    for (answer, wanted) in [
        (r#"{"status":200,"auth_id":"ann"}"#, 200),
        (r#"{"status":403,"reason":"no"}"#, 403),
        ("nonsense", 500),
    ] {
        let mut server = Server::with_webhook(200, answer);
        let (status, said) = ask(&mut server, &body);
        assert_eq!(status, wanted, "{said}");
        let asked = &server.asked[0]["state"];
        assert_eq!(asked["App"], "byoc/text-reverse");
        assert_eq!(asked["Type"], "byoc", "{asked}");
        let signed =
            |event: &Event| matches!(event, Event::JobSigned { auth_id, .. } if auth_id == "ann");
        assert_eq!(server.events.iter().any(signed), wanted == 200);
    }
}
