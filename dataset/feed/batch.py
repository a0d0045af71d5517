"""What a loader gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

_BY_CLASS = ("present", "other_present")  # targets [B, C]


@dataclass(frozen=True, eq=False)
class Batch(Mapping[str, Tensor]):
    """B samples of a rank, on its device; read by name, as a dictionary is, it gives what `named` lists.

    Attributes:
        images: by view, uint8 [B, 3, H, W], RGB, channels_last: `weak`, cropped and mirrored, always; `strong` with
            `data.strong_view`.
        sizes: int64 [B, 2], height and width of each image in these H x W pixels, from the top left; zeros are beside
            it.
        targets: by name, as the task lays them out: of single-label data `labels` int64 [B]; of a split without labels
            evaluation batches have -1 there, and training batches no `labels`. With mixup or cutmix also
            `other_labels`, of the images mixed in, their numbers `other_index`, and `other_share` float32 [B].
        index: int64 [B], number of each sample in its split.
        epoch: from 0; of the views, where `data.epochs_of_views` shows them again. With the index it is what a view is
            known by.
    """

    images: dict[str, Tensor]
    sizes: Tensor
    targets: dict[str, Tensor]
    index: Tensor
    epoch: int = 0

    def of_classes(self, places: Tensor) -> Batch:
        """What targets say of the classes at ``places`` alone, int64 [P], in that order; all else as it is."""
        by_class = {name: target.index_select(1, places) for name, target in self.targets.items() if name in _BY_CLASS}
        return replace(self, targets={**self.targets, **by_class})

    @property
    def named(self) -> dict[str, Tensor]:
        """Each by one name: `images` (of the weak view), `strong_images`, `sizes`, the targets, `index`."""
        views = {"images" if view == "weak" else f"{view}_images": images for view, images in self.images.items()}
        return {**views, "sizes": self.sizes, **self.targets, "index": self.index}

    def __getitem__(self, name: str) -> Tensor:
        return self.named[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.named)

    def __len__(self) -> int:
        return len(self.named)

    def __contains__(self, name: object) -> bool:
        return name in self.named

    def at(self, rows: Tensor) -> Batch:
        """The samples at ``rows`` alone, int64 [R], in that order."""
        images = {view: pixels[rows] for view, pixels in self.images.items()}
        targets = {name: target[rows] for name, target in self.targets.items()}
        return Batch(images, self.sizes[rows], targets, self.index[rows], self.epoch)

    def chunk(self, parts: int) -> list[Batch]:
        """``parts`` batches of equal size, one behind the other."""
        images, targets = (_chunked(tensors, parts) for tensors in (self.images, self.targets))
        rest = zip(images, self.sizes.chunk(parts), targets, self.index.chunk(parts), strict=True)
        return [Batch(*fields, self.epoch) for fields in rest]


def _chunked(tensors: dict[str, Tensor], parts: int) -> list[dict[str, Tensor]]:
    """``parts`` of each tensor, by name; also of none."""
    chunks = {name: tensor.chunk(parts) for name, tensor in tensors.items()}
    return [{name: chunk[part] for name, chunk in chunks.items()} for part in range(parts)]
