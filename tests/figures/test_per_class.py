"""The picture of the table of classes."""

import matplotlib
import numpy as np
import pytest
from PIL import Image

from evaluation import class_table
from figures import per_class
from utils.errors import UsageError

TABLE = """\
class,positives,ignored,AP_voc,AP_step,F1
dog,3,0,90.5000,80.0000,50.0000
"Straße, $é$",5,1,95.0000,10.0000,60.0000
never,0,0,,,
person,9,0,20.0000,90.0000,70.0000
mean of 3 classes,,,68.5000,60.0000,60.0000
"""


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "per_class.csv"
    path.write_text(TABLE, "utf-8")
    return path


@pytest.fixture
def drawn(table, monkeypatch):
    """A function that draws the table: bars and labels from the bottom, and the title."""

    def call(*words):
        figures = []
        monkeypatch.setattr(per_class.plt, "close", figures.append)
        monkeypatch.setattr("sys.argv", ["", str(table), *words])
        per_class.main()
        monkeypatch.undo()
        (figure,) = figures
        axes = figure.axes[0]
        bars = [bar.get_width() for bar in axes.patches]
        labels = [label.get_text() for label in axes.get_yticklabels()]
        title = axes.get_title()
        matplotlib.pyplot.close(figure)
        return bars, labels, title

    return call


def test_a_bar_a_class_by_its_score(table, drawn, capsys):
    title = "of 3 classes; 1 class without positives left out"
    assert drawn() == ([20, 90.5, 95], ["person", "dog", "Straße, $é$"], f"Mean 68.50 {title}")
    assert drawn("--score", "AP_step") == ([10, 80, 90], ["Straße, $é$", "dog", "person"], f"Mean 60.00 {title}")
    picture = table.with_suffix(".png")
    assert capsys.readouterr().out == f"{picture}\n" * 2
    with Image.open(picture) as image:
        assert image.width == 960
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 50


def test_what_is_no_such_table_is_named(table):
    picture = table.with_suffix(".png")
    with pytest.raises(UsageError, match="no column 'mAP'; there is class, positives, ignored, AP_voc"):
        per_class.draw(table, picture, "mAP")
    with pytest.raises(UsageError, match=r"other\.csv is missing"):
        per_class.draw(table.with_name("other.csv"), picture)
    table.write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="not a table of classes"):
        per_class.draw(table, picture)
    table.write_text("class,AP_voc\ndog,\nmean of 0 classes,\n")
    with pytest.raises(UsageError, match="no class has a value of AP_voc"):
        per_class.draw(table, picture)


def test_imagenets_classes_are_called_as_people_call_them(tmp_path):
    ids, precision = ("n01440764", "n02099601"), np.array([0.5, 0.75])
    rows = class_table.table(ids, {"objects": np.array([3, 4])}, {"AP": precision}, 2)
    class_table.write_table(tmp_path / "per_class.csv", rows)
    assert (tmp_path / "per_class.csv").read_text().splitlines() == [
        "class,name,objects,AP",
        "n01440764,tench,3,50.0000",
        "n02099601,golden retriever,4,75.0000",
        "mean of 2 classes,,,62.5000",
    ]
    for given in (rows, [{"class": row["class"], "AP": row["AP"]} for row in rows]):  # older tables have no names
        figure = per_class.plot(given)
        assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["tench", "golden retriever"]
        matplotlib.pyplot.close(figure)
