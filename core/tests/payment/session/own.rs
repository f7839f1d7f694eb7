//! Our own store and key holder fail: the payer waits, tries again, and blames nobody else.

use super::*;

fn remote(net: &mut Net) -> PaymentSession {
    net.session(Config::new(Unit::PixelSeconds))
}

fn own_key(net: &mut Net) -> PaymentSession {
    let policy = Policy::new(net.key.address());
    let account = LocalAccount::new(policy, ChainView::development(), [9; 32]);
    let info = net.info();
    PaymentSession::new(
        net.now,
        Config::new(Unit::PixelSeconds),
        &info,
        Payer::Account(Box::new(account)),
        None,
    )
}

const PAYERS: [fn(&mut Net) -> PaymentSession; 2] = [remote, own_key];

/// Checks that the spending on record in the store covers what the session paid.
fn recorded(net: &Net, session: &PaymentSession) {
    assert!(net.spent() >= *session.total());
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
            assert!(net.spent().is_positive());
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
fn whatever_numbers_a_quote_names_a_payment_is_made_or_refused() {
    let prices = [0, 1, i64::MAX].map(|wei| [1, i64::MAX].map(|per| Price::new(wei, per).unwrap()));
    let faces = [vec![0], vec![1], vec![0xff; 32]];
    let chances = faces.clone();
    for price in prices.into_iter().flatten() {
        for (face, chance) in faces
            .iter()
            .flat_map(|face| chances.iter().map(move |chance| (face, chance)))
        {
            for own in [false, true] {
                let mut net = Net::new();
                let mut quote = net.quote();
                quote.price_info = Some(net::PriceInfo {
                    price_per_unit: price.wei(),
                    pixels_per_unit: price.per(),
                    ..net::PriceInfo::default()
                });
                let params = quote.ticket_params.as_mut().unwrap();
                params.face_value = face.clone().into();
                params.win_prob = chance.clone().into();
                let info = Arc::new(OrchestratorInfo {
                    transcoder: Url::parse("https://orch:8935").unwrap(),
                    ..OrchestratorInfo::decode(quote.encode_to_vec().into()).unwrap()
                });
                let payer = if own {
                    let policy = Policy::own_key(net.key.address());
                    let account = LocalAccount::new(policy, ChainView::development(), [9; 32]);
                    Payer::Account(Box::new(account))
                } else {
                    let url = Url::parse("http://signer").unwrap();
                    Payer::Remote(Signers::new(url))
                };
                let config = Config::new(Unit::PixelSeconds);
                let account = Some(net.key.address());
                let mut session = PaymentSession::new(net.now, config, &info, payer, account);
                let Ok(id) = session.pay(net.now, Fee::Elapsed) else {
                    continue;
                };
                let (events, _) = net.settle(&mut session);
                let case = format!("{price:?} {face:?} {chance:?} {own} {events:?}");
                let [event] = &events[..] else {
                    panic!("{case}");
                };
                if price.is_free() {
                    assert!(own && matches!(event, Event::Ready(..)), "{case}");
                }
                if matches!(event, Event::Ready(..)) {
                    session.delivered(net.now, id, Delivered::Accepted);
                    session.set_manifest("job");
                    session
                        .start_pacing(net.now, Duration::from_secs(5))
                        .unwrap();
                    net.run(&mut session, 20);
                    assert_eq!(session.total().is_zero(), price.is_free(), "{case}");
                }
            }
        }
    }
}

#[test]
fn an_own_key_pays_with_more_than_a_hundred_tickets_at_once() {
    let mut net = Net::new();
    net.price = Price::new(600, 1).unwrap();
    let account = LocalAccount::new(
        Policy::own_key(net.key.address()),
        ChainView::development(),
        [9; 32],
    );
    let info = net.info();
    let payer = Payer::Account(Box::new(account));
    let config = Config::new(Unit::PixelSeconds);
    let mut session = PaymentSession::new(net.now, config, &info, payer, None);
    session.pay(net.now, Fee::Elapsed).unwrap();
    let (events, _) = net.settle(&mut session);
    let [Event::Ready(_, credentials)] = &events[..] else {
        panic!("{events:?}");
    };
    let payment = Payment::decode(&credentials.payment).unwrap();
    assert_eq!(payment.tickets.len(), 125);
}

#[test]
fn what_an_own_key_refuses_speaks_of_no_signer_and_no_status() {
    let unknown = ChainView {
        anyone: None,
        ..ChainView::development()
    };
    for (chain, max_tickets, why) in [
        (
            unknown,
            600,
            "the key holder: declined a payment: could not get sender info",
        ),
        (
            ChainView::development(),
            3,
            "the key holder: declined a payment: numTickets 10 exceeds maximum of 3",
        ),
    ] {
        let mut net = Net::new();
        let policy = Policy {
            max_tickets,
            ..Policy::own_key(net.key.address())
        };
        let account = LocalAccount::new(policy, chain, [9; 32]);
        let info = net.info();
        let payer = Payer::Account(Box::new(account));
        let config = Config::new(Unit::PixelSeconds);
        let mut session = PaymentSession::new(net.now, config, &info, payer, None);
        session.pay(net.now, Fee::Elapsed).unwrap();
        let told = failure(net.settle(&mut session).0).to_string();
        assert_eq!(told, why);
    }
    let (mut net, mut locked) = (Net::new(), None);
    net.key_holder.1 = Own::Fails;
    let session = locked.insert(own_key(&mut net));
    session.pay(net.now, Fee::Elapsed).unwrap();
    let told = failure(net.run(session, 120)).to_string();
    assert!(
        told.contains("locked") && !told.contains("status"),
        "{told}"
    );
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

#[test]
fn a_payment_that_is_given_up_before_it_leaves_is_not_counted() {
    // While it is counted, while it is signed, and once the key holder has refused or failed.
    for (store, key_holder) in [
        (Own::Hangs, Own::Works),
        (Own::Works, Own::Hangs),
        (Own::Works, Own::Fails),
    ] {
        let mut net = Net::new();
        let mut session = own_key(&mut net);
        (net.store.1, net.key_holder.1) = (store, key_holder);
        session.pay(net.now, Fee::Elapsed).unwrap();
        net.run(&mut session, 2);
        session.close(net.now);
        net.settle(&mut session);
        assert!(net.spent().is_zero(), "{store:?} {key_holder:?}");
    }
    let mut net = Net::new();
    let mut session = remote(&mut net);
    session.pay(net.now, Fee::Elapsed).unwrap();
    let asked = loop {
        match session.poll_output() {
            Output::Effect(id, Effect::Http(http::Out::Request(request))) => {
                for step in net.exchange(request) {
                    session.handle_input(net.now, Input::Http(id, step));
                }
            }
            Output::Effect(id, Effect::Spend(Spend::Take { .. })) => break id,
            Output::Event(Event::Signers(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    session.close(net.now);
    let Output::Effect(cancelled, Effect::Spend(Spend::Cancel)) = session.poll_output() else {
        panic!("it is wanted no more");
    };
    assert_eq!(cancelled, asked);
}

#[test]
fn an_own_key_stores_nonces_and_count_by_one_commit_for_each_payment() {
    let mut net = Net::new();
    let mut session = own_key(&mut net);
    session.pay(net.now, Fee::Elapsed).unwrap();
    net.store.0 = [Own::Works].into();
    net.store.1 = Own::Fails;
    let (events, _) = net.settle(&mut session);
    assert!(matches!(&events[..], [Event::Ready(..)]), "{events:?}");
    let nonces = net.stored.keys().filter(|key| key.starts_with("nonce:"));
    assert_eq!(nonces.count(), 1);
    assert!(net.spent().is_positive());
}

#[test]
fn credentials_of_one_job_are_signed_once_and_each_ticket_by_itself() {
    let mut net = Net::new();
    let mut session = own_key(&mut net);
    net.start(&mut session, 5);
    // From here on the key holder signs tickets alone: one for each, and nothing for the credentials.
    let (mut tickets, mut payments) = (0, 0);
    let before = net.signed;
    for _ in 0..300 {
        for event in net.run(&mut session, 1) {
            if let Event::Paid(_, paid) = event {
                tickets += paid.tickets;
                payments += 1;
            }
        }
    }
    assert!(payments > 2, "{payments}");
    assert!(
        net.signed - before <= tickets + 1,
        "{}",
        net.signed - before
    );
    assert!(!net.cut);
}

#[test]
fn what_is_signed_leaves_when_it_is_counted_and_its_nonces_are_stored_whichever_comes_first() {
    for counted_first in [true, false] {
        let mut net = Net::new();
        let mut session = own_key(&mut net);
        session.pay(net.now, Fee::Elapsed).unwrap();
        let (mut counting, mut signing) = (None, Vec::new());
        loop {
            match session.poll_output() {
                Output::Effect(id, Effect::Spend(Spend::Take { record, .. })) => {
                    assert!(signing.is_empty(), "the store is asked first");
                    assert!(record.is_some_and(|record| record.key.starts_with("nonce:")));
                    counting = Some(id);
                }
                Output::Effect(id, Effect::Sign(digest)) => signing.push((id, digest)),
                Output::Idle(_) => break,
                other => panic!("{other:?}"),
            }
        }
        let mut inputs: Vec<_> = { signing.into_iter() }
            .map(|(id, digest)| Input::Signed(id, Ok(net.key.sign(digest))))
            .collect();
        let at = if counted_first { 0 } else { inputs.len() };
        inputs.insert(at, Input::Spent(counting.expect("asked"), Ok(net.now)));
        let last = inputs.pop().expect("several");
        for input in inputs {
            session.handle_input(net.now, input);
            assert!(matches!(session.poll_output(), Output::Idle(_)));
        }
        session.handle_input(net.now, last);
        assert!(matches!(
            session.poll_output(),
            Output::Event(Event::Ready(..))
        ));
    }
}
