"""Labelled camera frames: a handwritten digit, enlarged, shifted and noisy, in front of a real picture.

Needs numpy only. Digits and backgrounds come from ``digits.npz`` beside this file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

HEIGHT, WIDTH = 480, 640
CROP = 384
"""The model looks at the middle CROP x CROP pixels."""
_SIZES = (176, 200, 224, 248)
_SHIFT = 44


class Frames:
    """An endless, repeatable stream of frames. One costs about 0.6 ms."""

    def __init__(self, seed: int, split: str = "held-out") -> None:
        """Args:
        seed: same seed, same frames.
        split: ``train`` or ``held-out``: digits written by hand that the model has, or has not, seen; ``validation``
            and ``test`` are halves of the latter.
        """
        with np.load(Path(__file__).with_name("digits.npz")) as stored:
            held_out = ~stored["train"]
            half = held_out.cumsum() % 2 == 0
            splits = {"train": stored["train"], "held-out": held_out}
            chosen = (splits | {"validation": held_out & half, "test": held_out & ~half})[split]
            self._digits = stored["digits"][chosen].astype(np.float32) / 16
            self._labels = stored["labels"][chosen]
            pictures = stored["backgrounds"]
        self.degrees = 0.0
        """By how much digits are turned, counter-clockwise; may be changed at any time. The model was trained on 0."""
        self._random = np.random.default_rng(seed)
        self._backgrounds = [self._noisy(_enlarge(picture)) for picture in pictures]
        self._noise = self._random.normal(0, 14, (max(_SIZES), max(_SIZES), 1)).astype(np.float32)
        self._rows = {size: _interpolation(size) for size in _SIZES}

    def next(self) -> tuple[np.ndarray, int]:
        """(frame, label): (480, 640, 3) uint8, contiguous and the caller's own; 0 to 9."""
        draw = self._random
        index = int(draw.integers(len(self._digits)))
        background = self._backgrounds[int(draw.integers(len(self._backgrounds)))]
        y = int(draw.integers(background.shape[0] - HEIGHT + 1))
        x = int(draw.integers(background.shape[1] - WIDTH + 1))
        frame = background[y : y + HEIGHT, x : x + WIDTH].copy()
        size = int(draw.choice(_SIZES))
        ink = self._ink(self._digits[index], size)[:, :, None] * draw.uniform(0.75, 1.0)
        top = (HEIGHT - size) // 2 + int(draw.integers(-_SHIFT, _SHIFT + 1))
        left = (WIDTH - size) // 2 + int(draw.integers(-_SHIFT, _SHIFT + 1))
        patch = frame[top : top + size, left : left + size]
        colour = draw.uniform(190, 255, 3).astype(np.float32)
        drawn = patch * (1 - ink) * 0.8 + colour * ink + self._noise[:size, :size]
        np.clip(drawn, 0, 255, out=drawn)
        patch[...] = drawn
        return frame, int(self._labels[index])

    def _ink(self, digit: np.ndarray, size: int) -> np.ndarray:
        """(size, size), 0 to 1."""
        if self.degrees:
            return _turned(digit, size, self.degrees)
        rows = self._rows[size]
        return rows @ digit @ rows.T

    def _noisy(self, picture: np.ndarray) -> np.ndarray:
        noise = self._random.normal(0, 8, picture.shape)
        return np.clip(picture * 0.55 + noise, 0, 255).astype(np.uint8)


def _enlarge(picture: np.ndarray) -> np.ndarray:
    """Four times as high and wide."""
    return picture.repeat(4, axis=0).repeat(4, axis=1)


def _interpolation(size: int) -> np.ndarray:
    """(size, 8): rows that interpolate eight values linearly."""
    at = np.linspace(0, 7, size)
    low = np.minimum(at.astype(int), 6)
    rows = np.zeros((size, 8), np.float32)
    rows[np.arange(size), low] = 1 - (at - low)
    rows[np.arange(size), low + 1] = at - low
    return rows


def _turned(digit: np.ndarray, size: int, degrees: float) -> np.ndarray:
    """(size, size): the (8, 8) digit about its middle, interpolated linearly; beyond its edges there is no ink."""
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    at = np.linspace(-3.5, 3.5, size)
    y, x = at[:, None], at[None, :]
    padded = np.pad(digit, 1)
    row = np.clip(cosine * y + sine * x + 4.5, 0, 8.999)
    column = np.clip(cosine * x - sine * y + 4.5, 0, 8.999)
    top, left = row.astype(int), column.astype(int)
    down, right = row - top, column - left
    above = padded[top, left] * (1 - right) + padded[top, left + 1] * right
    below = padded[top + 1, left] * (1 - right) + padded[top + 1, left + 1] * right
    return (above * (1 - down) + below * down).astype(np.float32)
