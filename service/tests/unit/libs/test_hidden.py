import json
import sys
from importlib import import_module

import pytest

from event_service.libs.hidden import hidden


def test_a_hidden_module_seems_not_to_be_installed():
    assert "this" not in sys.modules
    with hidden("this"), pytest.raises(ImportError):
        import_module("this")

    assert "this" not in sys.modules


def test_what_is_loaded_already_stays():
    with hidden("json"):
        assert sys.modules["json"] is json

    assert sys.modules["json"] is json


def test_an_error_inside_leaves_nothing_hidden():
    with pytest.raises(KeyError), hidden("this"):
        raise KeyError

    assert "this" not in sys.modules
