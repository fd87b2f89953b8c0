import json
import subprocess
from collections.abc import Callable
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_service.dashboard.changes import Editions, TooDifferent, change_of

from ...frame_changes import applied  # noqa: TID252  of all the service's tests

names = st.sampled_from(["a", "b", "c"])
scalars = st.none() | st.integers(0, 3) | st.text("xy", max_size=2)
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(names, inner, max_size=3),
    max_leaves=12,
)


@given(old=values, new=values)
def test_a_change_leads_from_the_old_value_to_the_new_one(old: Any, new: Any):
    if old == new:
        return
    try:
        change = change_of(old, new)
    except TooDifferent:
        return
    assert applied(old, json.loads(json.dumps(change))) == new


def test_only_what_changed_is_said():
    old = {"time": 1, "circuits": [{"name": "x", "n": 1}, {"name": "y", "n": 1}], "p50": [1, 2, 3]}
    new = {"time": 2, "circuits": [{"name": "x", "n": 1}, {"name": "y", "n": 2}], "p50": [2, 3, 4]}

    assert change_of(old, new) == {
        "time": 2,
        "circuits": {"at": {"1": {"n": 2}}},
        "p50": {"drop": 1, "add": [4]},
    }


def test_a_member_that_is_gone_makes_the_list_or_the_frame_whole_again():
    assert change_of([{"a": 1, "b": 1}], [{"a": 1}]) == [{"a": 1}]
    with pytest.raises(TooDifferent):
        change_of({"a": 1}, {"b": 1})


def test_the_first_edition_is_whole_and_one_whose_change_would_be_longer():
    editions = Editions()
    first = editions.of(1, b'{"a":[1,1,1,1,1,1,1,1,1,1,1,1]}')
    second = editions.of(2, b'{"a":[1,1,1,1,1,1,1,1,1,1,1,2]}')
    third = editions.of(3, b'{"a":9}')

    assert first.since(0) == ()
    assert second.since(1) == [(2, b'{"a":{"drop":1,"add":[2]}}')]
    assert third.since(2) == ()
    assert editions.of(3, b"never read") is third


def test_who_is_behind_is_told_every_change_and_who_is_far_behind_the_whole():
    editions = Editions()
    texts = [json.dumps({"n": n, "list": list(range(50))}).encode() for n in range(9)]
    for number, text in enumerate(texts, start=1):
        newest = editions.of(number, text)

    assert [number for number, _ in newest.since(6)] == [7, 8, 9]
    assert newest.since(2) == ()
    assert editions.of(20, texts[0]).since(19) == ()


@pytest.mark.needs("node")
def test_the_page_applies_changes_as_they_are_meant(needs: Callable[[str], Path], tmp_path: Path):
    pairs: list[tuple[Any, Any, Any]] = []

    @given(old=values, new=values)
    def collect(old: Any, new: Any) -> None:
        if old != new:
            with suppress(TooDifferent):
                pairs.append((old, change_of(old, new), new))

    collect()
    source = files("event_service.dashboard") / "assets" / "changes.js"
    (tmp_path / "changes.mjs").write_text(source.read_text())
    (tmp_path / "check.mjs").write_text(
        """import { readFileSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import { applied } from "./changes.mjs";
const wrong = JSON.parse(readFileSync(0)).filter(
  ([old, change, wanted]) => !isDeepStrictEqual(applied(old, change), wanted),
);
console.log(JSON.stringify(wrong));
"""
    )
    run = subprocess.run(
        [needs("node"), tmp_path / "check.mjs"],
        input=json.dumps(pairs),
        capture_output=True,
        text=True,
        check=True,
    )

    assert len(pairs) > 30
    assert json.loads(run.stdout) == []
