//! Signers that are away, silent or slow.

use super::*;

#[test]
fn a_signer_that_is_away_is_waited_for_while_what_was_paid_lasts() {
    let (mut net, mut session) = Net::started();
    let away = ("/generate-live-payment", Mishap::NotReached);
    net.plan = std::iter::repeat_n(away, 8).collect();
    let events = net.run(&mut session, 120);
    assert!(net.plan.is_empty() && paid(&events) > 0, "{events:?}");
    assert!(!net.cut);
}

#[test]
fn a_signer_that_stays_away_ends_the_job_before_it_began() {
    let (mut net, mut session) = Net::unpaid();
    let away = ("/generate-live-payment", Mishap::Says(500, "x"));
    net.plan = std::iter::repeat_n(away, 3).collect();
    session.pay(net.now, Fee::Elapsed).unwrap();
    let failure = failure(net.run(&mut session, 60));
    assert!(
        matches!(failure.cause, Cause::GaveUp { times: 3, .. }),
        "{failure}"
    );
    assert!(
        failure.to_string().contains("http://signer:80"),
        "{failure}"
    );
}

#[test]
fn the_next_signer_is_asked_at_once() {
    let mut net = Net::new();
    let mut session = net.session_with(2, SignerHealth::default());
    net.plan = [("/generate-live-payment", Mishap::NotReached)].into();
    session.pay(net.now, Fee::Elapsed).unwrap();
    let (events, _) = net.settle(&mut session);
    assert!(matches!(events[..], [Event::Ready(..)]), "{events:?}");
    assert_eq!(net.requests.len(), 2);
}

const SIGNERS: [&str; 3] = ["one", "two", "three"];

impl Net {
    /// A session with the first few signers, and what is known of them.
    fn session_with(&mut self, count: usize, health: SignerHealth) -> PaymentSession {
        let mut urls = SIGNERS[..count].iter().map(|host| signer_url(host));
        let first = Signers::new(urls.next().unwrap());
        let signers = urls.fold(first, Signers::or).health(health);
        let info = self.info();
        let config = Config::new(Unit::PixelSeconds);
        PaymentSession::new(
            self.now,
            config,
            &info,
            Payer::Remote(signers),
            Some(self.key.address()),
        )
    }

    /// How long the session takes for its first payment.
    fn first_payment(&mut self, session: &mut PaymentSession) -> Duration {
        let began = self.now;
        session.pay(self.now, Fee::Elapsed).unwrap();
        loop {
            let (events, wake) = self.settle(session);
            match &events[..] {
                [Event::Ready(..)] => return self.now.since(began),
                [] => self.now = wake.expect("it goes on"),
                other => panic!("{other:?}"),
            }
            session.handle_input(self.now, Input::Tick);
        }
    }

    fn hosts(&self) -> Vec<&str> {
        self.asked.iter().map(|(_, host)| host.as_str()).collect()
    }
}

fn signer_url(host: &str) -> Url {
    Url::parse(&format!("http://{host}")).unwrap()
}

#[test]
fn a_silent_signer_costs_one_payment_two_seconds_and_the_next_nothing() {
    let mut net = Net::new();
    net.silent = vec!["one"];
    let mut session = net.session_with(2, SignerHealth::default());
    assert_eq!(net.first_payment(&mut session), FIRST_PATIENCE);
    assert_eq!(net.hosts(), ["one", "two"]);
    let health = net.health.clone();
    assert!(matches!(
        health.standing(net.now, &signer_url("one")),
        Standing::Resting(_)
    ));
    // The next job begins with what this one learned.
    net.asked.clear();
    let mut session = net.session_with(2, health.clone());
    assert_eq!(net.first_payment(&mut session), Duration::ZERO);
    assert_eq!(net.hosts(), ["two"]);
    // When the rest is over, the first one is tried again.
    net.now = net.now + FIRST_REST;
    net.silent.clear();
    net.asked.clear();
    let mut session = net.session_with(2, health);
    assert_eq!(net.first_payment(&mut session), Duration::ZERO);
    assert_eq!(net.hosts(), ["one"]);
}

#[test]
fn a_signer_that_falls_silent_is_left_and_the_job_is_not_cut() {
    let mut net = Net::new();
    let mut session = net.session_with(3, SignerHealth::default());
    net.start(&mut session, 5);
    let events = net.run(&mut session, 20);
    assert!(answered(&events) >= 3, "{events:?}");
    net.silent = vec!["one", "three"];
    net.asked.clear();
    let events = net.run(&mut session, 120);
    assert!(answered(&events) >= 15 && !net.cut, "{events:?}");
    let ones = net.hosts().iter().filter(|host| **host == "one").count();
    assert_eq!(ones, 1, "whoever answered last is asked");
    assert!(!net.hosts().contains(&"three"));
}

/// Two of three signers are silent at any time, each time for some seconds, and which ones is drawn.
#[test]
fn while_one_signer_answers_a_job_is_never_cut() {
    for seed in 0..6u8 {
        let mut dice = Rng::new([seed; 32]);
        let mut net = Net::new();
        let mut session = net.session_with(3, SignerHealth::default());
        net.start(&mut session, 5);
        let mut answers_had = 0;
        for _ in 0..8 {
            let answers = dice.next_u64() as usize % SIGNERS.len();
            net.silent = SIGNERS.to_vec();
            net.silent.remove(answers);
            let events = net.run(&mut session, 5 + dice.next_u64() % 20);
            let failed = |event: &Event| matches!(event, Event::Failed(_));
            assert!(!events.iter().any(failed), "seed {seed}: {events:?}");
            answers_had += answered(&events);
        }
        assert!(answers_had >= 8 && !net.cut, "seed {seed}: {answers_had}");
        // Nobody is asked in vain for ever: most questions get their answer.
        let asked = net.asked.len();
        assert!(
            asked <= answers_had * 3,
            "seed {seed}: {asked} for {answers_had}"
        );
    }
}

#[test]
fn a_signer_that_rests_is_asked_when_all_others_fail() {
    let mut net = Net::new();
    let mut health = SignerHealth::default();
    health.failed(net.now, &signer_url("one"));
    net.silent = vec!["two", "three"];
    let mut session = net.session_with(3, health);
    assert_eq!(net.first_payment(&mut session), FIRST_PATIENCE * 2);
    assert_eq!(net.hosts(), ["two", "three", "one"]);
}

#[test]
fn when_all_signers_are_silent_one_error_names_each() {
    let mut net = Net::new();
    net.silent = SIGNERS.to_vec();
    let mut session = net.session_with(3, SignerHealth::default());
    session.pay(net.now, Fee::Elapsed).unwrap();
    let failure = failure(net.run(&mut session, 120));
    assert_eq!(failure.who, Party::Signers);
    for host in SIGNERS {
        assert!(failure.to_string().contains(host), "{failure}");
    }
    // At first all have little time, then as much as it takes.
    let at: Vec<u64> = net
        .asked
        .iter()
        .map(|(at, _)| at.since(START).as_secs())
        .collect();
    assert_eq!(at, [0, 2, 4, 6, 16, 26, 37, 47, 57]);
}

#[test]
fn no_two_signers_are_asked_at_a_time() {
    let mut net = Net::new();
    net.silent = SIGNERS.to_vec();
    let mut session = net.session_with(3, SignerHealth::default());
    session.pay(net.now, Fee::Elapsed).unwrap();
    let mut open = Vec::new();
    for _ in 0..40 {
        match session.poll_output() {
            Output::Effect(id, Effect::Http(http::Out::Request(_))) => open.push(id),
            Output::Effect(id, Effect::Http(http::Out::Abort)) => open.retain(|one| *one != id),
            Output::Idle(Some(wake)) => {
                net.now = wake;
                session.handle_input(net.now, Input::Tick);
            }
            _ => {}
        }
        assert!(open.len() <= 1);
    }
}

#[test]
fn a_slow_signer_is_waited_for_once_it_is_known_to_be_slow() {
    let mut net = Net::new();
    let slow = Duration::from_secs(4);
    let mut health = SignerHealth::default();
    health.answered(net.now, &signer_url("one"), slow);
    net.silent = SIGNERS.to_vec();
    let mut session = net.session_with(2, health);
    session.pay(net.now, Fee::Elapsed).unwrap();
    let (_, wake) = net.settle(&mut session);
    assert_eq!(wake, Some(net.now + Duration::from_secs(10)));
}

#[test]
fn a_session_fails_at_once_if_nobody_said_which_account_the_signers_sign_for() {
    let mut net = Net::new();
    let payer = Payer::Remote(Signers::new(signer_url("one")));
    let config = Config::new(Unit::PixelSeconds);
    let mut session = PaymentSession::new(net.now, config, &net.info(), payer, None);
    let failure = failure(net.settle(&mut session).0);
    assert_eq!(failure.who, Party::Signers);
    assert!(net.requests.is_empty());
}
