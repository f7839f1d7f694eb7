//! Batch jobs as applications submit them, against an orchestrator and a signer on loopback.

use futures_core::Stream;
use livepeer_core::Pipeline;
use livepeer_core::job::batch::Failed;
use livepeer_core::money::Amount;
use livepeer_core::wire::batch::{Answer, BatchRequest};

use super::api::{BATCH_MODEL, Place};
use super::*;
use crate::api::{BatchEvent, Error, Submission};

fn picture() -> BatchRequest {
    let mut request = BatchRequest::new(Pipeline::TextToImage);
    request.set_model(BATCH_MODEL);
    for (name, value) in [("width", 64), ("height", 64)] {
        request.set(name, value).expect("a field");
    }
    request.set("prompt", "a coffee shop").expect("a field");
    request
}

fn chat(words: usize, stream: bool) -> BatchRequest {
    let mut request = BatchRequest::new(Pipeline::Llm);
    request.set_model(BATCH_MODEL);
    let said = "word ".repeat(words);
    let messages = format!(r#"[{{"role":"user","content":"{said}"}}]"#);
    request.set_text("messages", &messages).expect("messages");
    request.set("max_tokens", 4_096).expect("a field");
    request.set("stream", stream).expect("a field");
    request
}

fn job<R: Runtime>(place: &Place<R>, request: BatchRequest) -> Submission<R> {
    place
        .gateway()
        .submit(request)
        .orchestrator(&place.service)
        .signer(&place.signer)
}

/// A picture comes as bytes, and its price is exact. A later job of the gateway pays from what is on account.
pub async fn a_batch_job_is_answered_and_paid<R: Runtime>(runtime: R) {
    let place = Place::new(&runtime).await;
    let gateway = place.gateway();
    let mut tickets = Vec::new();
    for _ in 0..2 {
        let job = gateway.submit(picture()).orchestrator(&place.service);
        let sent = job.signer(&place.signer).send().await;
        let done = sent.expect("a good request").answer().await;
        let done = done.expect("an answer");
        let Some(Answer::Images(images)) = &done.answer else {
            panic!("a picture");
        };
        assert_eq!(images.len(), 1);
        assert!(done.files[0].content.starts_with(b"\x89PNG"));
        assert_eq!(done.files[0].url, images[0].url);
        assert_eq!(done.served.units, 64 * 64);
        let fee = Amount::ratio(64 * 64 * 100, 1).expect("a number");
        assert_eq!(done.served.cost, fee);
        tickets.push(done.served.tickets);
    }
    assert!(tickets[0] > 0, "{tickets:?}");
}

/// Every chunk of a stream arrives, however slowly it is read, and the caller learns who serves it before the first.
pub async fn a_stream_is_held_back_and_loses_no_chunk<R: Runtime>(runtime: R) {
    let place = Place::new(&runtime).await;
    let sent = job(&place, chat(300, true)).send().await;
    let mut job = sent.expect("a good request");
    let mut chunks = 0;
    let mut head = false;
    loop {
        match job.next().await.expect("it has an end") {
            BatchEvent::Head(served) => {
                assert!(chunks == 0 && !head);
                head = true;
                assert_eq!(served.units, 4_096);
                // More chunks than are kept wait behind this.
                rest(&runtime, Duration::from_millis(100)).await;
            }
            BatchEvent::Chunk(_) => chunks += 1,
            BatchEvent::Done(finished) => {
                assert!(finished.answer.is_none());
                break;
            }
            BatchEvent::Failed(failed) => panic!("{failed}"),
            BatchEvent::Trying(trying) => assert_eq!(trying.attempt, 1),
        }
    }
    assert!(head && chunks >= 300, "{chunks} chunks");
    assert!(job.next().await.is_none());
}

/// A stream is a `Stream`, and dropping a job ends it: the next one is served.
pub async fn a_job_that_is_dropped_disturbs_no_other<R: Runtime>(runtime: R) {
    let place = Place::new(&runtime).await;
    let gateway = place.gateway();
    let sent = |request| {
        let job = gateway.submit(request).orchestrator(&place.service);
        job.signer(&place.signer).send()
    };
    for _ in 0..8 {
        let job = sent(chat(300, true)).await.expect("a good request");
        let mut chunks = std::pin::pin!(job.stream());
        let first = std::future::poll_fn(|cx| chunks.as_mut().poll_next(cx)).await;
        first.expect("a chunk").expect("no failure");
    }
    let done = sent(chat(3, false)).await.expect("a good request");
    let done = done.answer().await.expect("an answer");
    assert!(matches!(done.answer, Some(Answer::Llm { .. })));
    assert!(done.served.attempts.is_empty());
}

/// A bad request is refused before anybody is asked, and a model that nobody has is said to be unknown.
pub async fn bad_requests_and_unknown_models_are_said<R: Runtime>(runtime: R) {
    let place = Place::new(&runtime).await;
    let mut request = BatchRequest::new(Pipeline::TextToImage);
    request.set_model(BATCH_MODEL);
    let refused = job(&place, request).send().await;
    assert!(matches!(refused, Err(Error::Request(_))));
    let mut request = picture();
    request.set_model("no/such-model");
    let sent = job(&place, request).send().await.expect("a good request");
    let failed = sent.answer().await.expect_err("nobody has it");
    let Error::Batch(failed) = failed else {
        panic!("{failed}");
    };
    assert_eq!(*failed, Failed::UnknownModel);
}

/// A model that is to be warm has its handshake before there is a job, and the first job needs no other.
pub async fn a_model_is_warmed_up_before_its_first_job<R: Runtime>(runtime: R) {
    let place = Place::new(&runtime).await;
    let gateway = place.gateway();
    let job = || {
        let job = gateway.submit(picture()).orchestrator(&place.service);
        job.signer(&place.signer)
    };
    job().warm_up().expect("good settings");
    place.quoted().await;
    job().warm_up().expect("good settings");
    job().await.expect("done");
    assert_eq!(place.quotes(), 0);
}
