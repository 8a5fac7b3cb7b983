"""Serves the model that train.py made: POST /predict with one player's season, GET /healthz.

A wrong request gets 422 with the list of what is wrong: an unknown field, a text where a number belongs, a negative count.
"""

import os
from contextlib import asynccontextmanager

import joblib
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field


class Player(BaseModel):
    """A player's numbers. The aliases are the columns of the training data, and both spellings are taken."""

    model_config = ConfigDict(extra="forbid", validate_by_name=True, validate_by_alias=True)

    position: int = Field(alias="Position", ge=0, le=3, description="0 defender, 1 forward, 2 goalkeeper, 3 midfielder")
    appearances: int = Field(alias="Appearances", ge=0)
    goals: float = Field(0, alias="Goals", ge=0)
    assists: float = Field(0, alias="Assists", ge=0)
    big_chances_missed: float = Field(0, alias="Big chances missed", ge=0)
    red_cards: int = Field(0, alias="Red cards", ge=0)
    big_chances_created: float = Field(0, alias="Big chances created", ge=0)
    interceptions: float = Field(0, alias="Interceptions", ge=0)
    clearances: float = Field(0, alias="Clearances", ge=0)
    saves: float = Field(0, alias="Saves", ge=0)
    penalties_saved: float = Field(0, alias="Penalties saved", ge=0)
    high_claims: float = Field(0, alias="High Claims", ge=0)


class Answer(BaseModel):
    """What the model says."""

    probability: float
    in_team: bool


@asynccontextmanager
async def lifespan(app: FastAPI):
    """Loads the model once. A model of other columns must not serve: its answers would be nonsense without an error."""
    bundle = joblib.load(os.environ.get("MODEL", "model.joblib"))
    fields = [field.alias for field in Player.model_fields.values()]
    if sorted(bundle["columns"]) != sorted(fields):
        raise RuntimeError(f"the model was trained on {bundle['columns']}, and requests have {fields}")
    app.state.bundle = bundle
    yield


app = FastAPI(title="PFA team of the season", lifespan=lifespan)


# A plain `async def`: one prediction is a few milliseconds of processor time, which threads would only share out.
@app.post("/predict")
async def predict(player: Player) -> Answer:
    bundle = app.state.bundle
    values = player.model_dump(by_alias=True)
    row = [[values[column] for column in bundle["columns"]]]
    probability = float(bundle["model"].predict_proba(row)[0, 1])
    return Answer(probability=probability, in_team=probability >= bundle["threshold"])


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}
