//! Offers that are taken, the parts of them that are, and our answers.

use livepeer_ingest::sdp::{self, Answer, Fault, H264Profile, Kind, Offer, Role, Setup};
use serde_json::Value;

const WHIP: Role = Role::Whip { drop_audio: false };

macro_rules! vector {
    ($name:literal) => {
        (
            include_str!(concat!("../vectors/sdp/", $name, ".offer.sdp")),
            include_str!(concat!("../vectors/sdp/", $name, ".json")),
        )
    };
}

const OFFERS: [(&str, &str); 9] = [
    vector!("aiortc-whip"),
    vector!("chromium-whep"),
    vector!("chromium-whip-default"),
    vector!("chromium-whip-h264"),
    vector!("chromium-whip-maxbundle"),
    vector!("chromium-whip-simulcast"),
    vector!("ffmpeg9-whip"),
    vector!("ffmpeg9-whip-high"),
    vector!("node-datachannel-whip"),
];

fn answer(offer: &Offer) -> String {
    offer.answer(&Answer {
        id: 7,
        ufrag: "0123456789abcdef",
        password: "0123456789abcdef0123456789abcdef",
        fingerprint: "AA:BB",
        addresses: &[
            "127.0.0.1:3478".parse().unwrap(),
            "[::1]:3478".parse().unwrap(),
        ],
        senders: &[],
    })
}

fn ffmpeg() -> &'static str {
    OFFERS[6].0
}

fn refused(text: &str) -> Fault {
    sdp::read(text.as_bytes(), WHIP).expect_err("an offer that has to be refused")
}

/// Each line of a section of an answer that begins with `prefix`, without it.
fn lines<'a>(answer: &'a str, kind: &str, prefix: &str) -> Vec<&'a str> {
    let section = answer
        .split("m=")
        .find(|section| section.starts_with(kind))
        .unwrap_or_default();
    section
        .lines()
        .filter_map(|line| line.strip_prefix(prefix))
        .collect()
}

#[test]
fn the_offers_of_real_clients_are_answered() {
    for (offer, facts) in OFFERS {
        let facts: Value = serde_json::from_str(facts).unwrap();
        let expect = &facts["expect"];
        let role = match expect["role"].as_str().unwrap() {
            "WHIP" => WHIP,
            _ => Role::Whep,
        };
        let offer = sdp::read(offer.as_bytes(), role).unwrap();
        let setup = match expect["our_setup"].as_str().unwrap() {
            "active" => Setup::Active,
            _ => Setup::Passive,
        };
        assert_eq!(offer.setup, setup);
        let answer = answer(&offer);
        for (index, section) in facts["sections"].as_array().unwrap().iter().enumerate() {
            let kind = section["kind"].as_str().unwrap();
            assert_eq!(
                lines(&answer, kind, "a=mid:"),
                [section["mid"].as_str().unwrap()]
            );
            assert_eq!(
                lines(&answer, kind, "a=setup:"),
                [expect["our_setup"].as_str().unwrap()]
            );
            let direction = format!("a={}", expect["direction"].as_str().unwrap());
            assert_eq!(lines(&answer, kind, &direction), [""]);
            assert_eq!(lines(&answer, kind, "a=rtcp-mux"), [""]);
            let candidates = lines(&answer, kind, "a=candidate:");
            assert_eq!(
                candidates.len(),
                if index == 0 { 2 } else { 0 },
                "{candidates:?}"
            );
            assert_eq!(
                answer.split("m=").nth(index + 1).unwrap().split(' ').next(),
                Some(kind)
            );
        }
        let (_, video) = offer.section(Kind::Video).unwrap();
        // A viewer gets the highest profile that it offers (Main, 116), a sender its own first choice.
        let first = match role {
            Role::Whep => 116,
            Role::Whip { .. } => expect["video_pt"].as_u64().unwrap(),
        };
        assert_eq!(u64::from(video.formats[0].number), first);
        for forbidden in expect["must_not_answer"].as_array().unwrap() {
            assert!(!answer.contains(forbidden.as_str().unwrap()));
        }
        for absent in [
            "VP8",
            "red/",
            "usedtx",
            "a=rid",
            "simulcast",
            "ice-options",
            "abs-send-time",
        ] {
            assert!(!answer.contains(absent), "{absent} in {answer}");
        }
        assert!(answer.contains("a=ice-lite\r\n"));
    }
}

#[test]
fn the_answer_says_a_level_that_no_sender_scales_down_to_and_stereo() {
    for (offer, _) in [OFFERS[0], OFFERS[2], OFFERS[7], OFFERS[8]] {
        let answer = answer(&sdp::read(offer.as_bytes(), WHIP).unwrap());
        let ids = lines(&answer, "video", "a=fmtp:");
        let ids = ids
            .iter()
            .filter_map(|line| line.split_once("profile-level-id="))
            .map(|(_, id)| id);
        assert!(
            ids.clone().count() > 0 && ids.clone().all(|id| id.ends_with("34")),
            "{answer}"
        );
        let opus = lines(&answer, "audio", "a=fmtp:");
        assert!(
            opus[0].ends_with(" minptime=10;useinbandfec=1;stereo=1"),
            "{opus:?}"
        );
    }
}

#[test]
fn every_profile_that_is_taken_is_known_and_no_other() {
    use H264Profile::*;
    for (id, profile) in [
        (0x42_00_1f, Some(Baseline)),
        (0x42_00_0d, Some(Baseline)),
        (0x42_e0_1f, Some(ConstrainedBaseline)),
        (0x42_c0_1f, Some(ConstrainedBaseline)),
        (0x4d_00_28, Some(Main)),
        (0x64_00_0d, Some(High)),
        (0x64_0c_1f, Some(ConstrainedHigh)),
        (0xf4_00_1f, None),
        (0x6e_00_1f, None),
        (0x58_00_28, None),
    ] {
        assert_eq!(H264Profile::from_id(id), profile, "{id:x}");
        let offer = ffmpeg().replace("42000d", &format!("{id:06x}"));
        let taken = sdp::read(offer.as_bytes(), WHIP);
        match profile {
            Some(_) => assert!(taken.is_ok(), "{id:x}"),
            None => assert_eq!(taken, Err(Fault::Unsupported("no H.264 video"))),
        }
    }
}

#[test]
fn packetization_mode_0_is_taken_if_there_is_no_other() {
    let both = sdp::read(OFFERS[2].0.as_bytes(), WHIP).unwrap();
    let modes = both
        .section(Kind::Video)
        .unwrap()
        .1
        .formats
        .iter()
        .map(|format| format.h264.unwrap().0);
    assert!(modes.into_iter().all(|mode| mode == 1));
    for unsaid in ["", "a=fmtp:106 profile-level-id=42001f\r\n"] {
        let said =
            "a=fmtp:106 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42000d\r\n";
        let offer = sdp::read(ffmpeg().replace(said, unsaid).as_bytes(), WHIP).unwrap();
        assert_eq!(
            offer.section(Kind::Video).unwrap().1.formats[0].h264,
            Some((0, 0x42_00_34))
        );
    }
}

/// Media spec 8, rows 1, 6 and 8.
#[test]
fn text_that_is_no_offer_is_refused_as_such() {
    let whole = ffmpeg();
    for text in [
        "",
        "hello",
        "{}",
        "v=1\r\n",
        "v=0\r\n",
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n",
    ] {
        assert_eq!(refused(text).status(), 400, "{text:?}");
    }
    assert_eq!(
        sdp::read(&[0xff, 0xfe, 0, 1], WHIP).unwrap_err().status(),
        400
    );
    // Cut anywhere: refused, or taken if only the tail of the last section is missing.
    for end in 0..whole.len() {
        if let Ok(offer) = sdp::read(&whole.as_bytes()[..end], WHIP) {
            assert!(
                end > whole.find("a=rtpmap:106").unwrap(),
                "{end}: {offer:?}"
            );
        }
    }
    for (line, put) in [
        ("a=ice-ufrag:32c4ee0e\r\n", ""),
        ("a=ice-pwd:22e246d3c35ddeada01945c93835909c\r\n", ""),
        ("a=fingerprint:sha-256", "a=nothing:sha-256"),
        ("a=mid:1", "a=mid:0"),
        ("a=group:BUNDLE 0 1", "a=group:BUNDLE 0 1 2"),
        ("a=rtpmap:106 H264/90000\r\n", ""),
        ("SAVPF 106 105", "SAVPF 106 128"),
        ("SAVPF 106 105", "SAVPF 106 x"),
        ("s=FFmpegPublishSession", "nonsense"),
        ("a=msid:FFmpeg video", "a=msid:a\rb"),
    ] {
        let text = whole.replace(line, put);
        assert_ne!(text, whole);
        assert_eq!(refused(&text).status(), 400, "{put:?} for {line:?}");
    }
    let long = whole.replace("32c4ee0e", &"a".repeat(10_000));
    assert_eq!(refused(&long).status(), 400, "a user fragment of 10 kB");
    let secret = whole
        .replace("a=mid:1", "a=mid:0")
        .replace("FFmpeg", "secret");
    assert!(
        !refused(&secret).to_string().contains("secret"),
        "the offer is not echoed"
    );
}

/// Media spec 8, row 7.
#[test]
fn offers_that_cannot_be_served_are_refused_with_a_reason() {
    let whole = ffmpeg();
    let video = &whole[whole.find("m=video").unwrap()..];
    let second = format!("{whole}{}", video.replace("a=mid:1", "a=mid:2"))
        .replace("BUNDLE 0 1", "BUNDLE 0 1 2");
    let audio_only = whole[..whole.find("m=video").unwrap()].replace("BUNDLE 0 1", "BUNDLE 0");
    for (text, reason) in [
        (audio_only.as_str(), "no H.264 video"),
        (&whole.replace("H264/", "VP8/"), "no H.264 video"),
        (&whole.replace("H264/", "H265/"), "no H.264 video"),
        (&whole.replace("m=video 9", "m=video 0"), "no H.264 video"),
        (&second, "more than one video or audio section"),
        (
            &whole.replace("a=sendonly", "a=recvonly"),
            "a section that does not send",
        ),
        (
            &whole.replace("a=sendonly", "a=inactive"),
            "a section that does not send",
        ),
        (
            &whole.replace("opus/48000/2", "PCMU/8000"),
            "audio without Opus; with ?audio=drop it is left out",
        ),
        (
            &whole.replace("a=group:BUNDLE 0 1\r\n", ""),
            "a section outside a=group:BUNDLE",
        ),
        (
            &whole.replace("BUNDLE 0 1", "BUNDLE 0"),
            "a section outside a=group:BUNDLE",
        ),
        (
            &whole.replace("a=rtcp-mux\r\n", ""),
            "a section without a=rtcp-mux",
        ),
        (
            &whole.replace("sha-256 75", "sha-1 75"),
            "no sha-256 fingerprint",
        ),
        (
            &whole.replace("passive", "holdconn"),
            "a=setup has to be actpass, active or passive",
        ),
        (
            &whole.replace("a=setup:passive\r\n", ""),
            "a=setup has to be actpass, active or passive",
        ),
        (
            &whole.replace("t=0 0\r\n", "t=0 0\r\na=ice-lite\r\n"),
            "both sides are ICE-lite",
        ),
    ] {
        assert_eq!(refused(text), Fault::Unsupported(reason), "{text}");
    }
    assert_eq!(
        refused(whole.split("m=video").next().unwrap()).status(),
        400,
        "BUNDLE names an absent section"
    );
    assert_eq!(
        sdp::read(whole.as_bytes(), Role::Whep)
            .unwrap_err()
            .to_string(),
        "cannot take this offer: no H.264 video and no Opus audio to be received"
    );
}

#[test]
fn oddities_that_hurt_nobody_are_accepted() {
    let whole = ffmpeg();
    for text in [
        whole.replace("\r\n", "\n"),
        whole.replace("a=sendonly", "a=sendrecv"),
        whole.replace("a=sendonly\r\n", ""),
        whole
            .replace("a=msid:FFmpeg video\r\n", "")
            .replace("a=rtcp-rsize\r\n", ""),
        whole.replace("m=video 9", "m=video -1"),
        whole
            .replace("m=video 9", "m=video 0")
            .replace("a=mid:1", "a=mid:1\r\na=bundle-only"),
        whole.replace("passive", "active"),
        whole.replace(
            "t=0 0\r\n",
            "t=0 0\r\na=unheard-of:attribute\r\nb=AS:1000\r\n",
        ),
    ] {
        assert!(sdp::read(text.as_bytes(), WHIP).is_ok(), "{text}");
    }
    let pcmu = whole.replace("opus/48000/2", "PCMU/8000");
    let dropped = sdp::read(pcmu.as_bytes(), Role::Whip { drop_audio: true }).unwrap();
    assert!(dropped.section(Kind::Audio).is_none());
    let answer = answer(&dropped);
    assert!(
        answer.contains("m=audio 0 UDP/TLS/RTP/SAVPF 111\r\n"),
        "{answer}"
    );
    assert!(answer.contains("a=group:BUNDLE 1\r\n"));
    assert_eq!(
        lines(&answer, "video", "a=candidate:").len(),
        2,
        "with the first section that is taken"
    );
}

#[test]
fn a_data_channel_is_rejected_and_the_media_beside_it_is_taken() {
    let data =
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:2\r\na=sctp-port:5000\r\n";
    let whole = format!("{}{data}", ffmpeg()).replace("BUNDLE 0 1", "BUNDLE 0 1 2");
    let answer = answer(&sdp::read(whole.as_bytes(), WHIP).unwrap());
    assert!(
        answer.contains("m=application 0 UDP/DTLS/SCTP webrtc-datachannel\r\n"),
        "{answer}"
    );
    assert!(answer.contains("a=group:BUNDLE 0 1\r\n"));
}

/// Media spec 8, rows 2 to 5.
#[test]
fn endless_offers_are_refused_and_the_engine_sees_little_of_any() {
    let whole = ffmpeg();
    let candidates = "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n";
    let sections = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n";
    for (text, status) in [
        (format!("{whole}{}", candidates.repeat(100_000)), 413),
        (format!("{whole}a={}\r\n", "x".repeat(1 << 20)), 413),
        (format!("{whole}{}", "a=x\r\n".repeat(16_000)), 413),
        (
            format!("v=0\r\no=-\r\nt=0 0\r\n{}", sections.repeat(900)),
            422,
        ),
        (
            format!("{whole}{}", "a=ssrc:1 cname:x\r\n".repeat(10_000)),
            413,
        ),
        (format!("{whole}{}", "a=rid:x send\r\n".repeat(3_000)), 413),
        (
            format!("{whole}m=text 9 UDP/TLS/RTP/SAVPF{}\r\n", " 5".repeat(65)),
            422,
        ),
    ] {
        assert_eq!(refused(&text).status(), status, "{} bytes", text.len());
    }
    let engine = format!("{whole}{}", candidates.repeat(900));
    let engine = sdp::read(engine.as_bytes(), WHIP).unwrap().for_engine();
    assert!(
        !engine.contains("candidate") && engine.len() < 2_000,
        "{engine}"
    );
    let simulcast = sdp::read(OFFERS[5].0.as_bytes(), WHIP)
        .unwrap()
        .for_engine();
    assert!(
        !simulcast.contains("rid") && !simulcast.contains("simulcast"),
        "{simulcast}"
    );
}
