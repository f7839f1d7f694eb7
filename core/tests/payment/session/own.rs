//! Our own store and key holder fail: the payer waits, tries again, and blames nobody else.

use super::*;

fn kept(net: &mut Net) -> PaymentSession {
    let mut config = Config::new(Unit::PixelSeconds);
    config.budget_key = Some("spent".into());
    net.session(config)
}

fn own_key(net: &mut Net) -> PaymentSession {
    let policy = Policy::new(net.key.address());
    let account = LocalAccount::new(policy, ChainView::development(), [9; 32]);
    let info = net.info();
    let mut config = Config::new(Unit::PixelSeconds);
    config.budget_key = Some("spent".into());
    PaymentSession::new(net.now, config, &info, Funds::Local(Box::new(account)))
}

const PAYERS: [fn(&mut Net) -> PaymentSession; 2] = [kept, own_key];

/// What is in the store covers what the session paid.
fn recorded(net: &Net, session: &PaymentSession) {
    let mut counter = Budget::unlimited();
    assert!(
        net.stored
            .get("spent")
            .is_some_and(|record| counter.restore(record))
    );
    assert!(counter.spent() >= session.total());
}

#[test]
fn a_store_that_fails_once_delays_the_first_payment_and_nothing_else() {
    for payer in PAYERS {
        for failed in [Own::Fails, Own::Hangs] {
            let mut net = Net::new();
            let mut session = payer(&mut net);
            net.store.0 = [failed].into();
            let id = session.pay(net.now, Fee::Elapsed).unwrap();
            let events = net.run(&mut session, 40);
            assert!(
                matches!(&events[..], [Event::Ready(ready, _)] if *ready == id),
                "{events:?}"
            );
            assert!(net.stored.contains_key("spent"));
        }
    }
}

#[test]
fn a_store_that_fails_for_good_ends_an_unpaid_session_and_is_named() {
    for payer in PAYERS {
        for failed in [Own::Fails, Own::Hangs] {
            let mut net = Net::new();
            let mut session = payer(&mut net);
            net.store.1 = failed;
            session.pay(net.now, Fee::Elapsed).unwrap();
            let events = net.run(&mut session, 120);
            assert_eq!(events.len(), 1, "{events:?}");
            let failure = failure(events);
            assert_eq!(failure.who, Party::Store);
            assert_eq!(failure.advice(), Advice::Stop);
            assert!(
                failure.to_string().starts_with("our own store:"),
                "{failure}"
            );
            assert!(session.total().is_zero());
        }
    }
}

#[test]
fn a_store_that_comes_back_in_time_costs_a_running_job_nothing() {
    for payer in PAYERS {
        for failed in [Own::Fails, Own::Hangs] {
            let mut net = Net::new();
            let mut session = payer(&mut net);
            net.start(&mut session, 5);
            let before = session.total().clone();
            net.store.1 = failed;
            let quiet = net.run(&mut session, 9);
            assert_eq!(
                paid(&quiet),
                0,
                "nothing is paid that is not recorded: {quiet:?}"
            );
            assert_eq!(session.total(), &before);
            net.store.1 = Own::Works;
            let events = net.run(&mut session, 200);
            assert!(paid(&events) > 2, "{events:?}");
            assert!(!net.cut);
            recorded(&net, &session);
        }
    }
}

#[test]
fn a_store_that_stays_away_ends_a_running_job_before_it_is_cut() {
    for payer in PAYERS {
        let mut net = Net::new();
        let mut session = payer(&mut net);
        net.start(&mut session, 5);
        net.store.1 = Own::Fails;
        let mut events = Vec::new();
        while !events.iter().any(|event| matches!(event, Event::Failed(_))) {
            events.extend(net.run(&mut session, 1));
        }
        assert!(!net.cut, "it ends while what was paid lasts");
        assert_eq!(paid(&events), 0, "{events:?}");
        assert_eq!(failure(events).who, Party::Store);
        recorded(&net, &session);
    }
}

#[test]
fn a_key_holder_that_comes_back_in_time_costs_a_running_job_nothing() {
    for failed in [Own::Fails, Own::Hangs] {
        let mut net = Net::new();
        let mut session = own_key(&mut net);
        net.start(&mut session, 5);
        // The next payment is due soon.
        net.run(&mut session, 44);
        net.key_holder.1 = failed;
        let quiet = net.run(&mut session, 9);
        assert_eq!(paid(&quiet), 0, "{quiet:?}");
        net.key_holder.1 = Own::Works;
        let events = net.run(&mut session, 200);
        assert!(paid(&events) > 2, "{events:?}");
        assert!(!net.cut);
    }
    let mut net = Net::new();
    let mut session = own_key(&mut net);
    net.key_holder.1 = Own::Fails;
    session.pay(net.now, Fee::Elapsed).unwrap();
    let failure = failure(net.run(&mut session, 120));
    assert_eq!(failure.who, Party::KeyHolder);
}

#[test]
fn nonces_that_were_not_recorded_were_not_spent() {
    let mut net = Net::new();
    let mut session = own_key(&mut net);
    net.store.0 = [Own::Fails, Own::Hangs].into();
    session.pay(net.now, Fee::Elapsed).unwrap();
    let events = net.run(&mut session, 60);
    let [Event::Ready(_, credentials)] = &events[..] else {
        panic!("{events:?}");
    };
    let payment = Payment::decode(&credentials.payment).unwrap();
    assert_eq!(payment.tickets[0].nonce, 1);
    // A late answer to a record that was given up means nothing.
    session.handle_input(net.now, Input::Stored(EffectId::by_peer(0), Ok(())));
    assert!(net.settle(&mut session).0.is_empty());
}
