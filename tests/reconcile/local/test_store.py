"""The objects of local mode: status stays with its object, a changed spec is a new generation."""

from __future__ import annotations

from trimtab_core.api import v1alpha1
from trimtab_operator.local import store

CACHE = {"kind": "CachePolicy", "metadata": {"name": "answers"}, "spec": {"ttl": "1h"}}
KEY = ("CachePolicy", "default", "answers")


def cache(ttl: str = "1h") -> v1alpha1.CachePolicy:
    return v1alpha1.CachePolicy.model_validate({**CACHE, "spec": {"ttl": ttl}})


def test_status_is_given_back_with_the_object() -> None:
    kept = store.Store([cache()])
    kept.write_status({KEY: {"state": "Serving", "savedUsd": "1.5"}})
    (found,) = kept.caches()
    assert (found.status.state, found.status.saved_usd) == ("Serving", "1.5")
    assert kept.status(KEY) == {"state": "Serving", "savedUsd": "1.5"}


def test_a_report_replaces_the_one_before_it() -> None:
    kept = store.Store([cache()])
    kept.write_status({KEY: {"state": "Serving", "savedUsd": "1.5"}})
    kept.write_status({KEY: {"state": "Disabled"}})
    assert kept.caches()[0].status.saved_usd is None


def test_a_report_about_an_object_that_is_gone_is_dropped() -> None:
    kept = store.Store([])
    kept.write_status({KEY: {"state": "Serving"}})
    kept.replace([cache()])
    assert kept.caches()[0].status.state is None


def test_a_changed_spec_is_a_new_generation_and_keeps_its_status() -> None:
    kept = store.Store([cache()])
    kept.write_status({KEY: {"state": "Serving"}})
    assert kept.caches()[0].metadata.generation == 1
    kept.replace([cache()])
    assert kept.caches()[0].metadata.generation == 1
    kept.replace([cache("2h")])
    (found,) = kept.caches()
    assert (found.metadata.generation, found.spec.ttl, found.status.state) == (2, "2h", "Serving")


def test_objects_have_an_identity_that_lasts() -> None:
    (one,), (again,) = store.Store([cache()]).caches(), store.Store([cache("2h")]).caches()
    assert one.metadata.uid
    assert one.metadata.uid == again.metadata.uid


def test_an_object_that_is_not_among_the_new_ones_is_gone() -> None:
    kept = store.Store([cache()])
    kept.replace([])
    assert kept.caches() == ()
    assert kept.status(KEY) == {}
