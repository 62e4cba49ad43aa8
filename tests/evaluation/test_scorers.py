"""Judging by real Hugging Face models, made on the spot and taught to like what is red."""

import json
from types import SimpleNamespace

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.utils.rnn import pad_sequence

from recbole_dpr.errors import DPRError
from recbole_dpr.evaluation.cross_encoder import CrossEncoder
from recbole_dpr.evaluation.pair_scorer import HISTORY, ITEM_WORDS
from recbole_dpr.evaluation.rerank import rerankers
from recbole_dpr.evaluation.scorers import find_scorer
from recbole_dpr.evaluation.systems import PromptedBatch
from recbole_dpr.evaluation.yes_no import QUESTION, YesNo

COLOURS = ("red", "blue", "green")
# Item 0 is the padding; the others are red, blue and green in turn.
TITLES = ["", *(f"thing {n}" for n in range(12))]
TEXTS = ["", *(f"thing {n}, {COLOURS[n % 3]}" for n in range(12))]
PROMPTS = ["", *(f"{colour}, please" for colour in COLOURS)]
RED, BLUE, GREEN = 1, 2, 3


WORDS = [*TITLES, *TEXTS, *PROMPTS, "(Taken before: ) Answer: Yes Answer: No", QUESTION]


def bert_tokenizer():
    made = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    made.train_from_iterator(WORDS, trainers.WordLevelTrainer(special_tokens=special))
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", sep_token="[SEP]"
    )


def gpt2_tokenizer():
    """Without a padding token, as GPT-2's own."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(special_tokens=["<end>"], initial_alphabet=alphabet)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(WORDS, trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>")


def save(folder, model, words):
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def scorer(kind, folder, batch_size=8, prompts=PROMPTS):
    return kind(folder, TITLES, TEXTS, prompts, batch_size)


def teach(model, score):
    """Train a model until its scores tell red items from others, whatever the prompt."""
    model.requires_grad_(True)
    optimizer = torch.optim.Adam(model.parameters(), 0.003)
    generator = torch.Generator().manual_seed(1)
    for _ in range(200):
        asked = torch.randint(1, 4, (32,), generator=generator).tolist()
        items = torch.randint(1, 13, (32,), generator=generator).tolist()
        taken = [tuple(TITLES[item : item + item % 4]) for item in items[::-1]]
        users = [(titles, PROMPTS[n]) for titles, n in zip(taken, asked, strict=True)]
        right = [item % 3 == 1 for item in items]
        logits = score(users, [TEXTS[item] for item in items])
        loss = binary_cross_entropy_with_logits(logits, torch.tensor(right).float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.02:
            break
    assert loss < 0.1, "the tiny model has not learned its colours"
    model.requires_grad_(False)


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory):
    """A BERT with one label that likes what is red."""
    torch.manual_seed(0)
    words = bert_tokenizer()
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=1,
        initializer_range=0.2,
    )
    folder = tmp_path_factory.mktemp("models") / "cross"
    save(folder, transformers.BertForSequenceClassification(config), words)
    reader = scorer(CrossEncoder, folder)
    teach(reader.loaded[1], reader.score)
    return save(folder, reader.loaded[1], words)


def log_odds(reader, users, items):
    """What `YesNo.score` should give, from one plain forward pass with the padding behind."""
    words, model = reader.loaded
    yes, no = (words(f" {word}")["input_ids"] for word in ("Yes", "No"))
    assert len(yes) == 1 == len(no)
    texts = [
        QUESTION.format(history="; ".join(taken), prompt=prompt, item=item) + "\nAnswer:"
        for (taken, prompt), item in zip(users, items, strict=True)
    ]
    rows = [torch.tensor(words(text)["input_ids"]) for text in texts]
    logits = model(input_ids=pad_sequence(rows, batch_first=True)).logits
    last = logits[range(len(rows)), [len(row) - 1 for row in rows]]
    return last[:, yes[0]] - last[:, no[0]]


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    """A GPT-2 that answers Yes where the candidate is red.

    Its positions are absolute: padding in front would mislead it if it were not seen to.
    """
    torch.manual_seed(0)
    words = gpt2_tokenizer()
    config = transformers.GPT2Config(
        vocab_size=len(words),
        n_embd=32,
        n_layer=1,
        n_head=2,
        n_positions=256,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=0,
    )
    folder = save(
        tmp_path_factory.mktemp("models") / "language", transformers.GPT2LMHeadModel(config), words
    )
    reader = scorer(YesNo, folder)
    teach(reader.loaded[1], lambda *pairs: log_odds(reader, *pairs))
    return save(folder, reader.loaded[1], words)


def batch(prompt_ids, n_items=13):
    falling = -torch.arange(n_items).float().repeat(len(prompt_ids), 1)
    none = torch.zeros(len(prompt_ids), 3).bool()
    history = torch.tensor([[1, 2, 0], [5, 0, 0], [7, 8, 9]])[: len(prompt_ids)]
    ids = torch.tensor(prompt_ids)
    return PromptedBatch(falling, none, none, SimpleNamespace(), prompt_ids=ids, history=history)


def rankings(scores):
    return scores.argsort(dim=1, descending=True, stable=True).tolist()


def test_the_newest_titles_come_first_where_the_end_is_cut(cross_encoder):
    reader = scorer(CrossEncoder, cross_encoder)
    newest = reader.score([((*["thing 1"] * 40, "thing 2"), PROMPTS[RED])], [TEXTS[3]])
    other = reader.score([((*["thing 1"] * 40, "thing 5"), PROMPTS[RED])], [TEXTS[3]])
    assert newest.isfinite() and newest != other


def test_the_cross_encoder_puts_what_it_likes_first(cross_encoder):
    folder, kind = find_scorer(str(cross_encoder))
    assert kind is CrossEncoder
    system = rerankers(scorer(kind, folder), {"rerank_6": 6})["rerank_6"]
    lists = rankings(system(batch([RED, BLUE, GREEN])))
    assert [set(row[:2]) for row in lists] == [{1, 4}] * 3
    assert [row[6:] for row in lists] == [[*range(7, 13), 0]] * 3


def test_the_language_model_puts_what_it_says_yes_to_first(language_model):
    folder, kind = find_scorer(str(language_model))
    assert kind is YesNo
    system = rerankers(scorer(kind, folder), {"rerank_6": 6})["rerank_6"]
    lists = rankings(system(batch([RED, BLUE, GREEN])))
    assert [set(row[:2]) for row in lists] == [{1, 4}] * 3


USERS = [
    (("thing 1", "thing 2"), PROMPTS[RED]),
    ((), PROMPTS[BLUE]),
    (("thing 10",), PROMPTS[GREEN]),
]


def test_the_score_is_the_log_odds_of_yes_against_no(language_model):
    reader = scorer(YesNo, language_model)
    items = [TEXTS[1], TEXTS[2] * 3, TEXTS[9]]  # of different lengths, so there is padding
    expected = log_odds(reader, USERS, items)
    assert reader.reads_once
    torch.testing.assert_close(reader.score(USERS, items), expected, rtol=0, atol=1e-4)
    asked = reader._questions(USERS, items)
    torch.testing.assert_close(reader._whole(asked), expected, rtol=0, atol=1e-4)


def test_a_chat_template_is_asked_in(language_model):
    reader = scorer(YesNo, language_model)
    words = reader.loaded[0]
    words.chat_template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    text = reader.written((("thing 1",), "red, please"), "thing 4, green", "Yes")
    assert text.startswith(
        "<|user|>A user of a recommender system took these items, oldest first: thing 1."
    )
    assert 'says: "red, please"' in text
    assert text.endswith("Answer Yes or No.\nCandidate: thing 4, green<|assistant|>Yes")
    (yes, no), tail = reader.answers
    assert [words.decode([token]) for token in (yes, no)] == [
        "Ye",
        "No",
    ]  # the made tokenizer knows " Yes" alone as one
    assert words.decode(reader._tokens([text])[0][:-tail]) == text[: -len("Yes")]
    assert reader.score(USERS, [TEXTS[1]] * 3).isfinite().all()


@pytest.mark.parametrize("kind", ["cross_encoder", "language_model"])
def test_what_else_is_in_a_piece_changes_nothing(kind, request):
    folder, kind = find_scorer(str(request.getfixturevalue(kind)))
    given = batch([RED, BLUE, GREEN])
    candidates = torch.arange(1, 8).repeat(3, 1)
    whole = scorer(kind, folder, batch_size=100)(given, candidates)
    single = scorer(kind, folder, batch_size=1)(given, candidates)
    assert whole.shape == (3, 7)
    torch.testing.assert_close(whole, single, rtol=0, atol=1e-4)


def test_a_user_is_the_newest_titles_and_the_prompt(cross_encoder):
    reader = scorer(CrossEncoder, cross_encoder)
    given = batch([RED, BLUE, GREEN])
    long = torch.arange(1, 13).repeat(3, 1)
    pieces = list(reader._pieces(given, torch.tensor([[4], [5], [6]])))
    assert pieces == [
        [
            ((("thing 0", "thing 1"), PROMPTS[RED]), TEXTS[4]),
            ((("thing 4",), PROMPTS[BLUE]), TEXTS[5]),
            ((("thing 6", "thing 7", "thing 8"), PROMPTS[GREEN]), TEXTS[6]),
        ]
    ]
    given.history = long
    (taken, _), _ = next(reader._pieces(given, torch.tensor([[4], [5], [6]])))[0]
    assert taken == tuple(TITLES[1:][-HISTORY:])


def test_a_pair_that_is_too_long_loses_its_oldest_titles(language_model):
    reader = scorer(YesNo, language_model)
    words = reader.loaded[0]
    taken = (*["thing 1"] * 300, "thing 2")
    (ids,) = reader._questions([(taken, "red, please")], [TEXTS[3]])
    assert len(ids) < 256  # positions, one of which is for the answer
    text = words.decode(ids)
    begin, end = QUESTION.split("{history}")
    assert text.startswith(begin + "thing 1; ")  # the question itself loses nothing
    assert text.endswith(end.format(prompt="red, please", item=TEXTS[3]) + "\nAnswer:")
    assert "; thing 2." in text
    assert reader.score([(taken, "red, please")], [TEXTS[3]]).isfinite()


def test_a_long_item_text_leaves_the_prompt_its_place(language_model):
    texts = [*TEXTS[:-1], "green " * 1000]
    reader = YesNo(language_model, TITLES, texts, PROMPTS, 8)
    ((_, item),) = next(reader._pieces(batch([RED]), torch.tensor([[12]])))
    assert item == " ".join(["green"] * ITEM_WORDS)


OTHERS = {
    # More goes from token to token than keys and values.
    "Mamba": {"state_size": 4, "num_hidden_layers": 1},
    # Between the last state and the answer lies another layer.
    "Bert": {"is_decoder": True, "num_hidden_layers": 1, "intermediate_size": 64},
    # Logits are capped.
    "Gemma2": {
        "num_hidden_layers": 2,
        "intermediate_size": 64,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "final_logit_softcapping": 0.5,
    },
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_kinds_of_language_models_give_their_own_answer(kind, tmp_path):
    torch.manual_seed(0)
    words = gpt2_tokenizer()
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(words),
        hidden_size=32,
        num_attention_heads=2,
        initializer_range=0.5,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        **OTHERS[kind],
    )
    made = getattr(transformers, {"Bert": "BertLMHeadModel"}.get(kind, f"{kind}ForCausalLM"))
    reader = scorer(YesNo, save(tmp_path / kind, made(config), words))
    items = [TEXTS[1], TEXTS[2] * 3, TEXTS[9]]
    users = [USERS[0], USERS[0], USERS[2]]
    torch.testing.assert_close(
        reader.score(users, items), log_odds(reader, users, items), rtol=0, atol=1e-3
    )
    assert reader.reads_once == (kind == "Gemma2")


def change(folder, copy, **options):
    """A copy of a model's config, with other options and no weights."""
    copy.mkdir()
    config = json.loads((folder / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **options}))
    return str(copy)


def test_models_that_cannot_judge_are_refused(cross_encoder, tmp_path):
    three = {str(n): "x" for n in range(3)}
    for number, (options, says) in enumerate(
        [
            ({"architectures": ["BertModel"]}, "is BertModel with 1 labels"),
            ({"architectures": None}, "is of no known kind"),
            ({"id2label": three}, "with 3 labels"),
        ]
    ):
        with pytest.raises(DPRError, match=f"{says}.*pass rerank_model="):
            find_scorer(change(cross_encoder, tmp_path / str(number), **options))
    with pytest.raises(DPRError, match="rerank_model 'no/such-model' is no folder"):
        find_scorer("no/such-model")


def test_two_labels_give_the_log_odds_of_the_second(cross_encoder, tmp_path):
    torch.manual_seed(1)
    config = transformers.AutoConfig.from_pretrained(cross_encoder, num_labels=2)
    model = transformers.BertForSequenceClassification(config).eval()
    folder = save(tmp_path / "two", model, bert_tokenizer())
    _, kind = find_scorer(str(folder))
    reader = scorer(kind, folder)
    pair = reader.loaded[0]("red, please (Taken before: thing 1)", TEXTS[1], return_tensors="pt")
    logits = model(**pair).logits[0]
    score = reader.score([(("thing 1",), "red, please")], [TEXTS[1]])
    assert float(score) == pytest.approx((logits[1] - logits[0]).item(), abs=1e-5)


def test_weights_that_cannot_be_read_are_named(cross_encoder, tmp_path):
    folder = change(cross_encoder, tmp_path / "empty")
    _, kind = find_scorer(folder)
    with pytest.raises(DPRError, match="cannot be loaded"):
        _ = scorer(kind, tmp_path / "empty").loaded
