"""Heads behind the pooled map, and heads with an embedding for each class."""

import copy
import pickle

import numpy as np
import pytest
import torch
from conftest import ROOT
from torch import nn

from models.heads import HeadConfig
from models.heads.label_embeddings import MLDecoder
from models.heads.label_tokens import LabelTokens, TokenTransformer
from models.heads.query2label import Query2Label, Transformer, sine_positions
from models.outputs import IMAGENET, Behind, Outputs
from models.word_vectors import read_vectors
from models.zoo import Network, NetworkConfig, build_network
from training import checkpoint
from utils.errors import DataError, UsageError

IMAGES = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
SMALL = {
    "pooling": {"kind": "mixed", "dropout": 0.2, "dimensions": 7},
    "label_embeddings": {"dimensions": 8, "heads": 2, "width": 16},
    "query2label": {"dimensions": 8, "heads": 2, "width": 16, "self_attention": True},
    "label_tokens": {"dimensions": 8, "heads": 2, "width": 16, "vector_dimensions": 5},
}
LABEL_HEADS = [name for name in SMALL if name != "pooling"]


def built(name, network="cifar_resnet8", classes=6, reads=("pooled",), side=32, weights="none", of=None, **options):
    head = HeadConfig(name, {**SMALL[name], **options})
    known = {"classes": of} if of else {}
    return build_network(NetworkConfig(network, weights, head=head), classes, reads, side, new_classifier=True, **known)


def golden():
    """The decoder of the reference with its weights, in float64, and the file."""
    file = np.load(ROOT / "tests/golden/l2d_mldecoder_head.npz")
    case = {key.partition(".")[2]: file[key] for key in file if key.startswith("groups_eq_classes.")}
    weights = {
        key.removeprefix("w.decoder."): torch.from_numpy(value).double()
        for key, value in case.items()
        if key.startswith("w.")
    }
    names = {
        "embed_standart.": "embed.",
        "query_embed.weight": "queries",
        "duplicate_pooling_bias": "classify.bias",
        "duplicate_pooling": "classify.weight",
        "layers.0.norm1.": "norm.",
        "layers.0.multihead_attn.": "attend.attention.",
        "layers.0.norm2.": "attend.norm.",
        "layers.0.norm3.": "feed_forward.norm.",
        "layers.0.": "feed_forward.",
    }

    def ours(name):
        beginning = next(one for one in names if name.startswith(one))
        return names[beginning] + name.removeprefix(beginning)

    decoder = MLDecoder(12, num_classes=20, groups=20, dimensions=16, heads=8, width=32, dropout=0.1).double()
    decoder.load_state_dict({ours(name): value for name, value in weights.items()})
    return decoder, case


def test_label_embeddings_are_those_of_the_reference():
    decoder, case = golden()
    last = torch.from_numpy(case["in.x"]).double().requires_grad_()
    embeddings, logits = decoder.eval()(last)
    (0.1 * embeddings.sum() + logits.square().sum()).backward()
    for given, expected in ((embeddings, case["le_f64"]), (logits, case["logits_f64"])):
        np.testing.assert_allclose(given.detach().numpy(), expected, rtol=1e-9, atol=1e-9 * abs(expected).max())
    expected = case["grad_f32.x"]
    np.testing.assert_allclose(last.grad.numpy(), expected, rtol=0, atol=2e-6 * abs(expected).max())


def test_groups_share_an_embedding():
    """Class k is of group k // ceil(K / G), with its own weights."""
    torch.manual_seed(0)
    decoder = MLDecoder(4, num_classes=7, groups=3, dimensions=8, heads=2, width=16, dropout=0.1).eval()
    embeddings, logits = decoder(torch.randn(2, 4, 3, 3))
    assert embeddings.shape == (2, 3, 8)
    weight, bias = decoder.classify.weight, decoder.classify.bias
    slow = [embeddings[:, k // 3] @ weight[k // 3, :, k % 3] + bias[k] for k in range(7)]
    torch.testing.assert_close(logits, torch.stack(slow, 1))
    with pytest.raises(UsageError, match=r"^head\.options\.groups=9: there are 6 classes$"):
        built("label_embeddings", groups=9)


def test_query2label_is_a_transformer_decoder_of_pytorch():
    """With self-attention, a zero target is decoded: PyTorch's layers do the same where no position is added."""
    torch.manual_seed(0)
    options = Query2Label(dimensions=8, heads=2, width=16, encoders=1, decoders=1, self_attention=True)
    ours = Transformer(8, 5, options).double().eval()
    ours.embed.weight.data.copy_(torch.eye(8))
    ours.embed.bias.data.zero_()
    last = torch.randn(2, 8, 3, 3, dtype=torch.float64)
    memory, positions = last.flatten(2).transpose(1, 2), sine_positions(last, 8).double()

    def attention(layer, query, key, value):
        mine = layer.attention
        weights = [part.T for part in mine.in_proj_weight.chunk(3)]
        q, k, v = (x @ w + b for x, w, b in zip((query, key, value), weights, mine.in_proj_bias.chunk(3)))
        heads = []
        for one in (slice(0, 4), slice(4, 8)):
            scores = q[..., one] @ k[..., one].transpose(1, 2) / 2  # of 4 dimensions
            heads.append(scores.softmax(2) @ v[..., one])
        return mine.out_proj(torch.cat(heads, 2))

    def fed(layer, x):
        return layer.norm(x + layer.linear2(layer.linear1(x).relu()))

    encoder, decoder, queries = ours.encoders[0], ours.decoders[0], ours.queries.expand(2, -1, -1)
    placed = memory + positions
    memory = encoder.attend.norm(memory + attention(encoder.attend, placed, placed, memory))
    memory = fed(encoder.feed_forward, memory)
    labels = decoder.compare.norm(attention(decoder.compare, queries, queries, torch.zeros_like(queries)))
    labels = decoder.attend.norm(labels + attention(decoder.attend, labels + queries, memory + positions, memory))
    labels = ours.norm(fed(decoder.feed_forward, labels))
    logits = (labels * ours.classify.weight[:, :, 0]).sum(2) + ours.classify.bias
    torch.testing.assert_close(ours(last)[0], labels)
    torch.testing.assert_close(ours(last)[1], logits)


def test_sine_positions_are_those_of_the_rows_and_columns():
    positions = sine_positions(torch.zeros(1, 1, 2, 3), 8).view(2, 3, 8)
    assert torch.equal(positions[:, 0, :4], positions[:, 2, :4])
    assert torch.equal(positions[0, :, 4:], positions[1, :, 4:])
    angle = torch.tensor(2 * np.pi * 2 / 3)  # of the second of three columns
    expected = torch.stack([angle.sin(), angle.cos(), (angle / 100).sin(), (angle / 100).cos()])
    torch.testing.assert_close(positions[0, 1, 4:], expected.float())


@pytest.mark.parametrize("self_attention", [False, True])
def test_labels_of_query2label_and_tokens_have_no_order(self_attention):
    """Classes in another order give the same logits in that order."""
    torch.manual_seed(0)
    last, order = torch.randn(2, 4, 3, 3), torch.tensor([2, 0, 4, 1, 3])
    options = Query2Label(dimensions=8, heads=2, width=16, self_attention=self_attention)
    tokens = LabelTokens(dimensions=8, heads=2, width=16)
    for layers, of_classes in (
        (Transformer(4, 5, options), ("queries", "classify.weight", "classify.bias")),
        (TokenTransformer(4, torch.randn(5, 3), tokens), ("vectors",)),
    ):
        layers.eval()
        embeddings, logits = layers(last)
        layers.load_state_dict(
            {name: value[order] if name in of_classes else value for name, value in layers.state_dict().items()}
        )
        again = layers(last)
        torch.testing.assert_close(again[0], embeddings[:, order])
        torch.testing.assert_close(again[1], logits[:, order])


@pytest.mark.parametrize(("kind", "pool"), [("average", 0.0), ("max", 1.0), ("mixed", 0.5)])
def test_pooling_gives_what_its_classifier_is_given(kind, pool):
    network = built("pooling", reads=("last", "pooled"), kind=kind, dropout=0.0, dimensions=0)
    outputs = network.predict(IMAGES)
    last, pooled = outputs.features["last"], outputs.features["pooled"]
    torch.testing.assert_close(pooled, (1 - pool) * last.mean((2, 3)) + pool * last.amax((2, 3)))
    torch.testing.assert_close(outputs.logits, network.classifier(pooled))
    assert torch.equal(outputs.context["head_weight"], network.classifier.weight)


@pytest.mark.parametrize(
    ("name", "network"),
    [
        *((name, "cifar_resnet8") for name in SMALL),
        ("pooling", "mobilenet_v2"),
        ("label_embeddings", "resnet18"),
        ("query2label", "timm/mobilenetv3_small_050"),
    ],
)
def test_every_head_trains_whole_and_is_exported_and_read_back(name, network, tmp_path):
    side, images = (32, IMAGES) if network == "cifar_resnet8" else (64, IMAGES.repeat(1, 1, 2, 2))
    torch.manual_seed(0)
    first = built(name, network, side=side, reads=("last", "pooled"))
    torch.manual_seed(0)
    twin = built(name, network, side=side, reads=("last", "pooled"))
    state = first.network.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in twin.network.state_dict().items())  # the seed decides
    outputs = first.predict(images)
    outputs.logits.square().sum().backward()
    assert [key for key, one in first.named_parameters() if one.requires_grad and one.grad is None] == []
    assert outputs.logits.shape == (3, 6)
    assert outputs.features["pooled"].shape[0] == 3
    if name in LABEL_HEADS:
        torch.testing.assert_close(outputs.features["pooled"], outputs.features["last"].mean((2, 3)))
        assert first.classifier is None
    expected = copy.deepcopy(first).eval().predict(images).logits  # of an EMA
    path = tmp_path / "student.safetensors"
    checkpoint.export(path, first.exported(first.network.state_dict()))
    again = build_network(NetworkConfig(network, str(path), head=HeadConfig(name, SMALL[name])), 6, side=side).eval()
    torch.testing.assert_close(again.predict(images).logits, expected)


@pytest.mark.parametrize("name", LABEL_HEADS)
def test_label_embeddings_stand_for_their_class(name):
    """The gradient of a logit reaches the embedding of its class alone."""
    network = built(name, reads=("label_embeddings",)).eval()
    outputs = network.predict(IMAGES)
    embeddings = outputs.features["label_embeddings"]
    assert embeddings.shape == (3, 6, 8)
    (gradient,) = torch.autograd.grad(outputs.logits[:, 2].sum(), embeddings)
    assert (gradient.abs().sum((0, 2)) > 0).tolist() == [False, False, True, False, False, False]


@pytest.mark.parametrize("name", LABEL_HEADS)
def test_heads_run_in_half_precision_channels_last_and_compiled(name):
    network = built(name).to(memory_format=torch.channels_last).eval()
    expected = network.predict(IMAGES).logits
    with torch.autocast("cpu", torch.bfloat16):
        half = network.predict(IMAGES.to(memory_format=torch.channels_last)).logits
    assert (half.float() - expected).abs().max() < 0.1 * expected.abs().max()
    layers = getattr(network.network, name)
    compiled = torch.compile(layers, backend="eager", fullgraph=True)
    last = torch.randn(2, 64, 4, 4)
    torch.testing.assert_close(compiled(last)[1], layers(last)[1])


@pytest.mark.parametrize("name", LABEL_HEADS)
def test_weights_for_other_classes_get_new_labels_where_that_is_allowed(name, tmp_path, capsys):
    torch.save(built(name).network.state_dict(), tmp_path / "w.pth")
    config = NetworkConfig("cifar_resnet8", str(tmp_path / "w.pth"), head=HeadConfig(name, SMALL[name]))
    with pytest.raises(UsageError, match=r"6 outputs, 4 are asked for"):
        build_network(config, 4, side=32)
    assert build_network(config, 4, side=32, new_classifier=True).predict(IMAGES).logits.shape == (3, 4)
    assert "has 6 outputs, 4 are asked for: its classifier is new" in capsys.readouterr().out


def test_a_head_that_weights_lack_is_not_made_up(tmp_path):
    torch.save(build_network(NetworkConfig("cifar_resnet8"), 6, side=32).network.state_dict(), tmp_path / "w.pth")
    for name in SMALL:
        config = NetworkConfig("cifar_resnet8", str(tmp_path / "w.pth"), head=HeadConfig(name, SMALL[name]))
        with pytest.raises(UsageError, match=rf"w\.pth has no head {name}, which would be random: train it first"):
            build_network(config, 6, side=32)
        assert build_network(config, 6, side=32, new_classifier=True).predict(IMAGES).logits.shape == (3, 6)


class ByChance(Behind):
    """As many channels between as there are classes."""

    def __init__(self, body):
        super().__init__(body, "last", 32)
        self.between = nn.Linear(self.channels, 6)
        self.classifier = nn.Linear(6, 6)
        self.after = nn.Linear(6, 6)

    def behind(self, features):
        logits = self.classifier(self.between(features["last"].mean((2, 3))))
        self.after(logits)
        return Outputs(logits)


def test_a_layer_as_wide_as_the_classes_is_no_classifier():
    torch.manual_seed(0)
    for name in LABEL_HEADS:
        network = built(name, classes=8, width=8)
        assert any(isinstance(one, nn.Linear) and one.out_features == 8 for one in network.modules())
        assert network.classifier is None
        assert "head_weight" not in network.predict(IMAGES).context
    chance = ByChance(build_network(NetworkConfig("cifar_resnet8"), 6, ["last"], 32).body)
    assert Network(chance, IMAGENET, 6).classifier is chance.classifier


def test_what_needs_a_classifier_says_that_there_is_none():
    teacher = built("label_embeddings", reads=("last",))
    config = NetworkConfig("cifar_resnet8", head=HeadConfig("reused"))
    with pytest.raises(UsageError, match=r"head\.options\.teacher=teacher: it has no linear classifier"):
        build_network(config, 6, ["last"], 32, {"teacher": teacher})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pooling", {"kind": "median"}, r"head\.options\.kind=median: there is average, max, mixed"),
        ("pooling", {"dropout": 1}, r"head\.options\.dropout=1: at least 0 and below 1"),
        ("label_embeddings", {"heads": 3}, r"head\.options\.heads=3: dimensions=8 is no multiple of it"),
        ("query2label", {"dimensions": 6}, r"head\.options\.dimensions=6: no multiple of 4"),
        ("query2label", {"decoders": 0}, r"head\.options\.decoders=0: at least 1"),
        ("label_tokens", {"vectors": "none.npy"}, r"none\.npy cannot be read: No such file"),
        ("label_tokens", {"vectors": "w.bin"}, r"w\.bin: vectors stand in \.npy, \.npz, \.pkl, or \.txt"),
    ],
)
def test_options_that_do_not_go_together_are_refused(name, options, message):
    with pytest.raises(UsageError, match=message):
        built(name, **options)


GLOVE = "the 9 9\ntraffic 1 3\ncat 0.5 -1\nlight 3 1\n. . 7 7\ncat 8 8\n"
VECTORS = np.array([[0.5, -1.0], [2.0, 2.0]])


def test_vectors_are_read_from_every_form(tmp_path):
    (tmp_path / "v.txt").write_text(GLOVE)
    np.save(tmp_path / "v.npy", VECTORS)
    np.savez(tmp_path / "v.npz", vectors=VECTORS)
    (tmp_path / "v.pkl").write_bytes(pickle.dumps(VECTORS, 2))
    (tmp_path / "old.pkl").write_bytes(pickle.dumps(VECTORS.astype("f4"), 0))
    (tmp_path / "new.pkl").write_bytes(pickle.dumps(VECTORS, 5))
    for name in ("v.npy", "v.npz", "v.pkl", "old.pkl", "new.pkl", "v.txt"):
        names = ("Cat", "traffic_light") if name == "v.txt" else ()
        assert read_vectors(tmp_path / name, 2, names).tolist() == VECTORS.tolist()
    (tmp_path / "rows.txt").write_text("b 1 2\na 3 4\n")
    assert read_vectors(tmp_path / "rows.txt", 2).tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("v.txt", b"", UsageError, "is empty"),
        ("v.txt", b"a 1 2\nb 1\n", DataError, "line 2 has no word and 2 numbers"),
        ("v.txt", b"a 1 2\nb 1 x\n", DataError, "line 2 has something else than numbers"),
        ("v.txt", b"a 1 2\nb 1 nan\n", DataError, "not all numbers are finite"),
        ("v.txt", b"a 1 2\nb 1 1e300\n", DataError, "not all numbers are finite"),
        ("v.txt", b"a 1 2\n", UsageError, "has 1 row, for 2 classes"),
        ("v.txt", b"a 1 2\nb 1 2\nc 3 4", UsageError, "has 3 rows, for 2 classes"),
        ("v.npy", b"\x93NUMPY", DataError, "is damaged"),
        ("v.npz", b"PK\x03\x04", DataError, "is damaged"),
        ("v.npy", pickle.dumps([1]), UsageError, "may run code"),
        ("v.pkl", b"\x80\x02", DataError, "is damaged"),
        ("v.pkl", pickle.dumps(VECTORS)[:-20], DataError, "is damaged"),
        ("v.pkl", pickle.dumps({"cat": 1}), UsageError, "an array of object"),
        ("v.pkl", pickle.dumps(np.array([print])), UsageError, r"builtins\.print, which may run code"),
    ],
)
def test_files_that_are_no_vectors_are_refused(name, content, error, message, tmp_path, capfd):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=rf"{name}.*{message}"):
        read_vectors(tmp_path / name, 2)


class Evil:
    def __reduce__(self):
        return print, ("code from a file of vectors ran",)


def test_no_vectors_run_code(tmp_path, capfd):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "v.pkl").write_bytes(pickle.dumps([VECTORS, Evil()], protocol))
        with pytest.raises(UsageError, match=r"print, which may run code"):
            read_vectors(tmp_path / "v.pkl", 2)
    assert "ran" not in capfd.readouterr().out


def test_tokens_of_words_are_fixed_and_need_the_file_once(tmp_path):
    path = tmp_path / "v.txt"
    path.write_text(GLOVE)
    options = {"vectors": str(path)}
    network = built("label_tokens", classes=2, of=("cat", "traffic light"), **options)
    assert network.network.label_tokens.vectors.tolist() == VECTORS.tolist()
    assert not network.network.label_tokens.vectors.requires_grad
    with pytest.raises(UsageError, match=r"v\.txt has no vectors for tvmonitor, of the class tvmonitor"):
        built("label_tokens", classes=2, of=("cat", "tvmonitor"), **options)
    expected = network.eval().predict(IMAGES).logits
    torch.save(network.network.state_dict(), tmp_path / "w.pth")
    path.unlink()
    again = built("label_tokens", classes=2, weights=str(tmp_path / "w.pth"), **options).eval()
    assert torch.equal(again.predict(IMAGES).logits, expected)
