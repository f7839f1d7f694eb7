"""Sends a file by WHIP, or watches a stream by WHEP, with aiortc.

    python live_aiortc.py send URL FILE
    python live_aiortc.py watch URL
"""

import asyncio
import json
import sys
import time
import urllib.parse

import aiohttp
import av
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCRtpReceiver, RTCRtpSender, RTCSessionDescription, rtcrtpreceiver
from aiortc.mediastreams import MediaStreamError

from live_marks import Seen

#: How long a stream may take to begin, and to go on, in seconds.
PATIENCE = 60
REST = 5


async def post(http, peer, url):
    """Exchanges descriptions, again while the stream is not known. The place of the session."""
    await peer.setLocalDescription(await peer.createOffer())
    until = time.monotonic() + PATIENCE
    while True:
        headers = {"content-type": "application/sdp"}
        async with http.post(url, data=peer.localDescription.sdp, headers=headers) as answer:
            text = await answer.text()
            if answer.status == 201:
                break
            if answer.status != 404 or time.monotonic() > until:
                sys.exit(f"{answer.status} {text}")
        await asyncio.sleep(0.05)
    await peer.setRemoteDescription(RTCSessionDescription(text, "answer"))
    return urllib.parse.urljoin(url, answer.headers.get("location", ""))


class Played(MediaStreamTrack):
    """Frames of a file, as they are due. Both tracks begin at one time, whichever is asked first."""

    began = None

    def __init__(self, kind, frames):
        super().__init__()
        self.kind = kind
        self.frames = iter(frames)
        self.sent = 0
        self.over = asyncio.Event()

    async def recv(self):
        frame = next(self.frames, None)
        if frame is None:
            self.over.set()
            await asyncio.sleep(PATIENCE)
            raise MediaStreamError
        if Played.began is None:
            Played.began = time.monotonic() - frame.time
        await asyncio.sleep(max(0.0, self.began + frame.time - time.monotonic()))
        self.sent += 1
        return frame


async def send(url, file):
    with av.open(file) as pictures, av.open(file) as sounds:
        sound = av.AudioResampler(format="s16", layout="stereo", rate=48_000, frame_size=960)
        sounded = (out for frame in sounds.decode(audio=0) for out in sound.resample(frame))
        video, audio = Played("video", pictures.decode(video=0)), Played("audio", sounded)
        peer = RTCPeerConnection()
        transceiver = peer.addTransceiver(video, direction="sendonly")
        codecs = RTCRtpSender.getCapabilities("video").codecs
        transceiver.setCodecPreferences([one for one in codecs if one.mimeType in ("video/H264", "video/rtx")])
        peer.addTransceiver(audio, direction="sendonly")
        async with aiohttp.ClientSession() as http:
            place = await post(http, peer, url)
            await asyncio.wait_for(video.over.wait(), PATIENCE)
            await asyncio.wait_for(audio.over.wait(), PATIENCE)
            # What is sent leaves.
            await asyncio.sleep(0.5)
            async with http.delete(place) as answer:
                left = answer.status
        await peer.close()
    print(json.dumps({"sent": video.sent, "delete": left}))


class Stamps:
    """Leaves the stamps of RTP as they came, so that reports say which time they mean."""

    def __init__(self):
        self.last = None

    def map(self, stamp):
        if self.last is not None:
            stamp = self.last + (stamp - self.last + (1 << 31)) % (1 << 32) - (1 << 31)
        self.last = stamp
        return stamp


async def watch(url):
    rtcrtpreceiver.TimestampMapper = Stamps
    reports, heard = {}, RTCRtpReceiver._handle_rtcp_packet

    async def hear(self, packet):
        if isinstance(packet, rtcrtpreceiver.RtcpSrPacket):
            said = packet.sender_info
            reports.setdefault(self.track.kind, (said.ntp_timestamp / (1 << 32), said.rtp_timestamp))
        await heard(self, packet)

    RTCRtpReceiver._handle_rtcp_packet = hear
    peer = RTCPeerConnection()
    frames = {"video": [], "audio": []}
    latest = [None]

    @peer.on("track")
    def track(track):
        async def take():
            try:
                while True:
                    frames[track.kind].append(await track.recv())
                    latest[0] = time.monotonic()
            except MediaStreamError:
                return

        asyncio.ensure_future(take())

    peer.addTransceiver("video", direction="recvonly")
    peer.addTransceiver("audio", direction="recvonly")
    async with aiohttp.ClientSession() as http:
        print("ready", flush=True)
        await post(http, peer, url)
        until = time.monotonic() + PATIENCE
        while peer.connectionState not in ("closed", "failed") and time.monotonic() < until:
            if latest[0] is not None:
                until = latest[0] + REST
            await asyncio.sleep(0.05)
    await peer.close()
    seen = Seen()
    for kind, take, rate in (("video", seen.picture, 90_000), ("audio", seen.sound, 48_000)):
        at, stamp = reports.get(kind, (0.0, frames[kind][0].pts if frames[kind] else 0))
        for frame in frames[kind]:
            since = (frame.pts - stamp + (1 << 31)) % (1 << 32) - (1 << 31)
            take(at + since / rate, frame)
    print(json.dumps({"reports": sorted(reports), "sounds": len(frames["audio"]), **seen.report()}))


asyncio.run(send(*sys.argv[2:4]) if sys.argv[1] == "send" else watch(sys.argv[2]))
