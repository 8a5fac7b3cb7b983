"""The mistake: the API takes a form, and this sends JSON. Every POST is answered 400."""

from locust import HttpUser, task


class Fan(HttpUser):
    @task
    def predict(self):
        self.client.post("/predict", json={"goals": 30})
