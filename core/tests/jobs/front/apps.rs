//! Calls of apps through the front door, and the sessions of their clients.

use livepeer_core::front::AppRequest;
use livepeer_core::job::app::{Answer, Failed};

use std::time::Duration;

use super::*;

fn door() -> Door {
    Door::with(Config {
        apps: vec!["acme/*".into(), "acme/a/b".into(), "plain".into()],
        ..Config::default()
    })
}

/// Takes the only call that was told.
fn called(door: &mut Door) -> (RequestId, AppRequest) {
    match door.others.remove(0) {
        Event::App(id, request) => (id, *request),
        other => panic!("{other:?}"),
    }
}

fn answer(status: u16) -> Answer {
    let mut headers = Headers::new();
    headers.push("content-type", "text/plain");
    headers.push("location", "https://o:8935/apps/r/app/next?x=1");
    Answer {
        runner: Url::parse("https://o:8935/apps/r/app").expect("a URL"),
        status,
        headers,
        price: None,
    }
}

/// An answer of the painter begins.
fn begins(door: &mut Door, id: RequestId, status: u16) {
    let answer = answer(status);
    door.tell(|front, now| front.app_head(now, id, &answer, "acme/painter", Some("k")));
}

#[test]
fn calls_of_an_app_without_sessions_hold_nothing_once_they_are_over() {
    let mut door = door();
    for _ in 0..2_000 {
        door.send(request(Method::Post, "/apps/acme/painter/draw"), "");
        let (id, _) = called(&mut door);
        let answer = answer(200);
        door.tell(|front, now| front.app_head(now, id, &answer, "acme/painter", None));
        door.tell(|front, now| front.relay_end(now, id));
    }
    assert!(door.finished.iter().all(|one| one.status == Some(200)));
}

#[test]
fn a_call_goes_to_the_app_that_its_path_names_and_the_answer_comes_back_as_it_is() {
    for (path, app, rest) in [
        (
            "/apps/acme/painter/v1/draw?x=%20",
            "acme/painter",
            "v1/draw?x=%20",
        ),
        ("/apps/acme/painter", "acme/painter", ""),
        // The longest name that fits.
        ("/apps/acme/a/b/c", "acme/a/b", "c"),
        ("/apps/plain/x/", "plain", "x/"),
    ] {
        let mut door = door();
        let request = request(Method::Put, path)
            .header("authorization", "Bearer of-the-gateway")
            .header("livepeer-app-authorization", "Bearer of-the-app")
            .header("livepeer-payment", "forged")
            .header("cookie", "a=1; lp_session=k; b=2")
            .header("x-own", "kept");
        let exchange = door.send(request, "body");
        let (id, called) = called(&mut door);
        assert_eq!((&*called.app, &*called.call.path), (app, rest), "{path}");
        assert_eq!(
            (called.call.method, &called.call.body[..]),
            (Method::Put, &b"body"[..])
        );
        assert_eq!(called.key, "k");
        let sent = &called.call.headers;
        assert_eq!(sent.get("authorization"), Some("Bearer of-the-app"));
        assert_eq!(sent.get("cookie"), Some("a=1; b=2"));
        assert_eq!(sent.get("x-own"), Some("kept"));
        assert!(sent.iter().all(|(name, _)| !name.starts_with("livepeer-")));
        assert!(!called.call.may_repeat);
        let answer = answer(418);
        door.tell(|front, now| front.app_head(now, id, &answer, app, Some("k")));
        door.tell(|front, now| front.relay(now, id, "tea".into()));
        door.tell(|front, now| front.relay_end(now, id));
        let seen = &door.seen[&exchange];
        assert_eq!((seen.status, seen.text(), seen.ended), (418, "tea", true));
        let location = format!("/apps/{app}/next?x=1");
        assert_eq!(seen.headers.get("location"), Some(&*location));
        assert_eq!(seen.headers.get("livepeer-session"), Some("k"));
        assert!(
            seen.headers
                .get("set-cookie")
                .expect("one")
                .starts_with("lp_session=k;")
        );
    }
}

#[test]
fn what_is_not_allowed_or_not_plain_has_one_clear_answer() {
    for (path, status, words) in [
        (
            "/apps/other/painter/x",
            404,
            "The app 'other/painter' does not exist or is not allowed here.",
        ),
        ("/apps/acme", 404, "does not exist"),
        (
            "/apps/acme/painter/%2e",
            400,
            "The path of an app call must be plain.",
        ),
        ("/apps/acme/painter/a/../b", 400, "must be plain"),
    ] {
        let mut door = door();
        let exchange = door.get(path);
        let seen = &door.seen[&exchange];
        assert_eq!(seen.status, status, "{path}: {}", seen.text());
        assert!(seen.message().contains(words), "{path}: {}", seen.message());
        assert!(door.others.is_empty() && door.front.in_flight() == 0);
    }
    let mut closed = Door::new();
    let unknown = closed.get("/apps/acme/painter/x");
    assert_eq!(closed.seen[&unknown].status, 404);
    let runner = Url::parse("https://o:8935/apps/r/app").expect("a URL");
    let cause = livepeer_core::Cause::Gone("the app");
    for (failed, status) in [
        (Failed::NoRunner { attempts: vec![] }, 404),
        (Failed::Exhausted { attempts: vec![] }, 503),
        (Failed::Undecided { runner, cause }, 500),
    ] {
        let mut door = door();
        let exchange = door.get("/apps/acme/painter/x");
        let (id, _) = called(&mut door);
        door.tell(|front, now| front.app_failed(now, id, &failed));
        assert_eq!(door.seen[&exchange].status, status);
    }
}

#[test]
fn a_session_is_held_for_the_key_of_its_client_until_nobody_used_it_for_a_while() {
    let mut door = door();
    let call = |door: &mut Door, app: &str, key: Option<&str>| {
        let mut request = request(Method::Get, &format!("/apps/{app}/x"));
        if let Some(key) = key {
            request.headers.push("livepeer-session", key);
        }
        let exchange = door.send(request, "");
        let (id, called) = called(door);
        (exchange, id, called)
    };
    let (_, first, one) = call(&mut door, "acme/painter", Some("k"));
    let (gone, _, same) = call(&mut door, "acme/painter", Some("k"));
    assert_eq!(one.session, same.session);
    let (_, other_app, other) = call(&mut door, "acme/other", Some("k"));
    let (_, bare, drawn) = call(&mut door, "acme/painter", None);
    assert!(other.session != one.session && drawn.session != one.session);
    assert!(drawn.key.len() >= 32, "nobody guesses it");
    for id in [other_app, bare] {
        begins(&mut door, id, 200);
        door.tell(|front, now| front.relay_end(now, id));
    }
    // A client that goes uses it no more, and another use of the same key holds it.
    door.leave(gone);
    assert_eq!(door.gone.len(), 1);
    door.pass(Duration::from_secs(29));
    assert!(door.others.is_empty(), "{:?}", door.others);
    door.pass(Duration::from_secs(2));
    assert_eq!(door.others.len(), 2, "the two that nobody uses");
    door.others.clear();
    begins(&mut door, first, 204);
    door.pass(Duration::from_secs(10));
    let (_, again, still) = call(&mut door, "acme/painter", Some("k"));
    assert_eq!(still.session, one.session, "in time");
    begins(&mut door, again, 204);
    door.pass(Duration::from_secs(31));
    assert!(matches!(door.others[..], [Event::EndSession(id)] if id == one.session));
    door.others.clear();
    let (_, _, anew) = call(&mut door, "acme/painter", Some("k"));
    assert!(anew.session != one.session);
    // One that its orchestrator ended begins anew as well.
    door.tell(|front, now| front.session_over(now, anew.session));
    let (_, _, last) = call(&mut door, "acme/painter", Some("k"));
    assert!(last.session != anew.session);
}

#[test]
fn a_client_leaves_http_with_its_app_and_is_held_back_while_that_takes_nothing() {
    let mut door = door();
    let asks = request(Method::Get, "/apps/acme/painter/ws").header("upgrade", "websocket");
    let exchange = door.send(asks, "");
    let (id, called) = called(&mut door);
    assert_eq!(called.call.upgrade.as_deref(), Some("websocket"));
    assert_eq!(called.call.headers.get("upgrade"), None, "it is said once");
    let mut granted = answer(101);
    granted.headers.push("upgrade", "websocket");
    door.tell(|front, now| front.app_head(now, id, &granted, "acme/painter", None));
    let seen = &door.seen[&exchange];
    let protocol = seen.headers.get("upgrade");
    assert_eq!((seen.status, protocol), (101, Some("websocket")));
    let said = |door: &mut Door| match door.others.remove(0) {
        Event::Said(of, bytes) => {
            assert_eq!(of, id);
            bytes.len()
        }
        other => panic!("{other:?}"),
    };
    door.http(exchange, In::Data(vec![1; 60_000].into()));
    assert!(!door.seen[&exchange].held);
    door.http(exchange, In::Data(vec![2; 10_000].into()));
    assert!(door.seen[&exchange].held);
    assert_eq!((said(&mut door), said(&mut door)), (60_000, 10_000));
    door.tell(|front, now| front.taken(now, id, 4_000));
    assert!(door.seen[&exchange].held);
    door.tell(|front, now| front.taken(now, id, 60_000));
    assert!(!door.seen[&exchange].held);
    // The client ends first, and hears the rest.
    door.http(exchange, In::End(Headers::new()));
    door.http(exchange, In::Data("not any more".into()));
    assert!(matches!(door.others.remove(0), Event::SaidAll(of) if of == id));
    assert!(door.others.is_empty());
    door.tell(|front, now| front.relay(now, id, "the rest".into()));
    door.tell(|front, now| front.relay_end(now, id));
    let seen = &door.seen[&exchange];
    assert!(seen.ended && seen.text() == "the rest");
    assert_eq!((door.finished.len(), door.front.in_flight()), (1, 0));
    // What nobody asked for is no socket: a body is a body.
    let plain = door.send(request(Method::Post, "/apps/acme/painter/x"), "body");
    let (id, _) = self::called(&mut door);
    begins(&mut door, id, 200);
    door.http(plain, In::Data("late".into()));
    assert!(door.others.is_empty());
}

#[test]
fn a_shutdown_ends_sockets_once_nothing_else_is_under_way() {
    let mut door = door();
    let open = |door: &mut Door| {
        let asks = request(Method::Get, "/apps/acme/painter/ws").header("upgrade", "websocket");
        let exchange = door.send(asks, "");
        let (id, _) = called(door);
        let mut granted = answer(101);
        granted.headers.push("upgrade", "websocket");
        door.tell(|front, now| front.app_head(now, id, &granted, "acme/painter", None));
        (exchange, id)
    };
    let sockets = [open(&mut door), open(&mut door)];
    door.send(request(Method::Post, "/apps/acme/painter/x"), "body");
    let (working, _) = called(&mut door);
    begins(&mut door, working, 200);
    door.tell(|front, now| front.drain(now));
    door.pass(Duration::from_secs(6));
    for (exchange, _) in sockets {
        assert!(!door.seen[&exchange].ended, "other work is under way");
    }
    door.tell(|front, now| front.relay_end(now, working));
    for (exchange, id) in sockets {
        assert!(door.seen[&exchange].ended);
        assert_eq!(door.gone.iter().filter(|gone| **gone == id).count(), 1);
    }
    assert!(matches!(door.others[..], [Event::Drained]));
    assert_eq!(door.front.in_flight(), 0);
}
