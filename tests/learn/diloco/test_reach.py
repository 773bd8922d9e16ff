"""Rows of runs side by side."""

import numpy as np

from dsv4.learn.diloco.chaos import Chaos, Kill
from dsv4.learn.diloco.reach import grid, reach
from dsv4.learn.diloco.settings import Settings
from learn.runs import short, write_texts


def test_a_row_for_each_variant_from_its_own_run(tmp_path):
    quiet, few = Chaos(), {"fragments": 2, "inner_steps": 2}
    variants = {
        "1": (Settings(1, **few), quiet),
        "2": (Settings(2, **few), quiet),
        "killed": (Settings(2, **few), Chaos((Kill(1, 2, 2.0),))),
    }
    texts = write_texts(tmp_path)
    rows = reach(short(4), texts, texts[0].read_text(), tmp_path / "runs", variants, window=16)
    assert [row.name for row in rows] == list(variants)
    assert all(np.isfinite(row.nats) and row.nats < 6 for row in rows)
    one, two, killed = rows
    assert killed.goodput < two.goodput and two.bytes_down > one.bytes_down
    assert (tmp_path / "runs/killed/model/config.json").exists()


def test_the_grid_has_a_variant_for_each_number_of_learners():
    assert {name: settings.learners for name, (settings, _) in grid().items()} == {"1": 1, "2": 2, "4": 4, "8": 8}
