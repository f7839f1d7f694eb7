"""Decodes the output of a job with Livepeer's own Python client, as the channel's URL comes in.

    echo URL | python live_output.py
"""

import asyncio
import json
import sys

from livepeer_gateway.media_output import LagPolicy, MediaOutput

from live_marks import Seen


async def main():
    seen = Seen()
    print("ready", flush=True)
    url = (await asyncio.to_thread(sys.stdin.readline)).strip()
    async with MediaOutput(url, on_lag=LagPolicy.FAIL) as output:
        async for decoded in output.frames():
            take = seen.picture if decoded.kind == "video" else seen.sound
            take(decoded.pts_time, decoded.frame)
        errors = output.get_stats().decode_errors
    print(json.dumps({"errors": errors, **seen.report()}))


asyncio.run(main())
