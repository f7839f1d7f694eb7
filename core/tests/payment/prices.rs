//! Prices as operators write them, the list of a file, and the contract that says the price of a dollar.

use livepeer_core::currency::{PriceTag, wei_per_usd};
use livepeer_core::http::{Fault, Headers, In, Out, Response, Trust, Url};
use livepeer_core::money::Amount;
use livepeer_core::onchain::feed::{Config, Event, PriceFeed};
use livepeer_core::wire::price_list::read_price_list;
use livepeer_core::{Address, Effect, Input, Machine, Output, Time};
use serde_json::{Value, json};

use crate::support::text;
use crate::vectors;

fn cases(list: &str) -> Vec<Value> {
    let file = vectors::file("operations/prices-usd.json");
    file[list].as_array().expect("a list of cases").clone()
}

/// The words of a contract.
#[derive(Clone, Debug)]
struct Contract {
    description: String,
    decimals: u64,
    answer: String,
    updated_at: u64,
    /// The round in which the price was got, less the one asked for.
    late: bool,
}

fn word(number: &str) -> String {
    let number: num_bigint::BigInt = number.parse().expect("a number");
    let bytes = number.to_signed_bytes_be();
    let fill = if bytes[0] & 0x80 == 0 { "00" } else { "ff" };
    fill.repeat(32 - bytes.len()) + &hex::encode(bytes)
}

impl Contract {
    fn new(answer: &str, updated_at: u64) -> Self {
        Self {
            description: "ETH / USD".into(),
            decimals: 8,
            answer: answer.into(),
            updated_at,
            late: false,
        }
    }

    fn body(&self) -> String {
        let described = &self.description;
        let padded = described.len().next_multiple_of(32);
        let mut description = word("32") + &word(&described.len().to_string());
        description += &format!("{:0<1$}", hex::encode(described), 2 * padded);
        let answered_in = if self.late { "6" } else { "7" };
        let round = [
            "7",
            &self.answer,
            "1",
            &self.updated_at.to_string(),
            answered_in,
        ];
        let round: String = round.map(word).concat();
        let results = [
            "0xa4b1".to_owned(),
            format!("0x{description}"),
            format!("0x{}", word(&self.decimals.to_string())),
            format!("0x{round}"),
        ];
        let answer =
            |(id, result): (usize, &String)| json!({"jsonrpc": "2.0", "id": id, "result": result});
        json!(results.iter().enumerate().map(answer).collect::<Vec<_>>()).to_string()
    }
}

struct Player {
    now: Time,
    feed: PriceFeed,
    /// The words of the contract; without any, endpoints are away.
    says: Option<Contract>,
    told: Vec<String>,
    asked: usize,
    wake: Option<Time>,
}

fn endpoints(count: usize) -> Vec<Url> {
    let url = |n| Url::parse(&format!("https://rpc{n}.example/key")).expect("a URL");
    (0..count).map(url).collect()
}

impl Player {
    fn new(now: Time, says: Option<Contract>) -> Self {
        let config = Config {
            endpoints: endpoints(2),
            chain_id: 42_161,
            trust: Trust::Public,
        };
        let mut feed = PriceFeed::new(now, config);
        feed.follow(now, Address([9; 20]));
        let mut this = Self {
            now,
            feed,
            says,
            told: Vec::new(),
            asked: 0,
            wake: None,
        };
        this.settle();
        this
    }

    fn settle(&mut self) {
        loop {
            match self.feed.poll_output() {
                Output::Idle(wake) => {
                    assert!(wake.is_none_or(|wake| wake > self.now));
                    self.wake = wake;
                    return;
                }
                Output::Event(event) => self.told.push(match event {
                    Event::Priced(read) => format!("a dollar is {}", read.wei_per_usd),
                    Event::Unfit(why) | Event::Bad(why) => why,
                    Event::EndpointFailed(failure) => failure.who.to_string(),
                    Event::GaveUp => "gave up".into(),
                    Event::Stale(age) => format!("stale for {}", age.as_secs()),
                    other => panic!("{other:?}"),
                }),
                Output::Effect(id, Effect::Http(Out::Request(_))) => {
                    self.asked += 1;
                    let steps = match &self.says {
                        None => vec![In::Failed(Fault::Connect("refused".into()))],
                        Some(says) => vec![
                            In::Reply(Response::new(200)),
                            In::Data(says.body().into()),
                            In::End(Headers::new()),
                        ],
                    };
                    for step in steps {
                        self.feed.handle_input(self.now, Input::Http(id, step));
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Lets time pass; what was told meanwhile.
    fn until(&mut self, secs: u64) -> Vec<String> {
        let end = Time::from_secs(secs);
        while let Some(wake) = self.wake.filter(|wake| *wake <= end) {
            self.now = wake;
            self.feed.handle_input(wake, Input::Tick);
            self.settle();
        }
        self.now = end;
        std::mem::take(&mut self.told)
    }
}

/// A time that is no full hour.
const BEGIN: u64 = 1_787_078_840;
/// The next full hour.
const HOUR: u64 = 1_787_079_600;

#[test]
fn a_price_is_converted_exactly_by_what_the_contract_says() {
    let mut converted = 0;
    for case in cases("conversion") {
        let field = |name: &str| text(&case[name]);
        let contract = Contract {
            description: field("feed_description").into(),
            decimals: case["feed_decimals"].as_u64().expect("a number"),
            ..Contract::new(field("feed_answer"), BEGIN)
        };
        let now = Time::from_secs(BEGIN);
        let player = Player::new(now, Some(contract.clone()));
        let (price, units) = (field("price"), field("pixels_per_unit"));
        let tag = PriceTag::parse(&format!("{price}{}/{units}", field("currency")));
        let dollar = player.feed.reading().map(|read| &read.wei_per_usd);
        let wei = tag.as_ref().and_then(|tag| tag.of_one(dollar));
        if case.get("error").is_some() || contract.answer.starts_with('-') {
            assert_eq!(wei, None, "{case}");
            assert_eq!(player.told.len(), 1, "{case}");
        } else {
            let wei = wei.expect("a price").to_string();
            assert_eq!(wei, field("wei_per_pixel"), "{case}");
            converted += 1;
        }
    }
    assert_eq!(converted, 13);
}

#[test]
fn a_newer_price_counts_and_is_read_at_the_full_hour() {
    let mut player = Player::new(
        Time::from_secs(BEGIN),
        Some(Contract::new("200000000000", BEGIN - 40)),
    );
    assert_eq!(player.until(HOUR - 1), ["a dollar is 500000000000000"]);
    player.says = Some(Contract::new("400000000000", HOUR - 10));
    assert_eq!(player.until(HOUR), ["a dollar is 250000000000000"]);
    // Neither the same one nor an earlier one is news.
    player.says = Some(Contract::new("500000000000", HOUR - 10));
    assert!(player.until(HOUR + 3_600).is_empty());
    player.says = Some(Contract::new("500000000000", HOUR - 600));
    assert!(player.until(HOUR + 2 * 3_600).is_empty());
    // What cannot be a price changes nothing.
    let now = HOUR + 3 * 3_600;
    for (n, bad) in [
        Contract::new("0", now),
        Contract::new("-5", now),
        Contract::new("1", now + 24 * 3_600),
        Contract {
            late: true,
            ..Contract::new("1", now)
        },
    ]
    .into_iter()
    .enumerate()
    {
        player.says = Some(bad);
        let told = player.until(now + 3_600 * n as u64);
        assert!(
            told.len() == 1 && told[0].starts_with("its answer is"),
            "{told:?}"
        );
    }
    let reading = player.feed.reading().expect("the last good one");
    assert_eq!(
        Amount::ratio(250_000_000_000_000_i64, 1).as_ref(),
        Some(&reading.wei_per_usd)
    );
}

#[test]
fn a_reading_that_fails_is_repeated_after_a_while_and_then_left_until_the_next_hour() {
    let mut player = Player::new(Time::from_secs(BEGIN), None);
    let both = [
        "chain endpoint https://rpc0.example:443",
        "chain endpoint https://rpc1.example:443",
    ];
    let mut at = BEGIN;
    for pause in [30, 60, 120, 240] {
        assert_eq!(player.until(at + pause - 1), both, "{pause}");
        at += pause;
    }
    let mut last = both.to_vec();
    last.push("gave up");
    assert_eq!(player.until(HOUR - 1), last);
    player.says = Some(Contract::new("200000000000", HOUR - 5));
    assert_eq!(player.until(HOUR), ["a dollar is 500000000000000"]);
    assert_eq!(player.asked, 11);
    // Nothing newer comes: that is told once, a day after the contract got it.
    let day = 24 * 3_600;
    assert!(player.until(HOUR - 6 + day).is_empty());
    assert_eq!(player.until(HOUR + 3 * day), [format!("stale for {day}")]);
}

#[test]
fn other_endpoints_are_asked_at_once_and_the_last_price_stays() {
    let mut player = Player::new(
        Time::from_secs(BEGIN),
        Some(Contract::new("200000000000", BEGIN - 40)),
    );
    player.told.clear();
    let mut turn = |count, says: Option<Contract>| {
        player.says = says;
        player.feed.set_endpoints(player.now, endpoints(count));
        player.settle();
        let told = std::mem::take(&mut player.told);
        assert!(player.feed.reading().is_some());
        (told, player.asked, player.wake.is_some())
    };
    assert_eq!(turn(2, None), (vec![], 1, true), "they are the same");
    let away = "chain endpoint https://rpc0.example:443".to_owned();
    assert_eq!(turn(1, None), (vec![away], 2, true));
    let later = Contract::new("400000000000", BEGIN);
    let priced = "a dollar is 250000000000000".to_owned();
    assert_eq!(turn(2, Some(later)), (vec![priced], 3, true));
    // Nobody is asked any more, and only that the price gets old is still to be told.
    assert_eq!(turn(0, None), (vec![], 3, true));
    let day = 24 * 3_600;
    assert_eq!(player.until(BEGIN + day), [format!("stale for {day}")]);
    assert_eq!(player.wake, None);
}

#[test]
fn a_contract_that_is_no_price_feed_is_asked_once() {
    for description in ["ETH-USD", "ETH / USD / X", "BTC / USD", "ETH / EUR"] {
        let contract = Contract {
            description: description.into(),
            ..Contract::new("1", BEGIN)
        };
        let mut player = Player::new(Time::from_secs(BEGIN), Some(contract));
        let told = player.until(HOUR + 7_200);
        assert!(
            told.len() == 1 && told[0].contains("not of ETH / USD"),
            "{told:?}"
        );
        assert_eq!(player.asked, 1);
        player.feed.stop(player.now);
        player.says = Some(Contract::new("200000000000", HOUR));
        player.feed.follow(player.now, Address([8; 20]));
        player.settle();
        assert_eq!(player.told, ["a dollar is 500000000000000"]);
    }
}

#[test]
fn a_list_of_prices_is_read_as_the_vectors_say_or_refused_as_a_whole() {
    let dollar = wei_per_usd("3456.12345678").expect("the price of ETH that the cases go by");
    let mut read = 0;
    for case in cases("max_price_per_capability") {
        let name = text(&case["name"]);
        let global = text(&case["global_max_price_per_unit"]);
        let units = text(&case["global_pixels_per_unit"]);
        let base = match global {
            // Without a price there is no limit; units alone stand for those that an entry leaves open.
            "0" if units != "1" => continue,
            "0" => None,
            "1/2 (USD)" => PriceTag::parse("0.50USD"),
            wei => PriceTag::parse(&format!("{wei}/{units}")),
        };
        let listed = read_price_list(text(&case["config"]).as_bytes(), base.as_ref());
        let refused = case["ours"]
            .as_str()
            .is_some_and(|ours| ours.starts_with("refuse"));
        if refused || name.starts_with("wrong top key") {
            listed.expect_err(name);
            continue;
        }
        let listed = listed.expect(name);
        let told: Vec<(String, String)> = { listed.iter() }
            .map(|one| {
                let model = one.model.clone().unwrap_or_else(|| "default".into());
                let price = one.price.of_one(Some(&dollar)).expect("a price");
                (
                    format!("{}/{model}", one.pipeline.name()),
                    price.to_string(),
                )
            })
            .collect();
        let expected: Vec<(String, String)> = { case["result"].as_array().expect("a list").iter() }
            .filter(|one| one.get("wei_per_unit").is_some())
            .map(|one| {
                let pipeline = text(&one["pipeline"]).to_lowercase().replace(' ', "-");
                let price = match case["ours"].as_str() {
                    // Price and currency are inherited together: half a dollar.
                    Some(_) => "25000000000000000000000000/172806172839",
                    None => text(&one["wei_per_unit"]),
                };
                (
                    format!("{pipeline}/{}", text(&one["model_id"])),
                    price.to_owned(),
                )
            })
            .collect();
        assert_eq!(told, expected, "{name}");
        read += 1;
    }
    assert!(read >= 13, "{read}");
}
