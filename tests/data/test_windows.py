"""Every target counts once per epoch, whatever the history's length."""

from collections import Counter

import pytest
import torch

from recbole_dpr.data.dataset import ROW_FIELD
from recbole_dpr.data.loading import PrefixLoader, load_data
from recbole_dpr.data.windows import FEWEST, TARGET_LIST, PrefixWindows, WindowLoader, before


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


@pytest.mark.parametrize("limit", [None, 50])
def test_a_prefix_window_holds_what_stands_before_its_only_target(tiny_config, uneven, limit):
    config = tiny_config()
    train = load_data(config).train
    loader = PrefixWindows(config, train, 8, limit)
    loader.set_epoch(1)
    assert loader.n_windows == (limit or len(train))
    everything = train[range(len(train))]
    expected = {
        (user, target, *items)
        for user, target, items in zip(
            everything["user_id"].tolist(),
            everything["item_id"].tolist(),
            everything["item_id_list"].tolist(),
            strict=True,
        )
    }
    for batch in loader:
        last = batch["item_length"] - 1
        targets = batch[TARGET_LIST]
        assert ((targets > 0).sum(dim=1) == 1).all()
        target = targets.gather(1, last[:, None])[:, 0]
        for user, item, items in zip(
            batch["user_id"].tolist(), target.tolist(), batch["item_id_list"].tolist(), strict=True
        ):
            assert (user, item, *items) in expected


def test_a_prefix_window_is_the_same_in_every_epoch(tiny_config, uneven):
    config = tiny_config()
    loader = PrefixWindows(config, load_data(config).train, 8, 50)
    first = loader.windows(torch.arange(50))["item_id_list"]
    loader.set_epoch(3)
    assert torch.equal(loader.windows(torch.arange(50))["item_id_list"], first)


def test_little_data_makes_small_batches(tiny_config, uneven):
    config = tiny_config(MAX_ITEM_LIST_LENGTH=10, window_stride=1)
    train = load_data(config).train
    many, few = (WindowLoader(config, train, batch_size=size) for size in (8, 64))
    assert many.n_windows > 8 * FEWEST and many.batch_size == 8
    assert few.batch_size < 64 and len(few) >= FEWEST
    assert sum(map(len, few)) == few.n_windows


def test_few_prefixes_make_small_batches(tiny_config, uneven):
    config = tiny_config("DPR-FPMC", train_batch_size=64)
    data = load_data(config)
    whole, some = (PrefixLoader(config, data.train, data.train_sampler, n) for n in (None, 90))
    assert len(data.train) < 64 * FEWEST and len(whole) >= FEWEST
    assert sorted(map(len, some)) == [2] * 45
    assert sum(map(len, whole)) == len(data.train)


def test_before_holds_the_items_up_to_each_position():
    items = torch.tensor([[3, 5, 7], [2, 4, 0]])
    where = torch.tensor([[True, False, True], [False, True, False]])
    assert before(items, where).tolist() == [[3, 0, 0], [3, 5, 7], [2, 4, 0]]


def test_prefixes_are_drawn_anew_and_depend_on_seed_and_epoch_alone(tiny_config, uneven):
    config = tiny_config("DPR-FPMC", train_batch_size=64)
    data = load_data(config)
    loader = PrefixLoader(config, data.train, data.train_sampler, limit=50)

    def epoch(number):
        loader.set_epoch(number)
        batches = list(loader)
        assert len(batches) == len(loader) and sum(map(len, batches)) == 50
        return torch.cat([torch.stack([b["item_id"], b["neg_item_id"]]) for b in batches], dim=1)

    first, second = epoch(0), epoch(1)
    assert not torch.equal(first, second)
    assert torch.equal(epoch(0), first)
    assert len(loader._batches.dataset) == len(data.train)
