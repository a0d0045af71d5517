"""LumiNet: logits as their classes have them in the batch. B samples, K classes."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from objectives.contract import POSITIVE, objective
from objectives.logits import divergence
from objectives.numerics import centred, in_float64

_EPSILON = 1e-5  # beside the variances, as their authors' code has it


@objective(reads="logits", temperature=POSITIVE)
@in_float64
def luminet(student: Tensor, teacher: Tensor, *, temperature: float = 4.0) -> Tensor:
    """LumiNet: KL(softmax(h_t / T) || softmax(h_s / T)), h the logits less their class's mean in the batch, over its
    standard deviation there.

    Averaged over the batch; not times T^2, for which the authors have the weight alpha^2. Hossain et al., 2023, arXiv
    2310.03669, and their code. On ImageNet T = 1 (R34 to R18) or 0.7 (R50 to MobileNetV1), alpha 2; on
    CIFAR-100 by pair, such as T = 4, alpha 34 beside twice the cross-entropy (R32x4 to R8x4).

    Args:
        student: logits [B, K].
        teacher: logits [B, K].
        temperature: T.

    Returns:
        Scalar.
    """
    ours, theirs = (_perceived(z) / temperature for z in (student, teacher))
    return divergence(F.log_softmax(theirs, 1), F.log_softmax(ours, 1)).mean()


def _perceived(logits: Tensor) -> Tensor:
    """[B, K] -> [B, K], of mean 0 and variance 1 along B."""
    rest = centred(logits, 0)
    return rest / (rest.square().mean(0) + _EPSILON).sqrt()
