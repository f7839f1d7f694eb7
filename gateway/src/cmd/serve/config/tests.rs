use livepeer_core::front::LiveRoutes;

use super::*;
use crate::args::{Command, tests::parsed};

fn flags(line: &str) -> Box<FrontArgs> {
    match parsed(&format!("serve {line}")) {
        Ok(Command::Serve(args)) => args,
        other => panic!("{other:?}"),
    }
}

/// Reads a file, with variables as `NAME=value` lines and flags as a command line.
fn read(file: &str, variables: &[(&str, &str)], line: &str) -> Result<Config, Vec<String>> {
    let environment = |name: &str| {
        let found = variables.iter().find(|(variable, _)| *variable == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    Config::read(Some(("gateway.toml", file)), &environment, &flags(line))
        .map_err(|problems| problems.lines())
}

/// The tables that every configuration needs.
const PEERS: &str = "
[payer]
signers = [\"https://signer.example\"]
[orchestrators]
list = [\"https://o1.example:8935\"]
";

fn good(file: &str) -> Config {
    read(&format!("{PEERS}{file}"), &[], "").expect("it can be meant")
}

fn shown(places: &[Place]) -> Vec<String> {
    places.iter().map(Place::to_string).collect()
}

fn wrong(file: &str) -> Vec<String> {
    // The lines of the test count from the first one on.
    read(&format!("{file}\n{PEERS}"), &[], "").expect_err("it cannot be meant")
}

#[test]
fn what_a_file_does_not_say_is_as_the_table_has_it() {
    let config = good("");
    let settings = &config.settings;
    assert_eq!(shown(&settings.doors.listen), ["127.0.0.1:9935"]);
    assert_eq!(shown(&settings.doors.ops), ["127.0.0.1:5935"]);
    assert_eq!(settings.doors.mode, 0o600);
    assert!(settings.doors.tls.is_none());
    assert_eq!(settings.doors.connections, 10_000);
    let pools = &settings.pools;
    assert_eq!(pools.size, 8);
    assert_eq!(pools.tries, livepeer_core::pool::TryLimit::BATCH);
    assert_eq!(
        pools.strengths,
        livepeer_core::selection::Strengths::default()
    );
    assert!(pools.warm_up.is_empty() && settings.front.figures_per_model);
    assert_eq!(settings.front.settings.max_tokens, 1024);
    assert_eq!(settings.front.settings.size, (1024, 1024));
    assert_eq!(settings.front.max_in_flight, 4096);
    assert_eq!(settings.front.keep.as_secs(), 3600);
    assert!(settings.access && settings.store.is_none() && settings.objects.is_none());
}

#[test]
fn everything_that_is_served_today_can_be_said_in_a_file() {
    let config = good(
        r#"
        names = { fast = "https://o1.example:8935" }
        block = ["fast"]
        [serve]
        listen = ["127.0.0.1:1", "2", "unix:/run/gateway.sock"]
        socket_mode = "0660"
        public_url = "https://gw.example/"
        trusted_proxies = ["10.0.0.0/8"]
        cors = ["*"]
        drain = "1m"
        [prices]
        max = 1200
        llm = "0.5"
        "llm/a/b.c" = "1/3"
        [pools]
        pipelines = ["llm"]
        size = 3
        tries = 5
        same_tries = 2
        deadline = "4s"
        extra_nodes = 1
        selector = { price = 4, latency = 0 }
        warm_up = ["llm/a/b.c"]
        [metrics]
        per_model = false
        [models.alias]
        "gpt-4o-mini" = "llm/a/b.c"
        [models.set."a/b.c"]
        max_tokens = 5
        size = "512x512"
        hidden = true
        [audio.voices]
        nova = "A bright voice."
        [images]
        nsfw = "refuse"
        [store]
        objects = "dir:/var/objects"
        [transparency]
        headers = "cost"
        "#,
    );
    let settings = &config.settings;
    let listen = ["127.0.0.1:1", "127.0.0.1:2", "unix:/run/gateway.sock"];
    assert_eq!(shown(&settings.doors.listen), listen);
    assert_eq!(settings.doors.mode, 0o660);
    let pools = &settings.pools;
    assert_eq!((pools.size, pools.extra_nodes), (3, 1));
    assert_eq!((pools.tries.tries, pools.tries.per_orchestrator), (5, 2));
    assert_eq!(pools.tries.within.map(|within| within.as_secs()), Some(4));
    let strengths = pools.strengths;
    assert_eq!(
        (strengths.price, strengths.latency, strengths.spread),
        (4, 0, 1)
    );
    assert_eq!(pools.warm_up[0].1, "a/b.c");
    assert!(!settings.front.figures_per_model);
    assert_eq!(
        settings.front.public_url.as_deref(),
        Some("https://gw.example")
    );
    assert_eq!(settings.limits.ignore.len(), 1);
    let price = |model: &str| {
        settings
            .prices
            .of(livepeer_core::pipeline::Pipeline::Llm, model)
    };
    let fraction = |wei, per| livepeer_core::money::Price::new(wei, per);
    assert_eq!(price("a/b.c"), fraction(1, 3));
    assert_eq!(price("other"), fraction(5, 10));
    let pictures = livepeer_core::pipeline::Pipeline::TextToImage;
    assert_eq!(settings.prices.of(pictures, "x"), fraction(1200, 1));
    assert_eq!(settings.aliases["gpt-4o-mini"].1, "a/b.c");
    let model = &settings.front.settings.per_model["a/b.c"];
    assert_eq!(
        (model.max_tokens, model.size, model.hidden),
        (Some(5), Some((512, 512)), true)
    );
    assert!(settings.front.settings.refuse_nsfw && settings.front.folder);
    assert_eq!(settings.front.settings.voices["nova"], "A bright voice.");
}

#[test]
fn all_that_is_wrong_is_told_at_once_by_its_line() {
    let told = wrong(
        "[serve]\nlissten = []\nthreads = \"two\"\ndrain = \"soon\"\n[prices]\nmax = \"0.50USD/1000000\"\nlllm = \"1\"\n\
         [limits]\ninflight = 0\n[models.alias]\na = \"b\"\nb = \"llm/x\"",
    );
    let expected = [
        "gateway.toml:2:1: unknown key `lissten` in [serve] (did you mean `listen`?)",
        "gateway.toml:3:11: serve.threads: a whole number belongs here, not the string \"two\"",
        "gateway.toml:4:9: serve.drain: \"soon\": it is not a time such as 90s, 10m or 1h30m",
        "gateway.toml:6:7: prices.max: \"0.50USD/1000000\": it needs a price of ETH, which is not supported yet; give wei",
        "gateway.toml:7:8: prices.lllm: there is no pipeline of that name (did you mean llm?)",
        "gateway.toml:9:12: limits.inflight: 0 is not from 1 to 1000000",
        "gateway.toml:11:5: models.alias.a: \"b\": it is an alias itself; name the model",
    ];
    assert_eq!(told, expected);
}

#[test]
fn no_more_than_twenty_problems_are_told() {
    let many: String = (0..30).map(|n| format!("x{n} = 1\n")).collect();
    let told = wrong(&many);
    assert_eq!(told.len(), MAX_PROBLEMS + 1);
    assert_eq!(told[0], "gateway.toml:1:1: unknown key `x0`");
    assert_eq!(told.last().expect("a line"), "and 10 more");
}

#[test]
fn what_belongs_to_later_releases_says_so() {
    for (file, told) in [
        (
            "[fleet]\nname = \"x\"",
            "gateway.toml:1:2: the table `fleet` belongs to several instances as one, which serve does not have yet; \
             leave it out",
        ),
        (
            "[tenants]",
            "gateway.toml:1:2: the table `tenants` belongs to keys of tenants, which serve does not have yet; leave it out",
        ),
        (
            "[ops]\nconsole = true",
            "gateway.toml:2:1: the key `ops.console` belongs to the console, which serve does not have yet; leave it out",
        ),
        (
            "[chain]\neth_usd = \"1\"",
            "gateway.toml:2:1: the key `chain.eth_usd` belongs to prices in USD, which serve does not have yet; leave it \
             out",
        ),
    ] {
        assert_eq!(wrong(file), [told]);
    }
}

#[test]
fn a_file_that_is_not_toml_is_told_with_its_place() {
    let told = wrong("[serve\nlisten = 3");
    assert!(told[0].starts_with("gateway.toml:1:"), "{told:?}");
}

#[test]
fn flags_go_over_the_environment_and_that_over_the_file() {
    let file =
        format!("{PEERS}[serve]\nlisten = [\"1\"]\nops = [\"2\"]\npublic_url = \"http://file\"");
    let variables = [
        ("LIVEPEER_SERVE_OPS", "3, 4"),
        ("LIVEPEER_SERVE_PUBLIC_URL", "http://variable"),
    ];
    let config = read(&file, &variables, "--public-url http://flag").expect("it can be meant");
    let doors = &config.settings.doors;
    assert_eq!(shown(&doors.listen), ["127.0.0.1:1"]);
    assert_eq!(shown(&doors.ops), ["127.0.0.1:3", "127.0.0.1:4"]);
    assert_eq!(
        config.settings.front.public_url.as_deref(),
        Some("http://flag")
    );
    let shown = config.with_origins();
    assert!(
        shown.contains("serve.listen = [\"1\"]  # gateway.toml:7:10\n"),
        "{shown}"
    );
    assert!(
        shown.contains("serve.ops = [\"3\",\"4\"]  # LIVEPEER_SERVE_OPS\n"),
        "{shown}"
    );
    assert!(
        shown.contains("serve.public_url = \"http://flag\"  # --public-url\n"),
        "{shown}"
    );
    assert!(
        shown.contains("serve.drain = \"30s\"  # default\n"),
        "{shown}"
    );
    let told = read(&file, &[("LIVEPEER_SERVE_THREADS", "x")], "").expect_err("no number");
    assert_eq!(
        told,
        ["LIVEPEER_SERVE_THREADS: \"x\" is not a whole number"]
    );
    let told = read(&file, &[("LIVEPEER_SERVE_LISTEN", "0.0.0.0")], "").expect_err("no port");
    assert_eq!(
        told,
        ["LIVEPEER_SERVE_LISTEN: serve.listen: \"0.0.0.0\": no port"]
    );
}

#[test]
fn variables_fill_strings_and_are_told_if_they_are_not_there() {
    let file = "[payer]\nsigners = [\"https://${HOST}\"]\nsigner_headers = { Authorization = \"Bearer ${TOKEN}\" }";
    let config = read(file, &[("HOST", "signer.example"), ("TOKEN", "secret")], "")
        .expect("it can be meant");
    let signer = config.settings.endpoints.signer.as_ref().expect("a signer");
    assert_eq!(signer.url.to_string(), "https://signer.example:443");
    assert_eq!(signer.headers[0].value, "Bearer secret");
    // A secret is shown nowhere.
    assert!(!config.with_origins().contains("secret"));
    let told = read(file, &[("HOST", "h")], "").expect_err("a variable is missing");
    assert_eq!(
        told,
        ["gateway.toml:3:36: payer.signer_headers.Authorization: the variable TOKEN is not set"]
    );
}

#[test]
fn exactly_one_pays() {
    let list = "[orchestrators]\nlist = [\"o.example:1\"]\n";
    let told = read(
        &format!("{list}[payer]\nsigners = [\"s\"]"),
        &[],
        "--offchain",
    )
    .expect_err("two");
    assert_eq!(
        told,
        ["payer: both signers (gateway.toml:4:11) and offchain (--offchain) are set; keep one"]
    );
    let told = read(list, &[], "").expect_err("none");
    assert!(
        told[0].starts_with("payer: nobody is named to pay"),
        "{told:?}"
    );
    let told = read(list, &[], "--key-file k --static-chain").expect_err("nonces are lost");
    assert!(
        told[0].starts_with("store.path: an own key spends its nonces"),
        "{told:?}"
    );
    let told = read(list, &[], "--key-file k --store s").expect_err("no chain");
    assert!(
        told[0].starts_with("chain.rpc: an own key has to know the chain"),
        "{told:?}"
    );
    read(list, &[], "--key-file k --store s --static-chain").expect("a key, a store, a chain");
    let told = read("[payer]\noffchain = true", &[], "").expect_err("nowhere to look");
    assert!(
        told[0].starts_with("orchestrators: no orchestrator is named"),
        "{told:?}"
    );
}

#[test]
fn nobody_beyond_this_machine_spends_unless_it_is_said() {
    let told = wrong("[serve]\nlisten = [\":9935\"]");
    assert!(
        told[0].starts_with(
            "gateway.toml:2:10: serve.listen: whoever reaches 0.0.0.0:9935 could spend"
        ),
        "{told:?}"
    );
    good("[serve]\nlisten = [\":9935\"]\nallow_no_auth = true");
    let told = wrong("[serve]\nops = [\":5935\"]");
    assert!(
        told[0].contains("operators are not told apart yet"),
        "{told:?}"
    );
    good("[serve]\nops = [\":5935\"]\n[ops]\nmetrics_open = true");
}

#[test]
fn a_place_and_a_certificate_that_cannot_be_meant_are_told_by_their_line() {
    let told = wrong(
        "[serve]\nlisten = [\"unix:\"]\nsocket_mode = \"rw\"\n[serve.tls]\ncert = \"/nowhere/chain.pem\"\n[pools]\n\
         size = 0\nselector = { price = 17, quality = 1 }\nwarm_up = [\"lllm/a\"]\n[metrics]\nper_modell = true",
    );
    let expected = [
        "gateway.toml:2:10: serve.listen: \"unix:\": no path; write unix:/path",
        "gateway.toml:3:15: serve.socket_mode: \"rw\": it is not a mode of a file such as 0660",
        "gateway.toml:5:8: serve.tls.key: the file with the certificate's private key is missing",
        "gateway.toml:7:8: pools.size: 0 is not from 1 to 1000",
        "gateway.toml:8:22: pools.selector.price: 17 is not from 0 to 16",
        "gateway.toml:8:26: unknown key `quality` in [pools.selector]",
        "gateway.toml:9:11: pools.warm_up: \"lllm/a\": there is no pipeline of that name (did you mean llm?)",
        "gateway.toml:11:1: unknown key `per_modell` in [metrics] (did you mean `per_model`?)",
    ];
    assert_eq!(told, expected);
    let told = wrong("[serve.tls]\ncert = \"/nowhere/chain.pem\"\nkey = \"/nowhere/key.pem\"");
    let unread = "gateway.toml:2:8: serve.tls: cannot read /nowhere/chain.pem: ";
    assert!(told[0].starts_with(unread) && told.len() == 1, "{told:?}");
}

#[test]
fn a_reload_knows_what_needs_a_restart() {
    let (old, new) = (
        good("[serve]\ndrain = \"1s\""),
        good("[serve]\nlisten = [\"1\"]\n[prices]\nmax = \"5\""),
    );
    let changes = old.changes(&new);
    assert_eq!(changes.fixed, ["serve.listen"]);
    assert_eq!(changes.live, ["prices.max", "serve.drain"]);
    assert_eq!(
        old.changes(&good("[serve]\ndrain = \"1s\"")),
        Changes::default()
    );
}

#[test]
fn live_entry_is_what_its_keys_say() {
    let config = good(
        r#"
        [serve]
        public_url = "https://gw.example"
        [ingest]
        rtmp = "1935"
        webrtc_udp = "0.0.0.0:7000"
        extra_hosts = ["203.0.113.7", "198.51.100.1:9"]
        ice_servers = ["stun:stun.example:3478"]
        takeover = false
        webhook = "https://auth.example/hook"
        webhook_key = "k1"
        [ingest.keys]
        cam1 = "secret"
        "*" = "other"
        [events]
        webhook = "https://listen.example/"
        "#,
    );
    let ingest = &config.settings.ingest;
    assert_eq!(ingest.rtmp, "127.0.0.1:1935".parse().ok());
    let hosts: Vec<_> = { ingest.extra_hosts.iter() }
        .map(|host| host.with_port(7000).to_string())
        .collect();
    assert_eq!(hosts, ["203.0.113.7:7000", "198.51.100.1:9"]);
    let entry = ingest.entry("http://127.0.0.1:1");
    assert_eq!(entry.base, "https://gw.example");
    assert_eq!(entry.playback, "https://gw.example/live/video-to-video/");
    let webhook = entry.webhook.expect("a webhook");
    assert_eq!(webhook.headers.get("x-api-key"), Some("k1"));
    assert_eq!(
        (&*entry.keys["cam1"], &*entry.keys[""]),
        ("secret", "other")
    );
    assert!(!entry.takeover && entry.events.is_some() && entry.heartbeat.is_none());
    assert_eq!(config.settings.front.live, LiveRoutes::All);
    let printed = config.with_origins();
    assert!(
        !printed.contains("secret") && !printed.contains("k1\""),
        "{printed}"
    );

    let plain = good("");
    assert_eq!(plain.settings.front.live, LiveRoutes::Hooks);
    let entry = plain.settings.ingest.entry("http://127.0.0.1:9/");
    assert_eq!(entry.playback, "http://127.0.0.1:9/live/video-to-video/");
    let none = good("[pools]\npipelines = [\"llm\"]");
    assert_eq!(none.settings.front.live, LiveRoutes::None);
}

#[test]
fn live_entry_beyond_loopback_needs_a_key_or_a_webhook() {
    let told = wrong(
        "[ingest]\nrtmp = \"0.0.0.0:1935\"\nextra_hosts = [\"x\"]\n[ingest.keys]\n\"a b\" = \"k\"",
    );
    assert_eq!(told.len(), 3, "{told:#?}");
    assert!(
        told[0]
            .starts_with("gateway.toml:2:8: ingest.rtmp: whoever reaches 0.0.0.0:1935 could spend")
    );
    assert!(told[1].contains("it is neither an address nor an address with a port"));
    assert!(told[2].contains("a stream's name has 1 to 128 letters"));
    good("[ingest]\nrtmp = \"0.0.0.0:1935\"\nwebhook = \"https://auth.example/\"");
}
