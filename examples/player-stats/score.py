"""Says what a model predicts for held-out rows.

train.py uses it for the model that it has just made. The promote stage runs it for the model that serves now, on this
build's rows, where that model's own predictions are of other rows:

    $MODEL        the model's file, as train.py wrote it
    $EVALUATION   the rows: id, the features, label
    $PREDICTIONS  where to write id,label,prediction,score
"""

import os

import joblib
import pandas as pd


def predictions(bundle: dict, rows: pd.DataFrame) -> pd.DataFrame:
    """One line for each row: the label as it is known, the model's class, and its probability of class 1."""
    probability = bundle["model"].predict_proba(rows[bundle["columns"]].to_numpy(float))[:, 1]
    return pd.DataFrame(
        {
            "id": rows["id"],
            "label": rows["label"],
            "prediction": (probability >= bundle["threshold"]).astype(int),
            "score": probability,
        }
    )


if __name__ == "__main__":
    bundle = joblib.load(os.environ["MODEL"])
    rows = pd.read_csv(os.environ["EVALUATION"])
    predictions(bundle, rows).to_csv(os.environ["PREDICTIONS"], index=False)
    print(f"scored {len(rows)} rows")
