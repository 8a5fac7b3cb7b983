"""Trains the model that app.py serves: will a player be voted into the PFA team of the season?

Only 53 of the 5,109 players were. A model that always says no is right 99 times in 100 and worth nothing, so the number
that counts is the average precision of the rare class; accuracy is written for contrast.

    PARAM_TREES      trees in the forest
    PARAM_LEAF       players that a leaf must hold at least
    PARAM_THRESHOLD  probability from which the answer is yes
"""

import json
import os

import joblib
import pandas as pd
from sklearn import metrics
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

from score import predictions

TARGET = "PFA_Team"
SEED = 7  # Of the split and of the forest: the same commit makes the same model.
HOLDOUT = 0.4  # Large, since each held-out player of the team is evidence, and there are few.


def load() -> pd.DataFrame:
    """All players, with the row's number as `id` and the target as `label`."""
    rows = pd.read_csv("player_stats.csv", index_col=0).rename(columns={TARGET: "label"})
    rows.insert(0, "id", rows.index)
    return rows


def train(rows: pd.DataFrame, params: dict) -> dict:
    """The model with all that is needed to use it."""
    columns = [name for name in rows.columns if name not in ("id", "label")]
    model = RandomForestClassifier(
        n_estimators=params["trees"],
        min_samples_leaf=params["leaf"],
        class_weight="balanced",
        random_state=SEED,
    )
    model.fit(rows[columns].to_numpy(float), rows["label"].to_numpy())
    return {"model": model, "columns": columns, "threshold": params["threshold"]}


def judge(rows: pd.DataFrame) -> dict:
    """The metrics of one model's predictions."""
    label, prediction, score = rows["label"], rows["prediction"], rows["score"]
    return {
        "average_precision": metrics.average_precision_score(label, score),
        "roc_auc": metrics.roc_auc_score(label, score),
        "f1": metrics.f1_score(label, prediction),
        "precision": metrics.precision_score(label, prediction, zero_division=0),
        "recall": metrics.recall_score(label, prediction),
        "accuracy": metrics.accuracy_score(label, prediction),
        "accuracy_of_always_no": float((label == 0).mean()),
        "rows": len(rows),
        "positives": int(label.sum()),
    }


def main() -> None:
    params = {
        "trees": int(os.environ.get("PARAM_TREES", "100")),
        "leaf": int(os.environ.get("PARAM_LEAF", "3")),
        "threshold": float(os.environ.get("PARAM_THRESHOLD", "0.5")),
    }
    rows = load()
    known, held_out = train_test_split(rows, test_size=HOLDOUT, stratify=rows["label"], random_state=SEED)
    print(f"training on {len(known)} players, {known['label'].sum()} of them in the team; {params}")

    bundle = train(known, params)
    judged = predictions(bundle, held_out)
    numbers = judge(judged)

    joblib.dump(bundle, "model.joblib")
    held_out.to_csv("evaluation.csv", index=False)
    judged.to_csv("predictions.csv", index=False)
    with open("metrics.json", "w", encoding="utf-8") as file:
        json.dump(numbers, file, indent=2)
    with open("params.json", "w", encoding="utf-8") as file:
        json.dump(params, file, indent=2)
    for name, value in numbers.items():
        print(f"{name:>22} {value:.4f}" if isinstance(value, float) else f"{name:>22} {value}")


if __name__ == "__main__":
    main()
