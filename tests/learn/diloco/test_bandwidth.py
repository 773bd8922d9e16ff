"""Bandwidth: small graphs by hand, limits, and the published table."""

from collections import Counter
from dataclasses import replace

import pytest

from dsv4.errors import SettingError
from dsv4.learn.diloco.bandwidth import utilisation as module
from dsv4.learn.diloco.bandwidth.dag import Node, finish_times
from dsv4.learn.diloco.bandwidth.published import BEYOND, GRID, JOBS, TARGETS, on_grid, table
from dsv4.learn.diloco.bandwidth.sites import Assumptions, Pair
from dsv4.learn.diloco.bandwidth.utilisation import Job, data_parallel, needed, utilisation

JOB = Job(parameters=3e9, step_seconds=6.0, bits=2.0, layers=3)
"""2 Gbit a layer; forward nodes of 2/3 s, backward ones of .8 s."""

STREAMING = replace(JOB, inner_steps=6, fragments=3)
OVERLAPPED = replace(STREAMING, delay=2)


def test_a_graph_by_hand():
    """b waits for a's resource, c for a, d for b and c."""
    nodes = [Node("x", 2.0), Node("x", 1.0), Node("y", 5.0, (0,)), Node("x", 1.0, (1, 2))]
    assert finish_times(nodes) == [2.0, 3.0, 7.0, 8.0]


def test_a_step_has_4_l_minus_1_nodes_of_which_the_forward_pass_takes_a_third():
    nodes, firsts = module._laid_out(JOB, 1.0, 2)
    step = nodes[: firsts[1]]
    assert Counter(node.resource for node in step) == {"compute": 8, "network": 3}
    assert len(step) == 4 * JOB.layers - 1
    compute = [node.seconds for node in step if node.resource == "compute"]
    assert sum(compute) == pytest.approx(6.0)
    assert sum(compute[:3]) == pytest.approx(2.0)


class TestDataParallelByHand:
    def test_a_slow_network_adds_what_the_backward_pass_does_not_hide(self):
        """At .5 Gbit/s a layer takes 4 s: forward 2, first gradients .8, three reductions 12."""
        assert utilisation(JOB, 0.5) == pytest.approx(6 / 14.8)

    def test_a_fast_network_adds_the_reduction_of_the_first_layer(self):
        assert utilisation(JOB, 20.0) == pytest.approx(6 / 6.1)


class TestOthersByHand:
    def test_of_h_steps_one_is_reduced(self):
        assert utilisation(replace(JOB, inner_steps=10), 0.5) == pytest.approx(60 / 68.8)

    def test_streaming_reduces_a_layer_at_a_time(self):
        """Six steps, three reductions of 4 s, each in the backward pass: of layer 1, 2 and 0 in turn.

        Layer 0 is last in the backward pass and hides nothing, layer 1 hides what is left after its gradients: 1.6,
        and layer 2 3.2, but the next forward pass reaches the layer only after .667 and 1.333 more.
        """
        late = {0: 4.0, 1: 4.0 - 0.8 - 0.8 - 2 / 3, 2: 4.0 - 4 * 0.8 - 4 / 3}
        expected = 36 + sum(max(0.0, one) for one in late.values())
        assert utilisation(STREAMING, 0.5) == pytest.approx(36 / expected)

    def test_what_is_waited_for_later_costs_nothing_while_the_network_keeps_up(self):
        """Two steps are 12 s: 2 Gbit are there in time at .17 Gbit/s."""
        assert utilisation(OVERLAPPED, 0.17) == pytest.approx(1.0)

    def test_a_network_that_does_not_keep_up_holds_all_back(self):
        """6 Gbit in six steps: at .1 Gbit/s they take 60 s, the steps 36."""
        assert utilisation(OVERLAPPED, 0.1) == pytest.approx(36 / 60, rel=0.02)


def test_each_way_needs_less_than_the_one_before():
    ways = [JOB, replace(JOB, inner_steps=6), STREAMING, OVERLAPPED]
    found = [needed(job, 0.9) for job in ways]
    assert found == sorted(found, reverse=True)
    for job, gigabits in zip(ways, found, strict=True):
        assert utilisation(job, gigabits) >= 0.9 > utilisation(job, gigabits * 0.99)


@pytest.mark.parametrize("row", list(table()), ids=lambda row: f"{row.job}-{row.target}")
def test_the_published_table_is_met_within_a_step_of_its_grid(row):
    assert abs(row.steps) <= 1


def test_bf16_without_a_pattern_misses_it():
    """What is fitted says something: sixteen bits are two steps off where DiLoCo's numbers are."""
    assert max(abs(row.steps) for row in table(bits=16.0) if row.job == "10B, H = 100") == 2


def test_the_grid_has_what_the_table_says():
    assert len(GRID) == 50 and GRID[0] == pytest.approx(0.1) and GRID[-1] == pytest.approx(1000)
    assert any(abs(one - 104.8) < 0.05 for one in GRID)


def test_the_grid_is_searched_for_the_first_that_will_do():
    job = JOBS["10B"]
    for target, found in zip(TARGETS, on_grid(job), strict=True):
        assert utilisation(job, found) >= target > utilisation(job, GRID[GRID.index(found) - 1])


def test_what_the_grid_does_not_have_is_said_to_be_beyond():
    assert on_grid(replace(JOBS["10B"], bits=1e4))[-1] == BEYOND


class TestOurPair:
    def test_the_ratio_is_that_of_bits_fragments_and_time_to_hide_in(self):
        """At 8 sites: 336 Gbit in what the backward pass and the slack hide, against 3.5 in a step and its slack."""
        pair = Pair(8, Assumptions())
        total = 1 / 0.95
        assert pair.data_parallel == pytest.approx(336 / (total - 1 / 3 - 2 / 3 / 95), rel=1e-3)
        assert pair.decoupled == pytest.approx(3.5 / total, rel=0.02)

    def test_more_sites_need_more(self):
        four, eight = (Pair(sites, Assumptions()) for sites in (4, 8))
        assert eight.data_parallel / four.data_parallel == pytest.approx((7 / 4) / (3 / 2), rel=1e-3)
        assert eight.ratio == pytest.approx(four.ratio, rel=1e-3)

    def test_one_site_is_none(self):
        with pytest.raises(SettingError, match="sites"):
            Pair(1, Assumptions())


@pytest.mark.parametrize(
    "changes",
    [{"parameters": 0}, {"step_seconds": -1}, {"bits": 0}, {"layers": 0}, {"fragments": 4}, {"delay": 2}],
)
def test_jobs_that_cannot_be_are_refused(changes):
    with pytest.raises(SettingError):
        replace(JOB, **changes)


def test_fragments_must_divide_the_steps():
    with pytest.raises(SettingError, match="inner_steps: expected a multiple"):
        replace(JOB, inner_steps=5, fragments=2)


@pytest.mark.parametrize("target", [0.0, 1.0, float("nan")])
def test_targets_out_of_reach_are_refused(target):
    with pytest.raises(SettingError, match="target"):
        needed(data_parallel(JOB), target)
