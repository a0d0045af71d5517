"""Windows and views of JPEGs as the codec shows them, and what they are compared with."""

import os
from pathlib import Path

import cv2
import numpy as np
from hypothesis import strategies as st

from dataset.jpeg import codec
from dataset.jpeg.header import read_header
from dataset.jpeg.views import show_planes

PHOTOS = sorted(Path(os.environ.get("LIMBECK_DATA", "../shared/data"), "imagenet200/images").glob("*/*.JPEG"))


def opencv(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)


def decoded(data, window, library=codec.library):
    """The status and pixels of a window; what lies around them in memory is left alone."""
    around = np.full((3, window[2] * window[3] * 3), 77, np.uint8)
    out = around[1].reshape(window[2], window[3], 3)
    status = library.decode_window(
        codec.readable(data), len(data), np.array(window, np.int64).tobytes(), codec.writable(out)
    )
    assert (around[::2] == 77).all()
    return status, out


def whole(data):
    header = read_header(data)
    return 0, 0, header.height, header.width


def shown(data, axes, side, places=((0, 0),), fill=0):
    """As `show_planes` shows it in squares; and whether it does not."""
    out, spent = np.full((len(axes), side, side, 3), fill, np.uint8), np.zeros(2, np.int64)
    axes, places = np.asarray(axes, np.int64), np.asarray(places) + np.zeros((len(axes), 2), np.int64)
    return out, show_planes([data] * len(axes), axes, places, out, 0, np.zeros(2, np.int64), spent)


def window_of(draw, height, width):
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    return top, left, draw(st.integers(1, height - top)), draw(st.integers(1, width - left))


def smooth_jpeg(seed, height, width, sampling, quality=95):
    """A picture of waves, from 64 to 192."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width, :1][:2]
    down, right, phase = random.uniform(0, [[0.12], [0.12], [6]], (3, 3))
    pixels = (128 + random.uniform(10, 55, 3) * np.sin(down * y + right * x + phase)).astype(np.uint8)
    how = [cv2.IMWRITE_JPEG_QUALITY, quality]
    if sampling == "gray":
        return cv2.imencode(".jpg", pixels[..., 0], how)[1].tobytes()
    factor = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{sampling}")
    return cv2.imencode(".jpg", pixels, [*how, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor])[1].tobytes()
