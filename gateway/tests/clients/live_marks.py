"""Marks in pictures and sound, by which a viewer tells whether anything is missing, and whether both are in step.

The upper half of a picture is its number in 16 cells of black and white, the last four of them a check of the others. Once a
second the lower half is white for three pictures, and a tone begins with the first of them.
"""

import statistics

import numpy

CELLS = 16
#: Frames of sound are told apart from silence by this part of full loudness.
LOUD = 0.12
#: A tone begins after this much silence, in seconds.
SILENCE = 0.3


def number(grey):
    """The number of a picture, or nothing if it cannot be read."""
    high, wide = grey.shape
    band = grey[high // 8 : 3 * high // 8]
    value = 0
    for cell in range(CELLS):
        middle = band[:, int((cell + 0.3) * wide / CELLS) : int((cell + 0.7) * wide / CELLS)]
        value |= int(middle.mean() > 128) << cell
    n, check = value & 0xFFF, value >> 12
    return n if check == (n + (n >> 4) + (n >> 8) + 5) % 16 else None


def is_flash(grey):
    high = grey.shape[0]
    return grey[5 * high // 8 : 7 * high // 8].mean() > 190


class Seen:
    """Everything that was decoded, with its time in seconds."""

    def __init__(self):
        self.pictures = []
        self.flashes = []
        self.tones = []
        self._was_flash = True
        self._quiet_since = None
        self._sound_until = None
        self.sound_gap = 0.0

    def picture(self, time, frame):
        grey = frame.reformat(format="gray").to_ndarray()
        flash = bool(is_flash(grey))
        if flash and not self._was_flash:
            self.flashes.append(time)
        self._was_flash = flash
        self.pictures.append((number(grey), time))

    def sound(self, time, frame):
        samples = frame.to_ndarray().astype(numpy.float64)
        if frame.format.name.startswith("s16"):
            samples /= 32768
        channels = len(frame.layout.channels)
        loud = numpy.abs(samples).max(axis=0) if frame.format.is_planar else numpy.abs(samples.reshape(-1, channels)).max(axis=1)
        if self._sound_until is not None:
            self.sound_gap = max(self.sound_gap, time - self._sound_until)
        self._sound_until = time + frame.samples / frame.sample_rate
        for at in numpy.flatnonzero(loud > LOUD):
            now = time + at / frame.sample_rate
            if self._quiet_since is not None and now - self._quiet_since > SILENCE:
                self.tones.append(now)
            self._quiet_since = now
        if self._quiet_since is None:
            self._quiet_since = time

    def report(self):
        numbers = [n for n, _ in self.pictures if n is not None]
        steps = [b[1] - a[1] for a, b in zip(self.pictures, self.pictures[1:])]
        apart = []
        for flash in self.flashes:
            tone = min(self.tones, key=lambda tone: abs(tone - flash), default=None)
            if tone is not None and abs(tone - flash) < 0.5:
                apart.append(1000 * (tone - flash))
        whole = list(range(numbers[0], numbers[-1] + 1)) if numbers else []
        return {
            "decoded": len(self.pictures),
            "unreadable": len(self.pictures) - len(numbers),
            "first": numbers[0] if numbers else None,
            "last": numbers[-1] if numbers else None,
            "missing": sorted(set(whole) - set(numbers)),
            "again": len(numbers) - len(set(numbers)),
            "step_min_ms": round(1000 * min(steps, default=0), 1),
            "step_max_ms": round(1000 * max(steps, default=0), 1),
            "sound_gap_ms": round(1000 * self.sound_gap, 1),
            "tones": len(apart),
            "apart_ms": round(statistics.median(apart), 1) if apart else None,
            "apart_max_ms": round(max(apart, key=abs), 1) if apart else None,
        }
