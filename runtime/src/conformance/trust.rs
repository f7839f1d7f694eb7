//! Certificates.

use std::time::Duration;

use livepeer_core::http::{Body, Fault, Trust};
use rustls::RootCertStore;

use super::life::{both, deaf};
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

/// A certificate that a gRPC call learned holds for trickle and payments; `Afresh` starts over.
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

/// A peer that restarts with another certificate is accepted anew, and what the old one opened is closed: the calls that
/// wait for an answer, over either protocol, several on one connection.
pub async fn a_certificate_accepted_anew_closes_what_the_old_one_opened<R: Runtime>(runtime: R) {
    let (first, second) = (identity(&runtime), identity(&runtime));
    let (old, socket) = Side::serving(&runtime, tls(&first), Habits::Tell).await;
    let (at, address) = (url(&socket, true, "/status/200"), socket.local_addr());
    let driver = Driver::new(runtime.clone());
    let waiting = Side::new(&driver, Habits::Tell);
    let client = Side::new(&driver, Habits::Tell);
    // With the same memory and connections of its own: a shared one may lead to the old server for a while.
    let stranger = Driver::new(runtime.clone()).with_pins(driver.pins().clone());
    let stranger = Side::new(&stranger, Habits::Tell);
    let mut held = Vec::new();
    for protocol in [HTTP1, HTTP2, HTTP2] {
        held.push(waiting.open(get(at.clone()).protocol(protocol)));
        let (id, _) = old.accept().await;
        old.rest(id).await;
    }
    let restarted = async {
        deaf(&runtime, address).await;
        let side = Side::new(&Driver::new(runtime.clone()), Habits::Serve);
        let server = Server::bind(&side.handle, address, tls(&second)).await;
        let _server = server.expect("the port is free again");
        let changed = Fault::CertificateChanged {
            remembered: first.sha256(),
            seen: second.sha256(),
        };
        for protocol in [HTTP1, HTTP2] {
            let id = stranger.open(get(at.clone()).protocol(protocol));
            assert_eq!(stranger.fault(id).await, changed);
        }
        let anew = get(at.clone()).trust(Trust::Afresh).protocol(HTTP2);
        assert_eq!(client.fetch(anew).await.0, 200);
        let pins = client.handle.driver().pins();
        assert_eq!(pins.get(&at.authority()), Some(second.sha256()));
        // Each call ends in a task of its own: their order is free.
        while !held.is_empty() {
            if let (id, In::Failed(fault)) = waiting.next().await {
                assert_eq!(fault, changed);
                held.retain(|other| *other != id);
            }
        }
        for protocol in [HTTP1, HTTP2] {
            let now = get(at.clone()).protocol(protocol);
            assert_eq!(client.fetch(now).await.0, 200);
        }
    };
    let shutdown = socket.shutdown(runtime.now() + Duration::from_secs(20));
    both(restarted, shutdown).await;
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
            matches!(&fault, Fault::Untrusted(_)) && fault.is_final(),
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
        assert!(matches!(client.fault(id).await, Fault::Untrusted(_)));
    }
}

/// A name that a peer told is judged by the address that it stands for, before anything is dialled; a connection that
/// our own address opened is not for it either.
pub async fn what_a_peer_names_is_not_dialled_on_this_machine<R: Runtime>(runtime: R) {
    let (_server, socket) = Side::server(&runtime, None).await;
    let port = socket.local_addr().port();
    for protocol in [HTTP1, HTTP2] {
        let client = Side::client(&runtime);
        for host in ["127.0.0.1", "localhost"] {
            let at = Url::parse(&format!("http://{host}:{port}/status/200")).expect("a URL");
            let own = get(at.clone()).protocol(protocol);
            assert_eq!(client.fetch(own).await.0, 200);
            let id = client.open(get(at.clone().told()).protocol(protocol));
            let fault = client.fault(id).await;
            assert!(matches!(fault, Fault::Forbidden(_)), "{host}: {fault:?}");
            let near = Url::parse("http://127.0.0.1:1").expect("a URL");
            let near = at.named_by(&near).expect("it is on this machine itself");
            let named = get(near).protocol(protocol);
            assert_eq!(client.fetch(named).await.0, 200);
        }
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
