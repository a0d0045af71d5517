"""What people call classes."""

import builtins
import os
from pathlib import Path

import pytest
from torchvision.models import ResNet50_Weights

from dataset import class_names
from dataset.class_names import names_for_people, superclasses

DATA = Path(os.environ.get("LIMBECK_DATA", "../shared/data"))
INDEX = DATA / "imagenet200/synset_index.tsv"


def test_imagenets_ids_have_their_names_in_any_order_and_part():
    assert names_for_people(["n03126707", "n01440764", "n02012849"]) == ["crane", "tench", "crane bird"]
    assert names_for_people(["cat", "n9", "Straße"]) == ["cat", "n9", "Straße"]
    assert names_for_people(["tench", "n01440764"]) == ["tench (tench)", "tench (n01440764)"]
    assert names_for_people([]) == []


@pytest.mark.skipif(not INDEX.exists(), reason=f"{INDEX} is not there")
def test_the_ids_are_those_of_torchvisions_labels():
    rows = [line.split("\t") for line in INDEX.read_text().splitlines()]
    ids = [one for _, one, _ in rows]
    names = names_for_people(ids)
    assert names == ResNet50_Weights.IMAGENET1K_V1.meta["categories"]
    theirs = [name.replace("_", " ") for _, _, name in rows]
    other = {one: (mine, name) for one, mine, name in zip(ids, names, theirs) if mine.lower() != name.lower()}
    # WordNet calls two birds and machines, and two swimsuits, alike.
    assert other == {"n02012849": ("crane bird", "crane"), "n03710721": ("maillot tank suit", "maillot")}


def test_other_ids_of_wordnet_have_the_names_that_timm_knows(monkeypatch):
    pytest.importorskip("timm")
    ids = ["n00005787", "n01440764", "n99999999"]
    assert names_for_people(ids) == ["benthos", "tench", "n99999999"]
    real = builtins.__import__
    class_names._names_of_timm.cache_clear()

    def without_timm(name, *given):
        if name.startswith("timm"):
            raise ImportError(name)
        return real(name, *given)

    monkeypatch.setattr(builtins, "__import__", without_timm)
    assert names_for_people(ids) == ["n00005787", "tench", "n99999999"]
    class_names._names_of_timm.cache_clear()


def test_superclasses_are_known_of_cifar_100_and_imagenet_alone():
    fine = class_names._of_cifar100()
    assert len(fine) == 100
    above = superclasses(sorted(fine))
    assert len(set(above)) == 20
    assert all(above.count(name) == 5 for name in above)
    assert superclasses(["beaver", "lawn_mower"]) == ["aquatic mammals", "vehicles 2"]
    ids = [*class_names._of_imagenet()]
    assert ids == sorted(ids)
    assert len(set(superclasses(ids))) == 21
    assert superclasses(["n01440764", "n02099601", "n02119789", "n15075141"]) == [
        "fish",
        "dog",
        "other carnivore",
        "other",
    ]
    assert superclasses(["n01440764", "beaver"]) is None
    assert superclasses(["mine"]) is None
