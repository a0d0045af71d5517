"""Formulas of the objectives in the order of operations of the papers' repositories, for `benchmarks.objectives`.

MDistiller and RepDistiller where nothing else is said. They take what the objective takes, and of its module the
parameters and buffers. B samples, K classes, D dimensions, C channels, H x W pixels, N in the training split; features
[B, D], logits [B, K], labels [B]; what ends in _s is the student's, in _t the teacher's. All return scalars.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from objectives.layers import Maps, same_size

_EPSILON = 1e-7


def kd(z_s: Tensor, z_t: Tensor, temperature: float = 4.0) -> Tensor:
    """KL divergence from a softmax and a log-softmax; logits [B, K]."""
    log_p_s = F.log_softmax(z_s / temperature, dim=1)
    p_t = F.softmax(z_t / temperature, dim=1)
    return F.kl_div(log_p_s, p_t, reduction="none").sum(1).mean() * temperature**2


def kd_standardized(z_s: Tensor, z_t: Tensor) -> Tensor:
    """logit-standardization-KD: z-scores first; logits [B, K]."""

    def z_score(z: Tensor) -> Tensor:
        return (z - z.mean(dim=-1, keepdim=True)) / (_EPSILON + z.std(dim=-1, keepdim=True))

    return kd(z_score(z_s), z_score(z_t))


def wsld(z_s: Tensor, z_t: Tensor, labels: Tensor, temperature: float = 2.0) -> Tensor:
    """WSLD's soft term: one-hot labels and two log-softmaxes for the weights; logits [B, K]."""
    p_t = F.softmax(z_t / temperature, 1)
    soft = -torch.sum(p_t * F.log_softmax(z_s / temperature, 1), 1, keepdim=True)  # [B, 1]
    true = F.one_hot(labels, z_s.shape[1]).to(z_s.dtype)
    loss_s = -torch.sum(true * F.log_softmax(z_s.detach(), 1), 1, keepdim=True)
    loss_t = -torch.sum(true * F.log_softmax(z_t.detach(), 1), 1, keepdim=True)
    ahead = torch.max(loss_s / (loss_t + _EPSILON), torch.zeros(1, device=z_s.device, dtype=z_s.dtype))
    return temperature**2 * torch.mean(soft * (1 - torch.exp(-ahead)))


def dkd(
    z_s: Tensor, z_t: Tensor, labels: Tensor, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0
) -> Tensor:
    """Masks of the true and of the other classes, and 1000 less for the true logit; logits [B, K]."""
    is_true = torch.zeros_like(z_s).scatter_(1, labels.unsqueeze(1), 1).bool()
    is_other = torch.ones_like(z_s).scatter_(1, labels.unsqueeze(1), 0).bool()

    def true_and_rest(p: Tensor) -> Tensor:
        return torch.cat([(p * is_true).sum(dim=1, keepdim=True), (p * is_other).sum(1, keepdim=True)], dim=1)

    binary_s = torch.log(true_and_rest(F.softmax(z_s / temperature, dim=1)))
    binary_t = true_and_rest(F.softmax(z_t / temperature, dim=1))
    true = F.kl_div(binary_s, binary_t, reduction="sum") * temperature**2 / labels.shape[0]
    others_t = F.softmax(z_t / temperature - 1000.0 * is_true, dim=1)
    others_s = F.log_softmax(z_s / temperature - 1000.0 * is_true, dim=1)
    others = F.kl_div(others_s, others_t, reduction="sum") * temperature**2 / labels.shape[0]
    return alpha * true + beta * others


def dist(z_s: Tensor, z_t: Tensor) -> Tensor:
    """DIST: cosines of the centred rows, and of the centred columns; logits [B, K]."""

    def pearson(a: Tensor, b: Tensor) -> Tensor:
        a, b = a - a.mean(1).unsqueeze(1), b - b.mean(1).unsqueeze(1)
        return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-8)

    p_s, p_t = z_s.softmax(dim=1), z_t.softmax(dim=1)
    between = 1 - pearson(p_s, p_t).mean()
    within = 1 - pearson(p_s.transpose(0, 1), p_t.transpose(0, 1)).mean()
    return between + within


def nkd(z_s: Tensor, z_t: Tensor, labels: Tensor, gamma: float = 1.5) -> Tensor:
    """cls_KD: the other classes' logits are picked by a boolean mask; logits [B, K]."""
    batch, column = len(z_s), labels.view(-1, 1)
    log_true = torch.gather(F.log_softmax(z_s, dim=1), 1, column)
    p_true = torch.gather(F.softmax(z_t, dim=1), 1, column).detach()
    is_other = torch.ones_like(z_s).scatter_(1, column, 0).bool()
    log_others = F.log_softmax(z_s[is_other].reshape(batch, -1), dim=1)  # [B, K - 1]
    p_others = F.softmax(z_t[is_other].reshape(batch, -1), dim=1)
    return -(p_true * log_true).mean() - gamma * (p_others * log_others).sum(dim=1).mean()


def ttm(z_s: Tensor, z_t: Tensor, temperature: float = 4.0) -> Tensor:
    """WTTM: powers of the teacher's probabilities, and their sum as the weight; logits [B, K]."""
    powers = torch.pow(F.softmax(z_t, dim=1), 1 / temperature)
    weight = torch.sum(powers, dim=1)
    divergence = F.kl_div(F.log_softmax(z_s, dim=1), powers / weight.unsqueeze(1), reduction="none").sum(1)
    return torch.mean(weight * divergence)


def class_correlation(z_s: Tensor, z_t: Tensor, temperature: float = 4.0) -> Tensor:
    """Multi-level logit distillation, Gram matrices [K, K]; logits [B, K]."""
    p_s, p_t = F.softmax(z_s / temperature, dim=1), F.softmax(z_t / temperature, dim=1)
    ours, theirs = torch.mm(p_s.transpose(1, 0), p_s), torch.mm(p_t.transpose(1, 0), p_t)
    return ((theirs - ours) ** 2).sum() / z_s.shape[1]


def batch_correlation(z_s: Tensor, z_t: Tensor, temperature: float = 4.0) -> Tensor:
    """Multi-level logit distillation, Gram matrices [B, B]; logits [B, K]."""
    p_s, p_t = F.softmax(z_s / temperature, dim=1), F.softmax(z_t / temperature, dim=1)
    ours, theirs = torch.mm(p_s, p_s.transpose(1, 0)), torch.mm(p_t, p_t.transpose(1, 0))
    return ((theirs - ours) ** 2).sum() / z_s.shape[0]


def sdd(
    map_s: Tensor,
    map_t: Tensor,
    weight_s: Tensor,
    bias_s: Tensor,
    weight_t: Tensor,
    bias_t: Tensor,
    labels: Tensor,
    temperature: float = 4.0,
) -> Tensor:
    """SDD-CVPR2024: regions become samples and are weighted by masks; maps [B, C, H, W], classifiers [K, C]."""

    def logits(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        regions = torch.cat([F.adaptive_avg_pool2d(x, size).flatten(2) for size in (1, 2, 4)], dim=2)  # [B, C, R]
        z = F.linear(regions.permute(0, 2, 1), weight, bias)  # [B, R, K]
        return z.permute(1, 0, 2).reshape(-1, z.shape[2])  # [R B, K]

    z_s, z_t, batch = logits(map_s, weight_s, bias_s), logits(map_t, weight_t, bias_t), len(labels)
    regions = len(z_s) // batch
    log_p_s, p_t = F.log_softmax(z_s / temperature, dim=1), F.softmax(z_t / temperature, dim=1)
    losses = F.kl_div(log_p_s, p_t, reduction="none") * temperature**2
    losses[torch.isnan(losses)] = 0
    losses = losses.sum(1)  # [R B]
    right = torch.argmax(z_t, dim=1) == labels.repeat(regions)
    right_whole = right[:batch].repeat(regions)
    consistent = torch.nonzero(right == right_whole).flatten()
    complementary = torch.nonzero(right != right_whole).flatten()
    total = losses[consistent].sum() + 2 * losses[complementary].sum()
    return total / (batch * regions)


def catkd(map_s: Tensor, map_t: Tensor, weight_s: Tensor, weight_t: Tensor) -> Tensor:
    """CAT-KD: activation maps by a 1 x 1 convolution, pooled to 2 x 2; maps [B, C, H, W], classifiers [K, C]."""
    ours, theirs = F.conv2d(map_s, weight_s[:, :, None, None]), F.conv2d(map_t, weight_t[:, :, None, None])
    ours, theirs = F.adaptive_avg_pool2d(ours, (2, 2)), F.adaptive_avg_pool2d(theirs, (2, 2))
    ours = F.normalize(ours.reshape(*ours.shape[:2], -1), dim=2)
    theirs = F.normalize(theirs.reshape(*theirs.shape[:2], -1), dim=2)
    return F.mse_loss(ours, theirs)


def at(maps_s: Maps, maps_t: Maps) -> Tensor:
    """Stage by stage; maps [B, C, H, W]."""

    def attention(x: Tensor) -> Tensor:
        return F.normalize(x.pow(2).mean(1).reshape(x.shape[0], -1))

    return _sum((attention(s) - attention(t)).pow(2).mean() for s, t in map(same_size, maps_s, maps_t))


def nst(maps_s: Maps, maps_t: Maps) -> Tensor:
    """Dot products by a product of [B, C, C, H W] and a sum; maps [B, C, H, W]."""

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a.unsqueeze(1) * b.unsqueeze(2)).sum(-1).pow(2)

    def discrepancy(s: Tensor, t: Tensor) -> Tensor:
        s, t = (F.normalize(x.reshape(*x.shape[:2], -1), dim=2) for x in (s, t))
        return kernel(t, t).mean().detach() + kernel(s, s).mean() - 2 * kernel(s, t).mean()

    return _sum(discrepancy(s, t) for s, t in map(same_size, maps_s, maps_t))


def fsp(maps_s: Maps, maps_t: Maps, connectors: Iterable[nn.Module]) -> Tensor:
    """Flows by a product of [B, C', C, H W] and a mean; maps [B, C, H, W]."""

    def flow(shallow: Tensor, deep: Tensor) -> Tensor:
        shallow, deep = (x.flatten(2) for x in same_size(shallow, deep))
        return (shallow.unsqueeze(1) * deep.unsqueeze(2)).mean(-1)

    maps_s = [connector(s) for connector, s in zip(connectors, maps_s)]
    flows_s = [flow(*pair) for pair in pairwise(maps_s)]
    flows_t = [flow(*pair) for pair in pairwise(maps_t)]
    return _sum((s - t).pow(2).mean() for s, t in zip(flows_s, flows_t))


def hcl(maps_s: Maps, maps_t: Maps) -> Tensor:
    """ReviewKD's loss of the fused maps; maps [B, C, H, W]."""
    total = torch.zeros((), device=maps_s[0].device, dtype=maps_s[0].dtype)
    for s, t in zip(maps_s, maps_t):
        loss, weight, weights = F.mse_loss(s, t, reduction="mean"), 1.0, 1.0
        for size in (4, 2, 1):
            if size >= s.shape[2]:
                continue
            weight /= 2
            pooled_s, pooled_t = F.adaptive_avg_pool2d(s, (size, size)), F.adaptive_avg_pool2d(t, (size, size))
            loss = loss + F.mse_loss(pooled_s, pooled_t, reduction="mean") * weight
            weights += weight
        total = total + loss / weights
    return total


def ofd(maps_s: Maps, maps_t: Maps, connectors: Sequence[nn.Module], margins: Sequence[Tensor]) -> Tensor:
    """Three masked squares are added; maps [B, C, H, W], margins [C] a stage."""

    def partial(s: Tensor, t: Tensor, margin: Tensor) -> Tensor:
        margin = margin.view(1, -1, 1, 1)
        below = (s - margin) ** 2 * ((s > margin) & (t <= margin)).to(s.dtype)
        between = (s - t) ** 2 * ((s > t) & (t > margin) & (t <= 0)).to(s.dtype)
        above = (s - t) ** 2 * (t > 0).to(s.dtype)
        return torch.abs(below + between + above).mean(dim=0).sum()

    loss = torch.zeros((), device=maps_s[0].device, dtype=maps_s[0].dtype)
    for number, (s, t, connector, margin) in enumerate(zip(maps_s, maps_t, connectors, margins)):
        t = F.adaptive_avg_pool2d(t, (s.shape[2], s.shape[3]))
        loss = loss + partial(connector(s), t, margin) / 2 ** (len(maps_s) - number - 1)
    return loss


def ab(maps_s: Maps, maps_t: Maps, connectors: Sequence[nn.Module], margin: float = 1.0) -> Tensor:
    """Two masked squares are added, without RepDistiller's factor of 3/1000; maps [B, C, H, W]."""

    def alternative(s: Tensor, t: Tensor) -> Tensor:
        inactive = (s + margin) ** 2 * ((s > -margin) & (t <= 0)).to(s.dtype)
        active = (s - margin) ** 2 * ((s <= margin) & (t > 0)).to(s.dtype)
        return torch.abs(inactive + active).sum()

    losses = [alternative(connector(s), t) for connector, s, t in zip(connectors, maps_s, maps_t)]
    return _sum(loss / 2 ** (len(losses) - 1 - n) for n, loss in enumerate(losses)) / len(maps_s[0])


def vid(maps_s: Maps, maps_t: Maps, means: Iterable[nn.Module], scales: Iterable[Tensor]) -> Tensor:
    """The variance by log(1 + exp); maps [B, C, H, W], scales [C] a stage."""

    def likelihood(s: Tensor, t: Tensor, mean: nn.Module, scale: Tensor) -> Tensor:
        variance = (torch.log(1.0 + torch.exp(scale)) + 1e-5).view(1, -1, 1, 1)
        return torch.mean(0.5 * ((mean(s) - t) ** 2 / variance + torch.log(variance)))

    pairs = map(same_size, maps_s, maps_t)
    return _sum(likelihood(*pair, mean, scale) for pair, mean, scale in zip(pairs, means, scales))


def kdsvd(maps_s: Maps, maps_t: Maps, signs: Sequence[Tensor], count: int = 1) -> Tensor:
    """Whole decompositions; maps [B, C, H, W], signs [B, 1, count] of the teacher's vectors, which none determines."""

    def align(s: Tensor, t: Tensor, sign: Tensor) -> tuple[Tensor, Tensor]:
        _, _, right_s = torch.svd(s.reshape(s.shape[0], -1, s.shape[-1]))
        _, values, right_t = torch.svd(t.reshape(t.shape[0], -1, t.shape[-1]))
        right_s, right_t = right_s[:, :, : count + 3], right_t[:, :, :count] * sign  # [B, W, ...]
        values = F.normalize(values[:, :count], dim=1).unsqueeze(1)
        cosines = torch.matmul(right_s.transpose(-2, -1), right_t)  # [B, count + 3, count]
        best = torch.argmax(cosines.abs(), dim=1, keepdim=True)
        chosen = torch.gather(right_s, 2, best.expand(-1, right_s.shape[1], -1))
        return chosen * torch.sign(torch.gather(cosines, 1, best)) * values, right_t * values

    def radial(deep: Tensor, shallow: Tensor) -> Tensor:
        difference = deep.unsqueeze(2) - shallow.unsqueeze(1)
        return torch.exp(-(difference**2) / 8)

    stages = [align(*stage) for stage in zip(maps_s, maps_t, signs)]
    loss = torch.zeros((), device=maps_s[0].device, dtype=maps_s[0].dtype)
    for (shallow_s, shallow_t), (deep_s, deep_t) in pairwise(stages):
        squares = (radial(deep_s, shallow_s) - radial(deep_t, shallow_t).detach()) ** 2
        loss = loss + torch.where(torch.isfinite(squares), squares, torch.zeros_like(squares)).sum()
    return loss / len(maps_s[0])


def ickd(map_s: Tensor, map_t: Tensor, connector: nn.Module) -> Tensor:
    """torchdistill: batched Gram matrices of the channels; maps [B, C, H, W]."""

    def relations(x: Tensor) -> Tensor:
        x = x.view(*x.shape[:2], -1)
        return F.normalize(torch.bmm(x, x.permute(0, 2, 1)), dim=2)

    difference = relations(connector(map_s)) - relations(map_t)
    return (difference * difference).view(len(map_s), -1).sum() / (difference.shape[1] * len(map_s))


def pkt(f_s: Tensor, f_t: Tensor) -> Tensor:
    """Features [B, D]."""

    def similarities(x: Tensor) -> Tensor:
        x = x / (torch.sqrt(torch.sum(x**2, dim=1, keepdim=True)) + _EPSILON)
        x = torch.where(x != x, torch.zeros_like(x), x)
        kernel = (torch.mm(x, x.transpose(0, 1)) + 1.0) / 2.0
        return kernel / torch.sum(kernel, dim=1, keepdim=True)

    p_s, p_t = similarities(f_s), similarities(f_t)
    return torch.mean(p_t * torch.log((p_t + _EPSILON) / (p_s + _EPSILON)))


def rkd_distance(f_s: Tensor, f_t: Tensor) -> Tensor:
    """Squared distances by Gram matrices, divided by the mean of those above zero; features [B, D]."""

    def distances(x: Tensor) -> Tensor:
        squares, products = x.pow(2).sum(dim=1), x @ x.t()
        result = (squares.unsqueeze(1) + squares.unsqueeze(0) - 2 * products).clamp(min=1e-12).sqrt()
        result = result.clone()
        result[range(len(x)), range(len(x))] = 0
        return result / result[result > 0].mean()

    return F.smooth_l1_loss(distances(f_s), distances(f_t))


def rkd_angle(f_s: Tensor, f_t: Tensor) -> Tensor:
    """All differences [B, B, D] and all angles [B, B, B]; features [B, D]."""

    def angles(x: Tensor) -> Tensor:
        directions = F.normalize(x.unsqueeze(0) - x.unsqueeze(1), p=2, dim=2)
        return torch.bmm(directions, directions.transpose(1, 2)).view(-1)

    return F.smooth_l1_loss(angles(f_s), angles(f_t))


def sp(map_s: Tensor, map_t: Tensor) -> Tensor:
    """Maps [B, C, H, W]."""

    def similarities(x: Tensor) -> Tensor:
        x = x.view(x.shape[0], -1)
        return F.normalize(torch.mm(x, torch.t(x)))

    difference = similarities(map_t) - similarities(map_s)
    return (difference * difference).view(-1, 1).sum(0).squeeze() / len(map_s) ** 2


def consecutive_correlation(f_s: Tensor, f_t: Tensor, embed_s: nn.Module, embed_t: nn.Module) -> Tensor:
    """Features [B, D]."""
    delta = torch.abs(embed_s(f_s) - embed_t(f_t))
    return torch.mean((delta[:-1] * delta[1:]).sum(1))


def lshfm(f_s: Tensor, f_t: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """LSHFM's LSHL2: a linear layer on both, binary cross-entropy and squares; features [B, D], weight [hashes, D]."""
    hash_s, hash_t = F.linear(f_s, weight, bias), F.linear(f_t, weight, bias)
    return F.binary_cross_entropy_with_logits(hash_s, (hash_t > 0).to(hash_s.dtype)) + F.mse_loss(f_s, f_t)


def crd(
    f_s: Tensor,
    f_t: Tensor,
    index: Tensor,
    compared: Tensor,
    embeds: tuple[nn.Module, nn.Module],
    memories: tuple[Tensor, Tensor],
    constants: list[float],
) -> Tensor:
    """Rows of the memories are gathered as [B, 1 + contrasts, d]; compared [B, 1 + contrasts], memories [N, d]."""
    embedded = [_unit(embed(f)) for embed, f in zip(embeds, (f_s, f_t))]
    count, batch, contrasts = len(memories[0]), len(f_s), compared.shape[1] - 1
    scores = []
    for number, (own, other) in enumerate(zip(embedded, (memories[1], memories[0]))):
        rows = torch.index_select(other, 0, compared.view(-1)).detach().view(batch, contrasts + 1, -1)
        score = torch.exp(torch.div(torch.bmm(rows, own.view(batch, -1, 1)), 0.07))
        if constants[number] < 0:
            constants[number] = (score.mean() * count).item()
        scores.append(torch.div(score, constants[number]).contiguous())
    with torch.no_grad():
        for memory, own in zip(memories, embedded):
            kept = torch.index_select(memory, 0, index.view(-1)).mul_(0.5)
            memory.index_copy_(0, index, _unit(kept.add_(torch.mul(own, 0.5))))
    return _sum(_contrast(score, contrasts / count) for score in scores)


def _contrast(scores: Tensor, noise: float) -> Tensor:
    """Noise-contrastive loss of scores [B, 1 + contrasts, 1]."""
    positive, negative = scores.select(1, 0), scores.narrow(1, 1, scores.shape[1] - 1)
    log_positive = torch.div(positive, positive.add(noise + _EPSILON)).log()
    log_negative = torch.div(negative.clone().fill_(noise), negative.add(noise + _EPSILON)).log()
    return -(log_positive.sum() + log_negative.view(-1, 1).sum()) / scores.shape[0]


def _unit(x: Tensor) -> Tensor:
    return x.div(x.pow(2).sum(1, keepdim=True).pow(0.5))


def _sum(losses: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(losses)).sum()
