//! Requests of the real clients.

use super::*;

#[test]
fn the_requests_of_the_real_clients_are_understood() {
    let vector = file("trickle/client-requests.json");
    let requests = vector["requests"].as_array().unwrap();
    assert_eq!(requests.len(), 11, "a request is missing or new");
    for captured in requests {
        let config = serde_json::json!({"base": "/ai/trickle/", "autocreate": true});
        let mut world = World::new("client-requests", &config);
        let line = captured["line"].as_str().unwrap();
        let mut parts = line.split(' ');
        let method = parts.next().unwrap();
        let path = parts.next().unwrap().strip_prefix("{base}").unwrap();
        assert_eq!(parts.next(), Some("HTTP/1.1"));
        let channel = path.split('/').next().unwrap();
        let headers: serde_json::Map<String, Value> = captured["headers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pair| (pair[0].as_str().unwrap().to_string(), pair[1].clone()))
            .collect();
        let create = serde_json::json!({"method": "POST", "path": channel});
        let request =
            serde_json::json!({"method": method, "path": path, "headers": headers, "stream": true});
        if captured["op"] != "create" {
            world.exchange(&create);
        }
        let id = world.open(&request);
        match captured["op"].as_str().unwrap() {
            op @ ("segment" | "first segment" | "later segment") => {
                world.http(id, In::Data(Bytes::from_static(b"x")));
                world.http(id, In::End(Headers::new()));
                let reply = world.seen[&id].reply.as_ref().unwrap();
                assert_eq!(reply.status, 200, "{op}");
                let seq = path.rsplit('/').next();
                assert_eq!(reply.headers.get("lp-trickle-seq"), seq, "{op}");
            }
            op @ ("create" | "close" | "probe") => {
                world.http(id, In::End(Headers::new()));
                assert_eq!(world.seen[&id].reply.as_ref().unwrap().status, 200, "{op}");
            }
            "read" => {
                world.http(id, In::End(Headers::new()));
                assert!(world.seen[&id].reply.is_none(), "a read at the head waits");
                let post = serde_json::json!({"method": "POST", "path": format!("{channel}/0"), "body": "x"});
                world.exchange(&post);
                assert_eq!(world.seen[&id].body, b"x");
                assert!(world.seen[&id].ended);
            }
            op => panic!("unknown op {op}"),
        }
    }
}

#[test]
fn the_http2_log_replays_stream_by_stream() {
    // GOAWAY, SETTINGS and RST_STREAM are the driver's; what streams say is ours.
    let vector = file("trickle/http2.json");
    let mut world = World::new("http2", &vector["server"]);
    let mut streams: BTreeMap<u64, EffectId> = BTreeMap::new();
    let frames = vector["frames"].as_array().unwrap();
    assert_eq!(frames.len(), 23, "a frame is missing or new");
    let mut said = 0;
    for (number, frame) in frames.iter().enumerate() {
        let at = format!("http2 frame {number}: {frame}");
        if frame.get("frame").is_some() {
            continue;
        }
        if let Some(millis) = frame["quiet_ms"].as_u64() {
            let before: Vec<_> = world.seen.values().map(|seen| seen.body.len()).collect();
            world.pass_millis(millis);
            let after: Vec<_> = world.seen.values().map(|seen| seen.body.len()).collect();
            assert_eq!(before, after, "{at}");
            continue;
        }
        let stream = frame["stream"].as_u64().unwrap();
        let end = frame["end"].as_bool().unwrap_or(false);
        if frame["dir"] == "c" {
            if let Some(headers) = frame["headers"].as_object() {
                let fields: serde_json::Map<String, Value> = headers
                    .iter()
                    .filter(|(name, _)| !name.starts_with(':'))
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect();
                let request = serde_json::json!({
                    "method": headers[":method"], "path": headers[":path"], "headers": fields,
                });
                let id = world.open(&request);
                streams.insert(stream, id);
            }
            let id = streams[&stream];
            if let Some(data) = frame["data"].as_str() {
                world.http(id, In::Data(Bytes::copy_from_slice(data.as_bytes())));
            }
            if end {
                world.http(id, In::End(Headers::new()));
            }
            continue;
        }
        said += 1;
        let id = streams[&stream];
        let seen = world.seen.get_mut(&id).unwrap();
        if let Some(headers) = frame["headers"].as_object() {
            let reply = seen
                .reply
                .as_ref()
                .unwrap_or_else(|| panic!("{at}: no head"));
            for (name, value) in headers {
                if name == ":status" {
                    assert_eq!(value.as_str().unwrap(), reply.status.to_string(), "{at}");
                } else {
                    assert_eq!(value.as_str(), reply.headers.get(name), "{at}");
                }
            }
        }
        let data = frame["data"].as_str().unwrap_or("");
        let have = String::from_utf8_lossy(&seen.body[seen.read..]).into_owned();
        assert!(have.starts_with(data), "{at}: {have:?}");
        seen.read += data.len();
        if end {
            assert!(seen.ended && seen.read == seen.body.len(), "{at}: no end");
        }
    }
    assert_eq!(said, 8);

    let observed: Vec<&str> = vector["observations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["case"].as_str().unwrap())
        .collect();
    for case in &observed {
        let config = serde_json::json!({"base": "/ai/trickle/", "autocreate": false,
            "channels": [{"name": "k", "content_type": "x/y"}]});
        let mut world = World::new("http2", &config);
        let open = |world: &mut World, method: &str, path: &str| {
            world.open(&serde_json::json!({"method": method, "path": path}))
        };
        let status = |world: &World, id| world.seen[&id].reply.as_ref().map(|r| r.status);
        let mut answered = |method: &str, path: &str, wanted: u16| {
            let id = open(&mut world, method, path);
            assert_eq!(status(&world, id), Some(wanted));
        };
        match *case {
            // The 100s are optional and not ours; the stream stays open.
            "no body byte for 10 s" => {
                let id = open(&mut world, "POST", "k/0");
                world.pass_millis(10_500);
                assert_eq!(status(&world, id), None);
            }
            "publisher RST_STREAM after some bytes" => {
                let id = open(&mut world, "POST", "k/0");
                world.http(id, In::Data(Bytes::from_static(b"a")));
                world.http(id, In::Failed(Fault::Broken("RST_STREAM".into())));
                let id = open(&mut world, "POST", "k/0");
                world.http(id, In::Data(Bytes::from_static(b"b")));
                world.http(id, In::End(Headers::new()));
                let id = open(&mut world, "GET", "k/0");
                assert_eq!(world.seen[&id].body, b"ab");
            }
            "470" => answered("GET", "k/9", 470),
            // D2.
            "GET index -3" => answered("GET", "k/-3", 400),
            "POST to a missing channel, body open" => answered("POST", "none/0", 404),
            "GET to a missing channel" => answered("GET", "none/0", 404),
            "DELETE channel with a POST waiting" => {
                let id = open(&mut world, "POST", "k/0");
                let delete = open(&mut world, "DELETE", "k");
                assert_eq!(status(&world, delete), Some(200));
                let reply = world.seen[&id].reply.as_ref().unwrap();
                assert_eq!(reply.status, 200);
                assert!(reply.headers.get("lp-trickle-closed").is_some());
            }
            "empty POST (END_STREAM on HEADERS)" => {
                let id = open(&mut world, "POST", "k/0");
                world.http(id, In::End(Headers::new()));
                assert_eq!(status(&world, id), Some(200));
            }
            other => panic!("unknown case {other}"),
        }
    }
    assert_eq!(observed.len(), 8);
}
