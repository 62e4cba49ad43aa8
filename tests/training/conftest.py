import pytest


@pytest.fixture
def options(tiny_options):
    """Of a run with several epochs in every stage."""
    return tiny_options | {"stage1_epochs": 3, "stage2_epochs": 2, "stage3_epochs": 3}
