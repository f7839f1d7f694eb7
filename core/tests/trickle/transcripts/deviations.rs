//! Where a transcript's advice is followed rather than the transcript.

/// How we differ, where the advice says so.
#[derive(Clone)]
pub(super) enum Deviation {
    /// Another status, without looking at the rest.
    Status(u16),
    /// These header values and this body instead.
    Instead(&'static [(&'static str, &'static str)], &'static str),
    /// The step says something that does not happen.
    Skip,
}

/// Deviations by transcript and step, counted from zero; each with the decision it follows from.
pub(super) fn deviation(name: &str, step: usize) -> Option<Deviation> {
    use Deviation::{Instead, Skip, Status};
    Some(match (name, step) {
        // D23: the create hook also meets segment POSTs, so there is no channel afterwards.
        ("hook-refusal", 3) => Status(403),
        ("hook-refusal", 4) => Status(404),
        // D3, D4: the head stays at 4.
        ("duplicate-closed", 8) => Instead(
            &[
                ("Content-Type", "text/plain"),
                ("Lp-Trickle-Latest", "4"),
                ("Lp-Trickle-Seq", "1"),
            ],
            "s1",
        ),
        ("duplicate-closed", 9) => Instead(&[("Lp-Trickle-Latest", "4")], "4"),
        ("duplicate-closed", 10 | 11) => Instead(
            &[
                ("Content-Type", "text/plain"),
                ("Lp-Trickle-Latest", "4"),
                ("Lp-Trickle-Seq", "3"),
            ],
            "s3",
        ),
        // D26: bytes after the close are dropped, and told so.
        ("duplicate-open", 16) | ("delete-seq-mid-body", 10) => {
            Instead(&[("Lp-Trickle-Seq", "0"), ("Connection", "close")], "")
        }
        ("duplicate-open", 17) => Instead(
            &[
                ("Content-Type", "text/plain"),
                ("Lp-Trickle-Latest", "1"),
                ("Lp-Trickle-Seq", "0"),
            ],
            "AAABBBCCC",
        ),
        ("delete-seq-mid-body", 11) => Instead(
            &[
                ("Content-Type", "text/plain"),
                ("Lp-Trickle-Latest", "1"),
                ("Lp-Trickle-Seq", "0"),
            ],
            "AAA",
        ),
        // D5: a reset below the head is a restart: the old segments are forgotten and the POST waits for its bytes.
        ("restart-at-zero", 5 | 9) => Skip,
        // The head follows at the first byte.
        ("restart-at-zero", 6) => Instead(&[("Lp-Trickle-Latest", "3")], "3"),
        // Nothing of the old run is readable: this waits for the new one's bytes.
        ("restart-at-zero", 7 | 10 | 11) => Skip,
        ("restart-at-zero", 12) => Instead(&[("Lp-Trickle-Latest", "3")], "3"),
        // D8: bytes are activity. The transcript's last pause is longer than the idle time, so its sweep stands.
        // D2: negative indexes are refused.
        ("bad-index", 9..=12) => Status(400),
        // D1.
        ("negative-delete-wedge", 2) => Status(400),
        ("negative-delete-wedge", 3) => Instead(
            &[
                ("Content-Type", "text/plain"),
                ("Lp-Trickle-Latest", "1"),
                ("Lp-Trickle-Seq", "0"),
            ],
            "s0",
        ),
        ("negative-delete-wedge", 4) => Instead(&[("Lp-Trickle-Latest", "1")], "1"),
        // D6, D25: the orphan's readers are ended with it; checked by its own test below.
        ("orphan-stranded", 15 | 17) => Skip,
        _ => return None,
    })
}
