//! Where a transcript's advice is followed rather than the transcript.

use serde_json::{Value, json};

/// How we differ, where the advice says so.
pub(super) enum Deviation {
    /// Another status, without looking at the rest.
    Status(u16),
    /// Another answer, given here, takes the place of the recorded one.
    Instead(Value),
    /// The step says something that does not happen.
    Skip,
}

/// Deviations by transcript and step, counted from zero; each with the decision it follows from.
pub(super) fn deviation(name: &str, step: usize) -> Option<Deviation> {
    use Deviation::{Skip, Status};
    Some(match (name, step) {
        // D23: the create hook also meets segment POSTs, so there is no channel afterwards.
        ("hook-refusal", 3) => Status(403),
        ("hook-refusal", 4) => Status(404),
        // D3, D4: the head stays at 4.
        ("duplicate-closed", 8) => segment("1", "4", "s1"),
        ("duplicate-closed", 9) => head("4"),
        ("duplicate-closed", 10 | 11) => segment("3", "4", "s3"),
        // D26: bytes after the close are dropped, and told so.
        ("duplicate-open", 16)
        | ("delete-seq-mid-body", 10)
        | ("delete-channel", 14)
        | ("idle-sweep-long-segment", 16) => dropped("0"),
        ("slot-overwrite", 20) => dropped("7"),
        ("duplicate-open", 17) => segment("0", "1", "AAABBBCCC"),
        ("delete-seq-mid-body", 11) => segment("0", "1", "AAA"),
        // D5: a reset below the head is a restart: the old segments are forgotten and the POST waits for its bytes.
        ("restart-at-zero", 5 | 9) => Skip,
        // The head follows at the first byte.
        ("restart-at-zero", 6) => head("3"),
        // Nothing of the old run is readable: this waits for the new one's bytes.
        ("restart-at-zero", 7 | 10 | 11) => Skip,
        ("restart-at-zero", 12) => head("3"),
        // D8: bytes are activity. The transcript's last pause is longer than the idle time, so its sweep stands.
        // D2: negative indexes are refused.
        ("bad-index", 9..=12) => Status(400),
        // D1.
        ("negative-delete-wedge", 2) => Status(400),
        ("negative-delete-wedge", 3) => segment("0", "1", "s0"),
        ("negative-delete-wedge", 4) => head("1"),
        // D6, D25: the orphan's readers are ended with it; checked by a test of its own.
        ("orphan-stranded", 15 | 17) => Skip,
        _ => return None,
    })
}

/// All of a segment of plain text, while the head is `latest`.
fn segment(seq: &str, latest: &str, body: &str) -> Deviation {
    let headers = json!({
        "Content-Type": "text/plain",
        "Lp-Trickle-Latest": latest,
        "Lp-Trickle-Seq": seq,
    });
    Deviation::Instead(json!({"status": 200, "headers": headers, "body": body}))
}

/// Where the head is.
fn head(latest: &str) -> Deviation {
    let headers = json!({
        "Content-Type": "text/plain; charset=utf-8",
        "Lp-Trickle-Latest": latest,
    });
    Deviation::Instead(json!({"status": 200, "headers": headers, "body": latest}))
}

/// The bytes for that segment were not wanted.
fn dropped(seq: &str) -> Deviation {
    let headers = json!({"Lp-Trickle-Seq": seq, "Connection": "close"});
    Deviation::Instead(json!({"status": 200, "headers": headers, "body": ""}))
}
