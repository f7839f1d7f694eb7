"""Livepeer's Python client 1.0.0, unchanged, with the containers and apps of a development network, and as a runner of it.

gateway_sdk.py ORCHESTRATORS SIGNER SECRET [MINUTES], where SIGNER may be `offchain`. A session is held for so many minutes:
the parameters of tickets last for eight.
"""

import asyncio
import sys
import time

from aiohttp import ClientSession, WSMsgType, web
from livepeer_gateway import (
    ByocJobRequest,
    LivepeerGatewayError,
    LivepeerHTTPError,
    call_runner,
    create_proxy,
    create_trickle_channels,
    discover_runners,
    register_runner,
    remove_trickle_channels,
    reserve_session,
    runner_selector,
    stop_runner_session,
    submit_byoc_job,
)

orchestrators = sys.argv[1].split(",")
signer = None if sys.argv[2] == "offchain" else sys.argv[2]
secret = sys.argv[3]
held = float(sys.argv[4]) * 60 if len(sys.argv) > 4 else 7
first = orchestrators[0]
apps = {"devnet/echo", "devnet/live", "devnet/session"}


async def events(url, text, **more):
    stream = await call_runner(url, payload={"text": text}, stream=True, **more)
    lines = [line async for line in stream.aiter_lines() if line]
    await stream.aclose()
    assert len(lines) == len(text.split()) + 1 and lines[-1] == "data: [DONE]", lines


async def socket(url):
    async with ClientSession() as client:
        async with client.ws_connect(url, ssl=False, protocols=("chat",)) as ws:
            assert ws.protocol == "chat", ws.protocol
            await ws.send_str("one two")
            assert await ws.receive_str(timeout=30) == "one two"
            for size in (100, 70_000, 300_000):
                await ws.send_bytes(bytes(size))
                assert await ws.receive_bytes(timeout=30) == bytes(size)
            await ws.close()
            assert ws.close_code == 1000, ws.close_code


def container():
    # With a signer the client wants a quote at port 8935, whatever the port of the orchestrator, and has it signed there.
    if signer and not first.endswith(":8935"):
        return
    job = ByocJobRequest(capability="echo", payload={"text": "one two"}, timeout_seconds=10)
    for tries in range(3):
        try:
            done = submit_byoc_job(job, orch_url=first, signer_url=signer)
            break
        except LivepeerGatewayError:
            # Quotes are stale now and then, and this client asks for no other.
            if not signer or tries == 2:
                raise
    assert (done.status_code, done.data) == (200, {"text": "one two"}), done
    assert not signer or done.balance is not None, done


async def session():
    source = {"signer_url": signer} if signer else {"discovery_url": f"{first}/discovery"}
    found = await discover_runners(**source)
    assert {runner["app"] for entry in found for runner in entry["runners"]} == apps, found
    rented = await reserve_session(orchestrators=orchestrators, signer_url=signer, app="devnet/session")
    async with rented:
        for n in range(3):
            told = await call_runner(f"{rented.app_url}/x", payload={"n": n})
            assert told.data == {"n": n}, told
        await events(f"{rented.app_url}/events", "a b c")
        await socket(f"{rented.app_url}/ws")
        # Two payments and a bill go by, or more.
        until = time.monotonic() + held
        while time.monotonic() < until:
            await asyncio.sleep(min(7, max(0, until - time.monotonic())))
            told = await call_runner(f"{rented.app_url}/x", payload={"n": 3})
            assert told.data == {"n": 3} and not rented.released, told


async def single():
    cursor = await runner_selector(orchestrators=orchestrators, signer_url=signer, app="devnet/echo", body={"n": 1})
    told = await cursor.next()
    assert told.data == {"n": 1}, told
    paid = {"signer_url": signer, "payment_unit": "fixed"}
    url = f"{first}/apps/echo/app"
    told = await call_runner(f"{url}/x", payload={"n": 2}, **paid)
    assert told.data == {"n": 2}, told
    await events(f"{url}/events", "d e", **paid)


async def runner():
    async def channels(request):
        wanted = [{"name": "in", "mime_type": "video/MP2T"}, {"name": "a/b", "mime_type": "x/y"}]
        made = await create_trickle_channels(request, wanted)
        gone = await remove_trickle_channels(request, ["a-b"])
        proxy = await create_proxy(request, f"{home}/ui")
        return web.json_response({"made": [one["name"] for one in made], "gone": gone, "proxy": proxy.url})

    async def ui(request):
        return web.json_response({"query": request.query_string})

    async def end(request):
        await stop_runner_session(request)
        return web.json_response({})

    app = web.Application()
    app.router.add_post("/base/channels", channels)
    app.router.add_post("/base/end", end)
    app.router.add_post("/ui/{path:.*}", ui)
    server = web.AppRunner(app)
    await server.setup()
    site = web.TCPSite(server, "127.0.0.1", 0)
    await site.start()
    home = "http://127.0.0.1:%d" % server.addresses[0][1]
    heard = asyncio.Queue()
    registration = await register_runner(
        first,
        secret=secret,
        runner_url=f"{home}/base",
        app="test/app",
        price=0.36,
        capacity=2,
        auto_detect_gpu=False,
        on_session_reserve=lambda *_: heard.put_nowait("reserved"),
        on_session_release=lambda *_: heard.put_nowait("released"),
    )
    rented = await reserve_session(orchestrators=[first], signer_url=signer, app="test/app")
    assert await asyncio.wait_for(heard.get(), 30) == "reserved"
    told = (await call_runner(f"{rented.app_url}/channels", payload={})).data
    assert (told["made"], told["gone"]) == (["in", "a-b"], ["a-b"]), told
    told = await call_runner(told["proxy"] + "/x?y=z", payload={})
    assert told.data == {"query": "y=z"}, told
    await call_runner(f"{rented.app_url}/end", payload={})
    assert await asyncio.wait_for(heard.get(), 30) == "released"
    try:
        await call_runner(f"{rented.app_url}/end", payload={})
        raise AssertionError("the session is over")
    except LivepeerHTTPError as error:
        assert "runner session not found" in str(error), error
    await rented.aclose()
    await registration.close()
    assert not await discover_runners(discovery_url=f"{first}/discovery", app="test/app")
    await server.cleanup()


container()
asyncio.run(session())
asyncio.run(single())
asyncio.run(runner())
print("livepeer-gateway 1.0.0:", "paid" if signer else "off-chain", f"containers, sessions of {held:.0f} s, calls and a runner")
