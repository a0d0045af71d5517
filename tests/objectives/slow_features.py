"""Objectives on features by loops over samples, pairs and pixels, as the papers' formulas say.

Each takes the features of student and teacher, lists of arrays [B, ...], and the module's parameters and buffers by
name; options as feature_cases.py has them.
"""

import math
from itertools import pairwise, product

import numpy as np


def unit(x):
    return x.ravel() / math.sqrt((x * x).sum())


def pool(x, size):
    """Means over squares; [B, C, H, W] -> [B, C, size, size]."""
    step, out = x.shape[2] // size, np.zeros((*x.shape[:2], size, size))
    for i, j in product(range(size), repeat=2):
        out[:, :, i, j] = x[:, :, i * step : (i + 1) * step, j * step : (j + 1) * step].mean((2, 3))
    return out


def same_size(x, y):
    size = min(x.shape[2], y.shape[2])
    return pool(x, size), pool(y, size)


def batch_norm(x, weight=None, bias=None, epsilon=1e-5):
    out = np.zeros_like(x)
    for c in range(x.shape[1]):
        out[:, c] = (x[:, c] - x[:, c].mean()) / math.sqrt(x[:, c].var() + epsilon)
        out[:, c] = out[:, c] * (1 if weight is None else weight[c]) + (0 if bias is None else bias[c])
    return out


def convolve(x, weight, bias=None):
    """[B, C, H, W] by weights [D, C, k, k] with k odd, of the same size."""
    reach, out = weight.shape[2] // 2, np.zeros((len(x), len(weight), *x.shape[2:]))
    around = np.pad(x, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    for b, d, i, j in np.ndindex(*out.shape):
        window = around[b, :, i : i + 2 * reach + 1, j : j + 2 * reach + 1]
        out[b, d, i, j] = (window * weight[d]).sum() + (0 if bias is None else bias[d])
    return out


def connect(x, w, name, convolution=0):
    """A convolution and batch norm, called ``name`` in ``w``."""
    x = convolve(x, w[f"{name}.{convolution}.weight"], w.get(f"{name}.{convolution}.bias"))
    return batch_norm(x, w[f"{name}.{convolution + 1}.weight"], w[f"{name}.{convolution + 1}.bias"])


def fitnet(student, teacher, w):
    return ((np.maximum(connect(student[1], w, "regressor"), 0) - teacher[1]) ** 2).mean()


def at(student, teacher, _):
    total = 0.0
    for s, t in map(same_size, student, teacher):
        for a, b in zip(s, t):
            total += ((unit((a**2).sum(0)) - unit((b**2).sum(0))) ** 2).mean() / len(s)
    return total


def nst(student, teacher, _):
    def kernel(x, y):
        return np.mean([(unit(a) @ unit(b)) ** 2 for a in x for b in y])

    total = 0.0
    for s, t in map(same_size, student, teacher):
        total += sum(kernel(a, a) + kernel(b, b) - 2 * kernel(a, b) for a, b in zip(s, t)) / len(s)
    return total


def fsp(student, teacher, _):
    def flow(x, y):
        x, y = same_size(x, y)
        out = np.zeros((len(x), x.shape[1], y.shape[1]))
        for b, c, d in np.ndindex(*out.shape):
            out[b, c, d] = sum((x[b, c] * y[b, d]).ravel()) / (x.shape[2] * x.shape[3])
        return out

    return ((flow(*student) - flow(*teacher)) ** 2).mean()


def kdsvd(student, teacher, vectors):
    """For one sample of two stages [C, H, W], the values by the signs of the teacher's vectors."""
    values = []
    for signs in product([1, -1], repeat=2 * vectors):
        sides = []
        for number, (s, t) in enumerate(zip(student, teacher)):
            sigma, theirs = np.linalg.svd(t.reshape(-1, t.shape[2]))[1:]
            ours = np.linalg.svd(s.reshape(-1, s.shape[2]))[2][: vectors + 3]
            theirs = theirs[:vectors] * np.array(signs[number * vectors :][:vectors])[:, None]
            best = [max((a * np.sign(a @ b) for a in ours), key=b.__matmul__) for b in theirs]
            scale = (sigma[:vectors] / np.linalg.norm(sigma[:vectors]))[:, None]
            sides.append((best * scale, theirs * scale))
        total = 0.0
        for v, i, j in np.ndindex(vectors, *(side[0].shape[1] for side in sides)):
            ours, theirs = (math.exp(-((sides[1][who][v, j] - sides[0][who][v, i]) ** 2) / 8) for who in (0, 1))
            total += (ours - theirs) ** 2
        values.append(total)
    return values


def vid(student, teacher, w, epsilon=1e-5):
    total = 0.0
    for number, (s, t) in enumerate(map(same_size, student, teacher)):
        for layer in (0, 2, 4):
            s = convolve(np.maximum(s, 0) if layer else s, w[f"means.{number}.{layer}.weight"])
        variance = np.log1p(np.exp(w[f"scales.{number}"])) + epsilon
        terms = [((a - b) ** 2 / v + math.log(v)) / 2 for x, y in zip(s, t) for a, b, v in zip(x, y, variance)]
        total += np.mean(terms)
    return total


def ab(student, teacher, w):
    total, margin = 0.0, 0.7
    for number, (s, t) in enumerate(zip(student, teacher)):
        if f"connectors.{number}.0.weight" in w:
            s = connect(s, w, f"connectors.{number}")
        for a, b in zip(*(x.ravel() for x in same_size(s, t))):
            total += max(0, margin - a if b > 0 else margin + a) ** 2 / len(s) / 2 ** (len(student) - 1 - number)
    return total


def margin(weight, bias):
    """Mean of a normal variable where it is negative, by a sum over 200,000 values."""
    x = np.linspace(min(0, bias) - 12 * abs(weight), 0, 200_001)
    density = np.exp(-(((x - bias) / weight) ** 2) / 2)
    return (x * density).sum() / density.sum()


def ofd(student, teacher, w, norm):
    """The first stage comes out of the batch norm ``norm`` (weights, biases), the second one out of none."""
    negatives = [t[t < 0] for t in teacher[1].swapaxes(0, 1)]
    margins = [[margin(*pair) for pair in zip(*norm)], [x.mean() if len(x) else 0.0 for x in negatives]]
    total = 0.0
    for number, (s, t) in enumerate(zip(student, teacher)):
        s, t = connect(s, w, f"connectors.{number}"), pool(t, s.shape[2])
        for b, c, i, j in np.ndindex(*s.shape):
            target = max(t[b, c, i, j], margins[number][c])
            if not s[b, c, i, j] <= target <= 0:
                total += (s[b, c, i, j] - target) ** 2 / len(s) / 2 ** (len(student) - 1 - number)
    return total


def hcl(student, teacher, _=None):
    total = 0.0
    for s, t in zip(student, teacher):
        sizes = [s.shape[2]] + [size for size in (4, 2, 1) if size < s.shape[2]]
        weights = [1 / 2**number for number in range(len(sizes))]
        losses = [((pool(s, size) - pool(t, size)) ** 2).mean() for size in sizes]
        total += sum(map(math.prod, zip(weights, losses))) / sum(weights)
    return total


def reviewkd(student, teacher, w):
    maps = [x if x.ndim == 4 else x[:, :, None, None] for x in (*student, *teacher)]
    student, teacher = maps[: len(student)], maps[len(student) :]
    compared, deeper = [], None
    for level in reversed(range(len(student))):
        x = connect(student[level], w, f"fusions.{level}.enter")
        if deeper is not None:
            times = x.shape[2] // deeper.shape[2]
            deeper = deeper.repeat(times, 2).repeat(times, 3)
            both, name = np.concatenate([x, deeper], 1), f"fusions.{level}.attention"
            gates = 1 / (1 + np.exp(-convolve(both, w[f"{name}.weight"], w[f"{name}.bias"])))
            x = x * gates[:, :1] + deeper * gates[:, 1:]
        deeper = x
        compared.append(connect(x, w, f"fusions.{level}.leave"))
    return hcl(compared[::-1], teacher)


def sp(student, teacher, _):
    sides = []
    for x in (student[0], teacher[0]):
        gram = np.array([[(a * b).sum() for b in x] for a in x])
        sides.append(np.array([unit(row) for row in gram]))
    return ((sides[0] - sides[1]) ** 2).sum() / len(student[0]) ** 2


def pkt(student, teacher, _):
    sides = []
    for x in (student[0], teacher[0]):
        kernel = np.array([[(unit(a) @ unit(b) + 1) / 2 for b in x] for a in x])
        sides.append(np.array([row / sum(row) for row in kernel]))
    return np.mean([q * math.log(q / p) for p, q in zip(sides[0].ravel(), sides[1].ravel())])


def huber(x, y):
    return (x - y) ** 2 / 2 if abs(x - y) < 1 else abs(x - y) - 0.5


def rkd_distance(student, teacher, _, power=1):
    sides = []
    for x in (student[0], teacher[0]):
        distances = np.array([[math.dist(a, b) ** power for b in x] for a in x])
        sides.append(distances / np.mean([distances[i, j] for i, j in np.ndindex(*distances.shape) if i != j]))
    return np.mean([huber(a, b) for a, b in zip(sides[0].ravel(), sides[1].ravel())])


def rkd_angle(student, teacher, _):
    def cosine(x, i, j, k):
        return 0.0 if i in (j, k) else unit(x[j] - x[i]) @ unit(x[k] - x[i])

    triples = list(product(range(len(student[0])), repeat=3))
    return np.mean([huber(cosine(student[0], *ijk), cosine(teacher[0], *ijk)) for ijk in triples])


def cc(student, teacher, _):
    def kernel(x, y):
        return math.exp(-0.6 * math.dist(unit(x), unit(y)) ** 2)

    (s,), (t,) = student, teacher
    pairs = list(product(range(len(s)), repeat=2))
    return np.mean([(kernel(s[i], s[j]) - kernel(t[i], t[j])) ** 2 for i, j in pairs])


def linear(x, w, name):
    return np.array([w[f"{name}.weight"] @ row + w[f"{name}.bias"] for row in x])


def consecutive(student, teacher, w):
    distances = abs(linear(student[0], w, "embed_student") - linear(teacher[0], w, "embed_teacher"))
    return np.mean([a @ b for a, b in pairwise(distances)])


def crd(student, teacher, w, compared, temperature):
    """-log of the probability that the first one compared is the same sample, and that the others are not."""
    total, (count, samples) = 0.0, (len(compared[0]) - 1, w["memory"].shape[1])
    for x, name, other, own in ((student[0], "student", 1, 0), (teacher[0], "teacher", 0, 1)):
        for embedded, numbers in zip(linear(x, w, f"embed_{name}"), compared):
            for place, number in enumerate(numbers):
                score = math.exp(unit(embedded) @ w["memory"][other, number] / temperature) / w["constants"][own]
                same = score / (score + count / samples)
                total -= math.log(1 - same if place else same) / len(x)
    return total


def lshfm(student, teacher, w, hashes, features, counts=None):
    """``hashes``: sign, l1, l2 or none; ``features``: l1, l2, directions or none; ``counts``: the samples that do."""
    total, counts = 0.0, range(len(student[0])) if counts is None else counts
    for s, t in [(student[0][number], teacher[0][number]) for number in counts]:
        h_s, h_t = w["weight"] @ s + w["bias"], w["weight"] @ t + w["bias"]
        if hashes == "sign":
            p = 1 / (1 + np.exp(-h_s))
            total -= np.mean([math.log(a if b > 0 else 1 - a) for a, b in zip(p, h_t)])
        elif hashes != "none":
            total += np.mean(abs(h_s - h_t) ** int(hashes[1]))
        s, t = (unit(s), unit(t)) if features == "l2_normalised" else (s, t)
        if features != "none":
            total += np.mean(abs(s - t) ** int(features[1]))
    return total / max(1, len(counts))


def srrl(student, teacher, w, head):
    total, mapped = 0.0, np.maximum(connect(student[0], w, "connector"), 0)
    for s, t in zip(mapped.mean((2, 3)), teacher[0].mean((2, 3))):
        total += ((s - t) ** 2).mean() + ((head @ s - head @ t) ** 2).mean()
    return total / len(mapped)


def ickd(student, teacher, w):
    s, t = same_size(connect(student[0], w, "connector"), teacher[0])
    total = 0.0
    for a, b in zip(s, t):
        for i in range(len(a)):
            rows = (unit(np.array([(x[i] * y).sum() for y in x])) for x in (a, b))
            total += math.dist(*rows) ** 2 / len(a) / len(s)
    return total


def srd(student, teacher, w):
    ours, theirs = linear(student[0], w, "projector"), teacher[0]
    distances = abs(batch_norm(ours, epsilon=1e-4) - batch_norm(theirs, epsilon=1e-4))
    return math.log(sum((distances**3).ravel()))


def pkd(student, teacher, _):
    total = 0.0
    for s, t in zip(student, teacher):
        channels = range(s.shape[1])
        total += np.mean([1 - np.corrcoef(s[:, c].ravel(), t[:, c].ravel())[0, 1] for c in channels])
    return total


def linked(student, w, level):
    """A student's map by the connector of its level, if there is one."""
    name = f"connectors.{level}"
    return convolve(student, w[f"{name}.weight"], w[f"{name}.bias"]) if f"{name}.weight" in w else student


def softmax(x):
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def cwd(student, teacher, w, temperature):
    total = 0.0
    for level, (s, t) in enumerate(zip(student, teacher)):
        s = linked(s, w, level)
        for b, c in np.ndindex(*s.shape[:2]):
            p, q = (softmax(x[b, c].ravel() / temperature) for x in (s, t))
            total += temperature**2 * (q * np.log(q / p)).sum() / (len(s) * s.shape[1])
    return total


def mgd(student, teacher, w, kept=(1, 1)):
    """``kept``: of each level, [B, 1, H, W]."""
    total = 0.0
    for level, (s, t) in enumerate(zip(student, teacher)):
        made, name = linked(s, w, level) * kept[level], f"generators.{level}"
        made = np.maximum(convolve(made, w[f"{name}.0.weight"], w[f"{name}.0.bias"]), 0)
        made = convolve(made, w[f"{name}.2.weight"], w[f"{name}.2.bias"])
        total += ((made - t) ** 2).sum() / len(t)
    return total


def fgd(student, teacher, w, temperature, foreground, background, attention, relation, boxes, objects, side):
    """``boxes``: of each image, x1, y1, x2, y2; ``objects``: numbers of those that count; ``side``: of the images."""
    total = 0.0
    for level, (s_maps, t_maps) in enumerate(zip(student, teacher)):
        s_maps = linked(s_maps, w, level)
        channels, height, width = t_maps.shape[1:]
        for image in range(len(t_maps)):
            s, t = s_maps[image], t_maps[image]
            inside = np.zeros((height, width))
            for x1, y1, x2, y2 in [boxes[image][number] for number in objects[image]]:
                rows = range(math.floor(y1 * height / side), math.ceil(y2 * height / side))
                columns = range(math.floor(x1 * width / side), math.ceil(x2 * width / side))
                for i, j in product(rows, columns):
                    inside[i, j] = max(inside[i, j], 1 / (len(rows) * len(columns)))
            places = [softmax(abs(x).mean(0).ravel() / temperature) * height * width for x in (s, t)]
            of_channels = [softmax(abs(x).mean((1, 2)) / temperature) * channels for x in (s, t)]
            for c, i, j in np.ndindex(*t.shape):
                share = foreground * inside[i, j] if inside[i, j] else background / (inside == 0).sum()
                gap = (s[c, i, j] - t[c, i, j]) ** 2
                total += share * places[1].reshape(height, width)[i, j] * of_channels[1][c] * gap / len(t_maps)
            distances = [abs(x[0] - x[1]).sum() for x in (places, of_channels)]
            sides = [in_context(x, w, f"{who}_contexts.{level}") for x, who in ((s, "student"), (t, "teacher"))]
            total += (attention * sum(distances) + relation * ((sides[0] - sides[1]) ** 2).sum()) / len(t_maps)
    return total


def in_context(x, w, name):
    """[C, H, W] with its context added."""
    weights = softmax(np.tensordot(w[f"{name}.attention.weight"][0, :, 0, 0], x, 1) + w[f"{name}.attention.bias"])
    hidden = w[f"{name}.transform.0.weight"] @ (x * weights).sum((1, 2)) + w[f"{name}.transform.0.bias"]
    hidden = (hidden - hidden.mean()) / math.sqrt(hidden.var() + 1e-5)
    hidden = np.maximum(hidden * w[f"{name}.transform.1.weight"] + w[f"{name}.transform.1.bias"], 0)
    return x + (w[f"{name}.transform.3.weight"] @ hidden + w[f"{name}.transform.3.bias"])[:, None, None]


def lshfm_windows(student, teacher, w, usable, hashes="sign", features="l2"):
    """``usable``: [B, L]."""
    w = {"weight": w["weight"].reshape(len(w["weight"]), -1), "bias": w["bias"]}
    around = [[np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))) for x in side] for side in (student, teacher)]
    values = []
    for image in np.flatnonzero(usable.any(1)):
        sides = [
            np.array([x[image, :, i : i + 3, j : j + 3].ravel() for x in side for i, j in np.ndindex(*inner(x))])
            for side in around
        ]
        values.append(lshfm([sides[0]], [sides[1]], w, hashes, features, np.flatnonzero(usable[image])))
    return np.mean(values)


def inner(x):
    return x.shape[2] - 2, x.shape[3] - 2
