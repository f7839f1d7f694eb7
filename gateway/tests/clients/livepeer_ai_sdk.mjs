// Drives Livepeer's own JavaScript client against a gateway: its nine batch pipelines.
//
//     node livepeer_ai_sdk.mjs URL
import assert from "node:assert/strict";
import { Livepeer } from "@livepeer/ai";
import { picture, tone } from "./media.mjs";

const base = process.argv[2].replace(/\/$/, "");
const { generate } = new Livepeer({ httpBearer: "none", serverURL: base, timeoutMs: 60_000 });
const image = () => ({ fileName: "grey.png", content: picture() });

/** The bytes of a result, whose address may be relative to the gateway's. */
async function fetched(url) {
  const answer = await fetch(new URL(url, `${base}/`));
  assert.equal(answer.status, 200, url);
  return Buffer.from(await answer.arrayBuffer());
}
const isPng = (bytes) => bytes.toString("latin1", 1, 4) === "PNG";

const drawn = await generate.textToImage({ prompt: "a lake", width: 256, height: 256, numImagesPerPrompt: 2 });
assert.equal(drawn.imageResponse.images.length, 2);
for (const { url } of drawn.imageResponse.images) assert.ok(isPng(await fetched(url)));

const changed = await generate.imageToImage({ prompt: "a lake", image: image() });
assert.ok(isPng(await fetched(changed.imageResponse.images[0].url)));

const moving = await generate.imageToVideo({ image: image() });
assert.ok((await fetched(moving.videoResponse.images[0].url)).length > 0);

const larger = await generate.upscale({ prompt: "a lake", image: image() });
assert.ok(isPng(await fetched(larger.imageResponse.images[0].url)));

const heard = await generate.audioToText({ audio: { fileName: "tone.wav", content: tone() } });
assert.ok(heard.textResponse.text && heard.textResponse.chunks);

const cut = await generate.segmentAnything2({ image: image(), pointCoords: "[[8,8]]", pointLabels: "[1]" });
assert.ok(cut.masksResponse.masks && cut.masksResponse.scores);

const said = await generate.llm({ messages: [{ role: "user", content: "a lake" }] });
assert.ok(said.llmResponse.choices[0].message.content);

const seen = await generate.imageToText({ image: image() });
assert.ok(seen.imageToTextResponse.text);

const spoken = await generate.textToSpeech({ text: "good morning" });
assert.ok((await fetched(spoken.audioResponse.audio.url)).length > 0);

console.log("@livepeer/ai ok");
