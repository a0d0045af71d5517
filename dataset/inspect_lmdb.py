"""Print what a packed split holds, find damage in it, and draw a contact sheet.

    python dataset/inspect_lmdb.py /data/lmdb/train
    python dataset/inspect_lmdb.py /data/lmdb --verify

PATH is a split, or the folder above it and then every split in it. LMDB folders in WSLD's format are read too. The
sheet shows images of all classes, each with its boxes, or where there are none with three training windows
(RandomResizedCrop of the default scale and ratio); what decoding the first of them does not read is dimmed. Damage is
listed and does not stop the command, which ends with exit code 3 then.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from utils.starting import begin

    begin()

from dataset.inspection.report import find_splits, inspect
from dataset.store.index import INDEX
from dataset.store.wsld import is_wsld_folder
from utils.console import exit_with_its_code
from utils.errors import DataError, UsageError
from utils.files import make_folder
from utils.text import counted


@exit_with_its_code
def main() -> None:
    """Print the facts of each split, draw its sheet, list its damage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("path", type=Path, metavar="PATH", help="a split, or the folder that holds several")
    add("--verify", action="store_true", help="compare every checksum; WSLD's format has none: decode every image")
    add("--sheet", type=Path, default=Path("contact_sheet.png"), help="PNG to draw (default: contact_sheet.png here)")
    options = parser.parse_args()
    if not options.sheet.parent.is_dir():
        raise UsageError(f"--sheet: {options.sheet.parent} is not a folder")
    if options.sheet.is_dir():
        raise UsageError(f"--sheet: {options.sheet} is a folder; name a .png file")
    make_folder(options.sheet.parent, "--sheet")
    folders = find_splits(options.path)
    damaged = 0
    for folder in folders:
        sheet: Path = options.sheet
        if len(folders) > 1:
            sheet = sheet.with_name(f"{sheet.stem}_{folder.name}{sheet.suffix}")
        try:
            damaged += inspect(folder, sheet, verify=options.verify)
        except DataError as error:
            state = "damaged" if (folder / INDEX).exists() or is_wsld_folder(folder) else "unfinished"
            print(f"{state}: {error}", file=sys.stderr)
            damaged += 1
    if damaged:
        what = counted(damaged, "record, file or split is", "records, files or splits are")
        raise DataError(f"{what} damaged or unfinished (named above): copy or pack their shards again")


if __name__ == "__main__":
    main()
