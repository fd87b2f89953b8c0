"""Reads /metrics as Prometheus does."""

from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families


class Scrape(dict[tuple[str, frozenset[tuple[str, str]]], float]):
    """The value of each series by its name and labels."""

    def of(self, name: str, **labels: str) -> float:
        return self[name, frozenset(labels.items())]

    def by(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """The values of the series that have these labels, by the value of one more label."""
        return {
            dict(series)[label]: value
            for (each, series), value in self.items()
            if each == name and labels.items() <= dict(series).items()
        }


async def scrape(client: aiohttp.ClientSession, **request: Any) -> Scrape:
    response = await client.get("/metrics", **request)
    assert response.status == 200
    return parse(await response.text())


def parse(text: str) -> Scrape:
    return Scrape(
        ((sample.name, frozenset(sample.labels.items())), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    )
