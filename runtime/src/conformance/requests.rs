//! Requests to batch pipelines as structs and as JSON, against an orchestrator and a signer on loopback.

use super::api::BATCH_MODEL;
use super::api::Place;
use super::*;
use crate::api::{
    Answer, AudioToText, BatchFailed, Error, FilePart, ImageToImage, ImageToText, ImageToVideo,
    Llm, SegmentAnything2, Submission, TaskAnswer, TextToImage, TextToSpeech, Upscale,
};

/// The job with the orchestrator of the place, paid through its signer.
fn at<R: Runtime, A: TaskAnswer>(
    place: &Place<R>,
    submission: Submission<R, A>,
) -> Submission<R, A> {
    submission
        .orchestrator(&place.service)
        .signer(&place.signer)
}

/// Results come as bytes with a request of each kind, and files go out and are measured by us.
pub async fn every_pipeline_has_a_struct_and_files_are_measured<R: Runtime>(runtime: R) {
    let place = Place::new(&runtime).await;
    let gateway = place.gateway();
    let picture = TextToImage {
        prompt: "a coffee shop at sunset".into(),
        width: Some(16),
        height: Some(8),
        num_images_per_prompt: Some(2),
        model: BATCH_MODEL.into(),
        ..TextToImage::default()
    };
    let drawn = at(&place, gateway.submit(picture)).await.expect("done");
    assert_eq!(drawn.images.len(), 2);
    assert_ne!(drawn.images[0].seed, drawn.images[1].seed);
    assert_eq!(drawn.served.units, 16 * 8 * 2);
    assert!(drawn.served.tickets > 0 && drawn.served.price.is_some());
    let png = drawn.images[0].content.clone();
    assert!(png.starts_with(b"\x89PNG"));

    let speech = TextToSpeech {
        text: "hello".into(),
        model: BATCH_MODEL.into(),
        ..TextToSpeech::default()
    };
    let spoken = at(&place, gateway.submit(speech)).await.expect("done");
    assert_eq!(spoken.served.units, 5_000);
    let wav = spoken.content;

    let file = || FilePart::new("in.png", png.clone());
    let pixels = 16 * 8;
    let requests: [(crate::api::BatchRequest, u64); 3] = [
        (
            ImageToImage {
                image: file(),
                prompt: "p".into(),
                strength: Some(0.5),
                model: BATCH_MODEL.into(),
                ..ImageToImage::default()
            }
            .into(),
            pixels,
        ),
        (
            ImageToVideo {
                image: file(),
                width: Some(16),
                height: Some(8),
                model: BATCH_MODEL.into(),
                ..ImageToVideo::default()
            }
            .into(),
            pixels * 25,
        ),
        (
            Upscale {
                image: file(),
                prompt: "p".into(),
                model: BATCH_MODEL.into(),
                ..Upscale::default()
            }
            .into(),
            pixels,
        ),
    ];
    for (request, units) in requests {
        let pipeline = request.pipeline();
        let job = at(&place, gateway.submit(request)).send().await;
        let job = job.unwrap_or_else(|error| panic!("{pipeline}: {error}"));
        let done = job.answer().await;
        let done = done.unwrap_or_else(|error| panic!("{pipeline}: {error}"));
        assert_eq!(done.served.units, units, "{pipeline}");
        let answer = done.answer.as_ref().expect("no stream");
        for url in answer.urls() {
            assert!(done.content(url).is_some(), "{pipeline}: {url}");
        }
    }
    let heard = AudioToText {
        audio: FilePart::new("a.wav", wav),
        model: BATCH_MODEL.into(),
        ..AudioToText::default()
    };
    let heard = at(&place, gateway.submit(heard)).await.expect("done");
    assert!(!heard.text.is_empty());
    let masks = SegmentAnything2 {
        image: file(),
        box_: Some("[0,0,1,1]".into()),
        model: BATCH_MODEL.into(),
        ..SegmentAnything2::default()
    };
    let masks = at(&place, gateway.submit(masks)).await.expect("done");
    assert_eq!(masks.served.units, pixels);
    assert!(masks.masks.starts_with('[') && masks.scores.starts_with('['));
    let caption = ImageToText {
        image: file(),
        model: BATCH_MODEL.into(),
        ..ImageToText::default()
    };
    let caption = at(&place, gateway.submit(caption)).await.expect("done");
    assert_eq!(caption.served.units, pixels);
    assert!(!caption.text.is_empty());
    // Whoever awaits the answer of a language model wants all of it.
    for stream in [false, true] {
        let asked = Llm {
            stream,
            model: BATCH_MODEL.into(),
            ..Llm::new("hi")
        };
        let reply = at(&place, gateway.submit(asked)).await.expect("done");
        assert_eq!(reply.served.units, 256);
        assert!(!reply.text().is_empty());
    }
}

/// A session does any job that is written as JSON, with its own orchestrator and payer.
pub async fn a_session_does_jobs_that_are_written_as_json<R: Runtime>(runtime: R) {
    let place = Place::new(&runtime).await;
    let session = place.gateway().orchestrator(&place.service);
    let session = session.signer(&place.signer).connect().await;
    let session = session.expect("somebody listens");
    let request =
        r#"{"model_id":"a/model","prompt":"A coffee shop at sunset","width":64,"height":64}"#;
    let drawn = session.submit_job("text-to-image", request).await;
    let drawn = drawn.expect("done");
    assert_eq!(drawn.files.len(), 1);
    assert_eq!(drawn.served.units, 64 * 64);
    let said = session.submit_job(
        "llm",
        r#"{"model":"a/model","messages":[{"role":"user","content":"hi"}]}"#,
    );
    let said = said.await.expect("done");
    let Some(Answer::Llm { completion, .. }) = said.answer else {
        panic!("{said:?}");
    };
    assert!(!completion.choices[0].content.is_empty());

    for (pipeline, request, why) in [
        ("text-to-nothing", "{}", "there are text-to-image"),
        ("text-to-image", "[]", "not a JSON object"),
        ("text-to-image", "{}", "prompt is required"),
        ("upscale", r#"{"prompt":"p"}"#, "image is required"),
        ("upscale", r#"{"prompt":"p","image":"%"}"#, "base64"),
        (
            "upscale",
            r#"{"prompt":"p","image":"AQID"}"#,
            "image cannot be read",
        ),
    ] {
        let refused = session.submit_job(pipeline, request).await;
        let Err(Error::Request(bad)) = refused else {
            panic!("{request}: {refused:?}");
        };
        assert!(bad.text.contains(why), "{bad}");
    }
    let nobody = session.submit_job("text-to-image", r#"{"prompt":"p","model_id":"nobody/has"}"#);
    let Err(Error::Batch(failed)) = nobody.await else {
        panic!("nobody has that model");
    };
    assert!(
        matches!(
            *failed,
            BatchFailed::UnknownModel | BatchFailed::NoOrchestrator { .. }
        ),
        "{failed}"
    );
}
