"""Makes tiny checkpoints with the real libraries, and the scores that these libraries give to some histories.

Run it in an environment of its own, which has torch 2.13.0 and the library, such as::

    python -m venv env && env/bin/pip install torch==2.13.0 recbole==1.2.1 'setuptools<80' 'numpy<2' \
        'pandas<2.2' 'scipy<1.13'
    env/bin/python tests/foreign/make_checkpoints.py recbole OUT

Libraries: `recbole` (recbole==1.2.1), `replay` (replay-rec[torch]==0.22.0), `rectools` (rectools[torch]==0.19.0). Each
model is trained for an epoch on random histories by the library's own trainer. Then noise is added to its weights, for
a network that has hardly learned anything gives nearly the same scores to everything. The library saves it, and scores
are made by the library itself from the file's weights.
"""

import contextlib
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

ITEMS, USERS, LENGTH, HIDDEN, HEADS, LAYERS = 12, 30, 5, 8, 2, 2
NOISE = 0.4
HISTORIES = [[3], [0, 7], [5, 5, 1], [2, 9, 11, 4], [8, 3, 0, 10, 6], [1, 2, 3, 4, 5, 6, 7, 8], [11, 0]]


def draw_histories():
    """Return random histories of items 0 … ITEMS - 1; every item occurs."""
    rng = np.random.default_rng(7)
    rows = [rng.integers(0, ITEMS, rng.integers(4, 12)).tolist() for _ in range(USERS - 1)]
    return [*rows, list(range(ITEMS))]


def name_item(item):
    """Return the library's outer id of an item."""
    return f"item {item:02d}"


def disturb(network):
    """Add noise to all weights."""
    import torch

    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(NOISE * torch.randn(weight.shape, generator=generator))


def write_expected(out, name, scores, tokens):
    """Write what a library scores: a row a history of `HISTORIES`, a column an item of the file's order.

    Args:
        out: Folder.
        name: Name of the checkpoint.
        scores: Shape `[histories, items]`.
        tokens: Outer ids of the items, in the order of the columns.
    """
    record = {
        "tokens": tokens,
        "histories": [[name_item(item) for item in row] for row in HISTORIES],
        "scores": np.asarray(scores, dtype=np.float64).round(6).tolist(),
    }
    (out / f"{name}.json").write_text(json.dumps(record) + "\n")


def make_recbole(out):
    """Train SASRec, GRU4Rec and BERT4Rec of RecBole."""
    import torch
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.data.interaction import Interaction
    from recbole.utils import get_model, get_trainer, init_seed

    for model_name in ("SASRec", "GRU4Rec", "BERT4Rec"):
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # no path of a machine in the files
            Path("toy").mkdir()
            with Path("toy", "toy.inter").open("w") as file:
                file.write("user_id:token\titem_id:token\ttimestamp:float\n")
                for user, row in enumerate(draw_histories()):
                    file.writelines(f"u{user}\t{name_item(item)}\t{place}\n" for place, item in enumerate(row))
            fields = {
                "data_path": ".", "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
                "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
                "MAX_ITEM_LIST_LENGTH": LENGTH, "loss_type": "CE", "train_neg_sample_args": None,
                "n_layers": 1 if model_name == "BERT4Rec" else LAYERS,
                "n_heads": HEADS, "hidden_size": HIDDEN, "embedding_size": HIDDEN - 2, "inner_size": 10,
                "num_layers": LAYERS, "epochs": 1, "seed": 1, "use_gpu": False, "show_progress": False,
                "checkpoint_dir": ".", "hidden_act": "gelu" if model_name == "BERT4Rec" else "swish",
            }  # fmt: skip
            sys.argv = sys.argv[:1]
            config = Config(model=model_name, dataset="toy", config_dict=fields)
            init_seed(1, True)
            dataset = create_dataset(config)
            train, valid, _ = data_preparation(config, dataset)
            model = get_model(model_name)(config, train.dataset)
            trainer = get_trainer(config["MODEL_TYPE"], model_name)(config, model)
            trainer.fit(train, valid, saved=False, verbose=False)
            disturb(model)
            name = f"recbole_{model_name.lower()}"
            trainer._save_checkpoint(1, verbose=False, saved_model_file=str(out / f"{name}.pth"))
            model.eval()
            scores = []
            for row in HISTORIES:
                known = [dataset.token2id("item_id", name_item(item)) for item in row[-LENGTH:]]
                padded = torch.zeros(1, LENGTH, dtype=torch.long)
                padded[0, : len(known)] = torch.tensor(known)
                asked = Interaction({"item_id_list": padded, "item_length": torch.tensor([len(known)])})
                scores.append(model.full_sort_predict(asked)[0, 1:].detach().numpy())
            write_expected(out, name, scores, [str(token) for token in dataset.field2id_token["item_id"][1:]])


def make_replay(out):
    """Train both SASRecs of RePlay: `replay.models.nn.sequential` and `replay.nn.sequential`."""
    import lightning
    import torch
    from replay.data import FeatureHint, FeatureSource, FeatureType
    from replay.data.nn import TensorFeatureInfo, TensorFeatureSource, TensorSchema
    from replay.models.nn.sequential.sasrec import SasRec as OldSasRec
    from replay.nn.lightning import LightningModule
    from replay.nn.sequential import SasRec

    schema = TensorSchema(
        TensorFeatureInfo(
            name="item_id", is_seq=True, cardinality=ITEMS, padding_value=ITEMS, embedding_dim=HIDDEN,
            feature_type=FeatureType.CATEGORICAL, feature_hint=FeatureHint.ITEM_ID,
            feature_sources=[TensorFeatureSource(FeatureSource.INTERACTIONS, "item_id")],
        )
    )  # fmt: skip

    def pad(row):
        padded = torch.full((1, LENGTH), ITEMS)
        padded[0, LENGTH - len(row[-LENGTH:]) :] = torch.tensor(row[-LENGTH:])
        return padded

    rows = torch.cat([pad(row) for row in draw_histories()])
    labels = torch.cat([rows[:, 1:], torch.full((len(rows), 1), 0)], dim=1)

    def train(module, batches):
        trainer = lightning.Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
        )
        trainer.fit(module, torch.utils.data.DataLoader(batches, batch_size=None))
        return trainer

    old = OldSasRec(
        schema, block_count=LAYERS, head_count=HEADS, hidden_size=HIDDEN, max_seq_len=LENGTH, dropout_rate=0.1
    )
    batch = {
        "feature_tensor": {"item_id": rows}, "padding_mask": rows != ITEMS,
        "positive_labels": labels, "target_padding_mask": rows != ITEMS,
    }  # fmt: skip
    trainer = train(old, [batch])
    disturb(old)
    trainer.save_checkpoint(out / "replay_sasrec.ckpt")
    old.eval()
    tokens = [name_item(item) for item in range(ITEMS)]
    scores = [old.forward({"item_id": pad(row)}, pad(row) != ITEMS)[0].detach().numpy() for row in HISTORIES]
    write_expected(out, "replay_sasrec", scores, tokens)

    new = SasRec.from_params(
        schema, embedding_dim=HIDDEN, num_heads=HEADS, num_blocks=LAYERS, max_sequence_length=LENGTH, dropout=0.1,
        hidden_dim=10,
    )  # fmt: skip
    module = LightningModule(new)
    trainer = train(
        module,
        [
            {
                "feature_tensors": {"item_id": rows}, "padding_mask": rows != ITEMS,
                "positive_labels": labels[..., None], "negative_labels": torch.zeros(1, dtype=torch.long),
                "target_padding_mask": (rows != ITEMS)[..., None],
            }
        ],
    )  # fmt: skip
    disturb(module)
    trainer.save_checkpoint(out / "replay_sasrec_new.ckpt")
    module.eval()
    scores = [
        module({"feature_tensors": {"item_id": pad(row)}, "padding_mask": pad(row) != ITEMS})["logits"][0]
        .detach()
        .numpy()
        for row in HISTORIES
    ]
    write_expected(out, "replay_sasrec_new", scores, tokens)


def make_rectools(out):
    """Train SASRec of RecTools; write its Lightning checkpoint and its own file."""
    import pandas
    import torch
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel
    from rectools.models.nn.item_net import IdEmbeddingsItemNet

    rows = [
        (f"u{user}", name_item(item), 1, pandas.Timestamp("2026-01-01") + pandas.Timedelta(days=place))
        for user, row in enumerate(draw_histories())
        for place, item in enumerate(row)
    ]
    frame = pandas.DataFrame(rows, columns=[Columns.User, Columns.Item, Columns.Weight, Columns.Datetime])
    dataset = Dataset.construct(frame)
    model = SASRecModel(
        n_blocks=LAYERS, n_heads=HEADS, n_factors=HIDDEN, session_max_len=LENGTH, epochs=1, batch_size=8,
        item_net_block_types=(IdEmbeddingsItemNet,), deterministic=True,
    )  # fmt: skip
    model.fit(dataset)
    disturb(model.lightning_model)
    model.fit_trainer.save_checkpoint(out / "rectools_sasrec.ckpt")
    model.save(out / "rectools_sasrec.pkl")
    model = SASRecModel.load(out / "rectools_sasrec.pkl")
    network = model.torch_model.eval()
    tokens = [str(token) for token in model.data_preparator.item_id_map.external_ids]
    place = {token: number for number, token in enumerate(tokens)}
    scores = []
    for row in HISTORIES:
        known = [place[name_item(item)] for item in row[-LENGTH:]]
        padded = torch.zeros(1, LENGTH, dtype=torch.long)
        padded[0, LENGTH - len(known) :] = torch.tensor(known)
        scores.append(network({"x": padded})[0, -1, 1:].detach().numpy())
    write_expected(out, "rectools_sasrec", scores, tokens[1:])


if __name__ == "__main__":
    library, folder = sys.argv[1], Path(sys.argv[2]).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    {"recbole": make_recbole, "replay": make_replay, "rectools": make_rectools}[library](folder)
