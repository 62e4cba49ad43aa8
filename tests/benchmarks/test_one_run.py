"""What a record keeps of a run folder."""

from suites.one_run import curve


def test_a_curve_is_of_the_standard_task_alone():
    def epoch(stage, **valid):
        return {"stage": stage, "seconds": 2.0, "valid": valid}

    plain = [
        epoch(1, **{"ndcg@10": 0.1}),
        epoch(1, **{"ndcg@10": 0.2}),
        epoch(2, **{"ndcg@10": 0.3}),
    ]
    assert curve(plain) == [[2.0, 0.1], [4.0, 0.2]]
    assert not curve([epoch(1, **{"ndcg@10": 0.1, "positive_ndcg@10": 0.2})])  # all stages at once
