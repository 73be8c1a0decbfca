"""Time RePlay's SASRec (``replay.nn``: parquet files, Lightning, full cross-entropy) on the common split.

Regimes: ``last`` is the library's own (one row for each user, cut to its end when read); ``all`` gives it more rows,
each history cut into windows that use every transition once. One sample for each prefix is not supported.
"""

import tempfile
from pathlib import Path

from harness import BATCH, DROPOUT, HEADS, HIDDEN, LAYERS, MAX_LEN, RATE, K, Run, Split, parse

NOTES = (
    "regimes last (native) and all (windows as rows); Adam betas (0.9, 0.98), the library's default; every position of "
    "the batch is scored, padding too; a row shorter than the window also has its first item as a target, after "
    "padding alone, and train_targets counts it; seen items are filtered with SeenItemsFilter; the library's data "
    "module has no workers; its length buckets are on, which was a little faster here"
)
BUCKET = 64
args = parse(__doc__, ["last", "all"], eval_every=5, inner_size=True)


def write_parquet(split: Split, regime: str, folder: Path) -> None:
    """Write the rows for training, validation and prediction, with items numbered from zero."""
    import pyarrow as pa
    from pyarrow import parquet

    code = {item: index for index, item in enumerate(split.items)}
    rows = [[code[item] for item in row] for row in split.rows(regime)]
    parquet.write_table(pa.table({"item_id": rows}), folder / "train.parquet")
    for name, truth in (("valid", split.valid), ("test", split.test)):
        seen = [split.train[user] if name == "valid" else split.known(user) for user in truth]
        coded = [[code[item] for item in row] for row in seen]
        table = {"user_id": list(truth), "item_id": coded, "seen_ids": coded}
        table["ground_truth"] = [[code[item]] for item in truth.values()]
        parquet.write_table(pa.table(table), folder / f"{name}.parquet")


def data_module(schema: object, split: Split, folder: Path):
    """Return the library's data module over the written files."""
    from replay.data.nn import ParquetModule
    from replay.nn.transform.template import make_default_sasrec_transforms

    pad = len(split.items)
    held_out = {
        "user_id": {},
        "item_id": {"shape": MAX_LEN, "padding": pad},
        "seen_ids": {"shape": max(len(split.known(user)) for user in split.test), "padding": -1},
        "ground_truth": {"shape": 1, "padding": -1},
    }
    train = {"item_id": {"shape": MAX_LEN + 1, "padding": pad}}  # one more, which the shift to targets takes
    valid, test = str(folder / "valid.parquet"), str(folder / "test.parquet")
    return ParquetModule(
        batch_size=BATCH,
        metadata={"train": train, "validate": held_out, "predict": held_out},
        transforms=make_default_sasrec_transforms(schema),
        train_path=str(folder / "train.parquet"),
        validate_path=[valid, test] if args.to_accuracy else valid,
        predict_path=test,
    )


def clock_callback(run: Run):
    """Return the callback that runs the clocks and, for time to accuracy, records each validation."""
    import lightning

    class Clocks(lightning.Callback):
        def on_train_start(self, trainer, module):
            run.started(sum(min(len(row), MAX_LEN) for row in split.rows(args.regime)))
            run.train.__enter__()

        def on_train_end(self, trainer, module):
            run.train.__exit__()

        def on_validation_start(self, trainer, module):
            run.train.__exit__()

        def on_validation_batch_start(self, trainer, module, *rest):
            if rest[-1] == 0:  # the first loader; the second is the test set, whose time does not count
                run.valid.__enter__()

        def on_validation_batch_end(self, trainer, module, *rest):
            if rest[-1] == 0:
                run.valid.__exit__()

        def on_validation_end(self, trainer, module):
            valid, test = (float(trainer.callback_metrics[f"ndcg@{K}/dataloader_idx_{at}"]) for at in (0, 1))
            if run.validated(trainer.current_epoch + 1, valid, test, module.model.state_dict()):
                trainer.should_stop = True
            run.train.__enter__()

    return Clocks()


def main(run: Run, folder: Path) -> None:
    """Train, recommend and report."""
    import lightning
    import torch
    from replay.data import FeatureHint, FeatureSource, FeatureType
    from replay.data.nn import TensorFeatureInfo, TensorFeatureSource, TensorSchema
    from replay.nn.lightning import LightningModule
    from replay.nn.lightning.callback import ComputeMetricsCallback, TorchTopItemsCallback
    from replay.nn.lightning.optimizer import OptimizerFactory
    from replay.nn.lightning.postprocessor import SeenItemsFilter
    from replay.nn.sequential import LengthBucketedQueryEncoder, SasRec

    torch.set_num_threads(args.threads)
    lightning.seed_everything(args.seed)
    write_parquet(run.split, args.regime, folder)
    size = len(run.split.items)
    item = TensorFeatureInfo(
        "item_id",
        is_seq=True,
        feature_type=FeatureType.CATEGORICAL,
        embedding_dim=HIDDEN,
        padding_value=size,
        cardinality=size,
        feature_hint=FeatureHint.ITEM_ID,
        feature_sources=[TensorFeatureSource(FeatureSource.INTERACTIONS, "item_id")],
    )
    schema = TensorSchema([item])
    model = SasRec.from_params(
        schema=schema,
        embedding_dim=HIDDEN,
        num_heads=HEADS,
        num_blocks=LAYERS,
        max_sequence_length=MAX_LEN,
        dropout=DROPOUT,
        hidden_dim=args.inner_size,
    )
    model.body.encoder = LengthBucketedQueryEncoder(model.body.encoder, BUCKET)
    module = LightningModule(model, optimizer_factory=OptimizerFactory("adam", learning_rate=RATE))
    data = data_module(schema, run.split, folder)
    quiet = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    quiet |= {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    seen = SeenItemsFilter(item_count=size, seen_items_column="seen_ids")
    metrics = [ComputeMetricsCallback(["ndcg"], [K], [seen], size, verbose=False)] if args.to_accuracy else []
    trainer = lightning.Trainer(
        max_epochs=args.epochs,
        callbacks=[*metrics, clock_callback(run)],
        limit_val_batches=1.0 if args.to_accuracy else 0,
        check_val_every_n_epoch=args.eval_every,
        **quiet,
    )
    trainer.fit(module, datamodule=data)
    epochs = trainer.current_epoch
    if run.best is not None:
        model.load_state_dict(run.best)
    top = TorchTopItemsCallback(top_k=K, query_column="user_id", postprocessors=[seen])
    with run.evaluation:
        lightning.Trainer(callbacks=[top], **quiet).predict(module, datamodule=data, return_predictions=False)
        users, items, _ = top.get_result()
    catalogue = run.split.items
    ranking = {user: [catalogue[at] for at in row] for user, row in zip(users.tolist(), items.tolist(), strict=True)}
    run.emit(ranking, f"{NOTES}; feed-forward width {args.inner_size}", epochs)


split = Split.read(args.data)
with tempfile.TemporaryDirectory() as scratch:
    main(Run("replay-rec", args, split), Path(scratch))
