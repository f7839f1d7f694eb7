//! Watching the chain through endpoints that lag, lie, break and stand in for each other.

use std::time::Duration;

use livepeer_core::chain::ChainView;
use livepeer_core::http::{Body, Fault, Headers, In, Out, Request, Response, Url};
use livepeer_core::onchain::{ChainWatch, Config, Event};
use livepeer_core::wire::ethereum::{contract_id, get_sender_info, selector};
use livepeer_core::{Address, Cause, Effect, EffectId, Input, Machine, Output, Time};
use serde_json::{Value, json};

use crate::support::hexed;

const PAYER: Address = Address([7; 20]);
const BROKER: Address = Address([0xb0; 20]);
const ROUNDS: Address = Address([0x40; 20]);

fn word(n: u64) -> String {
    format!("{n:064x}")
}

fn address_word(address: Address) -> String {
    format!("{:0>64}", hexed(&address.0))
}

/// The chain of an endpoint.
#[derive(Clone)]
struct Chain {
    id: u64,
    l1_block: u64,
    round: u64,
    round_hash: u8,
    deposit: u64,
    /// How many questions it takes at a time.
    most: usize,
    /// The answer to a query for the controller's address, in place of the contracts' addresses.
    no_controller: Option<&'static str>,
}

const GOOD: Chain = Chain {
    id: 42_161,
    l1_block: 500,
    round: 9,
    round_hash: 0x99,
    deposit: 1_000,
    most: 100,
    no_controller: None,
};

impl Chain {
    fn answer(&self, request: &Request) -> String {
        let Body::Full(body) = &request.body else {
            panic!("a question is whole")
        };
        let (asked, single) = match serde_json::from_slice(body).expect("questions") {
            Value::Array(asked) => (asked, false),
            one => (vec![one], true),
        };
        if !single && asked.len() > self.most {
            return json!({"id": null, "error": {"code": -32600, "message": "too many"}})
                .to_string();
        }
        let answers = asked.iter().map(|one| {
            let result = match one["method"].as_str().expect("a method") {
                "eth_chainId" => json!(format!("{:#x}", self.id)),
                // The number of the chain's own block is not what counts.
                "eth_getBlockByNumber" => json!({
                    "number": "0xffffff",
                    "l1BlockNumber": format!("{:#x}", self.l1_block),
                }),
                "eth_call" => json!(format!("0x{}", self.call(&one["params"][0]))),
                other => panic!("{other}"),
            };
            json!({"jsonrpc": "2.0", "id": one["id"], "result": result})
        });
        let answers: Vec<Value> = answers.collect();
        match &answers[..] {
            [one] if single => one.to_string(),
            all => json!(all).to_string(),
        }
    }

    fn call(&self, call: &Value) -> String {
        let data = hex::decode(&call["data"].as_str().expect("data")[2..]).expect("hex");
        let to = call["to"].as_str().expect("an address").to_lowercase();
        let is = |address: Address| to == address.to_string().to_lowercase();
        let round = || u64::from_be_bytes(data[28..36].try_into().expect("eight bytes"));
        if data[..4] == selector("getContract(bytes32)") {
            if let Some(answer) = self.no_controller {
                return answer.into();
            }
            let id: [u8; 32] = data[4..].try_into().expect("a word");
            let found = [("TicketBroker", BROKER), ("RoundsManager", ROUNDS)];
            let found = found.iter().find(|(name, _)| contract_id(name) == id);
            address_word(found.expect("known").1)
        } else if data[..4] == selector("lastInitializedRound()") {
            assert!(is(ROUNDS));
            word(self.round)
        } else if data[..4] == selector("blockHashForRound(uint256)") {
            assert!(is(ROUNDS));
            let byte = if round() == self.round {
                self.round_hash
            } else {
                0x88
            };
            hexed(&[byte; 32])
        } else {
            assert!(is(BROKER));
            assert_eq!(data, get_sender_info(PAYER));
            word(self.deposit) + &word(0) + &word(2_000) + &word(3)
        }
    }
}

struct Player {
    now: Time,
    watch: ChainWatch,
    chains: Vec<Option<Chain>>,
    views: Vec<ChainView>,
    failures: Vec<(String, Cause)>,
    downs: usize,
    stale: Vec<u64>,
    /// The endpoints asked, and when.
    asked: Vec<(usize, Time)>,
    /// Says that it is asked too often, and perhaps for how long it wants to be left alone.
    busy: Option<(usize, Option<&'static str>)>,
    wake: Option<Time>,
}

/// The endpoints of chains.
fn endpoints(of: &[usize]) -> Vec<Url> {
    let url = |n: &usize| Url::parse(&format!("https://rpc{n}.example/key{n}"));
    of.iter().map(|n| url(n).expect("a URL")).collect()
}

impl Player {
    fn new(chains: &[Option<Chain>]) -> Self {
        let all: Vec<usize> = (0..chains.len()).collect();
        let now = Time::from_secs(1_000);
        Self {
            now,
            watch: ChainWatch::new(now, Config::arbitrum(endpoints(&all), PAYER)),
            chains: chains.to_vec(),
            views: Vec::new(),
            failures: Vec::new(),
            downs: 0,
            stale: Vec::new(),
            asked: Vec::new(),
            busy: None,
            wake: None,
        }
    }

    /// Answers what is asked until nothing is.
    fn settle(&mut self) {
        loop {
            match self.watch.poll_output() {
                Output::Idle(wake) => {
                    assert!(wake.is_none_or(|wake| wake > self.now));
                    self.wake = wake;
                    return;
                }
                Output::Event(Event::View(view)) => self.views.push(*view),
                Output::Event(Event::EndpointFailed(failure)) => {
                    self.failures.push((failure.who.to_string(), failure.cause));
                }
                Output::Event(Event::Down) => self.downs += 1,
                Output::Event(Event::Stale(age)) => self.stale.push(age.as_secs()),
                Output::Effect(id, Effect::Http(Out::Request(request))) => self.reply(id, &request),
                Output::Effect(_, Effect::Http(Out::Abort)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn reply(&mut self, id: EffectId, request: &Request) {
        let host = request.url.host().to_owned();
        let n: usize = host[3..host.find('.').expect("a dot")]
            .parse()
            .expect("a number");
        self.asked.push((n, self.now));
        if let Some((busy, pause)) = self.busy
            && busy == n
        {
            let reply = Response::new(429);
            let reply = match pause {
                Some(pause) => reply.header("retry-after", pause),
                None => reply,
            };
            self.input(Input::Http(id, In::Reply(reply)));
            return self.input(Input::Http(id, In::End(Headers::new())));
        }
        let Some(chain) = &self.chains[n] else {
            let fault = Fault::Connect("connection refused".into());
            return self.input(Input::Http(id, In::Failed(fault)));
        };
        let body = chain.answer(request);
        self.input(Input::Http(id, In::Reply(Response::new(200))));
        for piece in body.as_bytes().chunks(100) {
            self.input(Input::Http(id, In::Data(piece.to_vec().into())));
        }
        self.input(Input::Http(id, In::End(Headers::new())));
    }

    fn input(&mut self, input: Input) {
        self.watch.handle_input(self.now, input);
    }

    fn tick(&mut self) {
        self.now = self.wake.expect("something to wait for");
        self.input(Input::Tick);
        self.settle();
    }

    /// Lets it run for so long.
    fn run(&mut self, secs: u64) {
        let end = self.now + Duration::from_secs(secs);
        while self.wake.is_some_and(|wake| wake <= end) {
            self.tick();
        }
        self.now = end;
    }

    fn asked(&self, of: usize) -> usize {
        self.asked.iter().filter(|(n, _)| *n == of).count()
    }

    fn last(&self) -> &ChainView {
        self.views.last().expect("a view")
    }
}

#[test]
fn a_view_has_block_round_hashes_and_funds() {
    let mut player = Player::new(&[Some(GOOD)]);
    player.settle();
    let view = player.last();
    assert_eq!((view.l1_block, view.round), (500, 9));
    assert_eq!(view.creation_round(), (9, [0x99; 32]));
    let account = view.sender(PAYER).expect("read");
    assert_eq!(account.deposit.to_string(), "1000");
    assert_eq!(account.reserve_remaining.to_string(), "2000");
    assert!(view.sender(Address([1; 20])).is_none());
    assert_eq!(player.wake, Some(player.now + Duration::from_secs(5)));
}

#[test]
fn what_changes_is_seen_at_the_next_reading() {
    let mut player = Player::new(&[Some(GOOD)]);
    player.settle();
    player.chains[0] = Some(Chain {
        l1_block: 501,
        round: 10,
        round_hash: 0,
        deposit: 5,
        ..GOOD
    });
    player.tick();
    let view = player.last();
    assert_eq!((view.l1_block, view.round), (501, 10));
    // The chain does not know the new round's hash yet.
    assert_eq!(view.creation_round(), (9, [0x88; 32]));
    assert_eq!(view.sender(PAYER).expect("read").deposit.to_string(), "5");
    player.chains[0] = Some(Chain { round: 10, ..GOOD });
    player.tick();
    assert_eq!(player.last().creation_round(), (10, [0x99; 32]));
    assert_eq!(player.last().l1_block, 501, "a node behind a balancer lags");
    player.chains[0] = Some(Chain {
        l1_block: 3,
        ..GOOD
    });
    player.tick();
    assert_eq!(player.last().l1_block, 3, "so far back it is no lag");
}

#[test]
fn endpoints_stand_in_for_each_other_and_keep_their_keys_to_themselves() {
    let wrong = Chain { id: 1, ..GOOD };
    let mut player = Player::new(&[None, Some(wrong), Some(GOOD)]);
    player.settle();
    assert_eq!(player.views.len(), 1);
    assert_eq!(
        player.failures[0].0,
        "chain endpoint https://rpc0.example:443"
    );
    assert!(matches!(
        player.failures[1].1,
        Cause::WrongChain {
            is: 1,
            wanted: 42_161
        }
    ));
    // The one that answered stays, until it does not.
    player.tick();
    assert_eq!((player.views.len(), player.failures.len()), (2, 2));
    player.chains[0] = Some(GOOD);
    player.chains[2] = None;
    player.tick();
    assert_eq!(
        (player.views.len(), player.failures.len(), player.downs),
        (3, 3, 0)
    );
}

#[test]
fn other_endpoints_are_asked_at_once_and_what_is_known_of_one_of_them_stays_known() {
    let mut player = Player::new(&[Some(GOOD), Some(GOOD), None]);
    player.busy = Some((0, Some("100")));
    player.settle();
    assert_eq!((player.asked(0), player.asked(1)), (1, 3));
    // The same ones are no news.
    player
        .watch
        .set_endpoints(player.now, endpoints(&[0, 1, 2]));
    player.settle();
    assert_eq!(player.asked.len(), 4);
    // The first one rests, whichever place it has now; the next one is asked anew what chain it serves.
    player.watch.set_endpoints(player.now, endpoints(&[0, 1]));
    player.settle();
    assert_eq!((player.asked(0), player.asked(1)), (1, 5));
    player.chains[1] = Some(Chain { id: 1, ..GOOD });
    player
        .watch
        .set_endpoints(player.now, endpoints(&[2, 1, 0]));
    player.settle();
    // The last reading stands.
    assert_eq!((player.views.len(), player.downs), (2, 1));
    player.busy = None;
    player.watch.set_endpoints(player.now, endpoints(&[0]));
    player.settle();
    assert_eq!(player.asked(0), 1, "it rests still");
    player.run(100);
    assert!(player.asked(0) > 1 && player.views.len() > 2);
    player.watch.set_endpoints(player.now, Vec::new());
    player.settle();
    assert_eq!(player.wake, None);
    player.watch.set_endpoints(player.now, endpoints(&[0]));
    player.settle();
    assert_eq!(player.last().l1_block, 500);
}

#[test]
fn an_answer_of_an_endpoint_that_was_replaced_counts_for_nothing() {
    let now = Time::from_secs(1_000);
    let mut watch = ChainWatch::new(now, Config::arbitrum(endpoints(&[0]), PAYER));
    let Output::Effect(first, Effect::Http(Out::Request(_))) = watch.poll_output() else {
        panic!("nothing is asked");
    };
    watch.set_endpoints(now, endpoints(&[1]));
    assert!(
        matches!(watch.poll_output(), Output::Effect(id, Effect::Http(Out::Abort)) if id == first)
    );
    let Output::Effect(_, Effect::Http(Out::Request(request))) = watch.poll_output() else {
        panic!("nobody else is asked");
    };
    assert_eq!(request.url.host(), "rpc1.example");
    watch.handle_input(now, Input::Http(first, In::Reply(Response::new(500))));
    watch.handle_input(now, Input::Http(first, In::End(Headers::new())));
    assert!(matches!(watch.poll_output(), Output::Idle(Some(_))));
}

#[test]
fn a_controller_that_is_none_is_named() {
    let zero = "0000000000000000000000000000000000000000000000000000000000000000";
    for (answer, why) in [
        (
            "",
            "there is no contract at 0xD8E8328501E9645d16Cf49539efC04f734606ee4",
        ),
        (
            zero,
            "0xD8E8328501E9645d16Cf49539efC04f734606ee4 does not know TicketBroker",
        ),
        (
            "00",
            "0xD8E8328501E9645d16Cf49539efC04f734606ee4 is another contract",
        ),
    ] {
        let mut player = Player::new(&[Some(Chain {
            no_controller: Some(answer),
            ..GOOD
        })]);
        player.settle();
        let told = player.failures[0].1.to_string();
        assert!(told.contains(why), "{told}");
    }
}

#[test]
fn when_nobody_answers_it_is_told_once_and_tried_again() {
    let mut player = Player::new(&[None, None]);
    player.settle();
    assert_eq!(
        (player.failures.len(), player.downs, player.views.len()),
        (2, 1, 0)
    );
    player.tick();
    assert_eq!((player.failures.len(), player.downs), (4, 2));
    player.chains[1] = Some(GOOD);
    player.tick();
    assert_eq!((player.downs, player.views.len()), (2, 1));
}

#[test]
fn an_endpoint_that_limits_batches_is_asked_less_at_a_time_from_then_on() {
    for (most, first, then) in [(2, 9, 3), (1, 9, 3), (0, 10, 3)] {
        let mut player = Player::new(&[Some(Chain { most, ..GOOD })]);
        player.settle();
        assert_eq!(
            (player.views.len(), player.failures.len()),
            (1, 0),
            "{most}"
        );
        assert_eq!(player.asked(0), first, "{most}");
        player.tick();
        assert_eq!(
            (player.views.len(), player.asked(0)),
            (2, first + then),
            "{most}"
        );
    }
}

#[test]
fn who_is_asked_too_often_is_left_alone_for_as_long_as_it_says() {
    let mut player = Player::new(&[Some(GOOD), Some(GOOD)]);
    player.busy = Some((0, Some("60")));
    player.settle();
    assert_eq!(
        (player.views.len(), player.downs),
        (1, 0),
        "the other stands in"
    );
    player.chains[1] = None;
    player.run(50);
    assert_eq!(player.asked(0), 1, "it rests");
    assert!(player.downs > 0);
    player.busy = None;
    player.run(20);
    assert!(player.asked(0) > 1 && player.views.len() > 1);
    // Without a word about how long: ten seconds, twenty, forty.
    let mut player = Player::new(&[Some(GOOD)]);
    player.busy = Some((0, None));
    player.settle();
    player.run(75);
    let times = player.asked.iter().map(|(_, at)| at.as_secs() - 1_000);
    assert_eq!(times.collect::<Vec<_>>(), [0, 10, 30, 70]);
}

#[test]
fn that_a_reading_is_old_is_told_every_minute() {
    let mut player = Player::new(&[Some(GOOD)]);
    player.settle();
    player.run(100);
    assert_eq!(player.stale, [0u64; 0]);
    let read_at = player.last().read_at.expect("it ages");
    player.chains[0] = None;
    player.run(200);
    assert_eq!(player.stale, [60, 120, 180]);
    assert_eq!(player.last().read_at, Some(read_at), "and none came since");
    assert!(player.last().age(player.now) > Some(Duration::from_secs(180)));
}

#[test]
fn silence_errors_and_floods_are_failures() {
    let url = Url::parse("https://rpc").expect("a URL");
    let now = Time::from_secs(1);
    let begin = || {
        let mut watch = ChainWatch::new(now, Config::arbitrum(vec![url.clone()], PAYER));
        let Output::Effect(id, _) = watch.poll_output() else {
            panic!("it asks")
        };
        (watch, id)
    };
    let cause = |watch: &mut ChainWatch| loop {
        match watch.poll_output() {
            Output::Event(Event::EndpointFailed(failure)) => return failure.cause,
            Output::Idle(_) => panic!("no failure"),
            _ => {}
        }
    };
    let (mut watch, _) = begin();
    watch.handle_input(now + Duration::from_secs(5), Input::Tick);
    assert!(matches!(cause(&mut watch), Cause::TimedOut { .. }));
    let (mut watch, id) = begin();
    watch.handle_input(now, Input::Http(id, In::Reply(Response::new(429))));
    watch.handle_input(now, Input::Http(id, In::End(Headers::new())));
    assert!(matches!(
        cause(&mut watch),
        Cause::Refused { status: 429, .. }
    ));
    let (mut watch, id) = begin();
    watch.handle_input(now, Input::Http(id, In::Reply(Response::new(200))));
    watch.handle_input(now, Input::Http(id, In::Data(vec![b' '; 5 << 20].into())));
    assert!(matches!(cause(&mut watch), Cause::TooMuch { .. }));
    let (mut watch, id) = begin();
    watch.handle_input(now, Input::Http(id, In::Reply(Response::new(200))));
    watch.handle_input(now, Input::Http(id, In::Data(b"[]".to_vec().into())));
    watch.handle_input(now, Input::Http(id, In::End(Headers::new())));
    assert!(matches!(cause(&mut watch), Cause::Nonsense { .. }));
    // Late and unknown answers change nothing.
    watch.handle_input(now, Input::Http(id, In::End(Headers::new())));
}

#[test]
fn nobody_to_ask_is_no_reason_to_spin() {
    let mut watch = ChainWatch::new(Time::from_secs(1), Config::arbitrum(Vec::new(), PAYER));
    assert!(matches!(watch.poll_output(), Output::Idle(None)));
    watch.handle_input(Time::from_secs(100), Input::Tick);
    assert!(matches!(watch.poll_output(), Output::Idle(None)));
}
