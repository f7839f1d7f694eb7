//! The verdicts of a recipient on tickets, one after the other.

use livepeer_core::chain::SenderInfo;
use livepeer_core::money::{Amount, Price, Wei};
use livepeer_core::payment::ledger::{AccountId, worth};
use livepeer_core::payment::quote::Economics;
use livepeer_core::payment::receiver::{Config, Credit, Event, Refused, Rejection, Trigger};
use livepeer_core::payment::ticket::expected_value;
use livepeer_core::payment::{Secret, SignedTicket, Ticket, TicketReceiver, Unit};
use livepeer_core::store::{Record, STORE_WITHIN, StoreFailed};
use livepeer_core::wire::{Payment, SenderParams, TicketParams};
use livepeer_core::{Address, ChainView, Effect, EffectId, Input, Machine, Output, Time};
use serde_json::Value;
use std::time::Duration;

use crate::support::*;

const NOW: Time = Time::from_secs(1_790_000_000);
const QUOTED_AT: u64 = 24_000_000;

fn chain(block: u64) -> ChainView {
    ChainView {
        l1_block: block,
        ..ChainView::development()
    }
}

/// A recipient whose tickets win every other time.
fn recipient(seed: u8) -> TicketReceiver {
    let ticket_ev = Wei::from(1_000);
    let mut config = Config::new(Address([0x0e; 20]));
    config.economics = Economics {
        max_face_value: Wei::from(2_000),
        redeem_gas: 0,
        ticket_ev,
        ..Economics::default()
    };
    let mut view = chain(QUOTED_AT);
    view.gas_price = Wei::zero();
    TicketReceiver::new(NOW, config, Secret([3; 32]), view, [seed; 32])
}

fn price() -> Price {
    Price::new(1_200, 1).unwrap()
}

fn account() -> AccountId {
    AccountId {
        sender: key().address(),
        session: "job".into(),
    }
}

fn signed(params: &TicketParams, nonce: u32) -> SenderParams {
    let ticket = Ticket::new(params, key().address(), nonce);
    SenderParams {
        nonce,
        signature: key().sign(ticket.digest()).0.to_vec().into(),
    }
}

fn payment(params: &TicketParams, tickets: Vec<SenderParams>) -> Payment {
    Payment {
        sender: key().address(),
        ticket_params: Some(params.clone()),
        tickets,
        expected_price: Some(price()),
    }
}

/// The outputs of a drain.
#[derive(Default)]
struct Drained {
    records: Vec<(EffectId, Record)>,
    credited: Option<Credit>,
    rejected: Option<Box<Rejection>>,
    won: Vec<SignedTicket>,
    other: Vec<Event>,
}

fn drain(recipient: &mut TicketReceiver) -> Drained {
    let mut drained = Drained::default();
    loop {
        match recipient.poll_output() {
            Output::Effect(id, Effect::Store(record)) => drained.records.push((id, record)),
            Output::Effect(_, other) => panic!("{other:?}"),
            Output::Event(Event::Credited(_, credit)) => drained.credited = Some(credit),
            Output::Event(Event::Rejected(_, why)) => drained.rejected = Some(why),
            Output::Event(Event::Won(ticket)) => drained.won.push(*ticket),
            Output::Event(other) => drained.other.push(other),
            Output::Idle(_) => return drained,
        }
    }
}

/// Takes in a payment and makes its records durable.
fn pay(recipient: &mut TicketReceiver, payment: Payment) -> Drained {
    recipient.receive(NOW, "job", payment);
    let first = drain(recipient);
    if first.records.is_empty() {
        return first;
    }
    assert!(
        first.credited.is_none() && first.rejected.is_none() && first.won.is_empty(),
        "nothing is said before it is durable"
    );
    for (id, _) in &first.records {
        recipient.handle_input(NOW, Input::Stored(*id, Ok(())));
    }
    Drained {
        records: first.records,
        ..drain(recipient)
    }
}

/// A recipient and a quote under which, of all nonces up to 602, those in `winning` win and the others that the
/// case names do not.
fn with_winners(winning: &[u32], losing: &[u32]) -> (TicketReceiver, TicketParams) {
    (0..=255)
        .find_map(|seed| {
            let mut candidate = recipient(seed);
            let params = candidate.quote(NOW, key().address(), price()).unwrap();
            let nonces = winning.iter().chain(losing).copied();
            let tickets = nonces.map(|nonce| signed(&params, nonce)).collect();
            let probe = pay(&mut recipient(seed), payment(&params, tickets));
            let mut won: Vec<u32> = probe
                .won
                .iter()
                .map(|one| one.ticket.sender_nonce)
                .collect();
            won.sort_unstable();
            (won == winning).then_some((candidate, params))
        })
        .expect("one seed in a few will do")
}

fn nonces(tickets: &Value) -> Vec<(u32, &Value)> {
    let tickets = tickets.as_array().unwrap();
    tickets
        .iter()
        .map(|one| (u32::try_from(small(&one["nonce"])).unwrap(), one))
        .collect()
}

#[test]
fn each_ticket_is_judged_credited_and_kept_as_by_the_reference() {
    let file = file("recipient_sequence.json");
    lists(&file, &["cases"]);
    each(&file, "cases", 12, sequence);
}

fn sequence(name: &str, case: &Value) {
    let (mut winning, mut losing) = (Vec::new(), Vec::new());
    for payment in case["payments"].as_array().unwrap() {
        for (nonce, ticket) in nonces(&payment["tickets_in"]) {
            let list = if ticket["wins"] == true {
                &mut winning
            } else {
                &mut losing
            };
            if !list.contains(&nonce) {
                list.push(nonce);
            }
        }
    }
    // The value of a ticket is the case's; here it is another, and balances are compared in tickets.
    let case_ev = amount(&case["ev"]);
    let (mut recipient, params) = with_winners(&winning, &losing);
    assert_eq!(
        params.expiration_block,
        uint(&case["params_expiration_block"]),
        "{name}"
    );
    let ev = expected_value(&params.face_value, &params.win_prob);

    let before = u32::try_from(small(&case["nonces_seen_before"])).unwrap();
    if before > 0 {
        let tickets = (1..=before).map(|nonce| signed(&params, nonce)).collect();
        pay(&mut recipient, payment(&params, tickets));
    }

    for step in case["payments"].as_array().unwrap() {
        let mut view = chain(text(&step["block"]).parse().unwrap());
        let tickets_in = nonces(&step["tickets_in"]);
        if tickets_in
            .iter()
            .any(|(_, one)| one["corrupt"] == "unlock_soon")
        {
            view.anyone = Some(SenderInfo {
                withdraw_round: view.round + 1,
                ..view.anyone.unwrap()
            });
        }
        recipient.set_chain(NOW, view);
        let mut tickets: Vec<SenderParams> = tickets_in
            .iter()
            .map(|(nonce, one)| {
                let mut ticket = signed(&params, *nonce);
                if one["corrupt"] == "sig" {
                    ticket.signature = vec![1; 65].into();
                }
                ticket
            })
            .collect();
        // A header has one set of parameters: tickets under others are a payment of their own.
        let split = tickets_in
            .iter()
            .position(|(_, one)| one["corrupt"] == "params");
        let rest = split.map(|at| tickets.split_off(at));
        let mut drained = pay(&mut recipient, payment(&params, tickets));
        let mut outcomes = outcomes(drained.rejected.take(), &drained, &tickets_in);
        let mut status = drained.credited.map_or(400, |_| 200);
        if let Some(rest) = rest {
            let mut other = params.clone();
            other.face_value = Wei::from(7);
            let all = rest.len();
            let drained = pay(&mut recipient, payment(&other, rest));
            let rejected = drained.rejected.expect(name);
            assert_eq!(
                (all - rejected.tickets.len()) as u64,
                small(&step["not_examined"])
            );
            outcomes.extend(rejected.tickets);
            status = 400;
        }
        let expected = step["tickets"].as_array().unwrap();
        assert_eq!(outcomes.len(), expected.len(), "{name}");
        for (outcome, expected) in outcomes.iter().zip(expected) {
            assert_eq!(
                u64::from(outcome.nonce),
                small(&expected["nonce"]),
                "{name}"
            );
            let refused = outcome.refused.as_ref();
            let error = refused.map(|why| {
                let text = why.to_string().replace(&key().address().to_string(), "X");
                // The vectors leave out whose nonce it was, and which.
                let end = text.find(" sender=").unwrap_or(text.len());
                text[..end].to_owned()
            });
            assert_eq!(error.as_deref(), expected["error"].as_str(), "{name}");
            let class = refused.map(|why| {
                if why.is_fatal() {
                    "fatal"
                } else {
                    "recoverable"
                }
            });
            assert_eq!(class, expected["error_class"].as_str(), "{name}");
            assert_eq!(outcome.credited, expected["credited"], "{name}");
            assert_eq!(outcome.won, expected["queued_for_redemption"], "{name}");
        }
        assert_eq!(status, small(&step["http_status"]), "{name}");
        let in_tickets = small(&step["balance_after_in_tickets"]);
        assert_eq!(
            worth(in_tickets, &case_ev),
            amount(&step["balance_after"]),
            "{name}"
        );
        let balance = recipient.balance(&account()).cloned().unwrap_or_default();
        assert_eq!(
            balance,
            worth(in_tickets + u64::from(before), &ev),
            "{name}"
        );
    }
}

/// The outcome of each ticket; an accepted payment does not say, for all were credited.
fn outcomes(
    rejected: Option<Box<Rejection>>,
    drained: &Drained,
    tickets: &[(u32, &Value)],
) -> Vec<livepeer_core::payment::receiver::TicketOutcome> {
    use livepeer_core::payment::receiver::TicketOutcome;
    if let Some(rejected) = rejected {
        return rejected.tickets;
    }
    let credited = drained
        .credited
        .as_ref()
        .expect("credited or rejected")
        .tickets;
    let won = |nonce| {
        drained
            .won
            .iter()
            .any(|one| one.ticket.sender_nonce == nonce)
    };
    tickets[..credited]
        .iter()
        .map(|(nonce, _)| TicketOutcome {
            nonce: *nonce,
            refused: None,
            credited: true,
            won: won(*nonce),
        })
        .collect()
}

#[test]
fn nothing_is_credited_before_it_is_durable_and_a_duplicate_in_between_is_refused() {
    let mut recipient = recipient(0);
    let params = recipient.quote(NOW, key().address(), price()).unwrap();
    let payment = payment(&params, vec![signed(&params, 1)]);
    recipient.receive(NOW, "job", payment.clone());
    let first = drain(&mut recipient);
    assert!(!first.records.is_empty() && first.credited.is_none());
    assert_eq!(recipient.balance(&account()), None);

    recipient.receive(NOW, "job", payment);
    let duplicate = drain(&mut recipient);
    assert!(duplicate.rejected.is_some() || !duplicate.records.is_empty());

    for (id, _) in first.records.iter().chain(&duplicate.records) {
        recipient.handle_input(NOW, Input::Stored(*id, Ok(())));
        // Late and repeated answers mean nothing.
        recipient.handle_input(NOW, Input::Stored(*id, Ok(())));
    }
    let ev = expected_value(&params.face_value, &params.win_prob);
    assert_eq!(recipient.balance(&account()), Some(&ev));
}

#[test]
fn tickets_that_could_not_be_recorded_count_when_they_come_again() {
    for late in [false, true] {
        let (mut recipient, params) = with_winners(&[1], &[2]);
        let tickets = vec![signed(&params, 1), signed(&params, 2)];
        let payment = payment(&params, tickets);
        let ev = expected_value(&params.face_value, &params.win_prob);
        // The nonces, then the winner: each may fail.
        for failing in 0..2 {
            recipient.receive(NOW, "job", payment.clone());
            let asked = drain(&mut recipient).records;
            assert_eq!(asked.len(), 2);
            let full = || Err(StoreFailed("the disk is full".into()));
            for (index, (id, _)) in asked.iter().enumerate() {
                let answer = if index == failing { full() } else { Ok(()) };
                if index != failing || !late {
                    recipient.handle_input(NOW, Input::Stored(*id, answer));
                }
            }
            if late {
                recipient.handle_input(NOW + 2 * STORE_WITHIN * (failing as u32 + 1), Input::Tick);
            }
            let told = drain(&mut recipient);
            let rejected = told.rejected.expect("the payer is told");
            assert_eq!(rejected.why, Refused::NotStored);
            assert_eq!(rejected.why.status(), 500, "it is not the payer's fault");
            assert!(told.won.is_empty() && told.credited.is_none());
            assert_eq!(recipient.balance(&account()), None);
            // What comes too late means nothing.
            for (id, _) in asked {
                recipient.handle_input(NOW, Input::Stored(id, Ok(())));
            }
            assert!(drain(&mut recipient).credited.is_none());
        }
        let told = pay(&mut recipient, payment.clone());
        assert_eq!(told.won.len(), 1);
        assert_eq!(told.credited.map(|credit| credit.tickets), Some(2));
        assert_eq!(recipient.balance(&account()), Some(&worth(2, &ev)));
        let again = pay(&mut recipient, payment);
        assert!(again.rejected.is_some(), "and only once");
    }
}

#[test]
fn a_duplicate_is_called_seen_only_once_the_first_is_durable() {
    let (mut recipient, params) = with_winners(&[], &[1]);
    let payment = payment(&params, vec![signed(&params, 1)]);
    for kept in [false, true] {
        recipient.receive(NOW, "job", payment.clone());
        let asked = drain(&mut recipient).records;
        recipient.receive(NOW, "job", payment.clone());
        let told = drain(&mut recipient);
        assert_eq!(told.rejected.expect("told").why, Refused::NotStored);
        let answer = if kept {
            Ok(())
        } else {
            Err(StoreFailed("full".into()))
        };
        for (id, _) in asked {
            recipient.handle_input(NOW, Input::Stored(id, answer.clone()));
        }
        assert_eq!(drain(&mut recipient).credited.is_some(), kept);
    }
    let again = pay(&mut recipient, payment);
    let why = again.rejected.expect("it was taken").why;
    assert!(matches!(why, Refused::Nonce(..)), "{why}");
}

#[test]
fn after_a_restart_a_replay_is_refused_by_what_was_stored() {
    let mut before = recipient(0);
    let params = before.quote(NOW, key().address(), price()).unwrap();
    let payment = payment(
        &params,
        (1..=3).map(|nonce| signed(&params, nonce)).collect(),
    );
    let records = pay(&mut before, payment.clone()).records;

    let mut after = recipient(9);
    let ours = records.iter().filter(|(_, record)| after.restore(record));
    assert_eq!(ours.count(), 1, "the nonces; winners are somebody else's");
    let replay = pay(&mut after, payment);
    let why = replay.rejected.expect("refused").why.to_string();
    let sender = key().address();
    assert_eq!(
        why,
        format!("invalid ticket senderNonce: already seen sender={sender} nonce=1")
    );
    assert!(after.balance(&account()).is_none());
}

#[test]
fn a_quote_lasts_for_as_many_blocks_as_the_settings_say() {
    for blocks in [1, 25, 40] {
        let mut config = Config::new(Address([0x0e; 20]));
        config.quote_blocks = blocks;
        let view = chain(QUOTED_AT);
        let mut recipient = TicketReceiver::new(NOW, config, Secret([3; 32]), view, [1; 32]);
        let quote = recipient.quote(NOW, key().address(), price()).unwrap();
        assert_eq!(quote.expiration_block, (QUOTED_AT + blocks).into());
    }
}

#[test]
fn expired_nonces_are_forgotten_on_disk_too() {
    let mut recipient = recipient(0);
    let params = recipient.quote(NOW, key().address(), price()).unwrap();
    let payment = payment(&params, vec![signed(&params, 1)]);
    let stored = pay(&mut recipient, payment.clone()).records;
    recipient.set_chain(NOW, chain(QUOTED_AT + 40));
    let forgotten = drain(&mut recipient).records;
    assert_eq!(forgotten.len(), 1);
    assert_eq!(forgotten[0].1.value, None);
    assert!(
        stored
            .iter()
            .any(|(_, record)| record.key == forgotten[0].1.key)
    );

    // A chain that goes back opens no window for a replay.
    recipient.set_chain(NOW, chain(QUOTED_AT + 39));
    let replay = pay(&mut recipient, payment);
    assert_eq!(
        replay.rejected.unwrap().why.to_string(),
        "TicketParams expired"
    );
}

#[test]
fn a_payment_without_tickets_changes_nothing() {
    let mut recipient = recipient(0);
    let params = recipient.quote(NOW, key().address(), price()).unwrap();
    let free = Payment {
        expected_price: Some(Price::new(0, 1).unwrap()),
        ..payment(&params, Vec::new())
    };
    for ticketless in [
        free.clone(),
        Payment {
            ticket_params: None,
            ..free.clone()
        },
        Payment::default(),
    ] {
        assert!(pay(&mut recipient, ticketless).credited.is_some());
        assert_eq!(recipient.balance(&account()), None);
        assert_eq!(recipient.session_price(&account()), None);
    }
    pay(&mut recipient, payment(&params, vec![signed(&params, 1)]));
    pay(&mut recipient, free);
    assert_eq!(recipient.session_price(&account()), Some(price()));
}

#[test]
fn the_first_payment_fixes_the_price() {
    let mut recipient = recipient(0);
    for wei in [1_200, 700] {
        let quoted = Price::new(wei, 1).unwrap();
        let params = recipient.quote(NOW, key().address(), quoted).unwrap();
        let payment = Payment {
            expected_price: Some(quoted),
            ..payment(&params, vec![signed(&params, 1)])
        };
        assert!(pay(&mut recipient, payment).credited.is_some());
        assert_eq!(recipient.session_price(&account()), Some(price()));
    }
}

#[test]
fn what_is_wrong_with_a_whole_payment_is_said_in_the_references_words() {
    let mut recipient = recipient(0);
    let params = recipient.quote(NOW, key().address(), price()).unwrap();
    let good = payment(&params, vec![signed(&params, 1)]);
    let mut stranger = params.clone();
    stranger.recipient = Address([5; 20]);
    let other_price = Payment {
        expected_price: Some(Price::new(1, 1).unwrap()),
        ..good.clone()
    };
    for (bad, words) in [
        (
            Payment {
                sender: Address::ZERO,
                ..good.clone()
            },
            "invalid ticket sender: the payment names none",
        ),
        (
            Payment {
                expected_price: None,
                ..good.clone()
            },
            "invalid expected price sent with payment",
        ),
        (
            Payment {
                ticket_params: Some(stranger),
                ..good.clone()
            },
            "invalid ticket recipient",
        ),
        (
            other_price,
            "invalid recipientRand for ticket recipientRandHash",
        ),
    ] {
        let why = pay(&mut recipient, bad).rejected.expect(words).why;
        assert_eq!(why.to_string(), words);
    }
    let mut asleep = chain(QUOTED_AT);
    asleep.active = false;
    recipient.set_chain(NOW, asleep);
    let why = pay(&mut recipient, good.clone()).rejected.unwrap().why;
    assert!(
        why.to_string().contains("is inactive in round 100"),
        "{why}"
    );

    let mut strangers = chain(QUOTED_AT);
    strangers.anyone = None;
    recipient.set_chain(NOW, strangers);
    let drained = pay(&mut recipient, good);
    let why = drained.rejected.unwrap().why;
    assert!(
        why.to_string().starts_with("could not get sender info"),
        "{why}"
    );
    assert_eq!(drained.other, [Event::WantSender(key().address())]);
    assert!(recipient.quote(NOW, key().address(), price()).is_err());
}

#[test]
fn free_work_is_quoted_and_no_ticket_for_it_wins() {
    let mut recipient = recipient(0);
    let free = Price::new(0, 1).unwrap();
    let params = recipient.quote(NOW, key().address(), free).unwrap();
    assert_eq!(params.face_value, Wei::zero());
    assert!(params.win_prob.bits() == 0 && !params.seed.is_empty());
    assert_ne!(params.recipient_rand_hash, [0; 32]);
}

#[test]
fn a_metered_job_is_cut_within_two_intervals_of_its_money_running_out() {
    let mut config = Config::new(Address([0x0e; 20]));
    config.economics.ticket_ev = Wei::from(60_000);
    let chain = chain(QUOTED_AT);
    let mut recipient = TicketReceiver::new(NOW, config, Secret([3; 32]), chain, [0; 32]);
    let per_second = Price::new(1_000, 1).unwrap();
    let params = recipient.quote(NOW, key().address(), per_second).unwrap();
    let paid = Payment {
        expected_price: Some(per_second),
        ..payment(&params, vec![signed(&params, 1)])
    };
    assert!(!recipient.may_start(&account()));
    assert!(pay(&mut recipient, paid).credited.is_some());
    assert!(recipient.may_start(&account()));
    // One ticket's worth is a minute, give or take what its probability was rounded up by.
    recipient.start_meter(NOW, account(), Unit::Seconds, Trigger::Ticker);
    let mut now = NOW;
    let end = loop {
        let drained = drain(&mut recipient);
        if let Some(Event::Exhausted(who, shortfall)) = drained.other.last() {
            assert_eq!(*who, account());
            assert_eq!(shortfall.fee, Amount::from(&Wei::from(5_000)));
            break now;
        }
        let Output::Idle(Some(wake)) = recipient.poll_output() else {
            panic!("a meter that sleeps for ever");
        };
        assert!(wake > now);
        now = wake;
        recipient.handle_input(now, Input::Tick);
    };
    assert_eq!(end, NOW + Duration::from_secs(65));
    assert!(
        recipient.balance(&account()).is_some(),
        "what is left stays for a while"
    );
}

#[test]
fn a_job_that_is_metered_by_its_input_costs_nothing_without() {
    let mut recipient = recipient(0);
    let params = recipient.quote(NOW, key().address(), price()).unwrap();
    pay(&mut recipient, payment(&params, vec![signed(&params, 1)]));
    recipient.start_meter(NOW, account(), Unit::PixelSeconds, Trigger::Input);
    let later = NOW + Duration::from_secs(60);
    recipient.handle_input(later, Input::Tick);
    assert!(drain(&mut recipient).other.is_empty());
    recipient.input_seen(later, &account());
    assert!(matches!(
        drain(&mut recipient).other[..],
        [Event::Exhausted(..)]
    ));
    recipient.input_seen(later, &account());
    assert!(drain(&mut recipient).other.is_empty(), "a job is cut once");
}
