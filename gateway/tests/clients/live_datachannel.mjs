// Sends a file's pictures and sound by WHIP with libdatachannel, the stack of OBS.
//
//     node live_datachannel.mjs URL PICTURES SOUND
//
// PICTURES is H.264 at 30 a second with a delimiter before each, SOUND packets of Opus of 160 bytes and 20 ms.
import fs from "node:fs";
import datachannel from "node-datachannel";

const { PeerConnection, Video, Audio, RtpPacketizationConfig } = datachannel;
const [url, pictures, sound] = process.argv.slice(2);
const wait = (ms) => new Promise((done) => setTimeout(done, ms));

/** The access units of a stream: each begins with its delimiter. */
function units(bytes) {
  const starts = [];
  const mark = Buffer.from([0, 0, 0, 1, 9]);
  for (let at = bytes.indexOf(mark); at >= 0; at = bytes.indexOf(mark, at + 1)) starts.push(at);
  return starts.map((at, n) => bytes.subarray(at, starts[n + 1] ?? bytes.length));
}

/** Packets of one size. */
function packets(bytes, size) {
  return Array.from({ length: Math.floor(bytes.length / size) }, (_, n) => bytes.subarray(n * size, (n + 1) * size));
}

const peer = new PeerConnection("sender", { iceServers: [] });
function track(description, ssrc, packetizer, config) {
  description.addSSRC(ssrc, "cam", "stream", description.mid());
  const made = peer.addTrack(description);
  const chain = packetizer(config);
  chain.addToChain(new datachannel.RtcpSrReporter(config));
  chain.addToChain(new datachannel.RtcpNackResponder());
  made.setMediaHandler(chain);
  return made;
}
const video = new Video("0", "SendOnly");
video.addH264Codec(96, "profile-level-id=42e01f;packetization-mode=1;level-asymmetry-allowed=1");
const audio = new Audio("1", "SendOnly");
audio.addOpusCodec(111, "minptime=10;useinbandfec=1");
const clocks = [new RtpPacketizationConfig(42, "cam", 96, 90_000), new RtpPacketizationConfig(43, "cam", 111, 48_000)];
const tracks = [
  track(video, 42, (config) => new datachannel.H264RtpPacketizer("StartSequence", config, 1200), clocks[0]),
  track(audio, 43, (config) => new datachannel.RtpPacketizer(config), clocks[1]),
];
const open = tracks.map((one) => new Promise((done) => one.onOpen(done)));
const gathered = new Promise((done) => peer.onGatheringStateChange((state) => state === "complete" && done()));
peer.setLocalDescription();
await gathered;
const headers = { "content-type": "application/sdp" };
const answer = await fetch(url, { method: "POST", headers, body: peer.localDescription().sdp });
const text = await answer.text();
if (answer.status !== 201) throw new Error(`${answer.status} ${text}`);
peer.setRemoteDescription(text, "answer");
await Promise.all(open);

const queues = [units(fs.readFileSync(pictures)), packets(fs.readFileSync(sound), 160)];
const [every, rates] = [[1000 / 30, 20], [90, 48]];
const [firsts, sent] = [clocks.map((clock) => clock.timestamp), [0, 0]];
const began = performance.now();
while (sent[0] < queues[0].length || sent[1] < queues[1].length) {
  for (const kind of [0, 1]) {
    while (sent[kind] < queues[kind].length && began + sent[kind] * every[kind] <= performance.now()) {
      clocks[kind].timestamp = (firsts[kind] + Math.round(sent[kind] * every[kind] * rates[kind])) % 2 ** 32;
      tracks[kind].sendMessageBinary(queues[kind][sent[kind]]);
      sent[kind] += 1;
    }
  }
  await wait(2);
}
// What is sent leaves.
await wait(500);
const left = await fetch(new URL(answer.headers.get("location"), url), { method: "DELETE" });
peer.close();
console.log(JSON.stringify({ sent: sent[0], delete: left.status }));
datachannel.cleanup();
process.exit(0);
