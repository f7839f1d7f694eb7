//! Messages to the chain and from it.

use livepeer_core::payment::redemption::{is_due, is_valid, pays_off, redeem};
use livepeer_core::payment::ticket::pad32;
use livepeer_core::payment::{SignedTicket, Ticket};
use livepeer_core::sign::Signature;
use livepeer_core::wire::ethereum::{
    Block, contract_id, get_contract, get_sender_info, read_address, read_sender_info, read_text,
    selector, topic,
};
use livepeer_core::{ChainView, wire};
use serde_json::Value;

use crate::support::*;

fn winner(case: &Value) -> SignedTicket {
    let ticket = &case["ticket"];
    let nonce = u32::try_from(small(&ticket["sender_nonce"])).unwrap();
    SignedTicket {
        ticket: Ticket::new(&params(ticket), address(&ticket["sender"]), nonce),
        signature: Signature::from_slice(&bytes(&case["sig"])).unwrap(),
        recipient_rand: pad32(&uint(&case["recipient_rand"])),
        expiration_block: 100,
    }
}

#[test]
fn calls_events_and_answers_are_those_of_the_contracts() {
    let file = file("onchain.json");
    lists(
        &file,
        &[
            "cases_function",
            "cases_event",
            "cases_contract_id",
            "cases_encoding",
            "cases_redemption_window",
        ],
    );
    each(&file, "cases_function", 29, |name, case| {
        assert_eq!(selector(name).to_vec(), bytes(&case["selector"]), "{name}");
    });
    each(&file, "cases_event", 12, |name, case| {
        assert_eq!(topic(name).to_vec(), bytes(&case["topic0"]), "{name}");
    });
    each(&file, "cases_contract_id", 6, |name, case| {
        assert_eq!(contract_id(name), bytes32(&case["id"]), "{name}");
        let calldata = bytes(&case["get_contract_calldata"]);
        assert_eq!(get_contract(name), calldata, "{name}");
    });
    each(&file, "cases_encoding", 8, |name, case| {
        let decoded = &case["decoded"];
        match name {
            "get_sender_info_call" => {
                let payer = "0x695C248675eCe3d2eE5B19892Ef0b37bC72Dc609";
                let data = get_sender_info(payer.parse().unwrap());
                assert_eq!(data, bytes(&case["calldata"]));
            }
            "get_sender_info_return" | "get_sender_info_unlocking" => {
                let data = bytes(&case["data"]);
                let info = read_sender_info(&data).unwrap();
                assert_eq!(info.deposit, wei(&decoded["deposit"]), "{name}");
                assert_eq!(
                    info.withdraw_round,
                    small(&decoded["withdraw_round"]),
                    "{name}"
                );
                assert_eq!(info.reserve_remaining, wei(&decoded["reserve_remaining"]));
                assert_eq!(info.reserve_claimed, wei(&decoded["reserve_claimed"]));
                assert!(read_sender_info(&data[..127]).is_err());
            }
            "get_contract_return" => {
                let data = bytes(&case["data"]);
                assert_eq!(
                    read_address(&data, 0).unwrap(),
                    address(&decoded["address"])
                );
                assert!(read_address(&[0xff; 32], 0).is_err());
            }
            "service_uri_return" => {
                let data = bytes(&case["data"]);
                assert_eq!(read_text(&data).unwrap(), text(&decoded["uri"]));
                for end in 0..64 + 25 {
                    assert!(read_text(&data[..end]).is_err(), "{end}");
                }
                assert!(read_text(&[0xff; 96]).is_err());
            }
            "arbitrum_block" | "ethereum_block_without_l1_field" => {
                let block = Block::from_json(text(&case["json"]).as_bytes()).unwrap();
                assert_eq!(block.number, small(&decoded["number"]), "{name}");
                assert_eq!(block.l1_block, small(&decoded["l1_block"]), "{name}");
            }
            "redeem_calldata" => assert_eq!(redeem(&winner(case)), bytes(&case["calldata"])),
            other => panic!("nobody tests {other}"),
        }
    });
    let one = winner(&file["cases_encoding"][7]);
    each(&file, "cases_redemption_window", 5, |name, case| {
        let mut ticket = one.ticket.clone();
        ticket.creation_round = case["creation_round"].as_i64().unwrap();
        let hash = if case["chain_hash_zero"] == true {
            [0; 32]
        } else if case["hash_matches"] == true {
            ticket.creation_round_block_hash
        } else {
            [9; 32]
        };
        let valid = is_valid(
            &ticket,
            small(&case["current_round"]),
            small(&case["ticket_validity_period"]),
            &hash,
        );
        assert_eq!(valid, case["redeemable"], "{name}");
    });
}

#[test]
fn the_constants_are_the_published_addresses() {
    for (address, text) in [
        (
            wire::ethereum::CONTROLLER,
            "0xD8E8328501E9645d16Cf49539efC04f734606ee4",
        ),
        (
            wire::ethereum::AI_SERVICE_REGISTRY,
            "0x04C0b249740175999E5BF5c9ac1dA92431EF34C5",
        ),
    ] {
        assert_eq!(address.checksummed(), text);
    }
}

#[test]
fn a_winner_waits_until_its_parameters_have_expired_and_no_longer_than_its_rounds() {
    let file = file("onchain.json");
    let one = winner(&file["cases_encoding"][7]);
    let at = |l1_block, round, active| ChainView {
        l1_block,
        round,
        active,
        ..ChainView::default()
    };
    let round = u64::try_from(one.ticket.creation_round).unwrap();
    assert!(
        !is_due(&one, &at(99, round, true)),
        "it would tell losers from winners"
    );
    assert!(is_due(&one, &at(100, round, true)));
    assert!(is_due(&one, &at(100, round + 2, true)));
    assert!(!is_due(&one, &at(100, round + 3, true)));
    assert!(!is_due(&one, &at(100, round, false)));

    let cost = wei(&"7".into());
    assert!(pays_off(&one.ticket, &8.into(), &cost));
    assert!(!pays_off(&one.ticket, &7.into(), &cost));
    assert!(!pays_off(
        &one.ticket,
        &10_i64.pow(18).into(),
        &one.ticket.face_value
    ));
}

#[test]
fn a_stored_winner_comes_back_whole() {
    let file = file("onchain.json");
    let one = winner(&file["cases_encoding"][7]);
    let record = one.to_record();
    assert_eq!(SignedTicket::from_record(&record), Some(one));
    let mut other = record.clone();
    other.key = "nonces:0x00".into();
    assert_eq!(SignedTicket::from_record(&other), None);
    let mut cut = record;
    cut.value = cut.value.map(|value| value.slice(..31));
    assert_eq!(SignedTicket::from_record(&cut), None);
}
