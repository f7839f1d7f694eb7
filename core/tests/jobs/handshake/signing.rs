//! The choice of a signer for the identity.

use super::*;

#[test]
fn a_remote_signers_identity_is_checked_used_and_told() {
    let key = Key::new(&[9; 32]);
    let address = key.address();
    let mut headers = Headers::new();
    headers.push_any("Authorization", "Bearer x");
    let signer = Signers::new(url("https://signer.example/some/path")).headers(headers);
    let mut bench = Bench::new(Config::default(), Identity::Remote(signer));
    let (id, request) = bench.request();
    assert_eq!(
        request.url.to_string(),
        "https://signer.example:443/sign-orchestrator-info"
    );
    assert_eq!(request.headers.get("authorization"), Some("Bearer x"));
    assert_eq!(request.body, Body::Full(Bytes::from_static(b"{}")));
    assert_eq!(request.trust, Trust::Public);
    let signature = key.sign(identity_digest(address));
    let body = format!(
        r#"{{"address":"{address}","signature":"{}"}}"#,
        hex::encode(signature.0)
    );
    bench.json(id, 200, &body);
    assert!(
        matches!(bench.event(), Event::Identified(who, with) if who == address && with == signature)
    );
    let (id, request) = bench.request();
    let asked = question(&request);
    assert_eq!(asked.address, &address.0[..]);
    assert_eq!(asked.sig, &signature.0[..]);
    assert_eq!(
        request.headers.get("authorization"),
        None,
        "signer headers stay with the signer"
    );
    bench.reply(id, &answer(START));
    assert!(matches!(bench.event(), Event::Ready(_)));
}

#[test]
fn a_signer_that_answers_nonsense_is_named() {
    let other = Key::new(&[10; 32]).address();
    let stolen = hex::encode(Key::new(&[9; 32]).sign(identity_digest(other)).0);
    let long = "x".repeat(70_000);
    for (status, body) in [
        (200, "garbage".into()),
        (200, "{}".into()),
        (200, r#"{"address":"0x12","signature":"0x"}"#.into()),
        (
            200,
            format!(r#"{{"address":"{other}","signature":"0x{stolen}"}}"#),
        ),
        (200, long),
        (500, r#"{"error":{"message":"no key today"}}"#.into()),
    ] {
        let mut bench = Bench::new(
            Config::default(),
            Identity::remote(url("http://signer:7936")),
        );
        let (id, _) = bench.request();
        bench.json(id, status, &body);
        let failure = bench.failure();
        assert_eq!(failure.who, Party::Signer(url("http://signer:7936")));
        assert_eq!(failure.advice(), Advice::Stop);
        assert_eq!(Class::of(&failure), Class::Identity);
        if status == 500 {
            assert!(failure.to_string().contains("no key today"), "{failure}");
        }
        assert_eq!(bench.drain(), None);
    }
}

#[test]
fn the_next_signer_is_asked_when_one_gives_nothing() {
    let signers = Signers::new(url("http://a:1")).or(url("http://b:2"));
    let mut bench = Bench::new(Config::default(), Identity::Remote(signers));
    let (first, _) = bench.request();
    bench.sleep(Duration::from_secs(5));
    assert_eq!(bench.aborted(), first);
    let (second, request) = bench.request();
    assert_eq!(request.url.host(), "b");
    bench.json(second, 200, &introduction(&Key::new(&[9; 32])));
    assert!(matches!(bench.event(), Event::Identified(..)));
}

/// Three signers of one account, and what each says when it is asked who pays.
fn three() -> (Signers, String) {
    let signers = Signers::new(url("http://a:1"))
        .or(url("http://b:2"))
        .or(url("http://c:3"));
    (signers, introduction(&Key::new(&[9; 32])))
}

#[test]
fn a_silent_signer_costs_a_second_and_rests() {
    let (signers, says) = three();
    let mut bench = Bench::new(Config::default(), Identity::Remote(signers.clone()));
    let (silent, _) = bench.request();
    bench.nap();
    assert_eq!(bench.now, START + IDENTITY_HEDGE);
    let (second, request) = bench.request();
    assert_eq!(request.url.host(), "b");
    bench.json(second, 200, &says);
    assert!(matches!(bench.event(), Event::Identified(..)));
    assert_eq!(bench.aborted(), silent);
    // The next handshake knows.
    let health = bench.health.clone();
    let until = bench.now + FIRST_REST;
    assert_eq!(
        health.standing(bench.now, &url("http://a:1")),
        Standing::Resting(until)
    );
    let mut bench = Bench::new(
        Config::default(),
        Identity::Remote(signers.clone().health(health.clone())),
    );
    assert_eq!(bench.request().1.url.host(), "b");
    // And after its rest the first one is in its place again.
    assert_eq!(
        health.standing(until, &url("http://a:1")),
        Standing::Healthy
    );
}

#[test]
fn the_first_signer_may_still_answer_when_the_second_was_asked() {
    let (signers, says) = three();
    let mut bench = Bench::new(Config::default(), Identity::Remote(signers));
    let (slow, _) = bench.request();
    bench.nap();
    let (second, _) = bench.request();
    bench.json(slow, 200, &says);
    assert!(matches!(bench.event(), Event::Identified(..)));
    assert_eq!(bench.aborted(), second);
    // What comes after it is of no interest, and nobody is to blame.
    bench.json(second, 200, &says);
    assert!(bench.events.is_empty());
    assert_eq!(bench.health.resting(bench.now).count(), 0);
}

#[test]
fn a_signer_that_refuses_costs_nothing_and_a_silent_one_after_it_a_second() {
    let (signers, says) = three();
    let mut bench = Bench::new(Config::default(), Identity::Remote(signers));
    let (first, _) = bench.request();
    bench.json(first, 500, "{}");
    let (second, request) = bench.request();
    assert_eq!((bench.now, request.url.host()), (START, "b"));
    // Others who ask signers meanwhile know it at once.
    assert_eq!(bench.health.resting(bench.now).count(), 1);
    bench.nap();
    let (third, request) = bench.request();
    assert_eq!(
        (bench.now, request.url.host()),
        (START + IDENTITY_HEDGE, "c")
    );
    bench.json(third, 200, &says);
    assert!(matches!(bench.event(), Event::Identified(..)));
    assert_eq!(bench.aborted(), second);
    assert_eq!(bench.health.resting(bench.now).count(), 2);
}

#[test]
fn when_all_signers_are_silent_the_error_names_each() {
    let (signers, _) = three();
    let mut bench = Bench::new(Config::default(), Identity::Remote(signers));
    while bench.events.is_empty() {
        bench.nap();
    }
    assert_eq!(bench.now, START + Duration::from_secs(7));
    let failure = bench.failure();
    assert_eq!(failure.who, Party::Signers);
    assert_eq!(failure.advice(), Advice::Stop);
    assert_eq!(Class::of(&failure), Class::Identity);
    for name in ["http://a:1", "http://b:2", "http://c:3", "within 5s"] {
        assert!(failure.to_string().contains(name), "{failure}");
    }
    assert_eq!(bench.drain(), None);
}

#[test]
fn our_own_key_signs_the_identity() {
    let key = Key::new(&[3; 32]);
    let address = key.address();
    let mut bench = Bench::new(Config::default(), Identity::Key(address));
    let (id, effect) = bench.effects.remove(0);
    let Effect::Sign(digest) = effect else {
        panic!("a signature is wanted");
    };
    bench.input(Input::Signed(id, Ok(key.sign(digest))));
    assert!(matches!(bench.event(), Event::Identified(who, _) if who == address));
    assert_eq!(question(&bench.request().1).address, &address.0[..]);
}

#[test]
fn a_key_holder_that_refuses_lies_or_sleeps_is_named() {
    let address = Key::new(&[3; 32]).address();
    let other = Key::new(&[4; 32]);
    for answer in [
        Some(Err(SignRefused("locked".into()))),
        Some(Ok(other.sign(identity_digest(address)))),
        None,
    ] {
        let mut bench = Bench::new(Config::default(), Identity::Key(address));
        let (id, _) = bench.effects.remove(0);
        match answer {
            Some(answer) => bench.input(Input::Signed(id, answer)),
            None => bench.nap(),
        }
        assert_eq!(bench.failure().who, Party::KeyHolder);
    }
}
