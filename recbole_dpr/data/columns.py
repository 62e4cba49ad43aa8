"""Which columns of the atomic files a run reads."""

from __future__ import annotations

from typing import Any


def needed_columns(options: dict[str, Any]) -> dict[str, Any] | None:
    """`load_col` with the columns that the split, prompts, attributes, texts and the model need."""
    load_col = options["load_col"]
    if load_col is None:  # RecBole: load everything
        return None
    ids = [options["USER_ID_FIELD"], options["ITEM_ID_FIELD"]]
    columns = [*options["prompt_fields"], *options["item_text_fields"], options["title_field"]]
    features = options.get("selected_features") or []  # SASRecF and its like
    columns += [*features, options.get("item_attribute")]  # S3Rec
    needed: dict[str, Any] = {
        "inter": [*ids, options["TIME_FIELD"], options["PROMPT_ID_FIELD"]],
        "item": [c for c in columns if c],
    }
    for names in needed.values():  # RecBole takes of a file what it has
        names += options.get("val_interval") or []
    load_col = dict(load_col)
    if options.get("preload_weight"):  # GRU4RecKG and KSR
        for suffix in ("kg", "link", *(options.get("additional_feat_suffix") or [])):
            load_col.setdefault(suffix, "*")
    for suffix, names in needed.items():
        given = load_col.get(suffix) or []
        if names and given != "*":
            start = ids[1:] if suffix == "item" else []
            load_col[suffix] = list(dict.fromkeys([*start, *given, *names]))
    return load_col
