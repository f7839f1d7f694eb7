//! Certificates.

use livepeer_core::http::{Body, Fault, Trust};
use rustls::RootCertStore;

use super::*;
use crate::tls::Pins;

/// A server that shows another certificate at the same port is refused over gRPC and over plain HTTP alike.
pub async fn a_changed_certificate_is_refused_on_every_kind_of_connection<R: Runtime>(runtime: R) {
    let first = identity(&runtime);
    let second = identity(&runtime);
    let (_server, socket) = Side::server(&runtime, tls(&second)).await;
    let at = url(&socket, true, "/sink");
    for protocol in [HTTP1, HTTP2] {
        let pins = Pins::new();
        pins.set(&at.authority(), first.sha256());
        let client = Side::new(
            &Driver::new(runtime.clone()).with_pins(pins.clone()),
            Habits::Tell,
        );
        for request in [get(at.clone()), post(at.clone(), Body::Stream)] {
            let id = client.open(request.protocol(protocol));
            assert_eq!(
                client.fault(id).await,
                Fault::CertificateChanged {
                    remembered: first.sha256(),
                    seen: second.sha256(),
                }
            );
        }
        assert_eq!(
            pins.get(&at.authority()),
            Some(first.sha256()),
            "the pin stays"
        );
    }
}

/// What gRPC learned holds for trickle and payments; `Afresh` starts over.
pub async fn afresh_forgets_what_was_remembered<R: Runtime>(runtime: R) {
    let first = identity(&runtime);
    let (_server, socket) = Side::server(&runtime, tls(&first)).await;
    let at = url(&socket, true, "/status/200");
    let pins = Pins::new();
    let driver = Driver::new(runtime.clone()).with_pins(pins.clone());
    let client = Side::new(&driver, Habits::Tell);
    assert_eq!(client.fetch(get(at.clone()).protocol(HTTP2)).await.0, 200);
    assert_eq!(pins.get(&at.authority()), Some(first.sha256()));
    // As if the orchestrator had restarted with another certificate since.
    pins.set(&at.authority(), [0; 32]);
    let id = client.open(get(at.clone()));
    assert!(matches!(
        client.fault(id).await,
        Fault::CertificateChanged { .. }
    ));
    let afresh = get(at.clone()).trust(Trust::Afresh);
    assert_eq!(client.fetch(afresh).await.0, 200);
    assert_eq!(pins.get(&at.authority()), Some(first.sha256()));
    assert_eq!(client.fetch(get(at)).await.0, 200);
}

/// Without a known root there is no trust; with it there is, if the name fits.
pub async fn public_trust_wants_a_known_root<R: Runtime>(runtime: R) {
    let signed = identity(&runtime);
    let (_server, socket) = Side::server(&runtime, tls(&signed)).await;
    let at = url(&socket, true, "/status/200");
    for protocol in [HTTP1, HTTP2] {
        let mut roots = RootCertStore::empty();
        let driver = Driver::new(runtime.clone());
        let client = Side::new(&driver, Habits::Tell);
        let id = client.open(get(at.clone()).trust(Trust::Public).protocol(protocol));
        let fault = client.fault(id).await;
        assert!(
            matches!(&fault, Fault::Tls(why) if why.contains("not trusted")),
            "{fault}"
        );
        assert!(
            client.handle.driver().pins().is_empty(),
            "nothing to remember"
        );
        // Even as a root, an orchestrator's own certificate does not pass for a public one (handshake spec 1.1).
        roots
            .add(signed.certificate().clone())
            .expect("a certificate");
        let client = Side::new(&driver.with_roots(roots), Habits::Tell);
        let id = client.open(get(at.clone()).trust(Trust::Public).protocol(protocol));
        assert!(matches!(client.fault(id).await, Fault::Tls(_)));
    }
}

/// Host names and addresses are all the same to a pin.
pub async fn pins_hold_for_odd_names<R: Runtime>(runtime: R) {
    let (_server, socket) = Side::server(&runtime, tls(&identity(&runtime))).await;
    let port = socket.local_addr().port();
    let pins = Pins::new();
    let driver = Driver::new(runtime.clone()).with_pins(pins.clone());
    let client = Side::new(&driver, Habits::Tell);
    for host in ["127.0.0.1", "localhost"] {
        let at = Url::parse(&format!("https://{host}:{port}/status/200")).expect("a URL");
        for protocol in [HTTP1, HTTP2] {
            assert_eq!(
                client.fetch(get(at.clone()).protocol(protocol)).await.0,
                200,
                "{host}"
            );
        }
    }
    assert_eq!(pins.len(), 2);
}
