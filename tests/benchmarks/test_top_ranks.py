import math

import numpy as np

from suites.top_ranks import over_seeds, pack, top_ranks, unpack


def of_run(rows, **ranks):
    return {"unseen": {"positive": {"rows": rows, "ranks": ranks}}}


def record(rows, **ranks):
    return {"top_ranks": top_ranks(of_run(rows, **ranks))}


def test_ranks_within_the_first_ten_come_back():
    assert unpack(pack([1, 2.5, 10, 10.5, 11, 900])) == [1, 3, 10, *[math.inf] * 3]


def test_many_users_take_little_room():
    assert len(pack([3000.0] * 20000 + [4.0] * 2000)) < 100


def test_seeds_stand_on_each_other():
    ranks = over_seeds(
        [record([0, 1], DPR=[1, 2]), record([0, 1], DPR=[3, 90], new=[1, 1])], "positive"
    )
    assert list(ranks) == ["DPR"]
    assert np.array_equal(ranks["DPR"], [[1, 2], [3, math.inf]])


def test_other_users_or_records_without_ranks_are_not_put_together():
    assert over_seeds([record([0, 1], DPR=[1, 2]), record([0, 2], DPR=[1, 2])], "positive") == {}
    assert over_seeds([record([0, 1], DPR=[1, 2]), {}], "positive") == {}
    assert over_seeds([], "positive") == {}
