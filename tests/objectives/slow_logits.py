"""Objectives on logits by loops over lists, as the papers' formulas say; options as logit_cases.py has them.

Each takes the logits of student and teacher, [B][K], and the labels, [B]; `sdd` and `catkd` maps of them, [B][K][4][4].
"""

import math
from itertools import product
from statistics import correlation, fmean, stdev


def softmax(row, temperature=1.0):
    powers = [math.exp((value - max(row)) / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def divergence(p, q):
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))


def dot(one, other):
    return sum(map(math.prod, zip(one, other, strict=True)))


def others(row, label):
    """Probabilities among the other classes."""
    rest = [value for k, value in enumerate(row) if k != label]
    return [value / sum(rest) for value in rest]


def cross_entropy(student, _, labels):
    total = 0.0
    for z, y in zip(student, labels):
        targets = [0.3 / len(z) + 0.7 * (k == y) for k in range(len(z))]
        total -= sum(target * math.log(p) for target, p in zip(targets, softmax(z)))
    return total / len(labels)


def wsld(student, teacher, labels, temperature=2.0):
    total = 0.0
    for z_s, z_t, y in zip(student, teacher, labels):
        weight = 1 - math.exp(-math.log(softmax(z_s)[y]) / (math.log(softmax(z_t)[y]) - 1e-7))
        total -= weight * dot(softmax(z_t, temperature), map(math.log, softmax(z_s, temperature)))
    return temperature**2 * total / len(labels)


def dkd(student, teacher, labels):
    total = 0.0
    for z_s, z_t, y in zip(student, teacher, labels):
        p_s, p_t = softmax(z_s, 2.0), softmax(z_t, 2.0)
        target = divergence([p_t[y], 1 - p_t[y]], [p_s[y], 1 - p_s[y]])
        total += 0.7 * target + 3.0 * divergence(others(p_t, y), others(p_s, y))
    return 4.0 * total / len(labels)


def dist(student, teacher, _):
    p_s, p_t = [softmax(row, 1.5) for row in student], [softmax(row, 1.5) for row in teacher]
    between = fmean(1 - correlation(a, b) for a, b in zip(p_s, p_t))
    within = fmean(1 - correlation(a, b) for a, b in zip(zip(*p_s), zip(*p_t)))
    return 1.5**2 * (2.0 * between + 0.5 * within)


def nkd(student, teacher, labels):
    total = 0.0
    for z_s, z_t, y in zip(student, teacher, labels):
        rest_s, rest_t = (others(softmax(z, 2.0), y) for z in (z_s, z_t))
        cross = -sum(b * math.log(a) for a, b in zip(rest_s, rest_t))
        total += -softmax(z_t)[y] * math.log(softmax(z_s)[y]) + 0.8 * 2.0**2 * cross
    return total / len(labels)


def asymmetric_single_label(student, _, labels):
    total = 0.0
    for z, y in zip(student, labels):
        for k, p in enumerate(softmax(z)):
            weight = (1 - p) ** 1.5 if k == y else p**0.5
            total -= (0.3 / len(z) + 0.7 * (k == y)) * weight * math.log(p)
    return total / len(labels)


def uskd(student, pooled, labels, head, by_log):
    weak = [[sum(map(math.prod, zip(row, x))) + b for row, b in zip(*head)] for x in pooled]
    true = [softmax(row)[y] for row, y in zip(student, labels)]
    total = 0.0
    for z, w, y, p in zip(student, weak, labels, true):
        target = p**2 + 1 - fmean(q**2 for q in true)
        own = [math.log(value) if by_log else value for value in softmax(z)]
        scores = [a / (1 - own[y]) + b / (1 - softmax(w)[y]) for a, b in zip(own, softmax(w))]
        ranks = [1 + sum(other > score for other in scores) for score in scores]
        zipf = others([1 / rank for rank in ranks], y)
        smoothed = [0.9 * (k == y) + 0.1 / len(z) for k in range(len(z))]
        total -= 0.5 * target * math.log(p)
        total -= 0.4 * sum(share * math.log(q) for share, q in zip(zipf, others(softmax(z), y)))
        total -= 0.3 * sum(share * math.log(q) for share, q in zip(smoothed, softmax(w)))
    return total / len(labels)


def ttm(student, teacher, _, weighted):
    """The teacher's probabilities to the power 1 / T, over their sum, which is the weight."""
    total = 0.0
    for z_s, z_t in zip(student, teacher):
        powers = [p ** (1 / 3.0) for p in softmax(z_t)]
        weight = sum(powers) if weighted else 1.0
        total += weight * divergence([power / sum(powers) for power in powers], softmax(z_s))
    return total / len(student)


def kd(student, teacher, temperature):
    divergences = (divergence(softmax(t, temperature), softmax(s, temperature)) for s, t in zip(student, teacher))
    return temperature**2 * fmean(divergences)


def ctkd(student, teacher, _):
    return kd(student, teacher, 2.0 + 5.0 / (1 + math.exp(-0.3)))


def gram(student, teacher, _, by_class):
    p_s, p_t = ([softmax(row, 2.0) for row in logits] for logits in (student, teacher))
    ours, theirs = (list(zip(*p)) if by_class else p for p in (p_s, p_t))
    total, count = 0.0, len(ours)
    for i, j in [(i, j) for i in range(count) for j in range(count)]:
        total += (sum(map(math.prod, zip(ours[i], ours[j]))) - sum(map(math.prod, zip(theirs[i], theirs[j])))) ** 2
    return total / count


def standardized(student, teacher, _):
    scored = ([[(z - fmean(row)) / stdev(row) for z in row] for row in logits] for logits in (student, teacher))
    return kd(*scored, temperature=2.0)


def rld(student, teacher, labels):
    total = 0.0
    for z_s, z_t, y in zip(student, teacher, labels):
        p_s, p_t = softmax(z_s, 2.0), softmax(z_t, 2.0)
        total += 0.7 * divergence([max(p_t), 1 - max(p_t)], [p_s[y], 1 - p_s[y]])
        below = [k for k, z in enumerate(z_t) if z < z_t[y]]
        total += 3.0 * within(z_s, z_t, below, 2.0)
    return 2.0**2 * total / len(labels)


def within(z_s, z_t, group, temperature):
    """The divergence of the softmax of a group of classes alone."""
    p_s, p_t = (softmax([z[k] for k in group], temperature) if group else [] for z in (z_s, z_t))
    return divergence(p_t, p_s)


def ldrld(student, teacher, _, depth, share):
    total = 0.0
    for z_s, z_t in zip(student, teacher):
        ranked = sorted(range(len(z_s)), key=lambda k: -z_s[k])
        first, rest = ranked[:depth], ranked[depth:]
        local = within(z_s, z_t, first, 2.0)
        for r, s in ((r, s) for r, s in product(range(1, depth + 1), repeat=2) if r < s):
            weight = 1 / (s - r + 1.5) * 2.0 * math.exp(-0.05 * (r + s))
            local += weight * within(z_s, z_t, [first[r - 1], first[s - 1]], 2.0)
        total += 0.6 * share * local + 0.3 * within(z_s, z_t, rest, 2.0)
    return 2.0**2 * total / len(student)


def pcd(student, teacher, _):
    total = 0.0
    for z_s, z_t in zip(student, teacher):
        ranked = sorted(range(len(z_s)), key=lambda k: -abs(z_t[k] - z_s[k]))
        for cut in (4, 3, 2, 1, 1, 2, 3, 4):  # from the finest to the coarsest and back
            size = len(z_s) // cut
            for number in range(cut):
                group = ranked[number * size : None if number == cut - 1 else (number + 1) * size]
                p_s, p_t = (softmax([z[k] for k in group], 2.0) for z in (z_s, z_t))
                cosine = dot(p_s, p_t) / math.hypot(*p_s) / math.hypot(*p_t)
                total += (1 - cosine) * divergence(p_t, p_s)
    return 2.0**2 * total / len(student)


def luminet(student, teacher, _):
    ours, theirs = ([perceived(column) for column in zip(*z)] for z in (student, teacher))
    return kd(list(zip(*ours)), list(zip(*theirs)), 2.0) / 2.0**2


def perceived(column):
    mean = fmean(column)
    return [(z - mean) / math.sqrt(fmean((other - mean) ** 2 for other in column) + 1e-5) for z in column]


def hard_label(student, teacher, _):
    return -fmean(math.log(softmax(s)[t.index(max(t))]) for s, t in zip(student, teacher))


def wkd_l(student, teacher, labels, rows, entropy, iterations, sharpness=1.0, by_cka=False):
    """Sinkhorn's iteration between the classes that are left without the true one."""
    if by_cka:
        rows = [[x - fmean(row) for x in row] for row in rows]
    cosines = [[dot(a, b) / math.hypot(*a) / math.hypot(*b) for b in rows] for a in rows]
    costs = [[1 - math.exp(-sharpness * (1 - (c * c if by_cka else c))) for c in row] for row in cosines]
    total = 0.0
    for z_s, z_t, y in zip(student, teacher, labels):
        left = [k for k in range(len(z_s)) if k != y]
        p_s, p_t = (softmax([z[k] for k in left], 1.5) for z in (z_s, z_t))
        cost = [[costs[i][j] for j in left] for i in left]
        kernel = [[math.exp(-c / entropy) for c in row] for row in cost]
        u = [1 / len(left)] * len(left)
        for _ in range(iterations):
            v = [p / dot(column, u) for p, column in zip(p_t, zip(*kernel))]
            u = [p / dot(row, v) for p, row in zip(p_s, kernel)]
        total += sum(a * k * b * c for a, ks, cs in zip(u, kernel, cost) for b, k, c in zip(v, ks, cs))
    return total / len(labels)


def squares(image, size):
    """Means of a map [K, 4, 4] over squares of ``size`` pixels: [square][K]."""
    corners = [(top, left) for top in range(0, 4, size) for left in range(0, 4, size)]
    pixels = [[(i, j) for i in range(top, top + size) for j in range(left, left + size)] for top, left in corners]
    return [[fmean(rows[i][j] for i, j in square) for rows in image] for square in pixels]


def mlkd(student, teacher, labels):
    total = 0.0
    for temperature in (1.5, 2, 3, 5, 6):
        p_s, p_t = ([softmax(row, temperature) for row in z] for z in (student, teacher))
        total += temperature**2 * fmean(divergence(t, s) for s, t in zip(p_s, p_t))
        for s, t in ((p_s, p_t), (list(zip(*p_s)), list(zip(*p_t)))):
            for i, j in product(range(len(s)), repeat=2):
                total += (dot(t[i], t[j]) - dot(s[i], s[j])) ** 2 / len(s)
    return total


def crld(student, teacher, labels):
    total = 0.0
    for z_s, z_t in zip(student, teacher):
        strong_s, strong_t = [0.5 * z for z in z_s], [-0.6 * z for z in z_t]
        s, strong_s, t, at_strong = (softmax(z, 2.0) for z in (z_s, strong_s, z_t, strong_t))
        if max(softmax(z_t)) >= 0.6:
            total += 2.0 * (divergence(t, s) + divergence(at_strong, strong_s))
        if max(softmax(strong_t)) >= 0.45:
            total += 0.5 * (divergence(t, strong_s) + divergence(at_strong, s))
    return 2.0**2 * total / len(labels)


def sdd(student, teacher, labels):
    def right(z, y):
        return z.index(max(z)) == y

    total = 0.0
    for ours, theirs, y in zip(student, teacher, labels):
        (whole,) = squares(theirs, 4)
        for z_s, z_t in [pair for size in (4, 2, 1) for pair in zip(squares(ours, size), squares(theirs, size))]:
            total += (1 if right(z_t, y) == right(whole, y) else 2) * kd([z_s], [z_t], 2.0)
    return total / len(labels) / (1 + 4 + 16)


def catkd(student, teacher, _, size, normalize):
    distances = []
    for ours, theirs in zip(student, teacher):
        for a, b in zip(zip(*squares(ours, size)), zip(*squares(theirs, size))):  # a class's map each
            lengths = (math.hypot(*a), math.hypot(*b)) if normalize else (1, 1)
            distances += [(x / lengths[0] - y / lengths[1]) ** 2 for x, y in zip(a, b)]
    return fmean(distances)
