use super::*;
use crate::testing::{self, pes};
use crate::ts;

const OPUS: AudioTrack = AudioTrack::Opus { channels: 2 };

#[test]
fn the_recording_of_a_good_multiplexer_is_written_byte_for_byte() {
    let mut recorded = testing::BOUNDED.to_vec();
    let mut mux = Mux::new(Some(OPUS));
    let mut written = mux.tables().to_vec();
    for (pid, pes) in pes(testing::BOUNDED) {
        let frame = ts::frame_start(&pes).expect("a PES");
        let pts = Ticks(frame.stamps.expect("a time").pts as i64);
        if pid == VIDEO_PID {
            let data = &frame.bitstream[DELIMITER.len()..];
            let key = crate::h264::nals(data).any(|nal| nal[0] & 0x1f == 5);
            if key && written.len() > TABLES {
                written.extend_from_slice(&mux.tables());
            }
            // Between segments the recording has no tables.
            mux.tables_at = None;
            written.extend_from_slice(&mux.video(&AccessUnit {
                pts,
                dts: pts,
                key,
                data: Bytes::copy_from_slice(data),
            }));
        } else {
            let size = usize::from(frame.bitstream[2]);
            written.extend_from_slice(&mux.audio(&Audio {
                pts,
                track: OPUS,
                data: Bytes::copy_from_slice(&frame.bitstream[3..3 + size]),
            }));
        }
    }
    // The recording lacks the indicator of alignment.
    for packet in recorded.chunks_mut(PACKET) {
        let payload = PACKET - ts::payload((&*packet).try_into().expect("a packet")).len();
        if packet[1] & 0x40 != 0 && packet[payload..].starts_with(&[0, 0, 1]) {
            packet[payload + 6] = 0x84;
        }
    }
    for (at, (ours, theirs)) in written
        .chunks(PACKET)
        .zip(recorded.chunks(PACKET))
        .enumerate()
    {
        assert_eq!(ours, theirs, "packet {at}");
    }
    assert_eq!(written.len(), recorded.len());
}
