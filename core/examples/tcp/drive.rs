use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use livepeer_core::http::{Fault, Headers, In, Out, Request, Response};
use livepeer_core::sign::SignRefused;
use livepeer_core::spend::Spend;
use livepeer_core::{Effect, Input, Machine, Output, Time};

/// Drives a machine that asks with plain GETs, until `done` says that an event was the one it waited for.
fn drive<M: Machine>(machine: &mut M, mut done: impl FnMut(M::Event) -> bool) {
    let start = Instant::now();
    let now = || Time::from_secs(1) + start.elapsed();
    loop {
        // Drain: perform what the machine asks for, and keep the answers.
        let mut answers = Vec::new();
        let wake = loop {
            match machine.poll_output() {
                Output::Effect(id, Effect::Http(Out::Request(request))) => {
                    let steps = exchange(&request).unwrap_or_else(|error| vec![In::Failed(error)]);
                    answers.extend(steps.into_iter().map(|step| Input::Http(id, step)));
                }
                // Every exchange is over before the machine hears of it: there is nothing to abort or pause.
                Output::Effect(_, Effect::Http(_)) => {}
                // A driver with a key signs here, and one with a disk writes.
                Output::Effect(id, Effect::Sign(_)) => {
                    answers.push(Input::Signed(
                        id,
                        Err(SignRefused("there is no key".into())),
                    ));
                }
                Output::Effect(id, Effect::Store(_)) => answers.push(Input::Stored(id, Ok(()))),
                // One with a limit for several machines counts.
                Output::Effect(id, Effect::Spend(Spend::Take { .. })) => {
                    answers.push(Input::Spent(id, Ok(now())));
                }
                Output::Effect(_, Effect::Spend(_)) => {}
                Output::Event(event) => {
                    if done(event) {
                        return;
                    }
                }
                Output::Idle(wake) => break wake,
            }
        };
        // Feed: the answers, or nothing but time.
        if answers.is_empty() {
            let Some(wake) = wake else { return };
            std::thread::sleep(wake.since(now()));
            answers.push(Input::Tick);
        }
        for answer in answers {
            machine.handle_input(now(), answer);
        }
    }
}

/// Sends a GET over a connection of its own. HTTP/1.0, so that the end of the connection is the end of the body.
fn exchange(request: &Request) -> Result<Vec<In>, Fault> {
    let broken = |error: io::Error| Fault::Broken(error.to_string());
    let url = &request.url;
    let mut peer = TcpStream::connect((url.host(), url.port()))
        .map_err(|error| Fault::Connect(error.to_string()))?;
    peer.set_read_timeout(Some(Duration::from_secs(5)))
        .map_err(broken)?;
    let (method, path, host) = (request.method.as_str(), url.path(), url.authority());
    let asked = format!("{method} {path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
    peer.write_all(asked.as_bytes()).map_err(broken)?;
    let (mut head, mut body) = (Vec::new(), Vec::new());
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        peer.read_exact(&mut byte).map_err(broken)?;
        head.push(byte[0]);
    }
    peer.read_to_end(&mut body).map_err(broken)?;
    let status = String::from_utf8_lossy(&head)
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| Fault::Protocol("no status line".into()))?;
    Ok(vec![
        In::Reply(Response::new(status)),
        In::Data(body.into()),
        In::End(Headers::new()),
    ])
}
