"""Flow of the solution procedure. B samples, C channels, H x W pixels."""

from __future__ import annotations

from torch import Tensor, nn

from objectives.contract import objective
from objectives.maps import Maps, flow_distance


@objective(reads="stages")
class Fsp(nn.Module):
    """Mean squared distance of the Gram matrices between consecutive stages, summed.

    Yim et al., CVPR 2017, A gift from knowledge distillation, equations 1 and 2. Where a stage has other channels than
    the teacher's, which the paper leaves out, a 1 x 1 convolution brings it there. RepDistiller trains with this alone
    for 30 epochs, then with cross-entropy alone.

    Args:
        student: an example of the maps [B, C_s, H, W], shallow to deep.
        teacher: likewise.

    Raises:
        ValueError: there is one stage only.
    """

    def __init__(self, student: Maps, teacher: Maps) -> None:
        super().__init__()
        if len(student) < 2:
            raise ValueError("fsp compares consecutive stages: it needs two or more")
        self.connectors = nn.ModuleList(
            nn.Identity() if s.shape[1] == t.shape[1] else nn.Conv2d(s.shape[1], t.shape[1], 1)
            for s, t in zip(student, teacher)
        )

    def forward(self, student: Maps, teacher: Maps) -> Tensor:
        """Scalar, of maps [B, C, H, W]."""
        return flow_distance([connector(s) for connector, s in zip(self.connectors, student)], teacher)
