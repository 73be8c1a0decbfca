"""What `cowbird survive` says of a planted and of an honest SASRec on MovieLens-100K.

Providers train on 70 % of the users; the platform's logs are the other 30 %. One of them replaces 20 % of the labels of
some items' categories by five unpopular items. The command is run as a person would run it, with the planted items as
suspects of both models.

    python benchmarks/survival.py --out docs/results/survival_ml100k.json
"""

import argparse
import csv
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from cowbird.attacks.basic_replacement import BasicReplacement
from cowbird.attacks.targets import TargetItems
from cowbird.data.sources.movielens_100k import MovieLens100K
from cowbird.data.split import LeaveOneOut
from cowbird.rng import stream
from cowbird.victims.sequential.sasrec import SASRec

RATES, EPOCHS = (1e-5, 1e-4, 1e-3), (1, 5)


def main() -> None:
    """Train, survive, write."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--out", type=Path, required=True)
    asked.add_argument("--epochs", type=int, default=12)
    given = asked.parse_args()
    data = MovieLens100K().load()
    users = stream(1, "survival").permutation(len(data.users))
    cut = round(0.3 * len(users))
    own, provider = sorted(users[:cut].tolist()), sorted(users[cut:].tolist())
    side = LeaveOneOut(data.interactions.select(provider), data.users.take(provider), data.items)
    attack = BasicReplacement(rate=0.2, targets=TargetItems(count=5))
    planted = attack.poison(side.training(), seed=1)
    spec = SASRec(epochs=given.epochs, batch_size=64, learning_rate=2e-3, validate_every=4)
    result: dict[str, object] = {"targets": planted.targets.tolist(), "epochs": given.epochs}
    with TemporaryDirectory() as folder:
        place = Path(folder)
        logs, suspects, items = place / "log.csv", place / "suspects.txt", place / "items.txt"
        known = data.interactions
        with logs.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["user_id", "item_id", "timestamp"])
            for user in own:
                for event in range(known.offsets[user], known.offsets[user + 1]):
                    row = [data.users.ids[user], data.items.ids[known.item[event]], known.timestamp[event]]
                    writer.writerow(row)
        items.write_text("\n".join(data.items.ids) + "\n")
        suspects.write_text("\n".join(data.items.ids[item] for item in planted.targets) + "\n")
        for name, training in (("planted", planted.data), ("honest", side.training())):
            spec.fit(training, side.validation(), 1).save(place / f"{name}.safetensors")
            print(name, "trained", flush=True)
            words = ["survive", place / f"{name}.safetensors", "--logs", logs, "--items", items]
            words += ["--suspects", suspects, "--device", "cpu", "--json", "--quiet"]
            words += [f"--rate={rate}" for rate in RATES] + [f"--epochs={epochs}" for epochs in EPOCHS]
            began = time.perf_counter()
            done = subprocess.run([sys.executable, "-m", "cowbird", *map(str, words)], capture_output=True, check=True)
            result[name] = json.loads(done.stdout) | {"wall_seconds": round(time.perf_counter() - began, 1)}
            print(name, "survived", flush=True)
            given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
