import recbole_dpr
import serving


def test_the_untrained_run_is_all_that_a_model_needs(tiny_options, tmp_path):
    """FPMC asks its data set for the number of users, which only the facts of a run folder tell."""
    run = tmp_path / "run"
    run.mkdir()
    histories = serving.untrained_run(run, "FPMC", "tiny", tiny_options)
    assert len(histories) == 40 and histories[0][-1].startswith("i")
    recommender = recbole_dpr.load(run)
    assert len(recommender.recommend(histories[:1], ["something red"], 5)[0]) == 5
