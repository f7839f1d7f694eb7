//! The renewal of answers that get old.

use super::*;

#[test]
fn the_token_is_renewed_when_less_than_the_margin_is_left() {
    let mut bench = Bench::ready(Config::default());
    let due = START + Duration::from_secs(TOKEN_LIFE - 180);
    bench.now = due;
    bench.input(Input::Tick);
    bench.quiet();
    bench.nap();
    assert_eq!(bench.now, due + Duration::from_nanos(1));
    let (id, request) = bench.request();
    assert!(question(&request).ignore_capacity_check);
    assert_eq!(request.headers.get("grpc-timeout"), Some("2500m"));
    let mut info = answer(bench.now);
    info.auth_token.as_mut().unwrap().session_id = "next".into();
    bench.reply(id, &info);
    let Event::Renewed(info) = bench.event() else {
        panic!("it is renewed");
    };
    assert_eq!(info.auth_token.as_ref().unwrap().session_id, "next");
    assert!(bench.drain().unwrap() > bench.now + Duration::from_secs(1_600));
}

#[test]
fn a_token_that_is_always_at_its_end_does_not_make_it_spin() {
    let mut bench = Bench::new(Config::default(), Identity::Offchain);
    for _ in 0..5 {
        let (id, _) = bench.request();
        let mut info = answer(START);
        info.auth_token.as_mut().unwrap().expiration = i64::MIN;
        bench.reply(id, &info);
        bench.event();
        assert_eq!(bench.drain(), Some(bench.now + Duration::from_secs(30)));
        bench.nap();
    }
}

#[test]
fn a_renewal_is_tried_again_when_nobody_answers() {
    let mut bench = Bench::ready(Config::default());
    bench.renew();
    let (first, _) = bench.request();
    // A second wish while one is under way changes nothing.
    bench.renew();
    bench.quiet();
    bench.sleep(Duration::from_millis(2_500));
    assert_eq!(bench.aborted(), first);
    bench.quiet();
    bench.sleep(Duration::from_secs(1));
    let (second, _) = bench.request();
    bench.refuse(
        second,
        2,
        "Invalid orchestrator request: OrchestratorCapped",
    );
    assert!(matches!(
        bench.effects.remove(0).1,
        Effect::Http(Out::Abort)
    ));
    bench.sleep(Duration::from_secs(2));
    let (third, _) = bench.request();
    bench.http(third, http::In::Failed(Fault::Connect("refused".into())));
    let failure = bench.failure();
    assert!(
        matches!(failure.cause, Cause::GaveUp { times: 3, .. }),
        "{failure}"
    );
    assert_eq!(failure.advice(), Advice::GoElsewhere);
}

#[test]
fn a_renewal_is_judged_like_the_first_answer() {
    let mut bench = Bench::ready(Config::default());
    bench.renew();
    let (id, _) = bench.request();
    let mut info = answer(bench.now);
    info.capabilities.as_mut().unwrap().bitstring = vec![];
    bench.reply(id, &info);
    assert!(matches!(bench.event(), Event::Rejected(_)));
}

#[test]
fn a_renewal_goes_where_the_orchestrator_said() {
    let mut bench = Bench::new(Config::default(), Identity::Offchain);
    let (id, _) = bench.request();
    let info = net::OrchestratorInfo {
        transcoder: "https://worker.example:1".into(),
        ..answer(START)
    };
    bench.reply(id, &info);
    bench.event();
    bench.renew();
    assert_eq!(bench.request().1.url.host(), "worker.example");
}

#[test]
fn renewing_before_there_is_anything_is_misuse() {
    let mut bench = Bench::new(Config::default(), Identity::Offchain);
    assert_eq!(bench.machine.renew(bench.now), Err(Misuse::NotOpen));
}

#[test]
fn a_piggybacked_quote_replaces_only_what_it_does_not_worsen() {
    let mut bench = Bench::ready(Config::default());
    let offer = |change: fn(&mut net::OrchestratorInfo)| {
        let mut info = answer(START);
        change(&mut info);
        std::sync::Arc::new(OrchestratorInfo::decode(info.encode_to_vec().into()).unwrap())
    };
    let now = bench.now;
    type Change = fn(&mut net::OrchestratorInfo);
    let refused: [(Change, NotAdopted); 6] = [
        (|info| info.price_info = Some(price(13)), NotAdopted::Dearer),
        (|info| info.price_info = Some(price(0)), NotAdopted::NoPrice),
        (|info| info.price_info = None, NotAdopted::NoPrice),
        (
            |info| info.ticket_params = None,
            NotAdopted::WorthlessTickets,
        ),
        (
            |info| info.address = vec![1; 20].into(),
            NotAdopted::OtherAddress,
        ),
        (
            |info| info.auth_token.as_mut().unwrap().session_id = "other".into(),
            NotAdopted::OtherSession,
        ),
    ];
    for (change, why) in refused {
        assert_eq!(bench.machine.adopt(now, offer(change)), Err(why));
    }
    assert_eq!(bench.machine.info().unwrap().price, Price::new(12, 1));
    bench
        .machine
        .adopt(now, offer(|info| info.price_info = Some(price(11))))
        .unwrap();
    assert_eq!(bench.machine.info().unwrap().price, Price::new(11, 1));
    bench.machine.close(now);
    assert_eq!(
        bench.machine.adopt(now, offer(|_| {})),
        Err(NotAdopted::NoSession)
    );
}
