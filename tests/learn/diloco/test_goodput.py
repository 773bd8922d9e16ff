"""Goodput: against renewal theory and by hand, and the published points with the fitted times."""

from dataclasses import replace

import pytest

from dsv4.errors import SettingError
from dsv4.learn.diloco.goodput.cluster import YEAR, Cluster, Times, expected, goodput
from dsv4.learn.diloco.goodput.fit import FITTED, PUBLISHED, fitted, largest_distance

TIMES = Times(restart=60, reconfiguration=20, scale_up=10, repair=1000, slice_chips=1000)
MANY = Cluster(1_000_000)


def name(cluster):
    return f"{cluster.chips}-{cluster.learners}-{'elastic' if cluster.elastic else 'rigid'}"


@pytest.mark.parametrize("cluster", PUBLISHED, ids=name)
def test_every_published_point_is_met_within_two_points(cluster):
    assert abs(goodput(cluster, FITTED, days=2) - PUBLISHED[cluster]) < 0.02


def test_the_stored_times_are_those_that_fit():
    found = fitted()
    assert found.restart == pytest.approx(FITTED.restart, abs=0.1)
    assert found.reconfiguration == pytest.approx(FITTED.reconfiguration, abs=0.1)
    assert found.repair == pytest.approx(FITTED.repair, abs=5)


@pytest.mark.parametrize("change", [{"restart": 1.1}, {"restart": 0.9}, {"reconfiguration": 1.3}, {"repair": 0.5}])
def test_other_times_fit_worse(change):
    other = replace(FITTED, **{key: getattr(FITTED, key) * factor for key, factor in change.items()})
    elastic = "restart" not in change
    assert largest_distance(other, elastic) > largest_distance(FITTED, elastic)


@pytest.mark.parametrize(
    "cluster", [MANY, MANY._replace(learners=4), MANY._replace(elastic=False), MANY._replace(mtbi=YEAR / 3)], ids=str
)
def test_the_simulation_agrees_with_renewal_theory(cluster):
    assert goodput(cluster, TIMES, days=3) == pytest.approx(expected(cluster, TIMES), abs=0.01)


class TestByHand:
    """One slice, whose failures are so rare that each stands by itself."""

    alone = Cluster(10, mtbi=10 * 86400)
    """A failure a day on average."""

    def days(self, seed):
        """When it fails in ten days, drawn as the simulation does."""
        import numpy as np

        generator = np.random.default_rng(np.random.SeedSequence(seed).spawn(1)[0])
        times = np.cumsum(generator.exponential(86400, 2**12))
        return times[times < 10 * 86400]

    def test_a_rigid_cluster_stands_for_a_restart_after_each(self):
        times, failures = Times(600, 0, 0, 0, 10), self.days(3)
        assert min(failures[1:] - failures[:-1]) > 600 and failures[-1] < 10 * 86400 - 600
        found = goodput(self.alone._replace(elastic=False), times, days=10, seed=3)
        assert found == pytest.approx(1 - len(failures) * 600 / 864000, abs=1e-9)

    def test_a_slice_that_is_gone_does_not_train_and_its_return_takes_time(self):
        times, failures = Times(0, 100, 50, 500, 10), self.days(3)
        assert min(failures[1:] - failures[:-1]) > 600
        found = goodput(self.alone, times, days=10, seed=3)
        assert found == pytest.approx(1 - len(failures) * 550 / 864000, abs=1e-9)

    def test_without_downtimes_the_slices_that_are_gone_remain(self):
        free = Times(0, 0, 0, 1000, 1000)
        assert goodput(MANY._replace(mtbi=YEAR / 20), free, days=10) == pytest.approx(
            1 / (1 + 1000 * 1000 * 20 / YEAR), abs=0.01
        )


def test_downtimes_that_overlap_are_not_counted_twice():
    """A cluster with more downtime than time still trains; had each failure its own, nothing would be left."""
    assert goodput(Cluster(10_000_000), TIMES, days=1) > 0.07


def test_more_learners_train_more():
    found = [goodput(MANY._replace(learners=count), TIMES, days=2) for count in (1, 2, 8, 16)]
    assert found == sorted(found)
    assert found[0] > goodput(MANY._replace(elastic=False), TIMES, days=2)


def test_the_seed_alone_decides():
    assert goodput(MANY, TIMES, 1, seed=1) == goodput(MANY, TIMES, 1, seed=1) != goodput(MANY, TIMES, 1, seed=2)


@pytest.mark.parametrize(
    ("cluster", "days", "message"),
    [
        (Cluster(1500, 2), 1, "chips: expected at least a slice"),
        (Cluster(0), 1, "chips"),
        (Cluster(10**6, 0), 1, "learners"),
        (Cluster(10**6, mtbi=0.0), 1, "MTBI"),
        (Cluster(10**6), 0, "days"),
    ],
)
def test_what_cannot_be_simulated_is_refused(cluster, days, message):
    with pytest.raises(SettingError, match=message):
        goodput(cluster, TIMES, days)


def test_times_below_0_are_refused():
    with pytest.raises(SettingError, match="repair"):
        replace(TIMES, repair=-1)
