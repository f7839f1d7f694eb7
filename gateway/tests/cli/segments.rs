//! Segments of live streams over HTTP: lists that many poll, and segments that are pushed (media spec 8, rows 52 to 57).

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::http::{Whole, fetch, say};
use crate::ingest::{Entry, LIVE};

/// A connection on which a player polls.
struct Player(BufReader<TcpStream>);

impl Player {
    fn new(door: &str) -> Self {
        let stream = TcpStream::connect(door).expect("it listens");
        let patience = Some(Duration::from_secs(60));
        stream.set_read_timeout(patience).expect("a timeout");
        Self(BufReader::new(stream))
    }

    /// The status and the body of an answer.
    fn get(&mut self, path: &str) -> (u16, String) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: gateway\r\n\r\n");
        let stream = self.0.get_mut();
        stream.write_all(request.as_bytes()).expect("it is open");
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = self.0.read_line(&mut head).expect("an answer");
            assert_ne!(read, 0, "closed after {head:?}");
        }
        let status = crate::http::status(&head).expect("a status");
        let length = { head.lines() }.find_map(|line| line.strip_prefix("content-length: "));
        let length = length.map_or(0, |length| length.parse().expect("a number"));
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("all of it");
        (status, String::from_utf8(body).expect("text"))
    }
}

/// Rows 56 and 57.
#[test]
fn ten_thousand_polls_of_a_list_get_its_few_texts_and_odd_paths_get_nothing() {
    let entry = Entry::start("[media]\nhls = true\n");
    let door = &entry.serve.door;
    let body = format!(
        "{{\"stream_url\":\"rtmp://{}/live/test\",\"duration_secs\":7}}",
        entry.rtmp
    );
    let asked = fetch(
        door,
        "PUT",
        &format!("{LIVE}/smoketest"),
        &[],
        body.as_bytes(),
    );
    assert_eq!(asked.status, 200, "{}", asked.text());
    let until = Instant::now() + Duration::from_secs(60);
    let master = loop {
        let master = fetch(door, "GET", "/stream/test-out.m3u8", &[], b"");
        if master.status == 200 {
            break master;
        }
        assert!(Instant::now() < until, "{}", master.text());
        thread::sleep(Duration::from_millis(50));
    };
    let rendition = { master.text().lines() }.last().expect("a rendition");
    let output = rendition.split('/').next().expect("a name");
    let paths = [
        format!("/stream/{output}.m3u8"),
        format!("/stream/{rendition}"),
    ];
    let polls = |path: &str| {
        let mut player = Player::new(door);
        let mut texts = BTreeSet::new();
        for _ in 0..1_000 {
            let (status, text) = player.get(path);
            assert_eq!(status, 200, "{path}: {text}");
            texts.insert(text);
        }
        texts
    };
    let texts: [BTreeSet<String>; 2] = thread::scope(|scope| {
        let players: Vec<_> = (0..10)
            .map(|at| {
                let path = &paths[at % 2];
                (at % 2, scope.spawn(move || polls(path)))
            })
            .collect();
        let mut texts = [BTreeSet::new(), BTreeSet::new()];
        for (at, player) in players {
            texts[at].extend(player.join().expect("a player"));
        }
        texts
    });
    assert_eq!(texts[0].len(), 1, "the size is the same: {:?}", texts[0]);
    // Seven seconds are three or four segments, and the end is told with or after the last.
    assert!((1..=5).contains(&texts[1].len()), "{:?}", texts[1]);

    let long = format!("/stream/{}.m3u8", "a".repeat(10_000));
    let odd = [
        ("/stream/../../etc/passwd".to_owned(), 404),
        ("/stream/%2e%2e/%2e%2e/etc/passwd".to_owned(), 404),
        ("/stream/%2e%2e.m3u8".to_owned(), 404),
        (format!("/stream/{output}/../source.m3u8"), 404),
        (format!("/stream/{output}/%2e%2e/0.ts"), 404),
        (format!("/stream/{output}/other.m3u8"), 404),
        (format!("/stream/{output}/other/0.ts"), 404),
        (format!("/stream/{output}/source/99.ts"), 404),
        (
            format!("/stream/{output}/source/18446744073709551616.ts"),
            404,
        ),
        (format!("/stream/{output}/source/-1.ts"), 404),
        // No path is that long.
        (long, 414),
    ];
    for (path, status) in odd {
        let request = format!("GET {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n");
        let answer = say(door, request.as_bytes());
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert!(answer.body.len() < 400, "{}", answer.text());
    }
}

/// Pushes a segment of which so much is declared, and so much sent.
fn push(door: &str, path: &str, declared: usize, sent: &[u8]) -> Whole {
    let head = format!(
        "PUT {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\ncontent-length: {declared}\r\n\r\n"
    );
    say(door, &[head.as_bytes(), sent].concat())
}

/// Rows 52 to 55, where nothing transcodes.
#[test]
fn a_segment_that_is_pushed_is_refused_by_its_head_with_the_way_to_send_a_stream() {
    let entry = Entry::start("");
    let door = &entry.serve.door;
    let junk = vec![0x5a; 64 << 10];
    let check = |path: &str, answer: &Whole| {
        let wanted = format!(
            "PUT {path}: segments are not taken by HTTP. Send the stream by RTMP, or by WHIP to \
             /live/video-to-video/{{stream}}/whip.\n"
        );
        assert_eq!((answer.status, answer.text()), (404, &*wanted));
    };
    // A box of four gigabytes, and no sample.
    let boxes = b"\0\0\0\x10ftypisom\0\0\0\0\xff\xff\xff\xffmdat";
    for (path, declared, sent) in [
        ("/live/cam/0.ts", 0, &[][..]),
        ("/live/cam/0.mp4", boxes.len(), boxes),
        ("/live/cam/1.ts", junk.len(), &junk),
        ("/live/cam/0.m3u8", junk.len(), &junk),
        // What is declared need not come.
        ("/live/cam/2.ts", 300_000_001, &[]),
        ("/live/cam/2.ts", 300_000_001, &junk),
        ("/live/cam/3.mp4", 300_000_001, &junk),
        ("/live/cam/-5.ts", 0, &[]),
        ("/live/cam/18446744073709551615.ts", 0, &[]),
    ] {
        check(path, &push(door, path, declared, sent));
    }
    // One number twice at a time, and a thousand names.
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| check("/live/cam/7.ts", &push(door, "/live/cam/7.ts", 3, b"abc")));
        }
        for part in 0..4 {
            let junk = &junk;
            scope.spawn(move || {
                for n in 0..250 {
                    let path = format!("/live/cam{part}x{n}/0.ts");
                    check(&path, &push(door, &path, junk.len(), junk));
                }
            });
        }
    });
    // Whoever goes on sending is cut off soon.
    let mut stream = TcpStream::connect(door).expect("it listens");
    let patience = Some(Duration::from_secs(20));
    stream.set_write_timeout(patience).expect("a timeout");
    let head = "PUT /live/cam/9.ts HTTP/1.1\r\nhost: gateway\r\ncontent-length: 300000001\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("it is open");
    let piece = vec![0; 1 << 20];
    let taken = (0..300).take_while(|_| stream.write_all(&piece).is_ok());
    let taken = taken.count();
    // A megabyte, and what the system holds on both sides.
    assert!(taken < 32, "{taken} MiB");
    // Nothing is left of any of them.
    let figures = fetch(&entry.serve.ops, "GET", "/metrics", &[], b"");
    let streams = { figures.text().lines() }
        .filter(|line| line.starts_with("livepeer_current_sessions_total"))
        .all(|line| line.ends_with(" 0"));
    assert!(streams, "{}", figures.text());
}
