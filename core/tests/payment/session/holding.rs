//! A job that was paid for is not ended because the next payment cannot be made.

use super::*;

/// The events that do not concern a payment, a skipped payment or a new quote.
fn told(events: &[Event]) -> Vec<&Event> {
    let other = |event: &&Event| {
        !matches!(
            event,
            Event::Paid(..) | Event::Skipped(_) | Event::Requoted(_)
        )
    };
    events.iter().filter(other).collect()
}

/// A session whose job has started, with a ceiling on its price.
fn started_under(ceiling: i64) -> (Net, PaymentSession) {
    let mut net = Net::new();
    let mut config = Config::new(Unit::PixelSeconds);
    config.ceilings = Ceilings::of(Price::new(ceiling, 1).unwrap());
    let mut session = net.session(config);
    net.start(&mut session, 5);
    (net, session)
}

#[test]
fn a_dearer_quote_is_not_used_while_the_orchestrator_keeps_the_jobs_price() {
    let (mut net, mut session) = Net::started();
    net.price = Price::new(49, 1).unwrap();
    let dearer = net.info();
    session.renew(net.now, &dearer);
    // Longer than a token lasts.
    let events = net.run(&mut session, 2_000);
    assert!(told(&events).is_empty(), "{events:?}");
    assert!(!net.cut && paid(&events) > 10);
    assert!(net.requests.iter().any(|path| path == REFRESH_PATH));
    assert_eq!(session.info().price, Price::new(48, 1));
}

#[test]
fn an_own_key_goes_on_under_a_quote_that_is_no_more_than_twice_the_first_price() {
    let mut net = Net::new();
    net.old = true;
    let policy = Policy::own_key(net.key.address());
    let account = LocalAccount::new(policy, ChainView::development(), [9; 32]);
    let info = net.info();
    let payer = Payer::Account(Box::new(account));
    let config = Config::new(Unit::PixelSeconds);
    let mut session = PaymentSession::new(net.now, config, &info, payer, None);
    net.start(&mut session, 5);
    net.price = Price::new(96, 1).unwrap();
    let events = net.run(&mut session, 2_000);
    let wanted = |event: &&Event| matches!(event, Event::NeedQuote(_));
    assert!(told(&events).iter().all(wanted), "{events:?}");
    assert!(!net.cut && paid(&events) > 10);
    let metered = Price::new(48, 1).unwrap().fee(27_648_000_u64 * 2_000);
    let most = metered + Price::new(48, 1).unwrap().fee(27_648_000_u64 * 75);
    assert!(*session.total() <= most, "the first price is billed");
}

#[test]
fn without_another_way_the_new_price_is_paid_at_the_last_moment_and_told() {
    let (mut net, mut session) = started_under(50);
    net.old = true;
    net.price = Price::new(49, 1).unwrap();
    let events = net.run(&mut session, 2_000);
    assert!(!net.cut && paid(&events) > 10, "{events:?}");
    let held = |event: &Event| matches!(event, Event::Held(..));
    let repriced = |event: &Event| match event {
        Event::Repriced { from, to } => (from.wei(), to.wei()) == (48, 49),
        _ => false,
    };
    let held = events.iter().position(held).expect("it is told");
    let repriced = events.iter().position(repriced).expect("it is told");
    assert!(held < repriced);
}

#[test]
fn a_price_above_the_callers_ceiling_ends_the_job_only_when_its_money_does() {
    let (mut net, mut session) = started_under(48);
    net.old = true;
    net.price = Price::new(49, 1).unwrap();
    let (failure, left) = left_at_the_end(&mut net, &mut session);
    assert_eq!(failure.advice(), Advice::GoElsewhere, "{failure}");
    assert!(
        left > Duration::ZERO && left <= Duration::from_secs(10),
        "{left:?}"
    );
}

#[test]
fn without_a_ceiling_no_more_than_twice_the_first_price_is_paid() {
    let (mut net, mut session) = Net::started();
    net.old = true;
    net.price = Price::new(97, 1).unwrap();
    let (failure, _) = left_at_the_end(&mut net, &mut session);
    assert!(
        failure.to_string().contains("first price of 48"),
        "{failure}"
    );
}

#[test]
fn what_a_signer_refuses_later_is_tried_again_while_the_money_lasts() {
    for (status, text) in [
        (
            481,
            "orchestrator price 48.000 exceeds configured maximum price ceiling 2.000",
        ),
        (400, "ticket EV 8 > max ticket EV 3"),
        (403, "denied"),
        (429, "slow down"),
    ] {
        // It relents after a while.
        let (mut net, mut session) = Net::started();
        let refusal = (PAYMENT_PATH, Mishap::Says(status, text));
        net.plan = std::iter::repeat_n(refusal.clone(), 8).collect();
        let events = net.run(&mut session, 300);
        let held = |event: &&Event| matches!(event, Event::Held(..));
        assert_eq!(
            events.iter().filter(held).count(),
            1,
            "told once: {events:?}"
        );
        assert!(
            !net.cut && net.plan.is_empty() && paid(&events) > 2,
            "{events:?}"
        );

        // It does not.
        let (mut net, mut session) = Net::started();
        net.plan = std::iter::repeat_n(refusal, 1_000).collect();
        let (failure, left) = left_at_the_end(&mut net, &mut session);
        assert!(
            failure.to_string().contains(&status.to_string()) || status == 481,
            "{failure}"
        );
        assert!(
            left > Duration::ZERO && left <= Duration::from_secs(10),
            "{left:?}"
        );
    }
}

#[test]
fn a_quote_as_dear_as_the_first_one_is_taken_after_a_cheaper_one() {
    let (mut net, mut session) = Net::started();
    for price in [40, 48] {
        net.price = Price::new(price, 1).unwrap();
        let events = net.run(&mut session, 120);
        let taken = events
            .iter()
            .any(|event| matches!(event, Event::Requoted(_)));
        assert!(taken, "{price}: {events:?}");
        assert_eq!(session.info().price, Some(net.price));
    }
}

#[test]
fn an_owner_that_finds_no_quote_says_so_and_the_job_runs_on() {
    let (mut net, mut session) = Net::started();
    net.old = true;
    net.plan = [("/payment", Mishap::Says(400, "TicketParams expired"))].into();
    let failure = Failure::new(
        Party::Orchestrator(Url::parse("https://orch:8935").unwrap()),
        Cause::Gone("the orchestrator"),
    );
    let end = net.now + Duration::from_secs(300);
    let (mut asked, mut held) = (0, 0);
    while net.now < end {
        let (events, wake) = net.settle(&mut session);
        for event in events {
            match event {
                Event::NeedQuote(_) => {
                    asked += 1;
                    session.no_quote(net.now, failure.clone());
                }
                Event::Held(_, why) => {
                    held += 1;
                    assert_eq!(why, failure);
                }
                Event::Failed(why) => {
                    assert_eq!(why, failure);
                    assert!(asked > 1 && held == 1, "{asked} {held}");
                    return;
                }
                _ => {}
            }
        }
        net.now = wake.unwrap_or(end);
        session.handle_input(net.now, Input::Tick);
    }
    panic!("it never ends");
}

#[test]
fn another_account_ends_the_session_at_once() {
    let (mut net, mut session) = Net::started();
    let mut quote = net.quote();
    quote.address = vec![0x0f; 20].into();
    let other = OrchestratorInfo::decode(quote.encode_to_vec().into()).unwrap();
    session.renew(net.now, &Arc::new(other));
    let failure = failure(net.settle(&mut session).0);
    assert!(failure.to_string().contains("another account"), "{failure}");
}

#[test]
fn what_an_orchestrator_answers_instead_of_a_quote_leads_to_its_handshake() {
    for answer in [
        Mishap::Says(404, "404 page not found"),
        Mishap::Says(405, "Method Not Allowed"),
        Mishap::Says(409, "fixed price not found for session"),
        Mishap::Says(500, "insufficient sender reserve"),
        Mishap::Says(200, "what"),
        Mishap::NotReached,
        Mishap::AnswerLost,
        Mishap::Silent,
    ] {
        let (mut net, mut session) = Net::started();
        net.plan = [
            ("/payment", Mishap::Says(400, "TicketParams expired")),
            (REFRESH_PATH, answer.clone()),
        ]
        .into();
        let events = net.run(&mut session, 120);
        let asked = events
            .iter()
            .any(|event| matches!(event, Event::NeedQuote(_)));
        assert!(asked && paid(&events) > 0, "{answer:?}: {events:?}");
    }
}
