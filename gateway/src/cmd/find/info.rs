//! `info`: what an orchestrator says about itself.

use livepeer_core::capabilities::{Capabilities, Capability};
use livepeer_core::http::Trust;
use livepeer_core::payment::Unit;
use livepeer_core::payment::ticket::expected_value;
use livepeer_core::wire::OrchestratorInfo;
use livepeer_core::{Address, Time};
use livepeer_runtime::api::Gateway;
use livepeer_runtime::{Driver, Runtime};
use serde::{Serialize, Serializer};

use crate::args::InfoArgs;
use crate::cmd::stop::Stop;
use crate::cmd::{on, peers};
use crate::ui::{self, Money, Outcome, Wei};

pub(crate) fn run(args: &InfoArgs) -> Outcome {
    on::run(args.runtime, Info(args))
}

struct Info<'a>(&'a InfoArgs);

impl on::Work for Info<'_> {
    async fn on<R: Runtime>(self, driver: Driver<R>, _: Stop) -> Outcome {
        let args = self.0;
        let endpoints = args.endpoints()?;
        let driver = peers::with_pins(driver, &args.peers)?;
        let trust = peers::trust(&args.peers);
        let mut builder = Gateway::from(driver.clone())
            .orchestrator(&args.orchestrator.to_string())
            .payer(peers::payer(&endpoints))
            .trust(trust)
            .pin_change(peers::pin_change(&args.peers));
        if args.peers.allow_private {
            builder = builder.allow_private();
        }
        if let Some(model) = &args.model_id {
            builder = builder.model(model);
        }
        let session = builder.connect().await?;
        peers::save_pins(&driver, &args.peers)?;
        let certificate = match trust {
            Trust::Public => None,
            _ => driver.pins().get(&args.orchestrator.authority()),
        };
        let wanted = match &args.model_id {
            Some(model) => Capabilities::live_video(model.as_str()),
            None => Capabilities::default(),
        };
        let report = Report::new(&session.info(), &wanted, certificate, driver.now());
        if args.json {
            ui::print_json(&report)
        } else {
            ui::print(&report.to_text())
        }
    }
}

/// The info of an orchestrator. Addresses are claims.
#[derive(Serialize)]
struct Report {
    transcoder: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_sha256: Option<String>,
    /// `None` off-chain.
    address: Option<String>,
    version: String,
    price: Option<PriceReport>,
    tickets: Option<TicketReport>,
    auth_token_seconds: Option<u64>,
    capabilities: Vec<String>,
    models: Vec<ModelReport>,
    nodes: Vec<String>,
}

#[derive(Serialize)]
struct PriceReport {
    wei: i64,
    units: i64,
    /// The price of a second of live video.
    #[serde(flatten, serialize_with = "per_second")]
    wei_per_second: Money,
}

fn per_second<S: Serializer>(amount: &Money, serializer: S) -> Result<S::Ok, S::Error> {
    let names = ("wei_per_second", "wei_per_second_exact");
    ui::wei(names.0, names.1, Some(amount), serializer)
}

fn ticket_value<S: Serializer>(amount: &Money, serializer: S) -> Result<S::Ok, S::Error> {
    let names = ("expected_value_wei", "expected_value_wei_exact");
    ui::wei(names.0, names.1, Some(amount), serializer)
}

#[derive(Serialize)]
struct TicketReport {
    recipient: String,
    face_value_wei: String,
    #[serde(flatten, serialize_with = "ticket_value")]
    expected_value_wei: Money,
    /// The number of tickets of which one wins, on average.
    one_in: String,
    expiration_block: String,
    creation_round: i64,
}

#[derive(Serialize)]
struct ModelReport {
    capability: String,
    model: String,
    warm: Option<bool>,
    idle: Option<u32>,
    busy: Option<u32>,
    runner_version: String,
    wei_per_unit: Option<String>,
}

impl Report {
    /// `wanted` is what was asked for.
    fn new(
        info: &OrchestratorInfo,
        wanted: &Capabilities,
        certificate: Option<[u8; 32]>,
        now: Time,
    ) -> Self {
        let known = |address: Address| (!address.is_zero()).then(|| address.to_string());
        let per_second = Unit::PixelSeconds.per_second().unwrap_or(1);
        let capabilities = info.capabilities.as_ref();
        Self {
            transcoder: info.transcoder.to_string(),
            certificate_sha256: certificate
                .map(|hash| hash.iter().map(|byte| format!("{byte:02x}")).collect()),
            address: known(info.address),
            version: capabilities
                .map(|offered| offered.version.to_string())
                .unwrap_or_default(),
            price: info.price.map(|price| PriceReport {
                wei: price.wei(),
                units: price.per(),
                wei_per_second: Money(price.fee(per_second)),
            }),
            tickets: info.ticket_params.as_ref().map(|params| {
                let value = expected_value(&params.face_value, &params.win_prob);
                TicketReport {
                    recipient: params.recipient.to_string(),
                    face_value_wei: params.face_value.to_string(),
                    one_in: one_in(params),
                    expected_value_wei: Money(value),
                    expiration_block: params.expiration_block.to_string(),
                    creation_round: params.creation_round,
                }
            }),
            auth_token_seconds: info
                .auth_token
                .as_ref()
                .map(|token| token.expiration.since(now).as_secs()),
            capabilities: capabilities
                .map(|offered| offered.bits.iter().map(name).collect())
                .unwrap_or_default(),
            models: models(info, wanted),
            nodes: info.nodes.clone(),
        }
    }

    fn to_text(&self) -> String {
        let or =
            |text: &Option<String>, none: &str| text.clone().unwrap_or_else(|| none.to_owned());
        let mut facts = vec![
            ("orchestrator", self.transcoder.clone()),
            ("address", or(&self.address, "none: it runs off-chain")),
            ("version", self.version.clone()),
        ];
        if let Some(certificate) = &self.certificate_sha256 {
            facts.push(("certificate", format!("sha256 {certificate}")));
        }
        match &self.price {
            Some(price) => {
                facts.push((
                    "price",
                    format!("{} wei per {} pixels", price.wei, price.units),
                ));
                facts.push((
                    "a second of live video",
                    Wei(&price.wei_per_second.0).to_string(),
                ));
            }
            None => facts.push(("price", "none: it runs off-chain".to_owned())),
        }
        if let Some(tickets) = &self.tickets {
            facts.push(("ticket recipient", tickets.recipient.clone()));
            facts.push((
                "ticket face value",
                format!(
                    "{} wei, one in {} wins",
                    tickets.face_value_wei, tickets.one_in
                ),
            ));
            facts.push((
                "ticket expected value",
                Wei(&tickets.expected_value_wei.0).to_string(),
            ));
            facts.push((
                "ticket parameters",
                format!(
                    "round {}, until L1 block {}",
                    tickets.creation_round, tickets.expiration_block
                ),
            ));
        }
        if let Some(seconds) = self.auth_token_seconds {
            facts.push(("auth token", format!("for {seconds} s")));
        }
        if !self.nodes.is_empty() {
            facts.push(("further nodes", self.nodes.join(", ")));
        }
        if !self.capabilities.is_empty() {
            facts.push(("capabilities", self.capabilities.join(", ")));
        }
        let mut text = ui::facts(facts);
        if !self.models.is_empty() {
            let flag = |warm: Option<bool>| {
                warm.map_or("-", |warm| if warm { "warm" } else { "cold" })
                    .to_owned()
            };
            let number = |number: Option<u32>| {
                number.map_or_else(|| "-".to_owned(), |number| number.to_string())
            };
            let rows: Vec<Vec<String>> = self
                .models
                .iter()
                .map(|model| {
                    vec![
                        model.capability.clone(),
                        model.model.clone(),
                        flag(model.warm),
                        number(model.idle),
                        number(model.busy),
                        model.runner_version.clone(),
                        model.wei_per_unit.clone().unwrap_or_else(|| "-".to_owned()),
                    ]
                })
                .collect();
            text.push('\n');
            text.push_str(&ui::table(
                &[
                    "capability",
                    "model",
                    "state",
                    "idle",
                    "busy",
                    "runner",
                    "wei/unit",
                ],
                &[3, 4, 6],
                &rows,
            ));
        }
        text
    }
}

/// Models from the constraints, then those that only have a price.
fn models(info: &OrchestratorInfo, wanted: &Capabilities) -> Vec<ModelReport> {
    let prices = info.prices(wanted);
    let price = |capability, model: &str| prices(capability, model).map(|price| price.to_string());
    let mut models = Vec::new();
    if let Some(offered) = &info.capabilities {
        models.extend(
            offered
                .models()
                .map(|(capability, name_of, model)| ModelReport {
                    capability: name(capability),
                    model: name_of.to_owned(),
                    warm: Some(model.warm),
                    idle: Some(model.capacity),
                    busy: Some(model.in_use),
                    runner_version: model.runner_version.to_string(),
                    wei_per_unit: price(capability, name_of),
                }),
        );
    }
    for priced in &info.capabilities_prices {
        let listed = info
            .capabilities
            .as_ref()
            .is_some_and(|offered| offered.model(priced.capability, &priced.model).is_some());
        if !listed {
            models.push(ModelReport {
                capability: name(priced.capability),
                model: priced.model.clone(),
                warm: None,
                idle: None,
                busy: None,
                runner_version: String::new(),
                wei_per_unit: Some(priced.price.to_string()),
            });
        }
    }
    models
}

fn name(capability: Capability) -> String {
    capability
        .name()
        .map_or_else(|| format!("capability {}", capability.id()), str::to_owned)
}

/// Rounded to hundredths, as one in 1.5 is not one in 1; `never` for tickets that cannot win.
fn one_in(params: &livepeer_core::wire::TicketParams) -> String {
    use livepeer_core::payment::ticket::certain;
    let chance = &params.win_prob;
    if chance.bits() == 0 {
        return "never".to_owned();
    }
    let hundredths = (certain() * 100u8 + chance / 2u8) / chance;
    let (whole, rest) = (&hundredths / 100u8, (&hundredths % 100u8).to_string());
    match rest.parse() {
        Ok(0u8) | Err(_) => whole.to_string(),
        Ok(rest) => format!("{whole}.{rest:02}")
            .trim_end_matches('0')
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use livepeer_core::capabilities::{Model, ModelPrice};
    use livepeer_core::http::Url;
    use livepeer_core::money::{Price, Wei};
    use livepeer_core::payment::ticket::certain;
    use livepeer_core::wire::TicketParams;

    #[test]
    fn how_rarely_a_ticket_wins_is_rounded_and_not_cut() {
        for (of, shown) in [
            (Default::default(), "never"),
            (certain(), "1"),
            (certain() / 2u8, "2"),
            ((certain() + 1u8) / 2u8, "2"),
            (certain() * 2u8 / 3u8, "1.5"),
            (certain() / 3u8, "3"),
            (certain() * 4u8 / 5u8, "1.25"),
            (certain() / 1_000u16, "1000"),
        ] {
            let params = TicketParams {
                win_prob: of,
                ..params()
            };
            assert_eq!(one_in(&params), shown);
        }
    }

    fn report(asked: Option<&str>) -> Report {
        let id = Capability::LIVE_VIDEO_TO_VIDEO;
        let warm = |capacity| Model {
            warm: true,
            capacity,
            in_use: 1,
            runner_version: "0.2.1".into(),
        };
        let offered = Capabilities {
            version: "0.9.1".into(),
            ..Capabilities::common()
                .and_model(id, "dear", warm(2))
                .and_model(id, "external", warm(0))
                .and_model(id, "noop", warm(4))
        };
        let price = |wei| Price::new(wei, 2).expect("a price");
        let info = OrchestratorInfo {
            raw: Default::default(),
            transcoder: Url::parse("https://127.0.0.1:8935").expect("a URL"),
            ticket_params: Some(TicketParams {
                win_prob: certain() / 2u8,
                ..params()
            }),
            price: Some(price(100)),
            address: Address([0x0e; 20]),
            capabilities: Some(offered),
            auth_token: None,
            capabilities_prices: vec![ModelPrice {
                capability: id,
                model: "dear".into(),
                price: price(700),
            }],
            nodes: vec!["https://127.0.0.1:8936".into()],
        };
        let wanted = asked.map_or_else(Capabilities::default, Capabilities::live_video);
        Report::new(&info, &wanted, None, Time::from_secs(0))
    }

    fn prices(report: &Report) -> Vec<Option<&str>> {
        let models = report.models.iter();
        models.map(|model| model.wei_per_unit.as_deref()).collect()
    }

    #[test]
    fn the_price_of_an_answer_is_shown_for_the_model_asked_for_and_no_other() {
        let (all, external) = (report(None), report(Some("external")));
        assert_eq!(prices(&all), [Some("350"), Some("50"), Some("50")]);
        assert_eq!(prices(&external), [Some("350"), Some("50"), None]);
        let text = external.to_text();
        let row = |model: &str| {
            let row = text.lines().find(|line| line.contains(model));
            row.unwrap_or_else(|| panic!("no {model} in {text}"))
                .split_whitespace()
                .skip(4)
                .collect::<Vec<_>>()
        };
        assert_eq!(row("dear"), ["dear", "warm", "2", "1", "0.2.1", "350"]);
        assert_eq!(
            row("external"),
            ["external", "warm", "0", "1", "0.2.1", "50"]
        );
        assert_eq!(row("noop"), ["noop", "warm", "4", "1", "0.2.1", "-"]);
    }

    #[test]
    fn the_facts_of_an_orchestrator_are_shown_one_a_row() {
        let text = report(None).to_text();
        for row in [
            "orchestrator             https://127.0.0.1:8935",
            "price                    100 wei per 2 pixels",
            "a second of live video   1,382,400,000 wei (1.3824 gwei)",
            "ticket face value        0 wei, one in 2 wins",
            "further nodes            https://127.0.0.1:8936",
        ] {
            assert!(text.contains(row), "{text}");
        }
    }

    fn params() -> TicketParams {
        TicketParams {
            recipient: Address::ZERO,
            face_value: Wei::zero(),
            win_prob: certain(),
            recipient_rand_hash: [0; 32],
            seed: Default::default(),
            expiration_block: Default::default(),
            creation_round: 0,
            creation_round_block_hash: Default::default(),
        }
    }
}
