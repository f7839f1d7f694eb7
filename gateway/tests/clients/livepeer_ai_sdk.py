"""Drives Livepeer's own Python client against a gateway: its nine batch pipelines.

    python livepeer_ai_sdk.py URL
"""

import struct
import sys
import urllib.parse
import urllib.request
import zlib

from livepeer_ai import Livepeer

BASE = sys.argv[1].rstrip("/")


def tone():
    """A quarter of a second of sound, as a WAV file."""
    samples = bytes(range(0, 256, 2)) * 62
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 16_000, 32_000, 2, 16)
    body = b"WAVE" + form + struct.pack("<4sI", b"data", len(samples)) + samples
    return {"file_name": "tone.wav", "content": struct.pack("<4sI", b"RIFF", len(body)) + body}


def picture():
    """A grey picture of 64 by 64 pixels, as a PNG file."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 0)
    lines = zlib.compress((b"\0" + b"\x80" * 64) * 64)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")
    return {"file_name": "grey.png", "content": content}


def fetched(url):
    """The bytes of a result, whose address may be relative to the gateway's."""
    with urllib.request.urlopen(urllib.parse.urljoin(BASE + "/", url), timeout=30) as answer:
        return answer.read()


with Livepeer(http_bearer="none", server_url=BASE, timeout_ms=60_000) as livepeer:
    generate = livepeer.generate

    drawn = generate.text_to_image(
        request={"prompt": "a lake", "width": 256, "height": 256, "num_images_per_prompt": 2}
    )
    images = drawn.image_response.images
    assert len(images) == 2, images
    assert all(fetched(image.url)[1:4] == b"PNG" for image in images)

    changed = generate.image_to_image(request={"prompt": "a lake", "image": picture()})
    assert fetched(changed.image_response.images[0].url)[1:4] == b"PNG"

    moving = generate.image_to_video(request={"image": picture()})
    assert fetched(moving.video_response.images[0].url)

    larger = generate.upscale(request={"prompt": "a lake", "image": picture()})
    assert fetched(larger.image_response.images[0].url)[1:4] == b"PNG"

    heard = generate.audio_to_text(request={"audio": tone()})
    assert heard.text_response.text and heard.text_response.chunks is not None

    cut = generate.segment_anything2(request={"image": picture(), "point_coords": "[[8,8]]", "point_labels": "[1]"})
    assert cut.masks_response.masks and cut.masks_response.scores

    said = generate.llm(request={"messages": [{"role": "user", "content": "a lake"}]})
    assert said.llm_response.choices[0].message.content

    seen = generate.image_to_text(request={"image": picture()})
    assert seen.image_to_text_response.text

    spoken = generate.text_to_speech(request={"text": "good morning"})
    assert fetched(spoken.audio_response.audio.url)

print("livepeer-ai ok")
