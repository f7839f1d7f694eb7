//! Batch work: balances, charges, and what of it the handshake tells.

use super::*;

fn account(stage: &Stage) -> AccountId {
    AccountId {
        sender: stage.payer.address(),
        session: format!("27_{MODEL}"),
    }
}

fn balance(stage: &Stage) -> Amount {
    let account = account(stage);
    let orch = stage.net.get(stage.orch);
    orch.balance(account.sender, &account.session)
        .cloned()
        .unwrap_or_default()
}

/// A payment that brings nothing, as it is when the balance suffices.
fn without_tickets(stage: &Stage, quote: &OrchestratorInfo) -> Paid {
    let mut paid = stage.pay(quote, "another", 1..=1);
    let mut payment = Payment::decode(&paid.payment).expect("our own");
    payment.tickets.clear();
    paid.payment = payment.encode();
    paid
}

fn paid_stage() -> Stage {
    Stage::new(with_batch(on_chain(), BatchModel::default()))
}

#[test]
fn requests_of_a_model_share_a_balance_and_are_charged_when_they_are_done() {
    let mut stage = paid_stage();
    let quote = info(&mut stage, Pipeline::TextToImage);
    let fields = json!({ "prompt": "p", "width": 100, "height": 10, "num_images_per_prompt": 2 });
    // Whatever session the credentials name.
    let paid = stage.pay(&quote, "first", 1..=2);
    let answer = stage.ask(asked(Pipeline::TextToImage, &paid, &fields));
    assert_eq!(answer.status, Some(200), "{}", answer.text());
    let price = Price::new(PRICE, 1).expect("a price");
    let fee = price.fee(2_000_u64);
    let before = {
        let mut left = balance(&stage);
        left += &fee;
        left
    };
    let worked = stage.events().into_iter().find_map(|event| match event {
        Event::Worked {
            units,
            fee,
            balance,
            ..
        } => Some((units, fee, balance)),
        _ => None,
    });
    assert_eq!(worked, Some((2_000, fee.clone(), Some(balance(&stage)))));
    // The next one brings no ticket, and lives on what is left.
    let paid = without_tickets(&stage, &quote);
    let answer = stage.ask(asked(Pipeline::TextToImage, &paid, &fields));
    assert_eq!(answer.status, Some(200), "{}", answer.text());
    let mut left = before;
    left -= &fee;
    left -= &fee;
    assert_eq!(balance(&stage), left);
    // Another model has a balance of its own.
    let quote = info(&mut stage, Pipeline::Upscale);
    let paid = without_tickets(&stage, &quote);
    let answer = stage.ask(asked(Pipeline::Upscale, &paid, &json!({ "prompt": "p" })));
    assert_eq!(
        (answer.status, answer.text()),
        (Some(400), "Insufficient balance".to_owned())
    );
    assert_eq!(
        slots(&mut stage, Pipeline::Upscale),
        4,
        "the slot is free again"
    );
}

#[test]
fn work_that_costs_more_than_was_paid_leaves_a_debt() {
    let mut stage = paid_stage();
    quirky(
        &mut stage,
        Quirks {
            overcharge: Some(60_000),
            ..Quirks::default()
        },
    );
    let quote = info(&mut stage, Pipeline::TextToImage);
    let fields = json!({ "prompt": "p", "width": 512, "height": 512 });
    let paid = stage.pay(&quote, "first", 1..=2);
    assert_eq!(
        stage
            .ask(asked(Pipeline::TextToImage, &paid, &fields))
            .status,
        Some(200)
    );
    assert!(balance(&stage) < Amount::zero());
    let paid = stage.pay(&quote, "first", 3..=3);
    let answer = stage.ask(asked(Pipeline::TextToImage, &paid, &fields));
    assert_eq!(
        (answer.status, answer.text()),
        (Some(400), "Insufficient balance".to_owned())
    );
}

#[test]
fn tickets_that_are_refused_are_no_loss_of_slots() {
    let mut stage = paid_stage();
    let quote = info(&mut stage, Pipeline::TextToImage);
    let fields = json!({ "prompt": "p", "width": 8, "height": 8 });
    let paid = stage.pay(&quote, "first", 1..=1);
    assert_eq!(
        stage
            .ask(asked(Pipeline::TextToImage, &paid, &fields))
            .status,
        Some(200)
    );
    let answer = stage.ask(asked(Pipeline::TextToImage, &paid, &fields));
    assert_eq!(answer.status, Some(400), "the same ticket again");
    assert!(
        answer.text().contains("invalid ticket senderNonce"),
        "{}",
        answer.text()
    );
    let text = "TicketParams expired".to_owned();
    quirky(
        &mut stage,
        Quirks {
            refuse_payments: Some((400, text)),
            ..Quirks::default()
        },
    );
    let paid = stage.pay(&quote, "first", 2..=2);
    let answer = stage.ask(asked(Pipeline::TextToImage, &paid, &fields));
    assert_eq!(
        (answer.status, answer.text()),
        (Some(400), "TicketParams expired".to_owned())
    );
    assert_eq!(slots(&mut stage, Pipeline::TextToImage), 4);
}

#[test]
fn handshakes_tell_the_models_and_their_prices() {
    let model = BatchModel {
        price: Price::new(7, 1),
        capacity: 3,
        warm: false,
        ..BatchModel::default()
    };
    let mut stage = Stage::new(on_chain().with_batch_model(Pipeline::Llm, "echo", model));
    let hello = stage.hello(None);
    let info = stage.shake(&hello).expect("an honest handshake");
    let offered = info.capabilities.as_ref().expect("capabilities");
    let told = offered
        .model(Pipeline::Llm.capability(), "echo")
        .expect("the model");
    assert_eq!((told.capacity, told.warm, told.in_use), (3, false, 0));
    let price = info
        .capabilities_prices
        .iter()
        .find(|price| price.model == "echo")
        .expect("a price");
    assert_eq!(price.price, Price::new(7, 1).expect("a price"));
    // Asked for by name it is what the quote is for.
    let wanted = Capabilities::for_model(Pipeline::Llm.capability(), "echo");
    let hello = stage.hello(Some(wanted));
    let quote = stage.shake(&hello).expect("an honest handshake");
    assert_eq!(quote.price, Price::new(7, 1));
}
