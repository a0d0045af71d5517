"""Views, resized from planes: Pillow's pixels within rounding, however a file is cut and whatever the processor."""

import cv2
import numpy as np
import pytest
from dataset_helpers import examples
from hypothesis import given
from hypothesis import strategies as st
from odd_jpeg import FACTORS, odd_jpeg
from PIL import Image
from torchvision.transforms import v2
from view_helpers import PHOTOS, decoded, opencv, shown, smooth_jpeg, whole, window_of

from dataset.feed.crops import center_axes, random_resized_crop, uniform, window_axes
from dataset.jpeg import codec, sources, views
from dataset.jpeg.tiles import tile
from dataset.jpeg.views import BEGIN, COUNT, MIRROR, RESIZED, show_exact

SAMPLINGS = ("444", "422", "420", "440", "411", "gray")


@examples(150)
@given(
    st.integers(0, 10**6),
    st.integers(1, 150),
    st.integers(1, 150),
    st.sampled_from(SAMPLINGS),
    st.integers(6, 64),
    st.data(),
)
def test_a_view_is_pillows_within_rounding(seed, height, width, sampling, side, draw):
    """One level, and two where chroma is interpolated: Pillow rounds samples, pixels, colours and each axis apart."""
    data = smooth_jpeg(seed, height, width, sampling)
    top, left, high, wide = window = window_of(draw.draw, height, width)
    axes, _ = window_axes(np.array([window] * 2), side)
    axes[1, 1, MIRROR] = 1
    (view, mirrored), refused = shown(data, axes, side)
    crop = Image.fromarray(opencv(data)).crop((left, top, left + wide, top + high))
    expected = np.asarray(crop.resize((side, side), Image.Resampling.BILINEAR)).astype(int)
    assert not refused.any()
    assert np.abs(view - expected).max() <= (2 if sampling in ("422", "420", "440") else 1)
    assert np.array_equal(mirrored, view[:, ::-1])


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("size", [(1, 500), (500, 1), (150, 130), (301, 403), (224, 224), (255, 511)])
@pytest.mark.parametrize(("side", "crop"), [(256, 224), (100, 224)])
def test_evaluation_views_are_torchvisions_within_rounding(size, sampling, side, crop):
    data = smooth_jpeg(5, *size, sampling)
    axes, places = center_axes(np.array([size]), side, crop)
    (view,), (refused,) = shown(data, axes, crop, places)
    expected = v2.Compose([v2.Resize(side), v2.CenterCrop(crop)])(Image.fromarray(opencv(data)))
    assert refused == (axes[0, :, RESIZED] > 65536).any()  # by no photo
    assert refused or np.abs(view - np.asarray(expected).astype(int)).max() <= 2


@pytest.mark.skipif(not PHOTOS, reason="no real photos: set LIMBECK_DATA")
def test_views_of_real_photos_have_50_decibels_beside_pillows():
    quality = []
    for number, path in enumerate(PHOTOS[::5]):
        data = path.read_bytes()
        size = np.array([whole(data)[2:]])
        window = random_resized_crop(uniform(0, 0, np.array([number]), 40), size, (0.08, 1.0), (3 / 4, 4 / 3))
        axes, (place,) = window_axes(window, 224)
        (view,), _ = shown(tile(data), axes, 224)
        expected = np.empty_like(view)
        show_exact(data, axes[0], place, expected, np.zeros(2, np.int64), how="antialias", halve=False)
        quality.append(10 * np.log10(255**2 / np.mean((view.astype(float) - expected) ** 2)))
    assert np.median(quality) >= 50
    assert min(quality) >= 40


@examples(60)
@given(st.integers(0, 999), st.integers(1, 90), st.integers(1, 90), st.sampled_from(sorted(FACTORS)), st.data())
def test_a_view_does_not_depend_on_how_the_file_is_cut(seed, height, width, name, draw):
    axes, _ = window_axes(np.array([window_of(draw.draw, height, width) for _ in range(3)]), 20)
    files = [odd_jpeg(seed, height, width, FACTORS[name], interval=interval) for interval in (0, 1, 5, 400)]
    seen = [shown(file, axes, 20) for file in (*files, tile(files[0]))]
    assert not any(refused.any() for _, refused in seen)
    assert all(np.array_equal(view, seen[0][0]) for view, _ in seen)


@examples(150)
@given(st.sampled_from(sorted(FACTORS)), st.data())
def test_a_view_is_written_where_it_belongs_and_nowhere_else(name, draw):
    data = odd_jpeg(1, 40, 50, FACTORS[name], interval=3)
    axes, side = np.zeros((2, 6), np.int64), 40
    place = []
    for axis, length in zip(axes, (40, 50)):
        count = draw.draw(st.integers(1, side))
        resized = draw.draw(st.integers(max(count, 2), 80))
        origin = draw.draw(st.integers(0, length - 1))
        axis[:] = (
            origin,
            draw.draw(st.integers(1, length - origin)),
            resized,
            draw.draw(st.integers(0, resized - count)),
            count,
            0,
        )
        place.append(draw.draw(st.integers(0, side - count)))
    (before, out, after), _ = shown(data, [axes * 0, axes, axes * 0], side, [place] * 3, fill=77)
    assert (before == 77).all()
    assert (after == 77).all()
    for number, inside in enumerate(np.meshgrid(*(np.arange(side) - corner for corner in place), indexing="ij")):
        assert (out[(inside < 0) | (inside >= axes[number, COUNT])] == 77).all()
    whole_axes = axes.copy()
    whole_axes[:, BEGIN], whole_axes[:, COUNT] = 0, axes[:, RESIZED]
    (all_of_it,), _ = shown(data, [whole_axes], 80)
    part = [slice(begin, begin + count) for begin, count in axes[:, [BEGIN, COUNT]]]
    high, wide = axes[:, COUNT]
    seen = out[place[0] : place[0] + high, place[1] : place[1] + wide].astype(int)
    assert np.abs(seen - all_of_it[tuple(part)]).max() <= 1


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
@pytest.mark.parametrize("sampling", ["420", "444", "gray"])
def test_even_areas_stay_even_up_to_the_greatest_reduction(value, sampling):
    """Fixed point has room for them; a view that is reduced more is left to the stock decoder."""
    length = 2000
    pixels = np.full((length, 8), value, np.uint8)
    data = cv2.imencode(".jpg", pixels if sampling == "gray" else np.dstack([pixels] * 3))[1].tobytes()
    for resized in (67, 68, 100, 125, 300, 999, 2000, 2001, 5000):
        axes = [[[0, length, resized, 0, min(resized, 64), 0], [0, 8, 1, 0, 1, 0]]]
        (view,), refused = shown(data, axes, 64)
        assert (view[: min(resized, 64), 0] == opencv(data)[0, 0]).all()
        assert not refused.any()
    assert shown(data, [[[0, length, 66, 0, 64, 0], [0, 8, 1, 0, 1, 0]]], 64)[1].all()


@pytest.mark.parametrize("name", sorted(FACTORS))
def test_results_do_not_depend_on_the_processor(name, monkeypatch):
    if not codec.library.is_fast():
        pytest.skip("this processor has no x86-64-v3")
    data = odd_jpeg(2, 67, 93, FACTORS[name], interval=4)
    axes, _ = window_axes(np.array([(0, 0, 67, 93), (3, 9, 50, 40), (20, 30, 5, 7), (1, 1, 64, 64)]), 33)
    seen = []
    for path in (sources.LIBRARY, sources.FAST):
        library = codec.load(path)
        monkeypatch.setattr(views, "library", library)
        seen.append((decoded(data, (5, 6, 55, 77), library)[1].tobytes(), shown(data, axes, 33)[0].tobytes()))
    assert seen[0] == seen[1]
