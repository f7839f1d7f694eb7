//! The cost of jobs.

use livepeer_core::payment::ledger::Minting;

use super::*;

const TICKET: u64 = 8_000_000_000;

fn at(price: i64, unit: Unit) -> Net {
    let mut net = Net::new();
    net.price = Price::new(price, 1).unwrap();
    net.unit = unit;
    net
}

fn with_signer(net: &mut Net, minting: Minting) {
    let policy = Policy {
        minting,
        ..Policy::new(net.key.address())
    };
    let config = remote::Config::new(policy);
    net.signer = SignerServer::new(START, config, ChainView::development(), [1; 32]);
}

fn tickets(count: u64) -> Amount {
    let ev = net_ev();
    (0..count).map(|_| ev.clone()).sum()
}

/// The expected value of a ticket: slightly more than the recipient aims at.
fn net_ev() -> Amount {
    let mut net = Net::new();
    let params = net.info().ticket_params.clone().unwrap();
    livepeer_core::payment::ticket::expected_value(&params.face_value, &params.win_prob)
}

#[test]
fn a_job_of_eight_seconds_costs_what_it_prepays() {
    for (minting, due) in [(Minting::AsReference, 23), (Minting::Early, 21)] {
        let mut net = at(100, Unit::PixelSeconds);
        with_signer(&mut net, minting);
        let mut session = net.session(Config::new(Unit::PixelSeconds));
        net.start(&mut session, 5);
        net.run(&mut session, 8);
        assert_eq!(*session.total(), tickets(due), "{minting:?}");
    }
    assert!(tickets(23).whole_wei() == (23 * TICKET).into());
}

#[test]
fn a_job_is_prepaid_once_however_long_it_runs() {
    for own in [false, true] {
        let mut net = at(101, Unit::PixelSeconds);
        let mut session = if own {
            let policy = Policy::own_key(net.key.address());
            let account = LocalAccount::new(policy, ChainView::development(), [9; 32]);
            let info = net.info();
            let payer = Payer::Account(Box::new(account));
            PaymentSession::new(net.now, Config::new(Unit::PixelSeconds), &info, payer, None)
        } else {
            net.session(Config::new(Unit::PixelSeconds))
        };
        net.start(&mut session, 5);
        let most = net.price.fee(27_648_000_u64 * 75);
        let mut seconds = 0;
        while seconds < 29 * 60 {
            net.run(&mut session, 7);
            seconds += 7;
            assert!(!net.cut);
            assert!(
                net.balance() <= most,
                "{own} {seconds}: {:?}",
                net.balance()
            );
        }
    }
}

#[test]
fn a_spending_limit_is_used_up_before_the_job_ends() {
    let mut net = at(100, Unit::PixelSeconds);
    let limit = Amount::from(&Wei::from(360_000_000_000));
    net.spending.set_limits(Some(limit.clone()), None);
    let mut session = net.session(Config::new(Unit::PixelSeconds));
    net.start(&mut session, 5);
    let mut seconds = 0;
    let told = loop {
        let events = net.run(&mut session, 1);
        seconds += 1;
        if let Some(Event::Failed(failure)) = events.last() {
            break failure.clone();
        }
    };
    assert!(
        matches!(&told.cause, Cause::Guard(broken) if matches!(**broken, Broken::Budget { .. }))
    );
    assert!(!net.cut && seconds > 72, "{seconds} s");
    assert!(*session.total() <= limit);
}

#[test]
fn what_is_billed_in_whole_seconds_is_paid_just_before_one_is_full() {
    let mut net = at(1_000_000_000, Unit::Seconds);
    let mut session = net.session(Config::new(Unit::Seconds));
    net.start(&mut session, 5);
    let (mut work, mut billed, mut payments) = (Charge::default(), START, 0);
    for _ in 0..600 {
        for event in net.run(&mut session, 1) {
            if let Event::Paid(_, paid) = event {
                let (asked, _) = net.asked.last().expect("a signer made it");
                let apart = asked.since(billed);
                assert_eq!(apart.as_millis() % 1_000, 900, "{apart:?}");
                billed = *asked;
                work += &paid.charge;
                payments += 1;
            }
        }
    }
    assert!(!net.cut && payments > 10, "{payments}");
    // 5 s are billed for 4.9 s; a little later it would be 6 s.
    let dearest = Amount::ratio(1_000_000_000_i64 * 103, 100).unwrap();
    let cost = work.per_second().expect("payments were made");
    assert!(cost <= dearest && cost > net.price.of_one(), "{cost}");
    let used =
        net.price.of_one().as_ratio() * BigInt::from(work.time.as_millis()) / BigInt::from(1_000);
    assert_eq!(
        work.fee,
        Amount::from(used) + work.rounding,
        "all but the time used is rounding"
    );
}
