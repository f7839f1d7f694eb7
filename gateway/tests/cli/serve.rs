//! The front door as applications meet it, before the development network.

use std::fs;
use std::io::{BufReader, Write as _};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use livepeer_runtime::tls::Identity;

use crate::files::Folder;
use crate::http::{Request, call, fetch, listen, try_fetch};
use crate::process::{gateway, signal};
use crate::server::{Devnet, Server};
use crate::signer::KEY;

pub(crate) const LLM: &str = "meta-llama/llama-3.1-8B-Instruct";

/// A gateway that runs, and the addresses of its two doors.
pub(crate) struct Serve {
    pub(crate) server: Server,
    pub(crate) door: String,
    pub(crate) ops: String,
}

impl Serve {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = gateway();
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0"])
            .args(arguments);
        let server = Server::start(&mut command, |line| line.starts_with("ops"));
        let address = |word: &str| {
            let line = server
                .introduction
                .lines()
                .find(|line| line.starts_with(word));
            let url = line.and_then(|line| line.split("://").nth(1));
            let url = url.unwrap_or_else(|| panic!("no {word} in {:?}", server.introduction));
            url.split(['/', ' '])
                .next()
                .expect("a first part")
                .to_owned()
        };
        let (door, ops) = (address("serve"), address("ops"));
        Self { server, door, ops }
    }

    pub(crate) fn before(devnet: &Devnet, more: &[&str]) -> Self {
        let orchestrators = devnet.orchestrators.join(",");
        let peers = ["--signer", &devnet.signer, "--orchestrator", &orchestrators];
        let serve = Self::start(&[&peers, more].concat());
        serve.knows_models();
        serve
    }

    fn get(&self, path: &str) -> (u16, String) {
        call(&self.door, "GET", path, &[], b"")
    }

    fn post(&self, path: &str, body: &str) -> (u16, String) {
        call(&self.door, "POST", path, &[JSON], body.as_bytes())
    }

    /// Waits until the orchestrators have been asked for their models.
    pub(crate) fn knows_models(&self) {
        self.lists(LLM);
    }

    /// Waits until a model is in the list.
    pub(crate) fn lists(&self, model: &str) {
        let until = Instant::now() + Duration::from_secs(60);
        while !self.get("/v1/models").1.contains(model) {
            assert!(
                Instant::now() < until,
                "no models: {:?}",
                self.get("/v1/models")
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the figures are so.
    pub(crate) fn counts(&self, lines: &[&str]) {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let page = call(&self.ops, "GET", "/metrics", &[], b"").1;
            let has = |line: &&str| page.lines().any(|have| have == *line);
            if lines.iter().all(has) {
                return;
            }
            assert!(Instant::now() < until, "{lines:?}\n{page}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn chat(&self, model: &str) -> (u16, String) {
        chat(&self.door, model)
    }

    /// Has the configuration read anew, and waits until that is said of it.
    pub(crate) fn reload(&self, what: &str) {
        signal(self.server.running.0.id(), "HUP");
        while let Ok(line) = self.server.said.recv_timeout(Duration::from_secs(30)) {
            if line.contains(what) {
                return;
            }
        }
        panic!("it never said {what:?}");
    }
}

/// A short conversation: its answer.
fn chat(door: &str, model: &str) -> (u16, String) {
    let body = format!(
        r#"{{"model":"{model}","max_tokens":16,"messages":[{{"role":"user","content":"hello"}}]}}"#
    );
    call(
        door,
        "POST",
        "/v1/chat/completions",
        &[JSON],
        body.as_bytes(),
    )
}

pub(crate) fn json(text: &str) -> serde_json::Value {
    // Bodies of unknown length come in chunks.
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text:?}"))
}

/// The type of JSON.
pub(crate) const JSON: (&str, &str) = ("content-type", "application/json");
/// The type of a [`form`].
pub(crate) const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=x");

/// A form of these parts. Names of files count for nothing, so that each has one.
pub(crate) fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut form = Vec::new();
    for (name, content) in parts {
        form.extend(format!("--x\r\ncontent-disposition: form-data; name=\"{name}\"").into_bytes());
        if ["audio", "file", "image"].contains(name) {
            form.extend(b"; filename=\"a\"");
        }
        form.extend([b"\r\n\r\n", *content, b"\r\n"].concat());
    }
    form.extend(b"--x--\r\n");
    form
}

/// Two seconds of silence.
pub(crate) fn wav() -> Vec<u8> {
    let head = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data\xff\xff\xff\xff";
    [&head[..], &[0; 32_000]].concat()
}

#[test]
fn every_kind_of_route_is_served_by_the_development_network() {
    let devnet = Devnet::start(2, &[]);
    let serve = Serve::before(&devnet, &[]);

    let (status, body) = serve.post(
        "/text-to-image",
        r#"{"prompt":"a hat","width":64,"height":64}"#,
    );
    assert_eq!(status, 200, "{body}");
    let url = json(&body)["images"][0]["url"]
        .as_str()
        .expect("a url")
        .to_owned();
    assert!(
        url.starts_with("/stream/") && url.ends_with(".png"),
        "{url}"
    );

    let (status, body) = serve.chat(LLM);
    assert_eq!(status, 200, "{body}");
    assert_eq!(json(&body)["choices"][0]["message"]["role"], "assistant");

    let stream = format!(
        r#"{{"model":"{LLM}","max_tokens":16,"stream":true,"messages":[{{"role":"user","content":"hello"}}]}}"#
    );
    let (status, body) = serve.post("/v1/chat/completions", &stream);
    assert_eq!(status, 200, "{body}");
    assert!(
        body.contains("chat.completion.chunk") && body.contains("data: [DONE]"),
        "{body}"
    );
    assert!(body.contains(": livepeer {"), "{body}");

    let picture = r#"{"prompt":"a hat","size":"64x64","response_format":"b64_json"}"#;
    let (status, body) = serve.post("/v1/images/generations", picture);
    assert_eq!(status, 200, "{body}");
    assert!(
        json(&body)["data"][0]["b64_json"]
            .as_str()
            .expect("a picture")
            .starts_with("iVBOR")
    );

    let (status, body) = serve.get("/openapi.json");
    assert_eq!(status, 200, "{body}");
    let described = json(&body);
    assert!(described["paths"]["/v1/chat/completions"].is_object());
    let (status, body) = serve.get("/health");
    assert_eq!((status, json(&body)["status"].as_str()), (200, Some("ok")));
    for page in ["/healthz", "/readyz"] {
        let (status, body) = serve.get(page);
        assert_eq!(status, 200, "{body}");
        assert!(json(&body)["status"].is_string(), "{body}");
        let content = &described["paths"][page]["get"]["responses"]["200"]["content"];
        assert!(content["application/json"].is_object(), "{content}");
    }

    // What nobody serves, with the body of its route.
    let (status, body) = serve.chat("no/such");
    assert_eq!(
        (status, json(&body)["error"]["code"].as_str()),
        (404, Some("model_not_found")),
        "{body}"
    );
    let (status, body) = serve.get("/v1/chat/completions");
    assert_eq!(
        (status, json(&body)["error"]["code"].as_str()),
        (405, Some("method_not_allowed")),
        "{body}"
    );
    let (status, body) = serve.get("/text-to-image");
    assert_eq!(
        (status, json(&body)["detail"]["msg"].is_string()),
        (405, true),
        "{body}"
    );
    assert_eq!(serve.get("/metrics").0, 404);

    let (status, figures) = call(&serve.ops, "GET", "/metrics", &[], b"");
    assert_eq!(status, 200, "{figures}");
    let chats = figures
        .lines()
        .find(|line| line.contains("/v1/chat/completions") && line.contains("\"200\""));
    assert!(chats.is_some_and(|line| line.ends_with(" 2")), "{figures}");
}

#[test]
fn a_file_is_measured_before_anybody_is_asked() {
    let devnet = Devnet::start(1, &[]);
    let serve = Serve::before(&devnet, &[]);
    let form = |file: &[u8]| form(&[("audio", file)]);
    let (status, body) = call(
        &serve.door,
        "POST",
        "/audio-to-text",
        &[FORM],
        &form(&wav()),
    );
    assert_eq!(status, 200, "{body}");
    assert!(json(&body)["text"].is_string(), "{body}");
    let (status, body) = call(
        &serve.door,
        "POST",
        "/audio-to-text",
        &[FORM],
        &form(b"not sound"),
    );
    assert_eq!(status, 400, "{body}");
    assert!(body.contains("not WAV, MP3"), "{body}");
}

#[test]
fn a_reload_under_load_takes_what_may_change_and_nothing_of_what_may_not() {
    let devnet = Devnet::start(1, &[]);
    let folder = Folder::new("serve-reload");
    let file = folder.path("gateway.toml");
    let write = |more: &str| {
        let text = format!(
            "[payer]\nsigners = [\"{}\"]\n[orchestrators]\nlist = [\"{}\"]\n{more}",
            devnet.signer, devnet.orchestrators[0]
        );
        fs::write(&file, text).expect("there is room");
    };
    write("");
    let mut serve = Serve::start(&["--config", &file]);
    serve.knows_models();
    assert_eq!(serve.chat("short").0, 404);
    thread::scope(|scope| {
        let door = serve.door.clone();
        let load = scope.spawn(move || (0..20).map(|_| chat(&door, LLM).0).collect::<Vec<_>>());
        write(&format!("[models.alias]\nshort = \"llm/{LLM}\""));
        serve.reload("the configuration changed: models.alias.short");
        assert!(
            load.join()
                .expect("it ends")
                .iter()
                .all(|status| *status == 200)
        );
    });
    let until = Instant::now() + Duration::from_secs(30);
    while serve.chat("short").0 != 200 {
        assert!(Instant::now() < until, "the alias is not there");
        thread::sleep(Duration::from_millis(50));
    }
    write("[serve]\nthreads = 3");
    serve.reload("serve.threads cannot change without a restart");
    write("[serve]\nlissten = 3");
    serve.reload("did you mean `listen`?");
    // Nothing of either was taken.
    assert_eq!(serve.chat("short").0, 200);
    // Whom the gateway blocks is not the caller's affair.
    write(&format!("block = [\"{}\"]", devnet.orchestrators[0]));
    serve.reload("the configuration changed: models.alias.short, orchestrators.block");
    let (status, body) = serve.chat(LLM);
    assert_eq!(status, 503, "{body}");
    let list = folder.path("prices.json");
    let prices = |price: &str| {
        let text =
            format!(r#"{{"capabilities_prices":[{{"pipeline":"llm","price_per_unit":{price}}}]}}"#);
        fs::write(&list, text).expect("there is room");
    };
    prices("1e-9");
    let file_of_prices = format!("[prices]\nfile = {list:?}");
    write(&file_of_prices);
    serve.reload("the configuration changed: orchestrators.block, prices.file");
    let (status, body) = serve.chat(LLM);
    // Nobody is as cheap as that, and soon no such model is listed.
    assert!([404, 503].contains(&status), "{body}");
    prices("1e18");
    serve.reload("the configuration changed: the prices of prices.file");
    serve.knows_models();
    let (status, body) = serve.chat(LLM);
    assert_eq!(status, 200, "{body}");
    signal(serve.server.running.0.id(), "TERM");
    let ended = serve.server.running.wait(Duration::from_secs(60));
    assert!(ended.success(), "{ended}");
}

/// A place that knows that orchestrator, and an endpoint of a chain on which an ETH costs so many dollars.
fn knows(orchestrator: &str, usd: u64) -> String {
    let listed = format!(r#"[{{"address":"{orchestrator}"}}]"#);
    listen(move |stream| {
        let mut reader = BufReader::new(&stream);
        while let Ok(request) = Request::read(&mut reader) {
            let text = match serde_json::from_slice::<Vec<serde_json::Value>>(&request.body) {
                Ok(asked) => chain(&asked, usd),
                Err(_) => listed.clone(),
            };
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", text.len());
            if (&stream).write_all((head + &text).as_bytes()).is_err() {
                return;
            }
        }
    })
}

/// The answers of a contract that says the price of ETH, and of others, in whose round of that number nothing happens.
fn chain(asked: &[serde_json::Value], usd: u64) -> String {
    let word = |number: u64| format!("{number:064x}");
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("it is later");
    let answer = |one: &serde_json::Value| {
        let result = match one["params"][0]["data"].as_str() {
            None if one["method"] == "eth_getBlockByNumber" => {
                let block = serde_json::json!({"l1BlockNumber": "0x1", "number": "0x1"});
                return serde_json::json!({"id": one["id"], "result": block});
            }
            None => "0xa4b1".to_owned(),
            Some("0x7284e416") => format!("0x{}{}{:0<64}", word(32), word(9), "455448202f20555344"),
            Some("0x313ce567") => format!("0x{}", word(8)),
            Some("0xfeaf968c") => {
                // The dearer, the later: only a later price is news.
                let at = now.as_secs() + usd / 1_000;
                let round = [1, usd * 100_000_000, 1, at, 1];
                format!("0x{}", round.map(word).concat())
            }
            Some(_) => format!("0x{}", [usd, 0, 0, 0].map(word).concat()),
        };
        serde_json::json!({"id": one["id"], "result": result})
    };
    serde_json::json!(asked.iter().map(answer).collect::<Vec<_>>()).to_string()
}

#[test]
fn orchestrators_prices_and_the_log_are_as_the_configuration_says() {
    let devnet = Devnet::start(1, &[]);
    let folder = Folder::new("serve-rows");
    let file = folder.path("gateway.toml");
    let place = knows(&devnet.orchestrators[0], 2_000);
    let feed = "0x639Fe6ab55C921f74e7fac1ee960C0B6293ba612";
    // The list leads nowhere, and another place is asked first.
    let text = format!(
        r#"
        [payer]
        signers = ["{}"]
        [orchestrators]
        sources = ["discovery", "list"]
        list = ["https://127.0.0.1:9"]
        discovery = "{place}"
        [prices]
        llm = "1000USD"
        [chain]
        rpc = ["{place}"]
        price_feed = "{feed}"
        [log]
        level = "info"
        format = "json"
        "#,
        devnet.signer
    );
    fs::write(&file, text).expect("there is room");
    let serve = Serve::start(&["--config", &file]);
    serve.knows_models();
    let body = format!(r#"{{"model":"{LLM}","messages":[{{"role":"user","content":"hi"}}]}}"#);
    let path = "/v1/chat/completions";
    let answer = fetch(&serve.door, "POST", path, &[JSON], body.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let usd = answer.field("livepeer-cost-usd");
    assert!(usd.is_some_and(|usd| usd.starts_with("0.0000")), "{usd:?}");
    let line = loop {
        let line = serve.server.said.recv_timeout(Duration::from_secs(30));
        let line = line.expect("each request is logged");
        match serde_json::from_str::<serde_json::Value>(&line) {
            Ok(line) if line["message"] == "request" && line["route"] == path => break line,
            _ => {}
        }
    };
    assert_eq!(line["status"], 200);
    assert_eq!(line["level"], "INFO");
    serve.counts(&[
        "livepeer_price_feed_value 2000",
        "livepeer_ai_orchestrators_available_total 1",
        "livepeer_payment_create_errors 0",
    ]);
}

#[test]
fn an_own_key_and_the_price_of_eth_go_by_the_endpoints_of_the_last_reload() {
    let folder = Folder::new("serve-rpc");
    let file = folder.path("gateway.toml");
    let (key, store) = (folder.private("key", KEY), folder.path("store"));
    let gone = "http://127.0.0.1:9/key".to_owned();
    let write = |rpc: &[&str]| {
        let feed = "0x639Fe6ab55C921f74e7fac1ee960C0B6293ba612";
        let text = format!(
            "[payer]\nkey_file = {key:?}\n[store]\npath = {store:?}\n[orchestrators]\nlist = [\"127.0.0.1:9\"]\n\
             [prices]\nmax = \"1USD\"\n[chain]\nrpc = {rpc:?}\nprice_feed = {feed:?}\n"
        );
        fs::write(&file, text).expect("there is room");
    };
    write(&[&knows("", 2_000)]);
    let serve = Serve::start(&["--config", &file]);
    // The door for operators tells of the requests before this one.
    serve.counts(&["livepeer_ops_requests_total{route=\"/metrics\",code=\"200\"} 1"]);
    serve.counts(&[
        "livepeer_round 2000",
        "livepeer_transcoding_price{sender=\"max\"} 500000000000000",
    ]);
    // An endpoint that answers nobody is left for the next one, and counted. The key in its path is told to nobody.
    write(&[gone.as_str(), &knows("", 4_000)]);
    serve.reload("the configuration changed: chain.rpc");
    let failed = format!(
        "livepeer_chain_rpc_errors_total{{endpoint=\"{}\",reason=\"unreachable\"}} 2",
        gone.trim_end_matches("/key")
    );
    serve.counts(&[
        &failed,
        "livepeer_round 4000",
        "livepeer_gateway_deposit 0.000004",
        "livepeer_price_feed_value 4000",
        "livepeer_transcoding_price{sender=\"max\"} 250000000000000",
    ]);
}

#[test]
fn all_models_spend_from_one_limit_and_a_reload_changes_it_and_forgets_nothing() {
    let devnet = Devnet::start(1, &[]);
    let folder = Folder::new("serve-limit");
    let file = folder.path("gateway.toml");
    let write = |limit: &str| {
        let text = format!(
            "[payer]\nsigners = [\"{}\"]\nmax_spend_per_hour = \"{limit}\"\n[orchestrators]\nlist = [\"{}\"]\n",
            devnet.signer, devnet.orchestrators[0]
        );
        fs::write(&file, text).expect("there is room");
    };
    // Room for one ticket of eight gwei, which the first request to each model costs.
    write("0.000000009ETH");
    let serve = Serve::start(&["--config", &file]);
    serve.knows_models();
    let picture = || {
        serve.post(
            "/text-to-image",
            r#"{"prompt":"a hat","width":64,"height":64}"#,
        )
    };
    let speech = || serve.post("/text-to-speech", r#"{"text":"hi"}"#);
    assert_eq!(serve.chat(LLM).0, 200);
    let (status, body) = picture();
    assert_eq!(status, 402, "{body}");
    assert!(
        body.contains("The spending limit of this gateway is reached."),
        "{body}"
    );
    write("18000000000");
    serve.reload("the configuration changed: payer.max_spend_per_hour");
    let (status, body) = picture();
    assert_eq!(status, 200, "{body}");
    let (status, body) = speech();
    assert_eq!(status, 402, "two tickets were spent: {body}");
    write("0.000000008ETH");
    serve.reload("the configuration changed: payer.max_spend_per_hour");
    assert_eq!(speech().0, 402);
    write("1ETH");
    serve.reload("the configuration changed: payer.max_spend_per_hour");
    let (status, body) = speech();
    assert_eq!(status, 200, "{body}");
}

/// The most that the test below spends in an hour, in wei: forty tickets of the usual value, since callers who come at a time each need one.
const SPEND: u128 = 320_000_000_000;

#[test]
fn a_gateway_with_a_key_that_is_killed_under_load_uses_no_nonce_twice_and_forgets_nothing_it_spent()
{
    let fast = ["--work-time=1ms", "--capacity=64"];
    let devnet = Devnet::start(2, &fast);
    let folder = Folder::new("serve-kill");
    let (key, store) = (folder.private("key", KEY), folder.path("store"));
    let (orchestrators, limit) = (devnet.orchestrators.join(","), SPEND.to_string());
    let arguments = [
        "--orchestrator",
        &orchestrators,
        "--key-file",
        &key,
        "--store",
        &store,
        "--static-chain",
        "--max-spend-per-hour",
        &limit,
    ];
    // A quarter of a ticket.
    let dear = format!(
        r#"{{"model":"{LLM}","max_tokens":8192,"stream":false,"messages":[{{"role":"user","content":"hello"}}]}}"#
    );
    for life in 1..=3 {
        let mut serve = Serve::start(&arguments);
        serve.knows_models();
        let door = &serve.door;
        let (tell, told) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            for _ in 0..4 {
                let (tell, dear) = (tell.clone(), &dear);
                scope.spawn(move || {
                    // Until the gateway dies, or has spent what it may.
                    while let Some(answer) =
                        try_fetch(door, "POST", "/llm", &[JSON], dear.as_bytes())
                    {
                        let goes_on = answer.status == 200;
                        let said = (answer.status, answer.text().to_owned());
                        if tell.send(said).is_err() || !goes_on {
                            return;
                        }
                    }
                });
            }
            drop(tell);
            if life < 3 {
                // In the middle of the load.
                for (status, body) in told.iter().take(8 + 3 * life) {
                    assert_eq!(status, 200, "{life}: {body}");
                }
                return serve.server.running.kill();
            }
            let refused: Vec<_> = told.iter().filter(|(status, _)| *status != 200).collect();
            assert_eq!(
                refused.len(),
                4,
                "all callers come to the limit: {refused:?}"
            );
            for (status, body) in refused {
                assert_eq!(status, 402, "{body}");
            }
        });
    }
    signal(devnet.server.running.0.id(), "TERM");
    let mut credited = 0;
    while let Ok(line) = devnet.server.said.recv_timeout(Duration::from_secs(5)) {
        assert!(!line.contains("already seen"), "{line}");
        if let Some((_, worth)) = line.split_once(" worth ~") {
            let wei = worth.split(' ').next().expect("a sum").replace(',', "");
            credited += wei.parse::<u128>().expect("whole wei");
        }
    }
    assert!(credited <= SPEND, "{credited} wei are more than {SPEND}");
    assert!(
        credited > SPEND / 2,
        "only {credited} of {SPEND} wei were spent"
    );
}

#[test]
fn a_configuration_is_checked_and_shown_without_a_start() {
    let folder = Folder::new("serve-check");
    let file = folder.path("gateway.toml");
    fs::write(&file, "[serve]\nlissten = 1\n[fleet]\nname = \"x\"").expect("there is room");
    let ran = gateway()
        .args(["serve", "--check", "--config", &file])
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(2), "{told}");
    assert!(
        told.contains(":2:1: unknown key `lissten` in [serve] (did you mean `listen`?)"),
        "{told}"
    );
    assert!(
        told.contains(":3:2: the table `fleet` belongs to several instances as one"),
        "{told}"
    );
    assert!(told.contains("nothing was started"), "{told}");
    fs::write(
        &file,
        "[payer]\noffchain = true\n[orchestrators]\nlist = [\"o.example:1\"]",
    )
    .expect("there is room");
    let ran = gateway()
        .args(["serve", "--check", "--config", &file])
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{told}");
    assert_eq!(told, "the configuration can be used\n");
    let ran = gateway()
        .args([
            "serve",
            "--print-config",
            "--offchain",
            "--orchestrator",
            "o.example:1",
        ])
        .output()
        .expect("it runs");
    let shown = String::from_utf8_lossy(&ran.stdout);
    assert!(
        ran.status.success() && shown.contains("payer.offchain = true  # --offchain"),
        "{shown}"
    );
}

#[test]
#[cfg(unix)]
fn a_port_shows_its_certificate_until_a_reload_and_unix_sockets_stay_plain() {
    use std::io::{Read as _, Write as _};
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::{UnixListener, UnixStream};

    let folder = Folder::new("serve-tls");
    let (file, path) = (folder.path("gateway.toml"), folder.path("gateway.sock"));
    let ops = folder.path("ops.sock");
    let pem = || {
        let now = livepeer_runtime::Clock::start().now();
        Identity::self_signed_pem("localhost", now).expect("a name")
    };
    let identity = folder.private("identity.pem", &pem());
    let text = format!(
        "[serve]\nlisten = [\"127.0.0.1:0\", \"unix:{path}\"]\nsocket_mode = \"0660\"\n[serve.tls]\ncert = \"{identity}\"\nkey = \"{identity}\"\n\
         [payer]\noffchain = true\n[orchestrators]\nlist = [\"127.0.0.1:9\"]\n[pools]\nwarm_up = [\"llm/{LLM}\"]\n"
    );
    fs::write(&file, &text).expect("there is room");
    // Of a gateway that was killed.
    drop(UnixListener::bind(&path).expect("the path is free"));
    let mut command = gateway();
    let operators = format!("unix:{ops}");
    command.args(["serve", "--config", &file, "--ops", &operators]);
    let mut server = Server::start(&mut command, |line| line.starts_with("ops"));
    let door = server.introduction.lines().next().expect("a line");
    let door = door
        .split("https://")
        .nth(1)
        .expect("a port that speaks TLS");
    let door = door.split(' ').next().expect("an address");
    let (status, told) = call(door, "GET", "/healthz", &[], b"");
    assert_eq!((status, told.as_str()), (400, "this port speaks https\n"));
    // Operators are nobody but the gateway's own user, whoever may send work.
    for (path, page, mode) in [(&path, "/healthz", 0o660), (&ops, "/metrics", 0o600)] {
        let mut stream = UnixStream::connect(path).expect("it listens");
        let request = format!("GET {page} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{page}: {answer}");
        let file = fs::metadata(path).expect("it is there");
        assert_eq!(file.permissions().mode() & 0o777, mode, "{path}");
    }
    let says = |what: &str| {
        signal(server.running.0.id(), "HUP");
        while let Ok(line) = server.said.recv_timeout(Duration::from_secs(30)) {
            if line.contains(what) {
                return;
            }
        }
        panic!("it never said {what:?}");
    };
    folder.private("identity.pem", &pem());
    says("the configuration changed: the certificate of serve.tls");
    folder.private("identity.pem", "words");
    says(":5:8: serve.tls: ");
    fs::write(
        &file,
        text.replace("[serve.tls]\ncert", "# ")
            .replace("\nkey =", "\n# "),
    )
    .expect("there is room");
    says("error: serve.tls cannot change without a restart");
    signal(server.running.0.id(), "TERM");
    let ended = server.running.wait(Duration::from_secs(60));
    assert!(
        ended.success() && !fs::exists(&path).expect("it can be asked"),
        "{ended}"
    );
}
