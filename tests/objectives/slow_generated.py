"""As `slow_features`: distributions of features, and maps that are made of others."""

import math

import numpy as np
from slow_features import connect, convolve, linked, same_size

SIGNAL = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))


def cells(x, grid):
    """[C, H, W] -> the pixels of each cell, [C, N] each."""
    rows, columns = (
        [(math.floor(i * n / grid), math.ceil((i + 1) * n / grid)) for i in range(grid)] for n in x.shape[1:]
    )
    return [x[:, a:b, c:d].reshape(len(x), -1) for a, b in rows for c, d in columns]


def root(matrix):
    """Of a symmetric matrix without negative eigenvalues."""
    values, vectors = np.linalg.eigh(matrix)
    return vectors * np.sqrt(values.clip(0)) @ vectors.T


def wkd_f(student, teacher, w, ratio, grid, hidden=0, full=False):
    made = student[0]
    if hidden:
        made = convolve(made, w["connector.0.weight"], w["connector.0.bias"])
        made = convolve(made, w["connector.1.weight"], w["connector.1.bias"])
    made = connect(made, w, "connector.2" if hidden else "connector")
    total = 0.0
    for s_map, t_map in zip(*same_size(np.maximum(made, 0), teacher[0])):
        for s, t in zip(cells(s_map, grid), cells(t_map, grid)):
            total += ratio * ((s.mean(1) - t.mean(1)) ** 2).sum()
            if full:
                ours, theirs = (np.cov(x, bias=True) for x in (s, t))
                both = root(root(ours) @ theirs @ root(ours))
                total += np.trace(ours + theirs - 2 * both)
            else:
                total += ((np.sqrt(s.var(1) + 1e-5) - np.sqrt(t.var(1) + 1e-5)) ** 2).sum()
    return total / grid**2 / len(made)


def generated(x, w):
    x = np.maximum(convolve(x, w["generator.0.weight"], w["generator.0.bias"]), 0)
    return convolve(x, w["generator.2.weight"], w["generator.2.bias"])


def mgd_last(student, teacher, w, kept=1):
    """``kept``: [B, C, 1, 1] or [B, 1, H, W]."""
    made = convolve(student[0], w["connector.weight"], w["connector.bias"]) if "connector.weight" in w else student[0]
    made, theirs = same_size(made, teacher[0])
    return ((generated(made * kept, w) - theirs) ** 2).sum() / len(theirs)


def vitkd(student, teacher, w, masked, generation, missing):
    """``missing``: bool [B, H, W]."""
    total, pairs = 0.0, [same_size(linked(s, w, level), t) for level, (s, t) in enumerate(zip(student, teacher))]
    for s, t in pairs[:-1]:
        total += ((s - t) ** 2).sum()
    deepest, theirs = pairs[-1]
    deepest = deepest.copy()
    for b, i, j in np.argwhere(missing):
        deepest[b, :, i, j] = w["token"][0, :, 0, 0]
    made = generated(deepest, w)
    for b, i, j in np.argwhere(missing):
        total += generation / masked * ((made[b, :, i, j] - theirs[b, :, i, j]) ** 2).sum()
    return total / len(theirs)


def bottleneck(x, w, name):
    made = np.maximum(connect(x, w, f"{name}.0"), 0)
    made = np.maximum(connect(made, w, f"{name}.1"), 0)
    return x + connect(made, w, f"{name}.2")


def noise_in(x, times, w):
    x = x + w["denoiser.times.weight"][times][:, :, None, None]
    for block in (0, 1):
        x = bottleneck(x, w, f"denoiser.blocks.{block}")
    return connect(x, w, "denoiser.last")


def diffkd(student, teacher, w, draws, times):
    """``draws``: noise for the student, times and noise for the teacher; ``times``: of the steps."""
    code = connect(teacher[0], w, "encoder")
    total = ((convolve(code, w["decoder.weight"], w["decoder.bias"]) - teacher[0]) ** 2).mean()
    x, code = same_size(convolve(student[0], w["connector.weight"], w["connector.bias"]), code)
    start, when, noise = draws
    noisy = np.array([SIGNAL[t] ** 0.5 * y + (1 - SIGNAL[t]) ** 0.5 * e for t, y, e in zip(when, code, noise)])
    total += ((noise_in(noisy, when, w) - noise) ** 2).mean()
    pooled = bottleneck(x, w, "adapter.block").mean((2, 3)) @ w["adapter.shares.weight"].T + w["adapter.shares.bias"]
    shares = (1 / (1 + np.exp(pooled[:, 1] - pooled[:, 0])))[:, None, None, None]
    x = shares * x + (1 - shares) * start
    for number, time in enumerate(times):
        now, before = SIGNAL[time], SIGNAL[times[number + 1]] if number + 1 < len(times) else 1.0
        error = noise_in(x, np.full(len(x), time), w)
        x = before**0.5 * (x - (1 - now) ** 0.5 * error) / now**0.5 + (1 - before) ** 0.5 * error
    return total + ((connect(x, w, "projector") - code) ** 2).mean()


def gelu(x):
    return x * np.array([(1 + math.erf(v / math.sqrt(2))) / 2 for v in x])


def phi_s(student, teacher, w):
    """By the mean and the rotation in ``w``."""
    student, teacher = same_size(student[0], teacher[0])
    errors = []
    for s, t in zip(
        np.moveaxis(student, 1, 3).reshape(-1, student.shape[1]),
        np.moveaxis(teacher, 1, 3).reshape(-1, teacher.shape[1]),
    ):
        x = w["head.0.weight"] @ s + w["head.0.bias"]
        x = (x - x.mean()) / math.sqrt(x.var() + 1e-5) * w["head.1.weight"] + w["head.1.bias"]
        x = w["head.3.weight"] @ gelu(x) + w["head.3.bias"]
        errors.append((x - w["rotation"] @ (t - w["mean"])) ** 2)
    return np.mean(errors)
