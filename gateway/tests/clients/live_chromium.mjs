// Sends marked pictures and tones by WHIP, or watches a stream by WHEP, in a page of headless Chromium.
//
//     node live_chromium.mjs CHROMIUM send URL SECONDS
//     node live_chromium.mjs CHROMIUM watch URL
import playwright from "playwright-core";

const [program, what, url, seconds] = process.argv.slice(2);

/** The page's side. */
function page() {
  const CELLS = 16, WIDE = 320, HIGH = 240, RATE = 30, PATIENCE = 60_000, REST = 5_000;
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
  const stats = async (peer, type, kind) =>
    [...(await peer.getStats()).values()].find((one) => one.type === type && one.kind === kind) ?? {};

  async function post(peer, url) {
    await peer.setLocalDescription(await peer.createOffer());
    const until = performance.now() + PATIENCE;
    for (;;) {
      const headers = { "content-type": "application/sdp" };
      const answer = await fetch(url, { method: "POST", headers, body: peer.localDescription.sdp });
      const text = await answer.text();
      if (answer.status === 201) {
        await peer.setRemoteDescription({ type: "answer", sdp: text });
        return new URL(answer.headers.get("location"), url).href;
      }
      if (answer.status !== 404 || performance.now() > until) throw new Error(`${answer.status} ${text}`);
      await wait(50);
    }
  }

  function paint(brush, n) {
    const value = n | (((n + (n >> 4) + (n >> 8) + 5) % 16) << 12);
    brush.fillStyle = n % RATE < 3 ? "#fff" : `hsl(${n % 360} 60% 30%)`;
    brush.fillRect(0, 0, WIDE, HIGH);
    for (let cell = 0; cell < CELLS; cell += 1) {
      brush.fillStyle = (value >> cell) & 1 ? "#fff" : "#000";
      brush.fillRect((cell * WIDE) / CELLS, 0, WIDE / CELLS, HIGH / 2);
    }
  }

  async function send(url, seconds) {
    const canvas = Object.assign(document.createElement("canvas"), { width: WIDE, height: HIGH });
    const brush = canvas.getContext("2d");
    const stream = canvas.captureStream(0);
    const [picture] = stream.getVideoTracks();
    picture.contentHint = "motion";
    const sound = new AudioContext({ sampleRate: 48_000 });
    await sound.resume();
    const [tone, gate, out] = [sound.createOscillator(), sound.createGain(), sound.createMediaStreamDestination()];
    tone.frequency.value = 1000;
    gate.gain.value = 0;
    tone.connect(gate).connect(out);
    tone.start();
    const peer = new RTCPeerConnection();
    peer.addTransceiver(picture, { direction: "sendonly", streams: [stream] });
    peer.addTransceiver(out.stream.getAudioTracks()[0], { direction: "sendonly", streams: [stream] });
    const place = await post(peer, url);
    while (peer.connectionState !== "connected") await wait(5);
    let drawn = 0;
    const began = performance.now();
    while (drawn < seconds * RATE) {
      if (performance.now() >= began + (drawn * 1000) / RATE) {
        paint(brush, drawn);
        picture.requestFrame();
        if (drawn % RATE === 0) {
          gate.gain.setValueAtTime(0.5, sound.currentTime);
          gate.gain.setValueAtTime(0, sound.currentTime + 0.1);
        }
        drawn += 1;
      }
      await wait(1);
    }
    await wait(500);
    const sent = await stats(peer, "outbound-rtp", "video");
    const left = await fetch(place, { method: "DELETE" });
    peer.close();
    return { sent: sent.framesSent, drawn, encoded: sent.framesEncoded, delete: left.status };
  }

  /** The number of a picture, or nothing. */
  function number(brush, frame) {
    brush.drawImage(frame, 0, 0, WIDE, HIGH);
    const row = brush.getImageData(0, HIGH / 4, WIDE, 1).data;
    let value = 0;
    for (let cell = 0; cell < CELLS; cell += 1) {
      const at = 4 * Math.floor(((cell + 0.5) * WIDE) / CELLS);
      value |= (row[at] + row[at + 1] + row[at + 2] > 384 ? 1 : 0) << cell;
    }
    const n = value & 0xfff;
    return value >> 12 === (n + (n >> 4) + (n >> 8) + 5) % 16 ? n : null;
  }

  async function watch(url) {
    const canvas = Object.assign(document.createElement("canvas"), { width: WIDE, height: HIGH });
    const brush = canvas.getContext("2d", { willReadFrequently: true });
    const [pictures, apart] = [[], []];
    let [latest, unreadable] = [null, 0];
    const peer = new RTCPeerConnection();
    const all = new MediaStream();
    const video = Object.assign(document.createElement("video"), { autoplay: true, srcObject: all });
    document.body.append(video);
    peer.ontrack = async ({ track }) => {
      all.addTrack(track);
      if (track.kind !== "video") return;
      const reader = new MediaStreamTrackProcessor({ track, maxBufferSize: 1000 }).readable.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        latest = performance.now();
        const n = number(brush, value);
        if (n === null) unreadable += 1;
        else pictures.push([n, value.timestamp / 1000]);
        value.close();
      }
    };
    peer.addTransceiver("video", { direction: "recvonly" });
    peer.addTransceiver("audio", { direction: "recvonly" });
    const asked = performance.now();
    const place = await post(peer, url);
    const posted = performance.now();
    let until = posted + PATIENCE;
    let first = null;
    let [decoded, dropped, lost] = [0, 0, 0];
    let buffers = [null, null];
    const buffer = (of) => Math.round((1000 * of.jitterBufferDelay) / of.jitterBufferEmittedCount);
    while (performance.now() < until && !["closed", "failed"].includes(peer.connectionState)) {
      const [seen, heard] = [await stats(peer, "inbound-rtp", "video"), await stats(peer, "inbound-rtp", "audio")];
      [decoded, dropped, lost] = [seen.framesDecoded ?? decoded, seen.framesDropped ?? dropped, seen.packetsLost ?? lost];
      if (seen.jitterBufferEmittedCount) buffers = [buffer(seen), heard.jitterBufferEmittedCount ? buffer(heard) : null];
      if (seen.estimatedPlayoutTimestamp && heard.estimatedPlayoutTimestamp && heard.totalAudioEnergy > 0) {
        apart.push(heard.estimatedPlayoutTimestamp - seen.estimatedPlayoutTimestamp);
      }
      if (latest !== null) {
        first ??= latest - posted;
        until = latest + REST;
      }
      await wait(100);
    }
    await fetch(place, { method: "DELETE" });
    peer.close();
    const numbers = pictures.map(([n]) => n);
    const steps = pictures.slice(1).map(([, at], n) => at - pictures[n][1]);
    const missing = [];
    for (let n = numbers[0]; n < numbers.at(-1); n += 1) if (!numbers.includes(n)) missing.push(n);
    apart.sort((a, b) => a - b);
    const middle = apart[Math.floor(apart.length / 2)];
    return {
      decoded, dropped, lost, read: pictures.length, unreadable, missing,
      first: numbers[0] ?? null, last: numbers.at(-1) ?? null, again: numbers.length - new Set(numbers).size,
      step_min_ms: Math.round(Math.min(...steps)), step_max_ms: Math.round(Math.max(...steps)),
      tones: apart.length, apart_ms: middle === undefined ? null : Math.round(middle),
      first_picture_ms: first === null ? null : Math.round(first), waited_ms: Math.round(posted - asked),
      picture_buffer_ms: buffers[0], sound_buffer_ms: buffers[1],
    };
  }
  Object.assign(window, { send, watch });
}

const browser = await playwright.chromium.launch({
  executablePath: program,
  args: [
    "--no-sandbox", "--autoplay-policy=no-user-gesture-required", "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding", "--disable-features=WebRtcHideLocalIpsWithMdns",
  ],
});
try {
  const tab = await browser.newPage();
  // The gateway's own page: what is asked for is of its origin.
  await tab.goto(new URL("/watch/none", url).href);
  await tab.evaluate(page);
  console.log("ready");
  const told = await tab.evaluate(([what, ...rest]) => window[what](...rest), [what, url, Number(seconds)]);
  console.log(JSON.stringify(told));
} finally {
  await browser.close();
}
