//! Refusals and limits, and what is told of them.

use super::*;

#[test]
fn a_signers_refusals_are_told_with_what_to_do() {
    for (status, text, advice) in [
        (400, "no sender deposit", Advice::Stop),
        (403, "denied", Advice::Stop),
        (
            400,
            "numTickets 249 exceeds maximum of 100",
            Advice::GoElsewhere,
        ),
        (
            481,
            "orchestrator price 48.000 exceeds request maxPrice ceiling 2.000",
            Advice::GoElsewhere,
        ),
    ] {
        let (mut net, mut session) = Net::unpaid();
        net.plan = [("/generate-live-payment", Mishap::Says(status, text))].into();
        session.pay(net.now, Fee::Elapsed).unwrap();
        let failure = failure(net.settle(&mut session).0);
        assert_eq!(failure.advice(), advice, "{failure}");
        if status == 481 {
            let words = "asks 48 wei per unit, above the ceiling of 2.000";
            assert!(failure.to_string().contains(words), "{failure}");
        }
    }
}

#[test]
fn garbage_from_a_signer_is_named() {
    let (mut net, mut session) = Net::unpaid();
    let garbage = ("/generate-live-payment", Mishap::Says(200, "what"));
    net.plan = std::iter::repeat_n(garbage, 3).collect();
    session.pay(net.now, Fee::Elapsed).unwrap();
    let failure = failure(net.run(&mut session, 60));
    assert!(
        failure.to_string().contains("payment is missing"),
        "{failure}"
    );
}

#[test]
fn refusals_of_the_orchestrator_end_the_session() {
    for (status, text, reason) in [
        (
            400,
            "orchestrator x is inactive in round 3",
            Reason::Inactive,
        ),
        (403, "ErrSegSig", Reason::Signature),
        (402, "unreadable", Reason::Other),
        (404, "no such session", Reason::Other),
    ] {
        let (mut net, mut session) = Net::started();
        net.plan = [("/payment", Mishap::Says(status, text))].into();
        let failure = failure(net.run(&mut session, 120));
        assert_eq!(failure.advice(), Advice::GoElsewhere, "{failure}");
        let Cause::Refused { reason: told, .. } = failure.cause else {
            panic!("{failure}");
        };
        assert_eq!(told, reason);
    }
}

#[test]
fn spending_limits_stop_the_job_and_say_by_how_much() {
    let limit = Amount::from(&Wei::from(200_000_000_000));
    for limits in [
        Budget::unlimited().per_job(limit.clone()),
        Budget::unlimited().per_hour(limit.clone()),
    ] {
        let mut net = Net::new();
        net.spending = Spending::new(net.now, limits, Some(SPENT.into()));
        let mut session = net.session(Config::new(Unit::PixelSeconds));
        net.start(&mut session, 5);
        let (failure, left) = left_at_the_end(&mut net, &mut session);
        assert!(left > Duration::ZERO, "all that was paid is used");
        assert_eq!(failure.advice(), Advice::Stop, "{failure}");
        let Cause::Guard(broken) = &failure.cause else {
            panic!("{failure}");
        };
        assert!(matches!(**broken, Broken::Budget { .. }), "{failure}");
        assert!(*session.total() <= limit);
        assert!(
            failure
                .to_string()
                .contains("would pass the limit of 200000000000 wei")
        );
    }
}

#[test]
fn quotes_above_a_ceiling_are_refused_before_anybody_is_asked() {
    let mut net = Net::new();
    let mut config = Config::new(Unit::PixelSeconds);
    config.ceilings = Ceilings::of(Price::new(47, 1).unwrap());
    let mut session = net.session(config);
    let told = failure(net.settle(&mut session).0);
    assert!(matches!(told.cause, Cause::Guard(_)), "{told}");
    assert!(net.requests.is_empty());
}

#[test]
fn fresh_quotes_are_asked_for_a_few_times_only() {
    let (mut net, mut session) = Net::unpaid();
    let stale = ("/generate-live-payment", Mishap::Says(480, "refresh"));
    net.plan = std::iter::repeat_n(stale, 9).collect();
    session.pay(net.now, Fee::Elapsed).unwrap();
    let events = net.run(&mut session, 60);
    let wanted = |event: &&Event| matches!(event, Event::NeedQuote(_));
    assert_eq!(events.iter().filter(wanted).count(), 3, "{events:?}");
    assert!(matches!(failure(events).cause, Cause::GaveUp { .. }));
}
