"""Multi-label objectives by loops over lists, as the papers' formulas say.

Logits of student and teacher are [B][C], embeddings [B][C][D]; `present` is [B][C], where all but 0 is present.
"""

import math

from slow_features import huber
from slow_logits import divergence, softmax


def entries(*tables):
    """All classes of all images, side by side."""
    return [entry for rows in zip(*tables) for entry in zip(*rows)]


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def bce(student, _, present, epsilon=0.0):
    return -sum(math.log(max(sigmoid(z if y else -z), epsilon)) for z, y in entries(student, present))


def mce(student, _, present):
    values = [-math.log(p) for z, row in zip(student, present) for p, y in zip(softmax(z), row) if y]
    return sum(values) / max(1, len(values))


def asymmetric(student, _, present, gammas, clip, epsilon):
    total = 0.0
    for z, y in entries(student, present):
        p, gamma = (sigmoid(z), gammas[0]) if y else (min(sigmoid(-z) + clip, 1), gammas[1])
        total -= (1 - p) ** gamma * math.log(max(p, epsilon))
    return total


def mld(student, teacher, _, epsilon=1e-8):
    total = 0.0
    for z_s, z_t in entries(student, teacher):
        sides = [min(max(sigmoid(z), epsilon), 1 - epsilon) for z in (z_t, z_s)]
        total += divergence(*([p, 1 - p] for p in sides))
    return total / len(student)


def partial_softmax(student, teacher, present):
    total = 0.0
    for z_s, z_t, y in zip(student, teacher, present):
        absent = [k for k, one in enumerate(y) if not one]
        for positive in [k for k, one in enumerate(y) if one]:
            total += divergence(*(softmax([z[k] for k in (*absent, positive)]) for z in (z_t, z_s)))
    return total / len(student)


def squared_error(student, teacher, _):
    return sum((s - t) ** 2 for s, t in entries(student, teacher)) / len(student) / len(student[0])


def relations(student, teacher):
    """Of the embeddings of one group, [N][D]."""
    sides, count = [], len(student)
    for x in (student, teacher):
        distances = [[max(math.dist(a, b), 1e-6) if i != j else 0.0 for j, b in enumerate(x)] for i, a in enumerate(x)]
        mean = sum(map(sum, distances)) / (count * (count - 1))
        sides.append([distance / mean for row in distances for distance in row])
    return sum(huber(a, b) for a, b in zip(*sides)) / count


def label_embeddings(student, teacher, present, class_aware=100.0, instance_aware=1000.0):
    total, (images, classes) = 0.0, (range(len(present)), range(len(present[0])))
    groups = [(class_aware, [(i, c) for i in images if present[i][c]]) for c in classes]
    groups += [(instance_aware, [(i, c) for c in classes if present[i][c]]) for i in images]
    for weight, members in groups:
        if len(members) > 1:
            total += weight * relations(*([x[i][c] for i, c in members] for x in (student, teacher)))
    return total
