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

  /**
   * Hands what comes of a track on. The page reads it late where it is busy: the time when anything was played is its own stamp
   * and what the page was late with at least.
   */
  function reading(track, take) {
    let late = Infinity;
    const read = async () => {
      const reader = new MediaStreamTrackProcessor({ track, maxBufferSize: 1000 }).readable.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        late = Math.min(late, performance.now() - value.timestamp / 1000);
        take(value, value.timestamp / 1000);
        value.close();
      }
    };
    read();
    return (stamp) => stamp + late;
  }

  /** Takes sound, and tells the stamps with which tones begin. */
  function tones(begins) {
    const [LOUD, SILENCE] = [0.12, 300];
    let quiet = null;
    return (sound, stamp) => {
      const samples = new Float32Array(sound.numberOfFrames);
      sound.copyTo(samples, { planeIndex: 0, format: "f32-planar" });
      quiet ??= stamp;
      samples.forEach((sample, at) => {
        if (Math.abs(sample) < LOUD) return;
        const heard = stamp + (1000 * at) / sound.sampleRate;
        if (heard - quiet > SILENCE) begins(heard);
        quiet = heard;
      });
    };
  }

  const median = (values) => {
    const sorted = values.toSorted((one, other) => one - other);
    return sorted.length ? Math.round(sorted[Math.floor(sorted.length / 2)]) : null;
  };

  /**
   * How far apart tones and the pictures that they belong to are in the sender's time. What is played at a moment is of a time
   * that the browser works out from the stamps and the sender reports of the track: in step are those whose times agree, however
   * long either waits in its buffer.
   */
  function inStep(flashes, heard, playing) {
    const time = (kind, now) => {
      const known = playing.map((one) => one[kind]).filter((one) => one !== null);
      if (!known.length) return null;
      const near = known.reduce((best, one) => (Math.abs(one.at - now) < Math.abs(best.at - now) ? one : best));
      return Math.abs(near.at - now) < 1000 ? near.of + now - near.at : null;
    };
    const times = (kind, all) => all.map((now) => time(kind, now)).filter((time) => time !== null);
    const sounds = times("audio", heard);
    return times("video", flashes).flatMap((seen) => {
      const sound = sounds.find((sound) => Math.abs(sound - seen) < 500);
      return sound === undefined ? [] : [sound - seen];
    });
  }

  async function watch(url) {
    const canvas = Object.assign(document.createElement("canvas"), { width: WIDE, height: HIGH });
    const brush = canvas.getContext("2d", { willReadFrequently: true });
    const [pictures, apart, flashes, heard, playing] = [[], [], [], [], []];
    let [latest, unreadable] = [null, 0];
    const played = {};
    const peer = new RTCPeerConnection();
    const all = new MediaStream();
    const video = Object.assign(document.createElement("video"), { autoplay: true, srcObject: all });
    document.body.append(video);
    peer.ontrack = ({ track }) => {
      all.addTrack(track);
      if (track.kind === "audio") played.audio = reading(track, tones((stamp) => heard.push(stamp)));
      if (track.kind !== "video") return;
      played.video = reading(track, (frame, stamp) => {
        latest = performance.now();
        const n = number(brush, frame);
        if (n === null) unreadable += 1;
        else pictures.push([n, stamp]);
        if (n !== null && n % RATE === 0) flashes.push(stamp);
      });
    };
    peer.addTransceiver("video", { direction: "recvonly" });
    peer.addTransceiver("audio", { direction: "recvonly" });
    const asked = performance.now();
    const place = await post(peer, url);
    const posted = performance.now();
    let until = posted + PATIENCE;
    let first = null;
    let [decoded, dropped, lost] = [0, 0, 0];
    let [buffers, delay] = [[null, null], 0];
    const buffer = (of) => Math.round((1000 * of.jitterBufferDelay) / of.jitterBufferEmittedCount);
    while (performance.now() < until && !["closed", "failed"].includes(peer.connectionState)) {
      const [seen, sound] = [await stats(peer, "inbound-rtp", "video"), await stats(peer, "inbound-rtp", "audio")];
      [decoded, dropped, lost] = [seen.framesDecoded ?? decoded, seen.framesDropped ?? dropped, seen.packetsLost ?? lost];
      if (seen.jitterBufferEmittedCount) buffers = [buffer(seen), sound.jitterBufferEmittedCount ? buffer(sound) : null];
      const now = (of) =>
        of.estimatedPlayoutTimestamp ? { at: of.timestamp - performance.timeOrigin, of: of.estimatedPlayoutTimestamp } : null;
      playing.push({ video: now(seen), audio: now(sound) });
      const device = [...(await peer.getStats()).values()].find((one) => one.type === "media-playout");
      if (device?.totalSamplesCount) delay = (1000 * device.totalPlayoutDelay) / device.totalSamplesCount;
      if (seen.estimatedPlayoutTimestamp && sound.estimatedPlayoutTimestamp && sound.totalAudioEnergy > 0) {
        apart.push(sound.estimatedPlayoutTimestamp - seen.estimatedPlayoutTimestamp);
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
    // The page has sound when the device fetches it, and it is played so much later.
    const inTime = inStep(flashes.map(played.video), heard.map((stamp) => played.audio(stamp) + delay), playing);
    return {
      decoded, dropped, lost, read: pictures.length, unreadable, missing,
      first: numbers[0] ?? null, last: numbers.at(-1) ?? null, again: numbers.length - new Set(numbers).size,
      step_min_ms: Math.round(Math.min(...steps)), step_max_ms: Math.round(Math.max(...steps)),
      flashes: flashes.length, heard: heard.length,
      tones: inTime.length, apart_ms: median(inTime), apart_each_ms: inTime.map(Math.round), played_apart_ms: median(apart),
      first_picture_ms: first === null ? null : Math.round(first), waited_ms: Math.round(posted - asked),
      picture_buffer_ms: buffers[0], sound_buffer_ms: buffers[1], device_ms: Math.round(delay),
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
