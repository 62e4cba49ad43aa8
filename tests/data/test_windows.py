"""Every target counts once per epoch, whatever the history's length."""

from collections import Counter

import pytest
import torch

from recbole_dpr.data.dataset import ROW_FIELD
from recbole_dpr.data.loading import load_data
from recbole_dpr.data.windows import TARGET_LIST, WindowLoader


@pytest.fixture
def uneven(data_path):
    """Users with 4 to 43 interactions, every one another item order."""
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user in range(40):
        lines += [f"u{user}\ti{(user * 7 + t * 5) % 24}\t{t}" for t in range(4 + user)]
    (data_path / "tiny" / "tiny.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize(("length", "stride"), [(10, 5), (10, 10), (10, 1), (7, 3), (50, 25)])
def test_each_target_counts_once_per_epoch(tiny_config, uneven, length, stride):
    config = tiny_config(MAX_ITEM_LIST_LENGTH=length, window_stride=stride)
    data = load_data(config)
    inter = data.train.inter_feat
    expected = Counter(zip(inter["user_id"].tolist(), inter["item_id"].tolist(), strict=True))
    loader = WindowLoader(config, data.train, batch_size=8)
    for epoch in range(3):
        loader.set_epoch(epoch)
        seen: Counter = Counter()
        batches = list(loader)
        assert len(batches) == len(loader)
        for batch in batches:
            where = batch[TARGET_LIST] > 0
            users = batch["user_id"][:, None].expand_as(where)[where]
            seen.update(zip(users.tolist(), batch[TARGET_LIST][where].tolist(), strict=True))
        assert seen == expected


def test_windows_are_runs_of_the_history_and_targets_follow_their_items(tiny_config, uneven):
    config = tiny_config(MAX_ITEM_LIST_LENGTH=10, window_stride=5)
    data = load_data(config)
    history = data.train.history
    for batch in WindowLoader(config, data.train, batch_size=4):
        for user, items, n, targets in zip(
            batch["user_id"],
            batch["item_id_list"],
            batch["item_length"],
            batch[TARGET_LIST],
            strict=True,
        ):
            own = history["item_id"][history["user_id"] == user].tolist()
            window = items[:n].tolist()
            assert not items[n:].any() and not targets[n:].any()
            start = next(i for i in range(len(own)) if own[i : i + n] == window)
            for position in range(int(n)):
                assert targets[position] in (0, own[start + position + 1])
            if start:  # not the first window: full context before every target
                assert n == 10 and not targets[: 10 - 5].any()


def test_held_out_items_are_never_targets(tiny_config, uneven):
    config = tiny_config()
    data = load_data(config)
    kept = data.train.inter_feat[ROW_FIELD]
    held_out = {int(data.valid._dataset.inter_feat[ROW_FIELD][0]), int(kept.max()) + 1}
    assert not held_out & set(kept.tolist())


def test_the_order_depends_on_seed_and_epoch_alone(tiny_config):
    config = tiny_config()
    data = load_data(config)

    def epoch(number):
        loader = WindowLoader(config, data.train, batch_size=8)
        torch.rand(3)  # the global generator plays no part
        loader.set_epoch(number)
        return torch.cat([batch["item_id_list"] for batch in loader])

    assert torch.equal(epoch(4), epoch(4))
    assert not torch.equal(epoch(4), epoch(5))
