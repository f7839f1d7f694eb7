"""Drives OpenAI's own Python client against a gateway: every route, streaming and not.

    python openai_sdk.py URL
"""

import io
import sys
import wave

import openai

BASE = sys.argv[1].rstrip("/")
client = openai.OpenAI(base_url=f"{BASE}/v1", api_key="none", max_retries=0, timeout=60)


def tone():
    """A quarter of a second of sound, as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        sound.writeframes(bytes(range(0, 256, 2)) * 62)
    return ("tone.wav", file.getvalue())


def models():
    listed = {model.id: model.to_dict() for model in client.models.list()}
    assert listed, "no model is listed"
    for name, model in listed.items():
        assert client.models.retrieve(name).id == name
        assert model["object"] == "model", model
    return listed


def of(listed, pipeline):
    """A model of a pipeline."""
    for name, model in listed.items():
        if pipeline in model.get("pipelines", []):
            return name
    raise SystemExit(f"no model of {pipeline} among {list(listed)}")


def chat(model):
    messages = [{"role": "user", "content": "say something about lakes"}]
    answer = client.chat.completions.create(model=model, messages=messages, max_tokens=64)
    assert answer.object == "chat.completion" and answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop", answer
    pieces, last = [], None
    usage = {"include_usage": True}
    for chunk in client.chat.completions.create(
        model=model, messages=messages, max_tokens=64, stream=True, stream_options=usage
    ):
        last = chunk
        pieces += [choice.delta.content or "" for choice in chunk.choices]
    assert "".join(pieces) and len(pieces) > 2, "tokens come one by one"
    assert last.usage and last.usage.total_tokens > 0, "the last chunk has the usage"
    with client.chat.completions.stream(model=model, messages=messages) as stream:
        for _ in stream:
            pass
        assert stream.get_final_completion().choices[0].message.content
    raw = client.chat.completions.with_raw_response.create(model=model, messages=messages)
    assert raw.headers["livepeer-orchestrator"], raw.headers


def images(model):
    drawn = client.images.generate(model=model, prompt="a lake", n=2, size="256x256")
    assert len(drawn.data) == 2 and all(one.url for one in drawn.data)
    drawn = client.images.generate(
        model=model, prompt="a lake", size="256x256", response_format="b64_json"
    )
    assert drawn.data[0].b64_json.startswith("iVBOR"), "a PNG"


def audio(model, voice):
    heard = client.audio.transcriptions.create(model=model, file=tone())
    assert heard.text
    told = client.audio.transcriptions.create(model=model, file=tone(), response_format="text")
    assert str(told).strip()
    more = client.audio.transcriptions.create(
        model=model, file=tone(), response_format="verbose_json"
    )
    assert more.text and more.duration is not None
    said = client.audio.speech.create(
        model=voice, voice="alloy", input="good morning", response_format="wav"
    )
    assert said.read()[:4] == b"RIFF"
    with client.audio.speech.with_streaming_response.create(
        model=voice, voice="alloy", input="good morning", response_format="wav"
    ) as stream:
        assert b"".join(stream.iter_bytes())[:4] == b"RIFF"


def backends(listed):
    """Models that containers and apps serve, if any are configured."""
    served = [name for name, model in listed.items() if "surfaces" in model]
    for name in served:
        surfaces = listed[name]["surfaces"]
        if "chat" in surfaces:
            messages = [{"role": "user", "content": "say something about lakes"}]
            answer = client.chat.completions.create(model=name, messages=messages)
            assert answer.choices[0].message.content == messages[0]["content"], answer
            stream = client.chat.completions.create(model=name, messages=messages, stream=True)
            pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
            assert "".join(pieces) == messages[0]["content"] and len(pieces) > 3, pieces
        if "embeddings" in surfaces:
            texts = ["a lake", "a hill", "a lake"]
            # The client asks for base64, and the program answers numbers.
            vectors = client.embeddings.create(model=name, input=texts).data
            plain = client.embeddings.create(model=name, input=texts, encoding_format="float").data
            assert [one.embedding for one in vectors] == [one.embedding for one in plain]
            assert vectors[0].embedding == vectors[2].embedding != vectors[1].embedding
            try:
                client.embeddings.create(model=of(listed, "llm"), input="x")
            except openai.BadRequestError as refused:
                assert refused.code == "model_not_supported", refused
            else:
                raise SystemExit("it should have been refused")
    return len(served)


def refusals():
    messages = [{"role": "user", "content": "hello"}]
    for call, error in (
        (lambda: client.chat.completions.create(model="no/such", messages=messages), openai.NotFoundError),
        (lambda: client.models.retrieve("no/such"), openai.NotFoundError),
        (lambda: client.images.generate(model="no/such", prompt=""), openai.BadRequestError),
        (lambda: client.fine_tuning.jobs.list(), openai.NotFoundError),
    ):
        try:
            call()
        except error as refused:
            assert refused.message, refused
        else:
            raise SystemExit("it should have been refused")


listed = models()
chat(of(listed, "llm"))
images(of(listed, "text-to-image"))
audio(of(listed, "audio-to-text"), of(listed, "text-to-speech"))
served = backends(listed)
refusals()
print("openai", openai.__version__, "ok, with", served, "backends")
