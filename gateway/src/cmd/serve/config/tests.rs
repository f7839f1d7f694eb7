use livepeer_core::discovery::{Combine, Origin as From};
use livepeer_core::front::LiveRoutes;
use livepeer_core::money::Amount;
use livepeer_core::pipeline::Pipeline;
use livepeer_core::wire::openai::backend::{Backend, Program, Surface};

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
    let ops = ["unix:ops.sock", "127.0.0.1:5935"];
    let ops = if cfg!(unix) { &ops[..] } else { &ops[1..] };
    assert_eq!(shown(&settings.doors.ops), ops);
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
    assert!(settings.log.access && settings.store.is_none() && settings.objects.is_none());
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
    let price = |model: &str| settings.prices.of(Pipeline::Llm, model, None);
    let fraction = |wei: i64, per: i64| Amount::ratio(wei, per);
    assert_eq!(price("a/b.c"), fraction(1, 3));
    assert_eq!(price("other"), fraction(5, 10));
    let pictures = settings.prices.of(Pipeline::TextToImage, "x", None);
    assert_eq!(pictures, fraction(1200, 1));
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
        "gateway.toml:6:7: prices.max: \"0.50USD/1000000\": it needs a price of ETH: set chain.price_feed or chain.eth_usd",
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

/// A file of its own, removed at the end.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let name = format!("livepeer-config-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, text).expect("there is room");
        Self(path)
    }

    fn name(&self) -> &str {
        self.0.to_str().expect("plain names")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn prices_come_from_a_file_too_and_in_dollars() {
    let list = |price: &str| {
        format!(
            r#"{{"capabilities_prices":[{{"pipeline":"llm","price_per_unit":{price},"currency":"USD","pixels_per_unit":1000}},
               {{"pipeline":"llm","model_id":"a/b","price_per_unit":7}},{{"pipeline":"upscale"}}]}}"#
        )
    };
    let file = File::new("prices.json", &list("2"));
    let more = format!(
        "[chain]\neth_usd = \"2000\"\n[prices]\nfile = {:?}\nmax = \"9\"\n\"llm/c\" = \"1ETH\"",
        file.name()
    );
    let config = good(&more);
    let settings = &config.settings;
    let Dollar::Fixed(dollar) = &settings.dollar else {
        panic!("{:?}", settings.dollar)
    };
    let price = |pipeline, model: &str| settings.prices.of(pipeline, model, Some(dollar));
    let wei = |wei: i64| Amount::ratio(wei, 1);
    assert_eq!(price(Pipeline::Llm, "x"), wei(1_000_000_000_000));
    assert_eq!(price(Pipeline::Llm, "a/b"), wei(7));
    assert_eq!(price(Pipeline::Llm, "c"), wei(1_000_000_000_000_000_000));
    assert_eq!(price(Pipeline::Upscale, "x"), wei(9), "as all are");
    assert_eq!(
        settings.prices.of(Pipeline::Llm, "x", None),
        wei(0),
        "nobody is cheap enough"
    );
    assert_eq!(
        settings.front.settings.terms.wei_per_usd.as_ref(),
        Some(dollar)
    );
    // The same name, and others in it.
    fs::write(&file.0, list("3")).expect("there is room");
    assert_eq!(
        config.changes(&good(&more)).live,
        ["the prices of prices.file"]
    );
    fs::write(&file.0, list("\"3\"")).expect("there is room");
    let told = wrong(&more);
    let expected = format!(
        "gateway.toml:4:8: prices.file: {:?}: entry 1: price_per_unit must be a number, not \"3\"",
        file.name()
    );
    assert_eq!(told, [expected]);
    let told = wrong("[prices]\nfile = \"/nowhere/prices.json\"");
    assert!(
        told[0].starts_with(
            "gateway.toml:2:8: prices.file: \"/nowhere/prices.json\": cannot be read: "
        ),
        "{told:?}"
    );
    let told = wrong("[chain]\neth_usd = \"0\"\nprice_feed = \"0x639F\"");
    let expected = [
        "gateway.toml:2:11: chain.eth_usd: \"0\": it is not the price of an ETH in USD, such as 2500",
        "gateway.toml:3:14: chain.price_feed: \"0x639F\": ",
    ];
    assert!(
        told.iter()
            .zip(expected)
            .all(|(told, begin)| told.starts_with(begin)),
        "{told:?}"
    );
    let feed = "price_feed = \"0x639Fe6ab55C921f74e7fac1ee960C0B6293ba612\"";
    let told = wrong(&format!("[chain]\n{feed}\neth_usd = \"1\""));
    let expected = [
        "gateway.toml:2:14: chain.price_feed: a contract is read through an endpoint: name one in chain.rpc",
        "gateway.toml:2:14: chain.price_feed: chain.eth_usd is set too (gateway.toml:3:11); keep one",
    ];
    assert_eq!(told, expected);
    let config = good(&format!("[chain]\n{feed}\nrpc = [\"https://rpc.example\"]"));
    assert!(matches!(config.settings.dollar, Dollar::Feed(_)));
}

#[test]
fn sources_are_asked_in_the_order_that_is_said_and_have_to_be_there() {
    let order = |config: &Config| config.settings.sources.order.clone();
    let config = good("");
    assert_eq!(order(&config), [From::List, From::Signer]);
    assert_eq!(config.settings.sources.combine, Combine::First);
    let payer = "[payer]\noffchain = true\n[chain]\nrpc = [\"https://rpc.example/key\"]\n";
    let chosen =
        "[orchestrators]\nsources = [\"chain\", \"list\"]\nall = true\nlist = [\"o.example:1\"]";
    let config = read(&format!("{payer}{chosen}"), &[], "").expect("it can be meant");
    assert_eq!(order(&config), [From::Chain, From::List]);
    assert_eq!(config.settings.sources.combine, Combine::All);
    let config = read(payer, &[], "").expect("the chain knows some");
    assert_eq!(order(&config), [From::Chain]);
    let told = read(
        &format!("{payer}[orchestrators]\nsources = [\"chain\", \"signer\", \"lists\"]"),
        &[],
        "",
    );
    let expected = [
        "gateway.toml:6:11: orchestrators.sources: \"lists\": it is neither list, discovery, signer, subgraph nor chain",
        "gateway.toml:6:11: orchestrators.sources: \"signer\": payer.signers names nobody to ask",
    ];
    assert_eq!(told.expect_err("there is no signer"), expected);
}

#[test]
fn the_log_has_a_level_and_a_form() {
    let config = good("[log]\nlevel = \"livepeer_core=trace,info\"\nformat = \"json\"");
    let log = &config.settings.log;
    assert_eq!(log.level, "livepeer_core=trace,info");
    assert_eq!(log.form, ui::log::Form::Json);
    let said = format!("{PEERS}[log]\nlevel = \"info\"");
    let config = read(&said, &[], "--log error").expect("it can be meant");
    assert_eq!(config.settings.log.level, "error");
    let told = wrong("[log]\nlevel = \"info,=\"\nformat = \"xml\"");
    assert!(
        told[0].starts_with("gateway.toml:2:9: log.level: \"info,=\": "),
        "{told:?}"
    );
    assert_eq!(
        told[1],
        "gateway.toml:3:10: log.format: \"xml\": it is neither text nor json"
    );
    let changes = good("").changes(&config_of_log("info", "json"));
    assert_eq!(
        (changes.live, changes.fixed),
        (vec!["log.level".to_owned()], vec!["log.format".to_owned()])
    );
}

fn config_of_log(level: &str, format: &str) -> Config {
    good(&format!("[log]\nlevel = {level:?}\nformat = {format:?}"))
}

fn warnings(file: &str) -> Vec<String> {
    let config = good(file);
    config.warnings.iter().map(Problem::to_string).collect()
}

#[test]
fn what_can_be_meant_and_has_no_effect_is_warned_of() {
    assert!(warnings("").is_empty());
    assert_eq!(
        warnings(
            "[models.alias]\nshort = \"llm/a\"\n\"a.b\" = \"upscale/x\"\n[pools]\npipelines = [\"llm\"]"
        ),
        [
            "gateway.toml:8:9: models.alias.\"a.b\": it is never used: pools.pipelines leaves out upscale"
        ]
    );
    assert_eq!(
        warnings("[prices]\nmax = \"0.5USD\"\n[chain]\neth_usd = \"2500\""),
        [
            "gateway.toml:9:11: chain.eth_usd: some prices are in USD, and this price of ETH stays as it is; \
             chain.price_feed follows it"
        ]
    );
}

#[cfg(unix)]
#[test]
fn a_secret_that_others_can_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt as _;
    let file = File::new("password", "secret");
    let more = format!("[media.mediamtx]\npassword_file = {:?}", file.name());
    let with = |mode: u32| {
        fs::set_permissions(&file.0, fs::Permissions::from_mode(mode)).expect("it is ours");
        warnings(&more)
    };
    let expected = format!(
        "gateway.toml:7:17: media.mediamtx.password_file: {:?} can be read by others; chmod 600 keeps it to its owner",
        file.name()
    );
    assert_eq!(with(0o640), [expected]);
    assert!(with(0o600).is_empty());
}

#[test]
fn backends_are_tables_with_names_and_what_is_wrong_with_one_is_told_by_its_line() {
    let config = good(
        r#"
        [[models.backend]]
        name = "bge.m3"
        surfaces = ["embeddings"]
        byoc = { capability = "vectors", path = "/v1/embeddings", timeout = "90s" }
        model = "BAAI/bge-m3"
        [[models.backend]]
        name = "acme/llm"
        surfaces = ["chat", "completions"]
        app = { name = "acme/vllm" }
        "#,
    );
    let backends = &config.settings.front.settings.backends;
    assert_eq!(backends.len(), 2);
    let container = Program::Container {
        capability: "vectors".into(),
        within: std::time::Duration::from_secs(90),
    };
    let wanted = Backend {
        surfaces: vec![Surface::Embeddings],
        program: container,
        path: Some("/v1/embeddings".into()),
        model: Some("BAAI/bge-m3".into()),
    };
    assert_eq!(backends["bge.m3"], wanted);
    let app = Program::App {
        name: "acme/vllm".into(),
    };
    let wanted = Backend {
        surfaces: vec![Surface::Chat, Surface::Completions],
        program: app,
        path: None,
        model: None,
    };
    assert_eq!(backends["acme/llm"], wanted);
    let shown = config.with_origins();
    let line = "models.backend.\"bge.m3\".model = \"BAAI/bge-m3\"  # gateway.toml:11:17\n";
    assert!(shown.contains(line), "{shown}");

    let head = "[[models.backend]]\n";
    for (said, told) in [
        (
            "name = \"x\"\nsurfaces = [\"chat\"]",
            "2:8: models.backend.x: nobody is named to serve it: set byoc = { capability = \"...\" } or app = { name = \"...\" }",
        ),
        (
            "surfaces = [\"chat\"]",
            "1:1: models.backend: it has no name: say what clients call the model, as in name = \"bge-m3\"",
        ),
        (
            "name = 7.5",
            "2:8: models.backend.name: a string belongs here, not the number 7.5",
        ),
        (
            "name = \"x\"\napp = { name = \"a\" }",
            "2:8: models.backend.x.surfaces: say what it does, as in surfaces = [\"chat\"]",
        ),
        (
            "name = \"x\"\nsurfaces = [\"embedings\"]\napp = { name = \"a\" }",
            "3:12: models.backend.x.surfaces: there is no surface \"embedings\" (did you mean embeddings?)",
        ),
        (
            "name = \"x\"\nsurfaces = [\"chat\"]\napp = { name = \"a/*\" }",
            "4:16: models.backend.x.app.name: \"a/*\" is not the name of an app, such as \"acme/vllm\"",
        ),
        (
            "name = \"x\"\nsurfaces = [\"chat\"]\napp = { name = \"a\" }\nbyoc = { capability = \"b\" }",
            "4:16: models.backend.x.app.name: byoc.capability is set too; keep one",
        ),
        (
            "name = \"x\"\nsurfaces = [\"chat\"]\nbyoc = { capability = \"b\", timeout = \"1500ms\" }",
            "4:38: models.backend.x.byoc.timeout: \"1500ms\": it is not whole seconds, from 1s to 24h",
        ),
        (
            "name = \"x\"\nsurfaces = [\"chat\"]\napp = { name = \"a\", path = \"v1\" }",
            "4:28: models.backend.x.app.path: \"v1\" is not a plain path such as \"/v1/embeddings\"",
        ),
        (
            "name = \"x\"\nsurfaces = [\"chat\"]\napp = { name = \"a\", pth = \"/v1\" }",
            "4:21: unknown key `pth` in [models.backend.x.app] (did you mean `path`?)",
        ),
        (
            "name = \"x\"\nsurfaces = [\"chat\"]\napp = { name = \"a\" }\n[models.alias]\nx = \"llm/a\"",
            "2:8: models.backend.x.name: models.alias has the same name; keep one",
        ),
    ] {
        assert_eq!(
            wrong(&format!("{head}{said}")),
            [format!("gateway.toml:{told}")]
        );
    }
    let two = "surfaces = [\"chat\", \"rerank\"]\napp = { name = \"a\", path = \"/v1\" }";
    let told = wrong(&format!("{head}name = \"x\"\n{two}"));
    assert!(
        told[0].contains("each of its surfaces has a path of its own"),
        "{told:?}"
    );
    let one = "[[models.backend]]\nname = \"x\"\nsurfaces = [\"chat\"]\napp = { name = \"a\" }\n";
    let told = wrong(&format!("{one}{one}"));
    assert_eq!(
        told,
        [
            "gateway.toml:5:1: models.backend: two are called \"x\"; clients could not tell them apart"
        ]
    );
    let told = wrong("[models.backend]\nx = 1");
    assert_eq!(told.len(), 1);
    assert!(
        told[0].contains("write each one as a table of its own under [[models.backend]]"),
        "{told:?}"
    );
    let told = wrong("[models]\nbackend = [1]");
    assert!(
        told[0].contains("a table belongs here, not the number 1"),
        "{told:?}"
    );
}
