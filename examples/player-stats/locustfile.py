"""Users of the API: each asks about a player of the data, thinks for a moment, asks about the next."""

import csv
import random

from locust import FastHttpUser, between, task

with open("player_stats.csv", encoding="utf-8") as file:
    PLAYERS = [
        {column: float(value) for column, value in row.items() if column not in ("", "PFA_Team")}
        for row in csv.DictReader(file)
    ]


class Fan(FastHttpUser):
    wait_time = between(0.05, 0.15)

    @task(9)
    def predict(self):
        player = random.choice(PLAYERS)
        with self.client.post("/predict", json=player, name="/predict", catch_response=True) as response:
            # A 200 with a wrong answer is a failure too.
            if response.status_code == 200 and not 0 <= response.json()["probability"] <= 1:
                response.failure(f"probability out of range: {response.text}")

    @task(1)
    def health(self):
        self.client.get("/healthz", name="/healthz")
