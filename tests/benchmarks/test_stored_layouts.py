"""Losses and bytes of layouts of stored outputs, on made-up logits."""

import pytest
import torch

from benchmarks import stored_layouts
from benchmarks.stored_layouts import PEER, TinyVit, draw, loss, measure
from stored.layouts import LayoutConfig, layout_of


def test_a_loss_by_hand():
    logits, restored = torch.tensor([[0.75, 0.25]] * 300).log(), torch.tensor([[0.5, 0.5]] * 300).log()
    assert loss(logits, restored, 1) == pytest.approx((0.130812, 0.25), abs=1e-5)
    assert loss(2 * logits, restored, 2) == pytest.approx((0.130812, 0.25), abs=1e-5)


def test_the_ten_largest_probabilities_and_the_rest_spread_evenly():
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    records = TinyVit().encode(logits)
    assert records.shape == (4, 44)
    restored, p = TinyVit().decode(records, 50).exp(), logits.softmax(1)
    largest = p.topk(10, 1)
    torch.testing.assert_close(restored.gather(1, largest.indices), largest.values, rtol=1e-3, atol=0)
    rest = (1 - largest.values.sum(1)) / 40
    torch.testing.assert_close(restored.amin(1), rest, rtol=1e-2, atol=0)


def test_a_row_for_each_layout_and_a_plot(tmp_path):
    logits = torch.randn(9, 5, 100, generator=torch.Generator().manual_seed(0))
    layouts = {PEER: TinyVit(), "prior 5": layout_of(LayoutConfig("prior", k=5), 1000, competing=True)}
    rows = measure(layouts, logits, torch.arange(5), rounds=1)
    assert [row["bytes_a_view"] for row in rows] == [44, 5 + 5 + 4 + 1]  # 5 of 7 bits, and a hundredth of the prior
    assert rows[0]["kl_ratio"] == {1: 1.0, 2: 1.0, 4: 1.0}
    assert rows[1]["views"] == 5
    draw(rows, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("words", "message"), [(["--views", "8"], "--views 8: above 8"), (["--weights", "no.pth"], "no.pth is missing")]
)
def test_wrong_words_are_refused(monkeypatch, capsys, tmp_path, words, message):
    (tmp_path / "tench").mkdir()
    (tmp_path / "tench" / "1.JPEG").touch()
    monkeypatch.setattr("sys.argv", ["stored_layouts", "--data", str(tmp_path), *words])
    with pytest.raises(SystemExit, match="2"):
        stored_layouts.main()
    assert message in capsys.readouterr().err
