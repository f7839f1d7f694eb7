//! Payments in time, each once.

use super::*;

#[test]
fn a_job_is_never_cut_at_any_pace() {
    for interval in [5, 10, 30, 60] {
        let (mut net, mut session) = Net::unpaid();
        net.start(&mut session, interval);
        let events = net.run(&mut session, 2_000);
        assert!(paid(&events) > 10, "{interval}: {events:?}");
        assert!(!net.cut, "{interval}");
        assert!(session.covered_until().unwrap() > net.now);
        // Tokens last half an hour, so the quote was renewed on the way.
        assert!(net.requests.iter().any(|path| path == REFRESH_PATH));
    }
}

#[test]
fn an_own_key_pays_like_a_signer() {
    let mut net = Net::new();
    let account = LocalAccount::new(
        Policy::new(net.key.address()),
        ChainView::development(),
        [9; 32],
    );
    let info = net.info();
    let config = Config::new(Unit::PixelSeconds);
    let payer = Payer::Account(Box::new(account));
    let mut session = PaymentSession::new(net.now, config, &info, payer, None);
    net.start(&mut session, 5);
    let events = net.run(&mut session, 2_000);
    assert!(paid(&events) > 10, "{events:?}");
    assert!(!net.cut);
    assert!(net.requests.iter().all(|path| path != PAYMENT_PATH));
}

#[test]
fn an_own_key_pays_by_no_old_reading_of_the_chain() {
    let mut net = Net::new();
    for (age, pays) in [(MAX_AGE, true), (MAX_AGE + Duration::from_secs(1), false)] {
        let mut chain = ChainView::development();
        chain.read_at = Some(net.now - age);
        let account = LocalAccount::new(Policy::new(net.key.address()), chain, [9; 32]);
        let info = net.info();
        let config = Config::new(Unit::PixelSeconds);
        let payer = Payer::Account(Box::new(account));
        let mut session = PaymentSession::new(net.now, config, &info, payer, None);
        session.pay(net.now, Fee::Elapsed).unwrap();
        let (events, _) = net.settle(&mut session);
        match events.last() {
            Some(Event::Ready(..)) => assert!(pays),
            Some(Event::Failed(failure)) => {
                assert!(!pays);
                assert_eq!(failure.who, Party::KeyHolder);
                let said = failure.to_string();
                assert!(said.contains("no reading of the chain for 480s"), "{said}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_account_that_moves_to_the_next_session_uses_no_nonce_twice() {
    let mut net = Net::new();
    let policy = Policy::new(net.key.address());
    let mut account = LocalAccount::new(policy, ChainView::development(), [9; 32]);
    // The same quote again, as a job gets it that comes back to an orchestrator.
    let info = net.info();
    let mut first = 1;
    for _ in 0..3 {
        let config = Config::new(Unit::PixelSeconds);
        let payer = Payer::Account(Box::new(account));
        let mut session = PaymentSession::new(net.now, config, &info, payer, None);
        session.pay(net.now, Fee::Elapsed).unwrap();
        let (events, _) = net.settle(&mut session);
        let Some(Event::Ready(_, credentials)) = events.last() else {
            panic!("{events:?}");
        };
        let payment = livepeer_core::wire::Payment::decode(&credentials.payment).unwrap();
        for ticket in &payment.tickets {
            assert_eq!(ticket.nonce, first);
            first += 1;
        }
        account = session.account().expect("a key of its own").clone();
    }
    assert!(first > 3);
}

#[test]
fn off_chain_the_headers_are_there_and_empty() {
    let mut net = Net::new();
    let info = net.info();
    let config = Config::new(Unit::PixelSeconds);
    let mut session = PaymentSession::new(net.now, config, &info, Payer::Offchain, None);
    session.pay(net.now, Fee::Elapsed).unwrap();
    let (events, wake) = net.settle(&mut session);
    let [Event::Ready(_, credentials)] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(credentials.payment, "");
    let token = info.auth_token.as_ref();
    assert_eq!(credentials.segment, SegmentCredentials::offchain(token));
    session
        .start_pacing(net.now, Duration::from_secs(5))
        .unwrap();
    assert_eq!((wake, net.settle(&mut session).1), (None, None));
    assert!(net.requests.is_empty());
}

#[test]
fn one_payment_at_a_time_and_none_after_the_end() {
    let (net, mut session) = Net::unpaid();
    let unnamed = session.start_pacing(net.now, Duration::from_secs(5));
    assert_eq!(unnamed, Err(Misuse::NotOpen));
    session.pay(net.now, Fee::Elapsed).unwrap();
    assert_eq!(session.pay(net.now, Fee::Elapsed), Err(Misuse::StillOpen));
    session.close(net.now);
    assert_eq!(session.pay(net.now, Fee::Elapsed), Err(Misuse::Ended));
}

#[test]
fn a_lost_answer_is_confirmed_with_the_same_tickets() {
    let (mut net, mut session) = Net::started();
    net.plan = [("/payment", Mishap::AnswerLost)].into();
    let events = net.run(&mut session, 300);
    assert!(net.plan.is_empty() && paid(&events) > 2, "{events:?}");
    let total: Amount = session.total().clone();
    let metered = net.price.fee(27_648_000_u64 * 300);
    assert_eq!(net.balance() + metered, total, "every ticket counted once");
    assert!(!net.cut);
}

#[test]
fn a_gateway_that_gave_up_on_a_payment_leaves_it_open_whether_it_counts() {
    for status in [408, 502, 504] {
        let (mut net, mut session) = Net::started();
        net.plan = [("/payment", Mishap::SaysAfter(status, "gave up"))].into();
        let events = net.run(&mut session, 300);
        assert!(net.plan.is_empty() && paid(&events) > 2, "{events:?}");
        let total: Amount = session.total().clone();
        assert_eq!(net.spent(), total, "{status}: nothing is paid twice");
        let metered = net.price.fee(27_648_000_u64 * 300);
        assert_eq!(
            net.balance() + metered,
            total,
            "{status}: every ticket counted once"
        );
        assert!(!net.cut);
    }
}

#[test]
fn a_payment_of_which_nobody_can_tell_whether_it_was_taken_is_counted_apart() {
    // The second try finds the parameters expired, the job gone, or nobody any more.
    for (arrived, last) in [
        (true, Mishap::Says(400, "TicketParams expired")),
        (false, Mishap::Says(400, "TicketParams expired")),
        (true, Mishap::Says(404, "no such job")),
        (true, Mishap::NotReached),
    ] {
        let (mut net, mut session) = Net::started();
        let first = if arrived {
            Mishap::AnswerLost
        } else {
            Mishap::Broken
        };
        net.plan = [("/payment", first), ("/payment", last.clone())].into();
        if matches!(last, Mishap::NotReached) {
            net.plan.extend((0..40).map(|_| ("/payment", last.clone())));
        }
        net.run(&mut session, 300);
        let undecided = session.undecided().clone();
        assert!(undecided.is_positive(), "{last:?}");
        let known = session.total().clone();
        assert_eq!(
            net.spent(),
            known.clone() + undecided.clone(),
            "{last:?}: all that was sent is known or undecided"
        );
        if !net.cut {
            let metered = net.price.fee(27_648_000_u64 * 300);
            let taken = if arrived { undecided } else { Amount::zero() };
            assert_eq!(net.balance() + metered, known + taken, "{last:?}");
        }
    }
}

#[test]
fn an_orchestrator_that_is_away_for_a_moment_gets_the_payment_later() {
    let (mut net, mut session) = Net::started();
    net.plan = [
        ("/payment", Mishap::NotReached),
        ("/payment", Mishap::Says(500, "insufficient sender reserve")),
        ("/payment", Mishap::NotReached),
    ]
    .into();
    let events = net.run(&mut session, 300);
    assert!(net.plan.is_empty() && paid(&events) > 2, "{events:?}");
}

#[test]
fn what_an_orchestrator_calls_expired_is_paid_again_from_a_fresh_quote() {
    for text in [
        "TicketParams expired",
        "invalid ticket senderNonce: already seen",
        "invalid recipientRand for ticket recipientRandHash",
    ] {
        let (mut net, mut session) = Net::started();
        net.plan = [("/payment", Mishap::Says(400, text))].into();
        let events = net.run(&mut session, 120);
        let renewed = net.requests.iter().any(|path| path == REFRESH_PATH);
        assert!(renewed && paid(&events) > 0, "{events:?}");
    }
}
