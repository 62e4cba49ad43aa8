"""How the recommenders are measured: metrics, compared systems, tasks, report and plots."""
