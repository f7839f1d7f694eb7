"""Decodes a file and tells what is in it.

    python live_file.py FILE
"""

import json
import sys

import av

from live_marks import Seen

seen = Seen()
with av.open(sys.argv[1]) as file:
    for frame in file.decode():
        take = seen.picture if isinstance(frame, av.VideoFrame) else seen.sound
        take(float(frame.pts * frame.time_base), frame)
print(json.dumps(seen.report()))
