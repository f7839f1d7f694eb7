//! `run`: batch jobs of the development network.

use std::fs;
use std::time::Duration;

use crate::files::Folder;
use crate::process::signal;
use crate::run::{Ended, RUNTIMES, run, start};
use crate::server::Devnet;

/// A network whose runners take no time.
fn network(orchestrators: usize, more: &[&str]) -> Devnet {
    let fast = ["--work-time", "1ms", "--token-time", "1ms"];
    Devnet::start(orchestrators, &[&fast, more].concat())
}

/// Runs a pipeline in that network.
fn job(net: &Devnet, arguments: &[&str]) -> Ended {
    let all = net.orchestrators.join(",");
    let peers = ["--orchestrator", &all, "--signer", &net.signer];
    run(&[&["run"], arguments, &peers].concat())
}

#[test]
fn a_picture_becomes_a_file_and_no_file_is_written_over() {
    let net = network(1, &[]);
    let folder = Folder::new("pictures");
    let output = folder.path("new");
    for (n, runtime) in RUNTIMES.into_iter().enumerate() {
        let prompt = "prompt=a coffee shop at sunset";
        let ended = job(
            &net,
            &[
                "text-to-image",
                "--set",
                prompt,
                "--set",
                "width=64",
                "--output",
                &output,
                "--runtime",
                runtime,
            ],
        );
        ended.succeeded();
        let name = format!("{output}/text-to-image-{}.png", n + 1);
        assert_eq!(ended.text(), format!("{name}\n"));
        assert!(
            fs::read(&name)
                .expect("it was written")
                .starts_with(b"\x89PNG")
        );
        for fact in [
            net.orchestrators[0].as_str(),
            "stabilityai/sdxl-turbo",
            "32,768 pixels",
            "wei per pixel",
            "tickets",
        ] {
            assert!(ended.stderr.contains(fact), "{fact}: {}", ended.stderr);
        }
    }
    // Standard output takes it as it is.
    let piped = [
        "text-to-image",
        "--set",
        "prompt=p",
        "--set",
        "width=64",
        "--output",
        "-",
    ];
    let piped = job(&net, &piped);
    piped.succeeded();
    let (begin, end) = (b"\x89PNG", b"IEND\xaeB`\x82");
    assert!(piped.stdout.starts_with(begin) && piped.stdout.ends_with(end));
    // The picture goes on to another pipeline, and figures come as JSON.
    let picture = format!("image={output}/text-to-image-1.png");
    let json = ["--output", &output, "--json"];
    let upscale = ["upscale", "--file", &picture, "--set", "prompt=sharp"];
    let told = job(&net, &[&upscale[..], &json].concat()).json();
    let name = format!("{output}/upscale-1.png");
    assert_eq!(told["answer"]["images"][0]["url"], name, "{told}");
    assert_eq!(told["files"][0], name);
    assert_eq!(
        (&told["units"], &told["unit"]),
        (&32_768.into(), &"pixel".into())
    );
    assert!(
        told["tickets"].is_u64() && told["cost_wei"].is_string(),
        "{told}"
    );
    // Masks are a file too, and a caption is printed.
    let masks = job(
        &net,
        &[
            "segment-anything-2",
            "--file",
            &picture,
            "--output",
            &output,
        ],
    );
    assert_eq!(
        masks.text(),
        format!("{output}/segment-anything-2-1.json\n")
    );
    let caption = job(&net, &["image-to-text", "--file", &picture]);
    caption.succeeded();
    assert!(!caption.text().trim().is_empty());
}

#[test]
fn words_are_printed_as_they_come_and_sound_is_read() {
    let net = network(1, &[]);
    let folder = Folder::new("words");
    let ask = ["llm", "--set", "prompt=one two three"];
    let spoken = job(&net, &ask);
    spoken.succeeded();
    assert!(spoken.text().trim().len() > 3, "{}", spoken.text());
    assert!(spoken.stderr.contains("256 tokens"), "{}", spoken.stderr);
    let whole = job(&net, &[&ask[..], &["--set", "stream=false"]].concat());
    whole.succeeded();
    assert_eq!(whole.text().trim(), spoken.text().trim());
    let told = job(&net, &[&ask[..], &["--json"]].concat()).json();
    let content = &told["answer"]["choices"][0]["message"]["content"];
    assert_eq!(
        content.as_str().map(str::trim),
        Some(whole.text().trim()),
        "{told}"
    );

    let output = folder.path("");
    let say = ["text-to-speech", "--set", "text=hello", "--output", &output];
    let sound = job(&net, &say);
    sound.succeeded();
    let sound = sound.text().trim().to_owned();
    assert!(sound.ends_with("text-to-speech-1.wav"), "{sound}");
    let heard = job(&net, &["audio-to-text", "--file", &sound]);
    heard.succeeded();
    assert!(!heard.text().trim().is_empty());
}

#[test]
fn another_orchestrator_does_it_when_the_first_is_busy_and_the_report_says_so() {
    let net = network(2, &["--quirk", "0:busy"]);
    let mut tried = 0;
    for _ in 0..8 {
        let told = job(&net, &["llm", "--set", "prompt=hi", "--json"]).json();
        assert_eq!(told["orchestrator"], *net.orchestrators[1], "{told}");
        for attempt in told["attempts"].as_array().expect("a list") {
            assert_eq!(attempt["orchestrator"], *net.orchestrators[0], "{told}");
            assert_eq!(attempt["reason"], "busy", "{told}");
            tried += 1;
        }
    }
    // Which one is asked first is drawn; a busy one is never blamed on the caller.
    assert!(tried <= 8);
}

#[test]
fn a_job_that_cannot_be_done_is_one_line() {
    let net = network(1, &["--quirk", "runner-400"]);
    let refused = job(&net, &["text-to-image", "--set", "prompt=p"]);
    assert!(
        refused.error().contains("refuses the request"),
        "{}",
        refused.stderr
    );
    let told = job(&net, &["text-to-image", "--set", "prompt=p", "--json"]);
    assert!(told.error().contains("refuses the request"));
    let told = told.json();
    assert!(told["error"]["cause"].is_string(), "{told}");
    assert_eq!(told["orchestrator"], *net.orchestrators[0], "{told}");
    let unknown = job(
        &net,
        &["llm", "--set", "prompt=p", "--model", "nobody/has-it"],
    );
    assert!(
        unknown.error().contains("orchestrator"),
        "{}",
        unknown.stderr
    );
    let folder = Folder::new("unreadable");
    let text = folder.private("a.txt", "not a picture");
    let unreadable = job(&net, &["image-to-text", "--file", &text]);
    assert!(
        unreadable.error().contains("image cannot be read"),
        "{}",
        unreadable.stderr
    );
}

#[test]
fn a_job_that_is_interrupted_prints_its_figures() {
    let net = network(1, &["--quirk", "runner-silent"]);
    let orchestrator = &net.orchestrators[0];
    let peers = ["--orchestrator", orchestrator, "--signer", &net.signer];
    let ask = ["run", "llm", "--set", "prompt=hi", "--json"];
    let running = start(&[&ask[..], &peers].concat());
    loop {
        let patience = Duration::from_secs(60);
        let line = net.server.said.recv_timeout(patience);
        // A ticket comes with the request.
        if line.expect("the request arrives").contains(" worth ~") {
            break;
        }
    }
    signal(running.0.id(), "INT");
    let ended = running.end(Vec::new());
    assert_eq!(ended.code(), Some(130), "{}", ended.stderr);
    let told = ended.json();
    assert_eq!(told["pipeline"], "llm", "{told}");
    assert_eq!(told["error"]["cause"], "interrupted", "{told}");
    assert!(told["elapsed_us"].as_u64() > Some(0), "{told}");
}

#[test]
fn a_request_that_cannot_be_meant_is_refused_before_anybody_is_asked() {
    let peers = ["--orchestrator", "127.0.0.1:9", "--offchain"];
    for (arguments, why) in [
        (&["text-to-nothing"][..], "the pipelines are text-to-image"),
        (&["text-to-image"], "prompt is required"),
        (&["text-to-image", "--set", "prompt"], "FIELD=VALUE"),
        (&["text-to-image", "--set", "steps=3"], "has no field"),
        (
            &["text-to-image", "--set", "prompt=p", "--set", "seed=x"],
            "whole number",
        ),
        (
            &["text-to-image", "--set", "prompt=p", "--file", "x"],
            "takes no --file",
        ),
        (&["upscale", "--set", "prompt=p"], "needs --file image=PATH"),
        (&["upscale", "--file", "audio=x"], "is image"),
        (&["llm"], "a question"),
        (
            &["llm", "--set", "prompt=p", "--set", "stream=true", "--json"],
            "both write",
        ),
        (
            &[
                "text-to-speech",
                "--set",
                "text=t",
                "--output",
                "-",
                "--json",
            ],
            "both write",
        ),
        (
            &[
                "text-to-image",
                "--set",
                "prompt=p",
                "--set",
                "num_images_per_prompt=2",
                "--output",
                "-",
            ],
            "takes one picture, not 2",
        ),
    ] {
        let ended = run(&[&["run"], arguments, &peers].concat());
        assert_eq!(ended.code(), Some(2), "{arguments:?}: {}", ended.stderr);
        assert!(
            ended.stderr.contains(why),
            "{arguments:?}: {}",
            ended.stderr
        );
    }
    let nobody = run(&[
        "run",
        "text-to-image",
        "--set",
        "prompt=p",
        "--orchestrator",
        "127.0.0.1:9",
    ]);
    assert!(
        nobody.stderr.contains("nobody is named to sign"),
        "{}",
        nobody.stderr
    );
}
