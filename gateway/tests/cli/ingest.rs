//! Live video into `serve`: announced by a media server, by RTMP and by WHIP, through the development network, and out to
//! viewers.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use livepeer_core::wire::byoc::{JOB_HEADER, JobRequest};
use serde_json::Value;

use crate::files::Folder;
use crate::http::{Whole, fetch};
use crate::process::signal;
use crate::serve::{Serve, json};
use crate::server::Devnet;

pub(crate) const LIVE: &str = "/live/video-to-video";
/// Everything that ffmpeg 9 sent to a server to publish 60 pictures and their sound as `live/key?token=abc`.
const RECORDING: &[u8] =
    include_bytes!("../../../ingest/tests/vectors/rtmp/ffmpeg9-h264-aac.c2s.bin");
pub(crate) const SENDER: &str =
    include_str!("../../../ingest/tests/vectors/sdp/ffmpeg9-whip.offer.sdp");
pub(crate) const VIEWER: &str =
    include_str!("../../../ingest/tests/vectors/sdp/chromium-whep.offer.sdp");
pub(crate) const SDP: (&str, &str) = ("content-type", "application/sdp");
pub(crate) const URLENCODED: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// A gateway that takes live video, before a development network or orchestrators that run by themselves.
pub(crate) struct Entry {
    pub(crate) serve: Serve,
    pub(crate) rtmp: String,
    pub(crate) devnet: Option<Devnet>,
}

impl Entry {
    pub(crate) fn start(more: &str) -> Self {
        Self::before(Devnet::start(1, &[]), true, more)
    }

    /// Starts before a development network, whose orchestrators are named or else found.
    fn before(devnet: Devnet, named: bool, more: &str) -> Self {
        let orchestrators = devnet.orchestrators.join(",");
        let mut peers = vec!["--signer", &devnet.signer];
        if named {
            peers.extend(["--orchestrator", &orchestrators]);
        }
        let entry = Self::open(&peers, more);
        entry.serve.knows_models();
        Self {
            devnet: Some(devnet),
            ..entry
        }
    }

    /// Starts on that runtime, before a development network.
    pub(crate) fn on(runtime: &str) -> Self {
        let devnet = Devnet::start(1, &[]);
        let orchestrator = &devnet.orchestrators[0];
        let named = ["--signer", &devnet.signer, "--orchestrator", orchestrator];
        let entry = Self::open(&[&named[..], &["--runtime", runtime]].concat(), "");
        Self {
            devnet: Some(devnet),
            ..entry
        }
    }

    /// Starts before orchestrators at those addresses, whom nobody pays.
    pub(crate) fn before_others(addresses: &str) -> Self {
        let peers = ["--offchain", "--allow-private", "--orchestrator", addresses];
        Self::open(&peers, "")
    }

    fn open(peers: &[&str], more: &str) -> Self {
        let folder = Folder::new("ingest");
        let file = folder.path("gateway.toml");
        let ingest =
            format!("[ingest]\nrtmp = \"127.0.0.1:0\"\nwebrtc_udp = \"127.0.0.1:0\"\n{more}");
        fs::write(&file, ingest).expect("a folder that can be written");
        let more = ["--config", &file, "--log", "info"];
        let serve = Serve::start(&[peers, &more[..]].concat());
        let place = { serve.server.introduction.lines() }
            .find_map(|line| line.split("rtmp://").nth(1)?.split('/').next());
        let rtmp = place.expect("a place for RTMP").to_owned();
        Self {
            serve,
            rtmp,
            devnet: None,
        }
    }

    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Whole {
        let path = format!("{LIVE}/{path}");
        fetch(&self.serve.door, method, &path, headers, body.as_bytes())
    }

    /// The status of a stream, once it is as it should be.
    fn status(&self, name: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let answer = self.ask("GET", &format!("{name}/status"), &[], "");
            let told = (answer.status == 200).then(|| json(answer.text()));
            if let Some(told) = told.filter(&is_it) {
                return told;
            }
            assert!(Instant::now() < until, "{}", answer.text());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Has a media server announce a stream. The status of the answer.
    fn announce(&self, name: &str, query: &str) -> u16 {
        let form = format!("source_id=a1&source_type=rtmpConn&query={query}");
        let path = format!("{name}/start");
        self.ask("POST", &path, &[URLENCODED], &form).status
    }

    /// The next line of the log with that text.
    pub(crate) fn logged(&self, text: &str) -> String {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.serve.server.said.recv_timeout(left);
            let line = line.unwrap_or_else(|_| panic!("never said: {text}"));
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Publishes the recording up to its last words, in twelve seconds, so that reports of the model see it. The
    /// connection stays open.
    fn publish(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.rtmp).expect("it listens");
        let words = b"FCUnpublish";
        let at = RECORDING
            .windows(words.len())
            .position(|some| some == words);
        // The head of its message is before it.
        let sent = &RECORDING[..at.expect("last words") - 15];
        let mut writer = stream.try_clone().expect("a second hand");
        thread::spawn(move || {
            for piece in sent.chunks(sent.len() / 24) {
                // It may be refused, or replaced.
                if writer.write_all(piece).is_err() {
                    return;
                }
                thread::sleep(Duration::from_millis(500));
            }
        });
        stream
    }
}

fn is_online(status: &Value) -> bool {
    status["state"] == "ONLINE"
}

#[test]
fn a_stream_that_a_media_server_announces_is_started_changed_told_and_stopped() {
    let entry = Entry::start("");
    let form = "source_id=a1&source_type=rtmpConn&query=streamId%3Ds1%26pipeline%3Dnoop";
    let started = entry.ask("POST", "cam1/start", &[URLENCODED], form);
    assert_eq!((started.status, started.text()), (200, ""));
    let told = entry.status("s1", |_| true);
    let whep = told["gateway_status"]["whep_url"].as_str().expect("a URL");
    assert!(
        whep.starts_with(&format!("http://{}{LIVE}/cam1-", entry.serve.door)),
        "{whep}"
    );
    let updated = entry.ask("POST", "cam1/update", &[], r#"{"prompt":"dog"}"#);
    assert_eq!((updated.status, updated.text()), (200, ""));
    let bad = entry.ask("POST", "cam1/update", &[], "prompt=dog");
    assert_eq!(bad.status, 400);
    let stopped = entry.ask("POST", "cam1/stop", &[], "");
    assert_eq!(stopped.status, 200);
    for (path, body) in [("cam1/update", "{}"), ("cam1/stop", "")] {
        let gone = entry.ask("POST", path, &[], body);
        assert_eq!((gone.status, gone.text()), (404, "Stream not found\n"));
    }
    let told = entry.ask("GET", "cam1/status", &[], "");
    assert_eq!(told.status, 200, "for a while");
    assert!(!told.text().contains("127.0.0.1:89"), "{}", told.text());
    // Next to it, a page for people.
    let page = fetch(&entry.serve.door, "GET", "/watch/cam1", &[], b"");
    assert_eq!(page.status, 200);
    assert!(page.text().contains("RTCPeerConnection"), "{}", page.text());
    let missing = entry.ask("POST", "cam1/start", &[URLENCODED], "source_type=rtmpConn");
    assert_eq!(
        (missing.status, missing.text()),
        (400, "Missing source_id\n")
    );
}

#[test]
fn parameters_reach_the_model_as_they_came_and_long_ones_are_warned_of() {
    let entry = Entry::start("");
    assert_eq!(entry.announce("cam1", "pipeline%3Dnoop"), 200);
    let long = format!("{{\"prompt\":\"{}\"}}", "x".repeat(40 << 10));
    for params in ["{\"b\" : 1.10,\n \"a\":12345678901234567890123}", &long] {
        let updated = entry.ask("POST", "cam1/update", &[], params);
        assert_eq!((updated.status, updated.text()), (200, ""));
        if params.len() > 32 << 10 {
            entry.logged("parameters above 32 KiB");
        }
        // The runner tells of each byte that reached it.
        let hash = livepeer_core::sign::keccak(&[params.as_bytes()]);
        entry.logged(&hex::encode(&hash[..8]));
    }
}

#[test]
fn a_test_stream_goes_through_a_model_for_as_long_as_was_asked() {
    let entry = Entry::start("");
    let asked = |url: &str| format!("{{\"stream_url\":\"{url}\",\"duration_secs\":3}}");
    let ours = format!("rtmp://{}/live/test", entry.rtmp);
    for (method, body, status, text) in [
        ("POST", asked(&ours), 405, None),
        (
            "PUT",
            "x".to_owned(),
            400,
            Some("Failed to parse request body\n"),
        ),
        ("PUT", "{}".to_owned(), 400, Some("Missing stream url\n")),
        (
            "PUT",
            asked("http://127.0.0.1/live"),
            400,
            Some("stream_url is not an address such as rtmp://host/app/name\n"),
        ),
        ("PUT", asked(&ours), 200, Some("")),
    ] {
        let answer = entry.ask(method, "smoketest", &[], &body);
        assert_eq!(answer.status, status, "{body}");
        assert!(
            text.is_none_or(|text| answer.text() == text),
            "{}",
            answer.text()
        );
    }
    let over = entry.logged("a live job is over");
    for way in ["pictures_in=90", "pictures_out=90"] {
        assert!(over.contains(way), "{over}");
    }
}

/// Jobs spec 5, with a sender by RTMP.
#[test]
fn a_stream_through_a_container_is_ordered_sent_told_and_stopped() {
    let entry = Entry::start("");
    let header = |capability: &str| {
        let job = JobRequest {
            request: "{}".into(),
            capability: capability.into(),
            timeout_seconds: 10,
            ..JobRequest::default()
        };
        job.to_header(None)
    };
    let echo = header("echo");
    let ask = |method: &str, path: &str, job: &str, body: &str| {
        let fields = [(JOB_HEADER, job)];
        let fields = if job.is_empty() {
            &fields[1..]
        } else {
            &fields
        };
        let path = format!("/process/stream/{path}");
        fetch(&entry.serve.door, method, &path, fields, body.as_bytes())
    };
    let named = r#"{"stream_name":"cam","stream_id":"1","params":"{\"n\":1}"}"#;
    let started = ask("POST", "start", &echo, named);
    assert_eq!(started.status, 200, "{}", started.text());
    let urls = json(started.text());
    let place = format!("http://{}", entry.serve.door);
    assert_eq!(urls["stream_id"], "cam-1");
    assert_eq!(
        urls["rtmp_url"],
        format!("rtmp://{}/live/cam-1", entry.rtmp)
    );
    assert_eq!(
        urls["whip_url"],
        format!("{place}/process/stream/cam-1/whip")
    );
    let whep = urls["whep_url"].as_str().expect("a URL");
    assert!(whep.starts_with(&format!("{place}{LIVE}/cam-1-")), "{whep}");
    let again = ask("POST", "start", &echo, named);
    assert_eq!(
        (again.status, again.text()),
        (400, "stream already exists: cam-1\n")
    );
    let told = ask("GET", "cam-1/status", "", "");
    assert_eq!(told.status, 200, "{}", told.text());
    assert!(!told.text().contains("127.0.0.1:89"), "{}", told.text());
    let body = format!(
        "{{\"stream_url\":\"{}\",\"duration_secs\":3}}",
        urls["rtmp_url"].as_str().expect("a URL")
    );
    assert_eq!(entry.ask("PUT", "smoketest", &[], &body).status, 200);
    let over = entry.logged("a live job is over");
    for way in ["pictures_in=90", "pictures_out=90"] {
        assert!(over.contains(way), "{over}");
    }
    for (path, status) in [("cam-1/update", 404), ("cam-1/stop", 404)] {
        let answer = ask("POST", path, &echo, "{}");
        assert_eq!(
            (answer.status, answer.text()),
            (status, "Stream not found\n")
        );
    }
    // One that runs takes parameters, and ends when somebody says so.
    assert_eq!(
        ask("POST", "start", &echo, r#"{"stream_id":"2"}"#).status,
        200
    );
    entry.logged("a live job runs");
    let updated = ask("POST", "2/update", &echo, r#"{"n":2}"#);
    let words = r#"{"status":"success"}"#;
    assert_eq!((updated.status, updated.text()), (200, words));
    assert_eq!(ask("POST", "2/update", &echo, "words").status, 400);
    assert_eq!(ask("POST", "2/update", "words", "{}").status, 400);
    let none = ask("GET", "2/data", "", "");
    assert_eq!(
        (none.status, none.text()),
        (503, "Stream data not available\n")
    );
    assert_eq!(ask("GET", "nobody/data", "", "").status, 404);
    assert_eq!(ask("GET", "nobody/status", "", "").status, 404);
    let stopped = ask("POST", "2/stop", "", "bye");
    assert_eq!((stopped.status, stopped.text()), (200, words));
    entry.logged("a live job is over");
    // Where nobody has the container, the status says so.
    let nothing = header("nothing");
    assert_eq!(
        ask("POST", "start", &nothing, r#"{"stream_id":"3"}"#).status,
        200
    );
    let until = Instant::now() + Duration::from_secs(30);
    while !ask("GET", "3/status", "", "")
        .text()
        .contains("no orchestrators available")
    {
        assert!(
            Instant::now() < until,
            "{}",
            ask("GET", "3/status", "", "").text()
        );
        thread::sleep(Duration::from_millis(50));
    }
    // An offer by WHIP is read at this path too.
    let whip = fetch(
        &entry.serve.door,
        "POST",
        "/process/stream/4/whip",
        &[SDP],
        b"words",
    );
    assert_eq!(whip.status, 400, "{}", whip.text());
}

#[test]
fn the_output_is_there_for_players_of_hls_and_so_is_its_end() {
    let entry = Entry::start("[media]\nhls = true\n");
    let get = |path: &str| fetch(&entry.serve.door, "GET", path, &[], b"");
    assert_eq!(get("/stream/test-out.m3u8").status, 404);
    let body = format!(
        "{{\"stream_url\":\"rtmp://{}/live/test\",\"duration_secs\":5}}",
        entry.rtmp
    );
    assert_eq!(entry.ask("PUT", "smoketest", &[], &body).status, 200);
    let until = Instant::now() + Duration::from_secs(60);
    let master = loop {
        let master = get("/stream/test-out.m3u8");
        if master.status == 200 {
            break master;
        }
        assert!(Instant::now() < until, "{}", master.text());
        thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(master.field("content-type"), Some("application/x-mpegURL"));
    assert_eq!(master.field("access-control-allow-origin"), Some("*"));
    let list = master
        .text()
        .lines()
        .last()
        .expect("a rendition")
        .to_owned();
    assert!(
        master.text().contains("RESOLUTION=640x360"),
        "{}",
        master.text()
    );
    // The stream may be over by the time that its list is read, by its name alone.
    let path = format!("/stream/{list}");
    entry.logged("a live job is over");
    let list = get(&path);
    let wanted = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-MEDIA-SEQUENCE:0\n#EXT-X-TARGETDURATION:2\n#EXTINF:2.000,\n";
    assert!(list.text().starts_with(wanted), "{}", list.text());
    assert!(list.text().ends_with("#EXT-X-ENDLIST\n"), "{}", list.text());
    let segments: Vec<_> = list
        .text()
        .lines()
        .filter(|line| line.ends_with(".ts"))
        .collect();
    assert_eq!(segments.len(), 3, "{}", list.text());
    for segment in segments {
        let segment = get(segment);
        assert_eq!(
            (segment.status, segment.field("content-type")),
            (200, Some("video/mp2t"))
        );
        assert!(segment.body.len() > 10_000 && segment.body.len() % 188 == 0);
    }
    assert_eq!(get(&path.replace("source", "other")).status, 404);
}

#[test]
fn the_lists_of_orchestrators_hold_for_live_jobs_too() {
    let devnet = Devnet::start(2, &[]);
    let hosts: Vec<_> = { devnet.orchestrators.iter() }
        .map(|url| {
            url.trim_start_matches("https://")
                .trim_end_matches('/')
                .to_owned()
        })
        .collect();
    let block = format!("[orchestrators]\nblock = [\"{}\"]\n", hosts[0]);
    let entry = Entry::before(devnet, false, &block);
    for name in ["cam1", "cam2"] {
        assert_eq!(entry.announce(name, ""), 200);
        let line = entry.logged("a live job runs");
        assert!(line.contains(&hosts[1]), "{line}");
    }
    let port = |at: usize| hosts[at].rsplit(':').next().expect("a port");
    assert_eq!(
        entry.announce("cam3", &format!("orchestrator%3D{}", port(1))),
        200
    );
    let line = entry.logged("a live job runs");
    assert!(line.contains(&hosts[1]), "{line}");
    // The hook waits until that is known.
    assert_eq!(
        entry.announce("cam4", &format!("orchestrator%3D{}", port(0))),
        200
    );
    let nobody = |told: &Value| {
        told["gateway_status"]["error"]["error_message"] == "no orchestrators available"
    };
    entry.status("cam4", nobody);
}

#[test]
fn streams_go_on_while_the_gateway_shuts_down_and_new_ones_are_refused() {
    let drain = "[serve]\ndrain_grace = \"1s\"\ndrain = \"1s\"\ndrain_live = \"2m\"\n";
    let mut entry = Entry::start(drain);
    let _sender = entry.publish();
    entry.status("key", is_online);
    signal(entry.serve.server.running.0.id(), "TERM");
    let until = Instant::now() + Duration::from_secs(60);
    // One that makes no sense, so that none begins meanwhile.
    while entry.ask("POST", "cam1/start", &[URLENCODED], "").status != 503 {
        assert!(Instant::now() < until, "new streams are taken");
        thread::sleep(Duration::from_millis(50));
    }
    let told = entry.logged("instance.draining");
    assert!(
        told.contains("ai_stream_events") && told.contains("key"),
        "{told}"
    );
    let refused = entry.ask("POST", "cam1/whip", &[SDP], SENDER);
    assert_eq!(
        (refused.status, refused.field("retry-after")),
        (503, Some("5")),
        "{}",
        refused.text()
    );
    let updated = entry.ask("POST", "key/update", &[], "{\"a\":1}");
    assert_eq!(updated.status, 200, "{}", updated.text());
    entry.status("key", is_online);
    assert_eq!(entry.ask("POST", "key/stop", &[], "").status, 200);
    let ended = entry.serve.server.running.wait(Duration::from_secs(60));
    assert!(ended.success(), "{ended}");
}

#[test]
fn a_stream_by_rtmp_goes_through_a_model_and_can_be_watched() {
    let entry = Entry::start("[ingest.keys]\nkey = \"abc\"\n");
    let unknown = entry.ask("POST", "key-out/whep", &[SDP], VIEWER);
    assert_eq!(
        (unknown.status, unknown.field("retry-after")),
        (404, Some("1"))
    );
    let mut first = entry.publish();
    let before = entry.status("key", is_online);
    // Another publisher takes the name over, and the job goes on; the end of another stream is none of theirs.
    let _second = entry.publish();
    let form = "source_id=a1&source_type=rtmpConn";
    assert_eq!(
        entry.ask("POST", "cam1/start", &[URLENCODED], form).status,
        200
    );
    assert_eq!(entry.ask("POST", "cam1/stop", &[], "").status, 200);
    let mut said = Vec::new();
    first.read_to_end(&mut said).expect("it is closed");
    assert!(String::from_utf8_lossy(&said).contains("replaced"));
    let told = entry.status("key", is_online);
    assert_eq!(told["gateway_status"], before["gateway_status"]);
    assert!(
        !told.to_string().contains("orchestrator_info\":{\"url"),
        "{told}"
    );
    let watched = entry.ask("POST", "key-out/whep", &[SDP], VIEWER);
    assert_eq!(watched.status, 201, "{}", watched.text());
    let place = watched.field("location").expect("a session").to_owned();
    assert!(watched.text().contains("m=video"));
    let session = place.strip_prefix(&format!("{LIVE}/")).expect("a path");
    assert!(
        session.starts_with("key-") && session.contains("-out/whep/"),
        "{place}"
    );
    let left = entry.ask("DELETE", session, &[], "");
    assert_eq!(left.status, 200);
    let stopped = entry.ask("POST", "key/stop", &[], "");
    assert_eq!(stopped.status, 200);
}

#[test]
fn a_wrong_key_is_refused_by_rtmp_and_by_whip() {
    let entry = Entry::start("[ingest.keys]\n\"*\" = \"other\"\n");
    let mut sender = entry.publish();
    let mut said = Vec::new();
    sender.read_to_end(&mut said).expect("it is closed");
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("NetStream.Publish.BadName"), "{said}");

    let path = "cam1/whip";
    let refused = entry.ask("POST", path, &[SDP], SENDER);
    assert_eq!(
        (refused.status, refused.field("www-authenticate")),
        (401, Some("Bearer"))
    );
    assert!(!refused.text().contains("m="), "no SDP in a refusal");
    let bearer = ("authorization", "Bearer other");
    let taken = entry.ask("POST", path, &[SDP, bearer], SENDER);
    assert_eq!(taken.status, 201, "{}", taken.text());
    let playback = taken.field("livepeer-playback-url").expect("a URL");
    assert!(
        playback.contains("/cam1-") && playback.ends_with("-out/whep"),
        "{playback}"
    );
    let place = taken.field("location").expect("a session").to_owned();
    let place = place.strip_prefix(&format!("{LIVE}/")).expect("a path");
    let left = entry.ask("DELETE", place, &[], "");
    assert_eq!(left.status, 200);
    let ended =
        |told: &Value| told["gateway_status"]["error"]["error_message"] == "whip disconnected";
    entry.status("cam1", ended);
    let bad = entry.ask("POST", "cam1/whip?params=%7Bx", &[SDP, bearer], SENDER);
    assert_eq!((bad.status, bad.text()), (400, "Invalid model params\n"));
}
