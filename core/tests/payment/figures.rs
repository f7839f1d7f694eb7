//! The figures of a signer, and how healthy it says it is.

use std::time::Duration;

use livepeer_core::http::{Body, Headers, In, Method, Out, Request, Url};
use livepeer_core::payment::SignerServer;
use livepeer_core::payment::mint::Policy;
use livepeer_core::payment::remote::Config;
use livepeer_core::{Address, ChainView, Effect, EffectId, Input, Machine, Output, Time};

const NOW: Time = Time::from_secs(1_790_000_000);

fn signer(figures: bool) -> SignerServer {
    let config = Config {
        figures,
        chain_fresh: Some(Duration::from_secs(60)),
        ..Config::new(Policy::new(Address([7; 20])))
    };
    SignerServer::new(NOW, config, ChainView::development(), [1; 32])
}

fn call(
    signer: &mut SignerServer,
    now: Time,
    n: u64,
    method: Method,
    path: &str,
    body: &str,
) -> (u16, String, String) {
    let id = EffectId::by_peer(n);
    let url = Url::parse("http://signer").expect("a URL").with_path(path);
    for step in [
        In::Request(Request::new(method, url)),
        In::Data(body.as_bytes().to_vec().into()),
        In::End(Headers::new()),
    ] {
        signer.handle_input(now, Input::Http(id, step));
    }
    loop {
        match signer.poll_output() {
            Output::Effect(of, Effect::Http(Out::Reply(reply))) if of == id => {
                let Body::Full(body) = reply.body else {
                    panic!("whole")
                };
                let kind = reply
                    .headers
                    .get("content-type")
                    .expect("a type")
                    .to_owned();
                return (
                    reply.status,
                    kind,
                    String::from_utf8(body.to_vec()).expect("text"),
                );
            }
            Output::Idle(_) => panic!("no answer"),
            _ => {}
        }
    }
}

#[test]
fn figures_are_counted_by_endpoint_and_status_and_nothing_a_caller_says_becomes_a_label() {
    let mut signer = signer(true);
    let pay = "/generate-live-payment";
    assert_eq!(call(&mut signer, NOW, 0, Method::Post, pay, "{").0, 400);
    assert_eq!(call(&mut signer, NOW, 1, Method::Post, pay, "{}").0, 400);
    assert_eq!(call(&mut signer, NOW, 2, Method::Get, pay, "").0, 405);
    assert_eq!(
        call(&mut signer, NOW, 3, Method::Get, "/\"x\"\n", "").0,
        404
    );
    assert_eq!(signer.figures().answers(pay, 400), 2);
    let (status, kind, text) = call(&mut signer, NOW, 4, Method::Get, "/metrics", "");
    assert_eq!((status, &*kind), (200, "text/plain; version=0.0.4"));
    for line in [
        "livepeer_signer_requests_total{endpoint=\"/generate-live-payment\",status=\"400\"} 2",
        "livepeer_signer_requests_total{endpoint=\"/generate-live-payment\",status=\"405\"} 1",
        "livepeer_signer_requests_total{endpoint=\"other\",status=\"404\"} 1",
        "livepeer_signer_payment_seconds_bucket{le=\"0.0005\"} 3",
        "livepeer_signer_payment_seconds_count 3",
        "livepeer_signer_tickets_total 0",
        "livepeer_signer_deposit_wei 10000000000000000000",
        "livepeer_tickets_sent 0",
        "livepeer_ticket_value_sent 0",
        "livepeer_payment_create_errors 2",
        "livepeer_gateway_deposit 10000000000",
        "livepeer_broadcaster_reserve 10000000000",
        "livepeer_round 100",
        "# TYPE livepeer_signer_payment_seconds histogram",
    ] {
        assert!(text.lines().any(|have| have == line), "{line}\n{text}");
    }
    // Every line is a comment, or a name with a number.
    for line in text.lines() {
        let sample = line
            .rsplit_once(' ')
            .is_some_and(|(_, value)| value.parse::<f64>().is_ok());
        assert!(line.starts_with("# ") || sample, "{line}");
    }
}

#[test]
fn a_signer_is_healthy_while_its_reading_of_the_chain_is_fresh() {
    let mut signer = signer(true);
    let health = |signer: &mut SignerServer, after: u64, n: u64| {
        let now = NOW + Duration::from_secs(after);
        call(signer, now, n, Method::Get, "/healthz", "")
    };
    assert_eq!(health(&mut signer, 60, 0).0, 200);
    let (status, _, text) = health(&mut signer, 61, 1);
    assert_eq!(status, 503);
    assert!(text.contains("the chain was last read 61 s ago"), "{text}");
    signer.set_chain(NOW + Duration::from_secs(62), ChainView::development());
    assert_eq!(health(&mut signer, 63, 2).0, 200);
}

#[test]
fn without_leave_nothing_is_told() {
    let mut signer = signer(false);
    for (n, path) in ["/healthz", "/metrics"].into_iter().enumerate() {
        assert_eq!(
            call(&mut signer, NOW, n as u64, Method::Get, path, "").0,
            404
        );
    }
}
