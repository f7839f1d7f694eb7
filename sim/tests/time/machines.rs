//! Machines with as much in hand as they take, and all of it moving.

use std::time::Duration;

use bytes::Bytes;
use livepeer_core::capabilities::{Capabilities, Capability, Ceilings, Model, ModelPrice};
use livepeer_core::chain::ChainView;
use livepeer_core::discovery::{Combine, Discovery, Event, Origin, Source};
use livepeer_core::handshake::Identity;
use livepeer_core::http::{Body, Fault, Headers, In, Method, Out, Request, Response, Url};
use livepeer_core::job::live::media::{self, MAX_UNANSWERED, Media};
use livepeer_core::money::Price;
use livepeer_core::payment::mint::Policy;
use livepeer_core::payment::remote::{self, SignerServer, listing};
use livepeer_core::pool::{self, Quickest, SessionPool};
use livepeer_core::trickle::{
    ContentType, Publisher, Seq, Server, Start, Subscriber, publisher, server, subscriber,
};
use livepeer_core::wire::listing::MAX_LIST_BYTES;
use livepeer_core::wire::signer::{DISCOVERY_PATH, ListedOrchestrator};
use livepeer_core::wire::{Channels, OrchestratorInfo};
use livepeer_core::{Address, Effect, EffectId, Input, Machine, Output, Time};
use livepeer_sim::budget::within_budget;

use crate::shapes::numbered;

const NOW: Time = Time::from_secs(1_700_000_000);

/// Models, prices, readers, segments: more than any honest peer has, and no more than bounds admit.
const MANY: usize = 10_000;

fn url(text: &str) -> Url {
    Url::parse(text).expect("a URL")
}

/// All that a machine has to say.
fn drain<M: Machine>(machine: &mut M) -> Vec<(EffectId, Effect)> {
    let mut effects = Vec::new();
    loop {
        match machine.poll_output() {
            Output::Effect(id, effect) => effects.push((id, effect)),
            Output::Event(_) => {}
            Output::Idle(_) => return effects,
        }
    }
}

fn requests(effects: Vec<(EffectId, Effect)>) -> impl Iterator<Item = (EffectId, Request)> {
    effects.into_iter().filter_map(|(id, effect)| match effect {
        Effect::Http(Out::Request(request)) => Some((id, request)),
        _ => None,
    })
}

fn tell<M: Machine>(machine: &mut M, id: EffectId, step: In) {
    machine.handle_input(NOW, Input::Http(id, step));
}

#[test]
fn a_discovery_reads_and_merges_the_longest_lists_in_time() {
    let entry = |n: usize| format!(r#"{}{{"address":"o{n}:1"}}"#, if n == 0 { "" } else { "," });
    let body = Bytes::from(numbered("[", entry, "]", MAX_LIST_BYTES / 8));
    let sources = (0..3).map(|n| {
        let url = url(&format!("https://endpoint-{n}/list"));
        let headers = Headers::new();
        (Origin::Endpoint, Source::Endpoint { url, headers })
    });
    let config = livepeer_core::discovery::Config {
        combine: Combine::All,
        ..Default::default()
    };
    let mut discovery = Discovery::new(NOW, config, sources.collect());
    let mut found = 0;
    loop {
        match discovery.poll_output() {
            Output::Effect(id, Effect::Http(Out::Request(_))) => {
                within_budget("one more list of the same", || {
                    tell(&mut discovery, id, In::Reply(Response::new(200)));
                    for at in (0..body.len()).step_by(16 << 10) {
                        let part = body.slice(at..body.len().min(at + (16 << 10)));
                        tell(&mut discovery, id, In::Data(part));
                    }
                    tell(&mut discovery, id, In::End(Headers::new()));
                });
            }
            Output::Event(Event::Found(all)) => found = all.len(),
            Output::Idle(_) => break,
            _ => {}
        }
    }
    assert!(found > MANY, "{found} orchestrators");
}

#[test]
fn a_pool_takes_in_asks_and_forgets_all_that_it_holds_in_time() {
    let all = |prefix: &str| -> Vec<Url> {
        let one = |n| url(&format!("https://{prefix}{n}:1"));
        (0..pool::MAX_NODES + 1_000).map(one).collect()
    };
    let (first, other) = (all("a"), all("b"));
    let wanted = Capabilities::live_video("noop");
    let config = pool::Config::default();
    let mut pool = SessionPool::new(NOW, config, Identity::Offchain, wanted, Quickest, [1; 32]);
    within_budget("offering the same list twice", || {
        pool.offer(NOW, first.clone());
        pool.offer(NOW, first);
    });
    within_budget("one refusal after the other", || {
        assert!(pool.take(NOW).is_none());
        loop {
            let asked: Vec<_> = requests(drain(&mut pool)).collect();
            if asked.is_empty() {
                break;
            }
            for (id, _) in asked {
                tell(&mut pool, id, In::Failed(Fault::Connect("refused".into())));
            }
        }
    });
    assert_eq!(pool.ready(), 0);
    within_budget("another list in its place", || {
        pool.replace(NOW, other.clone());
        pool.replace(NOW + Duration::from_secs(7_200), other);
        drain(&mut pool);
    });
}

#[test]
fn a_server_serves_as_many_readers_and_channels_as_it_admits_in_time() {
    let mut server = Server::new(NOW, server::Config::default());
    let ask = |server: &mut Server, n: usize, path: &str| {
        let id = EffectId::by_peer(n as u64);
        let request = Request::new(Method::Get, url("http://host:1").with_path(path));
        tell(server, id, In::Request(request));
        tell(server, id, In::End(Headers::new()));
    };
    within_budget("a channel with many readers", || {
        let content = ContentType::MPEG_TS.into();
        server.create_channel(NOW, "many", content).expect("made");
        for n in 0..MANY {
            ask(&mut server, n, "/ai/trickle/many/next");
            ask(&mut server, MANY + n, "/ai/trickle/many/0");
        }
        drain(&mut server);
        for _ in 0..8 {
            server.begin(NOW, "many").expect("it is there");
            server
                .write(NOW, "many", Bytes::from_static(b"video"))
                .expect("it is open");
            server.end(NOW, "many").expect("it is open");
            drain(&mut server);
        }
    });
    within_budget("readers that go one by one", || {
        for n in 0..2 * MANY {
            let gone = In::Failed(Fault::Broken("gone".into()));
            tell(&mut server, EffectId::by_peer(n as u64), gone);
            drain(&mut server);
        }
    });
    within_budget("many channels, each with a reader", || {
        for n in 0..MANY - 1 {
            let content = ContentType::MPEG_TS.into();
            server
                .create_channel(NOW, &format!("c{n}"), content)
                .expect("made");
            ask(&mut server, 3 * MANY + n, &format!("/ai/trickle/c{n}/0"));
        }
        drain(&mut server);
        server.handle_input(NOW + Duration::from_secs(3_600), Input::Tick);
        drain(&mut server);
        server.close(NOW + Duration::from_secs(3_600));
        drain(&mut server);
    });
}

#[test]
fn a_subscriber_reads_a_segment_of_crumbs_in_time() {
    let channel = url("https://host:1/ai/trickle/c");
    let mut reader = Subscriber::new(
        NOW,
        subscriber::Config::default(),
        channel,
        Start::At(Seq::ZERO),
    );
    within_budget("a segment byte by byte", || {
        let (id, _) = requests(drain(&mut reader)).next().expect("it asks");
        tell(
            &mut reader,
            id,
            In::Reply(Response::new(200).header("lp-trickle-seq", "0")),
        );
        for _ in 0..10 * MANY {
            tell(&mut reader, id, In::Data(Bytes::from_static(b"x")));
        }
        drain(&mut reader);
    });
}

#[test]
fn a_publisher_and_media_take_more_than_anybody_fetches_in_time() {
    let channel = url("https://host:1/ai/trickle/c");
    let mut writer = Publisher::new(NOW, publisher::Config::default(), channel.clone());
    within_budget("a segment of crumbs that nobody takes", || {
        let _ = writer.begin(NOW);
        for _ in 0..10 * MANY {
            let _ = writer.write(NOW, Bytes::from_static(b"x"));
        }
        drain(&mut writer);
    });
    let channels = Channels {
        manifest_id: "m".into(),
        publish: channel.clone(),
        subscribe: channel.clone(),
        control: channel.clone(),
        events: channel,
    };
    let mut media = Media::new(NOW, media::Config::default());
    within_budget("segments that nobody answers", || {
        media.expect_output(NOW, true);
        media.open(NOW, publisher::Config::default());
        media.go_to(NOW, 0, &channels);
        for _ in 0..2 * MAX_UNANSWERED {
            let _ = media.begin(NOW);
            media.write(NOW, Bytes::from_static(b"video"));
            media.end_segment(NOW);
        }
        drain(&mut media);
    });
    within_budget("output that nobody asked for", || {
        for n in 0..2 * MAX_UNANSWERED as u64 {
            let seq = Seq::new(n);
            let content = ContentType::MPEG_TS.into();
            media.output(NOW, 0, subscriber::Event::Begin(seq, content));
            media.output(
                NOW,
                0,
                subscriber::Event::Data(seq, Bytes::from_static(b"video")),
            );
            media.output(NOW, 0, subscriber::Event::End(seq));
            while media.next_output().is_some() {}
        }
        drain(&mut media);
    });
    within_budget("another orchestrator after that", || {
        media.leave(NOW, 0);
        media.go_to(NOW, 1, &channels);
        media.end(NOW);
        drain(&mut media);
    });
}

/// An orchestrator with as many models as it may have, and a price for each.
fn large() -> OrchestratorInfo {
    let of = Capability::LIVE_VIDEO_TO_VIDEO;
    let name = |n: usize| format!("model-{n}");
    let mut capabilities = Capabilities::live_video("noop");
    let models = (0..MANY).map(|n| (name(n), Model::default()));
    capabilities
        .constraints
        .entry(of)
        .or_default()
        .extend(models);
    // The last one is looked for longest.
    let prices = (0..MANY).rev().map(|n| ModelPrice {
        capability: of,
        model: name(n),
        price: Price::new(1, 1).expect("a price"),
    });
    OrchestratorInfo {
        raw: Bytes::new(),
        transcoder: url("https://o:1"),
        ticket_params: None,
        price: None,
        address: Address::ZERO,
        capabilities: Some(capabilities),
        auth_token: None,
        capabilities_prices: prices.collect(),
        nodes: Vec::new(),
    }
}

#[test]
fn an_orchestrator_with_thousands_of_models_is_listed_in_time() {
    let info = large();
    let ceilings = Ceilings::of(Price::new(1, 1).expect("a price"));
    let listed = within_budget("a list of six with all their models", || {
        listing([(&info, &[][..]); 6], &ceilings)
    });
    assert_eq!(listed.listed[0].capabilities.len(), MANY);
}

#[test]
fn a_signer_answers_for_long_lists_and_long_questions_in_time() {
    let key = livepeer_sim::Key::named("signer");
    let config = remote::Config {
        discovery: true,
        ..remote::Config::new(Policy::new(key.address()))
    };
    let mut signer = SignerServer::new(NOW, config, ChainView::development(), [1; 32]);
    let one = |n: usize| ListedOrchestrator {
        address: format!("https://o{n}:1"),
        capabilities: (0..10).map(|m| format!("slug/model-{m}")).collect(),
        runners: Vec::new(),
    };
    signer.set_listed(NOW, (0..MANY).map(one).collect());
    let caps = "caps=slug/none&".repeat(500);
    let path = format!("{DISCOVERY_PATH}?{caps}");
    within_budget("questions for what nobody has", || {
        for n in 0..4 {
            let id = EffectId::by_peer(n);
            let request = Request::new(Method::Get, url("http://signer:1").with_path(&path));
            tell(&mut signer, id, In::Request(request.body(Body::Empty)));
            tell(&mut signer, id, In::End(Headers::new()));
        }
        drain(&mut signer);
    });
}
