"""Pack NUS-WIDE into LMDB shards, with those of the 81 concepts that each photo shows.

    python dataset/nuswide2lmdb.py --image_path /data/nuswide --output_path /data/lmdb

Below --image_path it reads

    Flickr/<folder>/<photo>                          the photos
    ImageList/TrainImagelist.txt, TestImagelist.txt  or in ImageList/ImageList/
    TrainTestLabels/Labels_<concept>_Train.txt, ...  or in Groundtruth/TrainTestLabels/
    Concepts81.txt                                   or in ConceptsList/; without it the concepts are those with labels

and writes `train` and, of the test photos, `val`. Photos that Flickr no longer has are an error that counts them;
--skip_bad leaves them out, and damaged ones too, and report.txt names each. A kill loses at most unfinished shards: the
same command resumes from there, and on finished splits it verifies every checksum. Photos that were fetched since the
first run need an empty --output_path.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from utils.starting import begin

    begin()

from dataset.sources.imagenet import SPLITS
from dataset.sources.nuswide import ORDERS, find_concepts, find_nuswide
from dataset.store.options import add_flags, fitting_of, options_of, photo_flags, split_folder
from dataset.store.packing import pack
from dataset.store.storage import AsJpeg
from utils.console import resumable


@resumable
def main() -> None:
    """Pack both splits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--image_path", type=Path, required=True, help="the folder with Flickr/, ImageList/ and TrainTestLabels/")
    add(
        "--unlabelled",
        choices=("drop", "keep"),
        default="drop",
        help="photos that show none of the concepts: drop, as CPSD and most papers do (default), or keep, as L2D does",
    )
    add(
        "--class_order",
        choices=ORDERS,
        default="alphabetical",
        help="order of the labels: alphabetical (default), or that of Concepts81.txt",
    )
    photo_flags(parser)
    add_flags(parser)
    flags = parser.parse_args()
    classes = find_concepts(flags.image_path, flags.class_order)
    sources = []
    for split in SPLITS:  # both before one is written
        source, remarks = find_nuswide(
            flags.image_path, split, classes, unlabelled=flags.unlabelled == "keep", missing=flags.skip_bad
        )
        sources.append(source)
        for remark in remarks:
            print(f"{split}: {remark}")
    for source in sources:
        pack(source, AsJpeg(fitting_of(flags)), split_folder(flags, source.split), options_of(flags))


if __name__ == "__main__":
    main()
