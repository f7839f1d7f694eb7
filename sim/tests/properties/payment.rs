//! Ledgers, payer, recipient and signer against anything in any order.

use livepeer_sim::steps::{
    payment_ledger, payment_receiver, payment_session, payment_signer, payment_spending,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::cases;

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn ledgers_and_nonces_are_what_their_doubles_say(data in vec(any::<u8>(), 0..900)) {
        payment_ledger::run(&data);
    }

    #[test]
    fn no_interleaving_of_sessions_passes_a_limit(data in vec(any::<u8>(), 0..900)) {
        payment_spending::run(&data);
    }
}

#[test]
fn the_payers_steps_reach_every_event_and_every_rule() {
    let mut dice = livepeer_sim::Dice::new(7);
    let mut seen = std::collections::BTreeMap::new();
    for _ in 0..1_000 {
        let data = dice.bytes(250);
        for (kind, count) in payment_session::run(&data) {
            *seen.entry(kind).or_insert(0) += count;
        }
    }
    println!("{seen:?}");
    for kind in [
        "Signers",
        "Ready",
        "Paid",
        "Skipped",
        "NeedQuote",
        "Requoted",
        "Held",
        "GaveUp",
        "Refused",
        "TimedOut",
        "TooDear",
        "Nonsense",
        "Recipient",
        "Sender",
        "Quote",
        "Price",
        "Job",
        "Token",
        "Signature",
        "Count",
        "Nonce",
        "Proportion",
        "Budget",
    ] {
        assert!(seen.contains_key(kind), "{kind} never happened: {seen:?}");
    }
}

proptest! {
    #![proptest_config(cases(80))]

    #[test]
    fn nothing_wrong_leaves_a_payer_whatever_its_signer_and_orchestrator_say(
        data in vec(any::<u8>(), 0..300)
    ) {
        payment_session::run(&data);
    }

    #[test]
    fn a_recipient_counts_each_ticket_once_after_it_is_durable_whatever_it_is_sent(
        data in vec(any::<u8>(), 0..400)
    ) {
        payment_receiver::run(&data);
    }

    #[test]
    fn a_signer_answers_everybody_once_and_signs_only_what_it_decided(
        data in vec(any::<u8>(), 0..400)
    ) {
        payment_signer::run(&data);
    }
}

#[test]
fn the_recipients_steps_reach_every_event_and_every_reason() {
    let mut dice = livepeer_sim::Dice::new(7);
    let mut seen = std::collections::BTreeMap::new();
    for _ in 0..40 {
        let data = dice.bytes(500);
        for (kind, count) in payment_receiver::run(&data) {
            *seen.entry(kind).or_insert(0) += count;
        }
    }
    println!("{seen:?}");
    for kind in [
        "Credited",
        "Won",
        "Metered",
        "Exhausted",
        "NoSender",
        "NoPrice",
        "Recipient",
        "RecipientRand",
        "Signature",
        "Nonce",
        "Expired",
    ] {
        assert!(seen.contains_key(kind), "{kind} never happened: {seen:?}");
    }
}

#[test]
fn the_signers_steps_reach_every_status() {
    let mut dice = livepeer_sim::Dice::new(7);
    let mut seen = std::collections::BTreeMap::new();
    for _ in 0..200 {
        let data = dice.bytes(600);
        for (status, count) in payment_signer::run(&data) {
            *seen.entry(status).or_insert(0) += count;
        }
    }
    println!("{seen:?}");
    for status in [200, 400, 403, 404, 405, 408, 480, 481, 482, 500, 502, 503] {
        assert!(
            seen.contains_key(&status),
            "{status} was never answered: {seen:?}"
        );
    }
}
