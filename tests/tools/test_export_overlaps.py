"""What a program keeps of overlapping boxes is what torchvision keeps."""

import pytest
import torch
from torch import nn
from torchvision.ops import batched_nms

from export.detectors import Candidates, best

pytestmark = pytest.mark.filterwarnings("ignore:You are calling torch.compile inside:UserWarning")  # by torch 2.10
MOST = 40


class Best(nn.Module):
    def __init__(self, overlap):
        super().__init__()
        self.overlap = overlap

    def forward(self, boxes, scores, kinds):
        return tuple(best(Candidates(boxes, scores, kinds), self.overlap, MOST))


@pytest.fixture(scope="module", params=[0.5, 0.6, 0.7])  # float32 is 0.5, above 0.6, below 0.7
def kept(request):
    """An overlap and a program for any number of images and boxes."""
    images, boxes = torch.export.Dim("images", min=1), torch.export.Dim("boxes", min=2)
    free = {0: images, 1: boxes}
    example = torch.rand(2, 50, 4), torch.rand(2, 50), torch.zeros(2, 50, dtype=torch.int64)
    program = torch.export.export(Best(request.param), example, dynamic_shapes=(free, free, free))
    return request.param, program.module()


def drawn(count, whole, seed):
    """Crowded boxes of three kinds, some of them twice, some without area, some with the same score."""
    random = torch.Generator().manual_seed(seed)
    corner = torch.rand(2, count, 2, generator=random) * 30
    side = torch.rand(2, count, 2, generator=random) * 20
    boxes = torch.cat([corner, corner + side], 2)
    boxes = (boxes / 5).round() if whole else boxes  # many overlaps are exactly 3 / 5
    boxes[:, 1::7] = boxes[:, ::7][:, : boxes[:, 1::7].shape[1]]
    scores = torch.rand(2, count, generator=random)
    scores[:, ::3] = (scores[:, ::3] * 10).round() / 10
    return boxes, scores, torch.randint(3, (2, count), generator=random)


@pytest.mark.parametrize(("count", "whole"), [(2, True), (12, True), (90, True), (300, True), (1100, False)])
def test_the_same_boxes_are_kept_in_the_same_order(kept, count, whole):
    overlap, program = kept
    for seed in range(8):
        boxes, scores, kinds = drawn(count, whole, seed)
        left = torch.where(scores > 0.1, scores, -torch.inf)
        found = program(boxes, left, kinds)
        for image in range(2):
            there = (left[image] > 0).nonzero()[:, 0]
            rows = there[batched_nms(boxes[image, there], scores[image, there], kinds[image, there], overlap)][:MOST]
            ours = found[1][image].isfinite()
            assert torch.equal(found[1][image][ours], scores[image, rows])
            assert torch.equal(found[0][image][ours], boxes[image, rows])
            assert torch.equal(found[2][image][ours], kinds[image, rows])
