// Drives OpenAI's own JavaScript client against a gateway: every route, streaming and not.
//
//     node openai_sdk.mjs URL
import assert from "node:assert/strict";
import OpenAI, { toFile } from "openai";
import { tone } from "./media.mjs";

const client = new OpenAI({
  baseURL: `${process.argv[2].replace(/\/$/, "")}/v1`,
  apiKey: "none",
  maxRetries: 0,
  timeout: 60_000,
});

const listed = [];
for await (const model of client.models.list()) listed.push(model);
assert.ok(listed.length > 0, "no model is listed");
for (const { id } of listed) assert.equal((await client.models.retrieve(id)).id, id);

const of = (pipeline) => {
  const model = listed.find((one) => one.pipelines?.includes(pipeline));
  assert.ok(model, `no model of ${pipeline}`);
  return model.id;
};

const messages = [{ role: "user", content: "say something about lakes" }];
const model = of("llm");
const answer = await client.chat.completions.create({ model, messages, max_tokens: 64 });
assert.ok(answer.choices[0].message.content);
assert.equal(answer.choices[0].finish_reason, "stop");

const pieces = [];
let last;
for await (const chunk of await client.chat.completions.create({
  model,
  messages,
  max_tokens: 64,
  stream: true,
  stream_options: { include_usage: true },
})) {
  last = chunk;
  pieces.push(...chunk.choices.map((choice) => choice.delta.content ?? ""));
}
assert.ok(pieces.length > 2 && pieces.join(""), "tokens come one by one");
assert.ok(last.usage.total_tokens > 0, "the last chunk has the usage");
const whole = await client.chat.completions.stream({ model, messages }).finalChatCompletion();
assert.ok(whole.choices[0].message.content);

const drawing = { model: of("text-to-image"), prompt: "a lake", size: "256x256" };
const drawn = await client.images.generate({ ...drawing, n: 2 });
assert.equal(drawn.data.length, 2);
assert.ok(drawn.data.every((one) => one.url));
const inline = await client.images.generate({ ...drawing, response_format: "b64_json" });
assert.ok(inline.data[0].b64_json.startsWith("iVBOR"), "a PNG");

const file = await toFile(tone(), "tone.wav");
const heard = await client.audio.transcriptions.create({ model: of("audio-to-text"), file });
assert.ok(heard.text);
const said = await client.audio.speech.create({
  model: of("text-to-speech"),
  voice: "alloy",
  input: "good morning",
  response_format: "wav",
});
assert.equal(Buffer.from(await said.arrayBuffer()).toString("latin1", 0, 4), "RIFF");

await assert.rejects(client.chat.completions.create({ model: "no/such", messages }), OpenAI.NotFoundError);
await assert.rejects(client.models.retrieve("no/such"), OpenAI.NotFoundError);
await assert.rejects(client.images.generate({ model: "no/such", prompt: "" }), OpenAI.BadRequestError);
await assert.rejects(client.fineTuning.jobs.list(), OpenAI.NotFoundError);
console.log("openai ok");
