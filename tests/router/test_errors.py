"""The error tree and its table are one: every leaf has a row, and every row is a leaf."""

from __future__ import annotations

import json

import pytest
from trimtab_router import errors


def leaves(of: type[errors.RouterError]) -> list[type[errors.RouterError]]:
    below = of.__subclasses__()
    return [leaf for each in below for leaf in leaves(each)] if below else [of]


def test_every_leaf_has_a_row_and_every_row_is_a_leaf() -> None:
    assert set(leaves(errors.RouterError)) == set(errors.TABLE)


def test_the_drawn_tree_shows_every_error_with_its_status() -> None:
    drawn = errors.__doc__ or ""
    for leaf, row in errors.TABLE.items():
        (line,) = [line for line in drawn.splitlines() if f"── {leaf.__name__} " in line]
        assert str(row.status) in line


@pytest.mark.parametrize("leaf", leaves(errors.RouterError), ids=lambda leaf: leaf.__name__)
def test_every_error_has_openais_shape(leaf: type[errors.RouterError]) -> None:
    status, body = errors.render(leaf('what "happened"', param="model"))
    error = json.loads(body)["error"]
    assert 400 <= status < 600
    assert (error["message"], error["param"]) == ('what "happened"', "model")
    assert error["type"].endswith("_error") or error["type"] == "insufficient_quota"
    assert error["code"] is None or error["code"].isidentifier()
