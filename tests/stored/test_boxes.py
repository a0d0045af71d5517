"""Records of detections: what comes back, each view for itself, and how far two outputs are apart."""

import pytest
import torch

from models.outputs import FOUND, Outputs
from stored.boxes import BoxLayout
from stored.records import BoxesRecord


def found(views, most, classes, counts, seed=0, side=1333.0):
    """Detections as detectors give them: best first, -1 and zeros where there is none."""
    random = torch.Generator().manual_seed(seed)
    corners = torch.rand(views, most, 2, 2, generator=random).sort(2).values * side
    scores = torch.rand(views, most, generator=random).sort(1, descending=True).values
    there = torch.arange(most) < torch.tensor(counts)[:, None]
    number = torch.randint(0, classes, (views, most), generator=random)
    return corners.flatten(2) * there[..., None], scores * there, torch.where(there, number, -1)


@pytest.mark.parametrize(("classes", "width"), [(1, 11), (256, 11), (257, 12), (60_000, 12)])
def test_detections_come_back_but_for_rounding(classes, width):
    given = found(5, 20, classes, [20, 0, 1, 7, 19])
    layout = BoxLayout(20, classes)
    records = layout.encode(*given)
    assert records.shape == (5, layout.size) == (5, 6 + 20 * width)
    boxes, scores, numbers = layout.decode(records)
    largest = given[0].amax((1, 2))
    assert ((boxes - given[0]).abs().amax((1, 2)) <= largest / 131_070 * 1.001).all()
    assert (scores - given[1]).abs().max() <= 1.001 / 131_070
    assert torch.equal(numbers, given[2])
    assert torch.equal(layout.encode(boxes, scores, numbers), records)


def test_of_more_than_are_kept_the_likeliest_are():
    given = found(3, 20, 80, [20, 4, 5])
    kept = BoxLayout(5, 80).decode(BoxLayout(5, 80).encode(*given))
    assert kept[2].tolist() == given[2][:, :5].tolist()


def test_a_record_depends_on_its_view_alone():
    given = found(6, 9, 300, [3, 9, 0, 1, 5, 2])
    layout = BoxLayout(9, 300)
    whole = layout.encode(*given)
    for row in range(6):
        assert torch.equal(layout.encode(*(one[row : row + 1] for one in given))[0], whole[row])


def test_zeros_are_no_detections():
    record = BoxesRecord(BoxLayout(4, 3))
    for outputs in (record.decode(torch.zeros(2, record.size, dtype=torch.uint8), None), record.nothing(torch.ones(2))):
        assert outputs.logits.isfinite().all()
        assert outputs.context["boxes"].shape == (2, 4, 4)
        assert not outputs.context["scores"].any()
        assert (outputs.context["classes"] == -1).all()
    zeros = {name: torch.zeros_like(value) for name, value in outputs.context.items()}  # as of a view that was skipped
    assert not record.encode(zeros, None, None).any()


def outputs_of(boxes, scores, classes):
    return Outputs(torch.zeros(0), {}, dict(zip(FOUND, (boxes, scores, classes))))


def test_outputs_are_apart_by_boxes_classes_and_scores_by_hand():
    record = BoxesRecord(BoxLayout(2, 3))
    boxes = torch.tensor([[[0.0, 0, 10, 10], [20, 20, 30, 30]]])
    one = outputs_of(boxes, torch.tensor([[0.9, 0.3]]), torch.tensor([[0, 1]]))
    half = boxes.clone()
    half[0, 0, 2] = 5  # IoU 1/2
    for other, expected in (
        ((boxes, torch.tensor([[0.9, 0.3]]), torch.tensor([[0, 1]])), 0),
        ((boxes.flip(1), torch.tensor([[0.3, 0.9]]), torch.tensor([[1, 0]])), 0),
        ((half, torch.tensor([[0.9, 0.3]]), torch.tensor([[0, 1]])), 0.45 / 1.2),
        ((boxes, torch.tensor([[0.9, 0.3]]), torch.tensor([[2, 1]])), 0.9 / 1.2),
        ((boxes, torch.tensor([[0.9, 0.15]]), torch.tensor([[0, 1]])), 0.5 * 0.45 / 2.25),
        ((0 * boxes, torch.zeros(1, 2), torch.tensor([[-1, -1]])), 1),
    ):
        assert record.apart(one, outputs_of(*other)).item() == pytest.approx(expected, abs=1e-6)
    none = outputs_of(0 * boxes, torch.zeros(1, 2), torch.tensor([[-1, -1]]))
    assert record.apart(none, none).item() == 0
