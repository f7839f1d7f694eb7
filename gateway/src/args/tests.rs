use livepeer_core::money::{Amount, Wei};
use livepeer_core::payment::sender::SenderLimits;
use livepeer_core::{Address, Pipeline};

use super::endpoints::Signer;
use super::values::Header;
use super::*;

pub(crate) fn parsed(line: &str) -> Result<Command, Failed> {
    let arguments = std::iter::once("livepeer-gateway")
        .chain(line.split_whitespace())
        .map(Into::into);
    match parse(arguments)? {
        Ok(cli) => Ok(cli.command()),
        Err(text) => panic!("shows text instead: {text}"),
    }
}

fn live(line: &str) -> LiveArgs {
    match parsed(&format!("live --input in.ts --output out.ts {line}")) {
        Ok(Command::Live(live)) => *live,
        other => panic!("{line}: {other:?}"),
    }
}

/// The line that a user sees.
fn complaint(line: &str) -> String {
    let text = parsed(line).expect_err(line).line();
    assert!(
        text.starts_with("error: ") && !text.contains('\n'),
        "{text}"
    );
    text
}

fn url(text: &str) -> Url {
    Url::parse(text).expect(text)
}

#[test]
fn the_definition_is_consistent() {
    <Cli as clap::CommandFactory>::command().debug_assert();
}

#[test]
fn a_job_paid_with_an_own_key_says_what_tickets_it_makes() {
    let own = "--orchestrator https://o.example:8935 --key-file k --store s --static-chain";
    let said = "--max-ticket-ev 5 --max-total-ev 70 --deposit-multiplier 9";
    let policy = |line: &str| live(line).pay.policy(Address::ZERO, None);
    let limits = policy(&format!("{own} {said}")).limits;
    assert_eq!(limits.max_ev, Amount::from(&Wei::from(5)));
    assert_eq!(limits.max_total_ev, Amount::from(&Wei::from(70)));
    assert_eq!(limits.deposit_multiplier, 9);
    assert_eq!(policy(own).limits, SenderLimits::default());
}

#[test]
fn nothing_at_all_is_the_demonstration() {
    match parsed("") {
        Ok(Command::Demo(demo)) => {
            assert_eq!(demo.speed, Speed::REAL);
            assert_eq!(demo.runtime, Runtime::Tokio);
            assert_eq!(demo.output, None);
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        parsed("demo --speed max --runtime smol --output o.ts"),
        Ok(Command::Demo(DemoArgs {
            speed: Speed::Max,
            runtime: Runtime::Smol,
            ..
        }))
    ));
}

#[test]
fn runners_join_as_the_command_line_says() {
    for join in [Join::Late, Join::Next, Join::AtOnce] {
        match parsed(&format!("devnet --join {}", join.name())) {
            Ok(Command::Devnet(devnet)) => assert_eq!(devnet.join, join),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn batch_models_and_quirks_are_chosen_and_written_again() {
    let devnet = |line: &str| match parsed(&format!("devnet {line}")) {
        Ok(Command::Devnet(devnet)) => devnet,
        other => panic!("{other:?}"),
    };
    assert_eq!(devnet("").batch.models().len(), 9);
    assert_eq!(devnet("--models none").batch.models(), []);
    let some = devnet("--models llm=echo,upscale --capacity 2 --work-time 1s");
    let words = some.batch.to_words().join(" ");
    for some in [some, devnet(&words)] {
        assert_eq!(
            some.batch.models(),
            [
                (Pipeline::Llm, "echo"),
                (Pipeline::Upscale, Pipeline::Upscale.default_model()),
            ]
        );
        assert_eq!(some.batch.capacity, 2);
        assert_eq!(some.batch.work_time, Duration::from_secs(1));
    }
    let names = |devnet: &DevnetArgs| {
        let programs = &devnet.programs;
        let apps: Vec<_> = programs.apps().map(AppChoice::name).collect();
        let containers: Vec<_> = programs.containers().map(str::to_owned).collect();
        (
            containers.join(" "),
            apps.join(" "),
            programs.register_secret.clone(),
        )
    };
    let none = (String::new(), String::new(), None);
    assert_eq!(names(&devnet("--containers none --apps none")), none);
    let some = devnet("--containers a,b --apps live --register-secret w");
    let words = some.programs.to_words().join(" ");
    for some in [some, devnet(&words)] {
        let expected = ("a b".to_owned(), "live".to_owned(), Some("w".to_owned()));
        assert_eq!(names(&some), expected);
    }
    for (quirk, name) in Quirk::ALL {
        let quirks = devnet(&format!("--quirk 3:{name},{name}")).quirk;
        let [three, all] = &quirks[..] else {
            panic!("{quirks:?}");
        };
        assert_eq!((three.who, three.quirk), (Some(3), quirk));
        assert_eq!((all.who, all.quirk.name()), (None, name));
    }
}

#[test]
fn help_and_version_are_no_failures() {
    for line in ["--help", "live --help", "--version", "help devnet"] {
        let arguments = std::iter::once("livepeer-gateway").chain(line.split(' '));
        let shown = parse(arguments.map(Into::into)).expect(line);
        assert!(!shown.expect_err("text").is_empty());
    }
}

#[test]
fn orchestrators_come_in_order_and_https_is_implied() {
    let endpoints = live(
        "--orchestrator o1:8935,https://o2.example --orchestrator http://[::1]:1 --orchestrator ,,o1:8935 --offchain",
    )
    .endpoints()
    .expect("enough");
    assert_eq!(
        endpoints.orchestrators,
        [
            url("https://o1:8935"),
            url("https://o2.example:443"),
            url("http://[::1]:1")
        ]
    );
    assert_eq!(endpoints.signer, None);
}

#[test]
fn options_come_before_the_token_and_its_headers_stay_with_its_signer() {
    // {"orchestrators":["o3:1"],"signer":"s.example","signer_headers":{"Authorization":"Bearer x"},
    //  "discovery":"https://d.example/l","discovery_headers":{"k":"v"}}
    const TOKEN: &str = "eyJvcmNoZXN0cmF0b3JzIjpbIm8zOjEiXSwic2lnbmVyIjoicy5leGFtcGxlIiwic2lnbmVyX2hlYWRlcnMiOnsiQXV0aG9yaXphdGlvbiI6IkJlYXJlciB4In0sImRpc2NvdmVyeSI6Imh0dHBzOi8vZC5leGFtcGxlL2wiLCJkaXNjb3ZlcnlfaGVhZGVycyI6eyJrIjoidiJ9fQ==";
    let header = |name, value| Header::new(name, value).expect("a good field");
    let all = live(&format!("--token {TOKEN} --signer-header X-A:b"))
        .endpoints()
        .expect("enough");
    assert_eq!(all.orchestrators, [url("https://o3:1")]);
    assert_eq!(
        all.signer,
        Some(Signer {
            url: url("https://s.example"),
            others: Vec::new(),
            headers: vec![header("Authorization", "Bearer x"), header("X-A", "b")],
        })
    );
    assert_eq!(
        all.discovery,
        Some((url("https://d.example/l"), vec![header("k", "v")]))
    );
    let explicit = live(&format!(
        "--token {TOKEN} --orchestrator o1:1 --signer http://other:1,third:2 --signer http://fourth:3"
    ))
    .endpoints()
    .expect("enough");
    assert_eq!(explicit.orchestrators, [url("https://o1:1")]);
    assert_eq!(
        explicit.signer,
        Some(Signer {
            url: url("http://other:1"),
            others: vec![url("https://third:2"), url("http://fourth:3")],
            headers: Vec::new(),
        })
    );
    assert!(!format!("{all:?}").contains("Bearer"), "no secrets in logs");
}

#[test]
fn all_options_of_live_are_read() {
    let live = live(
        r#"--orchestrator o:1 --signer http://127.0.0.1:7936 --model-id noop --params {"a":1} --loop --duration 1h30m --speed 2 --runtime smol --max-price 0.25 --pins p --json"#,
    );
    assert_eq!(live.input, Source::Place(Place::File("in.ts".into())));
    assert_eq!(live.watch(), None);
    assert_eq!(live.output, Some(Place::File("out.ts".into())));
    assert_eq!(
        live.params.as_ref().map(Params::to_json).as_deref(),
        Some(r#"{"a":1}"#)
    );
    assert!(live.repeat && live.json && live.runtime == Runtime::Smol);
    assert_eq!(live.duration, Some(Duration::from_secs(5400)));
    assert_eq!(live.max_price, Price::new(1, 4));
    assert_eq!(live.peers.pins, Some("p".into()));
}

#[test]
fn what_cannot_be_meant_is_one_line_with_cause_and_remedy() {
    const LIVE: &str = "live --input a --output b";
    for (line, part) in [
        ("lve", "unrecognized subcommand 'lve'"),
        ("live --output b --orchestrator o", "--input <FILE|URL>"),
        ("info", "<URL>"),
        ("info ftp://o", "the scheme is neither http nor https"),
        (
            "info https://o:99999",
            "the port is not between 1 and 65535",
        ),
        ("info https://o/path", "scheme, host and port alone"),
        ("demo --speed fast", "a speed is `real`, `max` or a factor"),
        ("demo --runtime async-std", "tokio, smol"),
        (
            "devnet --listen 127.0.0.1:99999",
            "not a number from 0 to 65535",
        ),
        ("devnet --listen example.org:1", "is no IP address"),
        ("devnet --orchestrators 0", "from 1 to 16"),
        ("devnet --models text-to-nothing", "text-to-image"),
        ("devnet --models live-video-to-video", "text-to-image"),
        ("devnet --quirk rude", "the quirks are silent"),
        ("devnet --quirk x:busy", "the first one is 0"),
        (
            "devnet --listen :65530 --orchestrators 9",
            "too close to 65535",
        ),
        (
            &format!("{LIVE} --orchestrator o"),
            "nobody is named to sign",
        ),
        (&format!("{LIVE} --offchain"), "no orchestrator is named"),
        (
            &format!("{LIVE} --orchestrator ,, --offchain"),
            "no orchestrator is named",
        ),
        (&format!("{LIVE} --params [1]"), "not a JSON object"),
        (&format!("{LIVE} --params {{"), "not JSON"),
        (&format!("{LIVE} --token %%%"), "not standard base64"),
        (&format!("{LIVE} --token e30"), "not standard base64"),
        (
            &format!("{LIVE} --token WzFd"),
            "does not hold a JSON object",
        ),
        (
            &format!("{LIVE} --token eyJzaWduZXIiOiAxfQ=="),
            "signer is not text",
        ),
        (&format!("{LIVE} --max-price -1"), "unexpected argument"),
        (&format!("{LIVE} --max-price 1/0"), "amount of wei"),
        (&format!("{LIVE} --duration 10x"), "not a time"),
        (&format!("{LIVE} --duration 0"), "longer than 0s"),
        (&format!("{LIVE} --signer-header nocolon"), "no colon"),
        (&format!("{LIVE} --signer-header Host:x"), "for HTTP itself"),
        (
            &format!("{LIVE} --signer s --offchain"),
            "cannot be used with",
        ),
        (
            &format!("{LIVE} --pins p --ca-trust"),
            "cannot be used with",
        ),
        (
            "live --input - --output b --loop",
            "nothing else can be started over",
        ),
        ("live --input whip --output b --loop", "nothing else"),
        ("live --input whip --signer s --orchestrator o", "--output"),
        (
            "live --input rtmp://127.0.0.1/live --watch",
            "an application",
        ),
        (
            "live --input whip://127.0.0.1:1 --watch=127.0.0.1:2",
            "name only that",
        ),
        ("live --input a --output b --cors *", "--cors is for"),
        (
            "live --input whip --watch --cors https://a/b",
            "scheme, host and port",
        ),
        (
            "live --input whip --watch --cors app.example",
            "scheme, host and port",
        ),
        ("live --input a --output - --json", "standard output"),
        (
            "live --input a --output b --model-id \u{1b}",
            "control characters",
        ),
    ] {
        let text = complaint(line);
        assert!(text.contains(part), "{line}: {text}");
        assert!(text.contains("--help."), "{line}: {text}");
    }
}

#[test]
fn a_broken_token_is_not_repeated_to_the_screen() {
    // A secret in a token that only lacks its padding.
    let text = complaint("live --input a --output b --token c2VjcmV0LXNlY3JldA");
    assert!(!text.contains("c2VjcmV0"), "{text}");
    let text = complaint("info o --signer-header c2VjcmV0");
    assert!(!text.contains("c2VjcmV0"), "{text}");
}

#[test]
fn values_are_read() {
    for (text, milliseconds) in [
        ("90", 90_000),
        ("250ms", 250),
        ("10m", 600_000),
        ("1h1s", 3_601_000),
    ] {
        assert_eq!(
            values::duration(text),
            Ok(Duration::from_millis(milliseconds))
        );
    }
    for text in ["", "m", "1", "-1", "1.5s", "99999999999", "400000h", "s1"] {
        assert_eq!(values::duration(text).is_ok(), text == "1", "{text}");
    }
    for (text, wei) in [
        ("0", 0),
        ("50000000000000000", 50_000_000_000_000_000),
        ("0.05ETH", 50_000_000_000_000_000),
        ("0.05 ETH", 50_000_000_000_000_000),
        ("1ETH", 1_000_000_000_000_000_000),
        ("0.000000000000000001ETH", 1),
        ("00.10ETH", 100_000_000_000_000_000),
        (
            "100000000000000000000ETH",
            100_000_000_000_000_000_000_000_000_000_000_000_000_i128,
        ),
    ] {
        assert_eq!(values::amount(text).ok(), Amount::ratio(wei, 1), "{text}");
    }
    for text in [
        "",
        "ETH",
        "-1",
        "+1",
        "1.5",
        "1e18",
        "0x10",
        ".5ETH",
        "5.ETH",
        "-1ETH",
        "+1ETH",
        "1.2.3ETH",
        "1,5ETH",
        "1eth",
        "1 WEI",
        "0.0000000000000000001ETH",
        "999999999999999999999999999999ETH",
    ] {
        assert!(values::amount(text).is_err(), "{text:?}");
    }
    for (text, wei, per) in [
        ("0", 0, 1),
        ("1200", 1200, 1),
        ("1.50", 3, 2),
        ("7/3", 7, 3),
    ] {
        assert_eq!(values::price(text).ok(), Price::new(wei, per), "{text}");
    }
    for text in [
        "",
        ".5",
        "1.",
        "1e3",
        "-1",
        "1/0",
        "0.0000000000000000001",
        "9999999999999999999",
    ] {
        assert!(values::price(text).is_err(), "{text}");
    }
    for (text, address) in [
        ("8935", "127.0.0.1:8935"),
        (":8935", "0.0.0.0:8935"),
        ("localhost:1", "127.0.0.1:1"),
        ("[::1]:0", "[::1]:0"),
    ] {
        assert_eq!(
            text.parse::<Listen>().map(|l| l.0.to_string()),
            Ok(address.to_owned())
        );
    }
    let any: Listen = "0".parse().expect("any free port");
    assert_eq!(any.plus(5).map(|a| a.port()), Some(0));
}

#[test]
fn work_for_containers_and_apps_says_what_is_meant() {
    let byoc =
        |line: &str| match parsed(&format!("byoc run turn {line} --offchain --orchestrator o")) {
            Ok(Command::Byoc(ByocArgs {
                command: ByocCommand::Run(run),
            })) => *run,
            other => panic!("{line}: {other:?}"),
        };
    let run = byoc("a/path?x=1 --data {} --within 90s --may-repeat");
    assert_eq!((&*run.capability, &*run.path), ("turn", "a/path?x=1"));
    assert_eq!(run.within, Duration::from_secs(90));
    assert!(run.may_repeat && run.body.is_some());
    // Standard output takes the answer, or the figures.
    assert_eq!(run.output(), Some(&Place::Standard));
    assert_eq!(byoc("--json").output(), None);
    let call =
        |line: &str| match parsed(&format!("app call a/b {line} --offchain --orchestrator o")) {
            Ok(Command::App(AppArgs {
                command: AppCommand::Call(call),
            })) => *call,
            other => panic!("{line}: {other:?}"),
        };
    use livepeer_core::http::Method;
    assert_eq!(call("x").call.method(), Method::Get);
    assert_eq!(call("x --data 1").call.method(), Method::Post);
    assert_eq!(call("x --data 1 --method put").call.method(), Method::Put);
    for (line, words) in [
        ("byoc run turn --orchestrator o", "signer"),
        (
            "byoc run turn --offchain --orchestrator o --json --output -",
            "standard output",
        ),
        (
            "byoc stream turn --input - --output - --offchain --orchestrator o --json",
            "standard output",
        ),
        (
            "byoc stream turn --input - --output - --offchain --orchestrator o --params 1",
            "object",
        ),
        (
            r#"byoc stream turn --input - --output - --offchain --orchestrator o --parameters {"enable_video_egress":false}"#,
            "need both",
        ),
        (
            "byoc run turn --offchain --orchestrator o --within 0s",
            "longer than 0s",
        ),
        (
            "byoc run turn --offchain --orchestrator o --data 1 --file f",
            "cannot be used with",
        ),
        (
            "app call a/b x --offchain --orchestrator o --method BREW",
            "the methods are GET",
        ),
        (
            "app call a/b x --offchain --orchestrator o --header a",
            "no colon",
        ),
        (
            "app session a/b --offchain --orchestrator o --method GET",
            "name the path",
        ),
    ] {
        let said = complaint(line);
        assert!(said.contains(words), "{line}: {said}");
    }
}

#[test]
fn a_runner_that_no_orchestrator_would_take_is_refused_on_the_command_line() {
    let of = |line: &str| {
        let place = "runner --orchestrator o --secret-file f";
        parsed(&format!(
            "{place} --url http://10.0.0.2:8000 --app a/b {line}"
        ))
    };
    let Ok(Command::Runner(runner)) = of("--price 0.5 --capacity 3 --name mine") else {
        panic!("it is a good one");
    };
    assert!(runner.command.is_empty());
    let beat = runner.heartbeat("http://10.0.0.2:8000".into());
    assert_eq!((&*beat.price.price, beat.capacity), ("0.5", 3));
    assert_eq!(&*beat.runner_id, "mine");
    for line in [
        "--price free",
        "--price=-1",
        "--name a/b",
        "--unit week",
        "--capacity=-1",
    ] {
        assert!(of(line).is_err(), "{line}");
    }
    // A command needs no address, and an app without a command does.
    let place = "runner --orchestrator o --secret-file f --app a/b";
    let Ok(Command::Runner(runner)) = parsed(&format!("{place} -- serve --port {{port}}")) else {
        panic!("a command is given an address");
    };
    assert_eq!(runner.command, ["serve", "--port", "{port}"]);
    assert_eq!(runner.url(), None);
    assert!(parsed(place).is_err());
    assert!(parsed(&format!("{place} --url nonsense -- serve")).is_err());
}
