"""Vectors of the knowledge graph that RecBole ships with ml-100k, for GRU4RecKG and KSR."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch

from recbole_dpr.files import recbole_dir, write_text

NEED_VECTORS = ("GRU4RecKG", "KSR")
SEED = 2020


def knowledge_vectors(folder: Path, dataset: str, size: int = 64, epochs: int = 20) -> None:
    """Copy the data set and train its graph's vectors by TransE (Bordes et al. 2013): head + relation = tail."""
    if (folder / f"{dataset}.rel").is_file():  # the last to be written
        return
    shutil.copytree(recbole_dir() / "dataset_example" / dataset, folder, dirs_exist_ok=True)
    rows = (folder / f"{dataset}.kg").read_text().splitlines()[1:]
    triples = np.array([row.split("\t") for row in rows])
    entities, ends = np.unique(triples[:, [0, 2]], return_inverse=True)
    relations, kinds = np.unique(triples[:, 1], return_inverse=True)
    heads, tails = (torch.from_numpy(x) for x in ends.reshape(-1, 2).T.copy())
    generator = torch.Generator().manual_seed(SEED)
    ent = torch.randn(len(entities), size, generator=generator).div(size**0.5).requires_grad_()
    rel = torch.randn(len(relations), size, generator=generator).div(size**0.5).requires_grad_()
    optimizer = torch.optim.Adam([ent, rel], lr=0.01)
    for _ in range(epochs):
        for part in torch.randperm(len(triples), generator=generator).split(4096):
            other = torch.randint(len(entities), (len(part),), generator=generator)
            moved = ent[heads[part]] + rel[torch.from_numpy(kinds)[part]]
            near, far = (moved - ent[x] for x in (tails[part], other))
            loss = (1 + near.norm(dim=1) - far.norm(dim=1)).relu().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for name, tokens, vectors in (("ent", entities, ent), ("rel", relations, rel)):
        lines = [f"{name}_id:token\t{name}_emb:float_seq"]
        for token, vector in zip(tokens, vectors.tolist(), strict=True):
            lines.append(token + "\t" + " ".join(f"{x:.5f}" for x in vector))
        write_text(folder / f"{dataset}.{name}", "\n".join(lines) + "\n")
