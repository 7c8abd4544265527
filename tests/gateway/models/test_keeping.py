"""Which files must stay: those of versions that serve, may have to, or come back by themselves."""

from __future__ import annotations

import pytest

from gateway.models.keeping import Keeping, kept_files
from gateway.models.manifest import Rollback
from gateway.models.revision import Deployment, Plan, Revision
from gateway.request import Signature
from gateway.target import Version


def revision(label: str, state: str, fallback: str | None = None, **more: object) -> Revision:
    plan = Plan("m", label, (1, 1), label, label, (), frozenset({f"key-{label}"}), rollback=Rollback(fallback))
    made = Revision(plan, state, **more)
    if state == "ready":
        made.version = Version(label, Signature("", (), ()), ())
    return made


def deployment(*revisions: Revision) -> dict[str, Deployment]:
    return {"m": Deployment("m", revisions=list(revisions))}


@pytest.mark.parametrize("state", ["new", "fetching", "verifying", "loading", "warming", "ready"])
def test_what_serves_or_is_on_its_way_is_kept_and_named(state):
    assert kept_files(deployment(revision("2.3", state))) == {"key-2.3": "m 2.3"}


@pytest.mark.parametrize("state", ["failed", "barred", "rolledBack", "unloaded"])
def test_what_does_not_come_back_by_itself_may_go(state):
    assert kept_files(deployment(revision("2.3", state))) == {}


@pytest.mark.parametrize("why", ["held", "short_of_memory"])
def test_what_comes_back_by_itself_is_kept(why):
    assert kept_files(deployment(revision("2.3", "unloaded", **{why: True}))) == {"key-2.3": "m 2.3"}


def test_the_version_that_a_roll_back_leads_to_is_kept():
    found = kept_files(deployment(revision("1", "unloaded"), revision("2", "unloaded"), revision("3", "ready", "1")))
    assert set(found) == {"key-1", "key-3"}


def test_a_sweep_is_due_only_when_something_is_not_wanted_any_more():
    now = deployment(revision("1", "unloaded"))
    keeping = Keeping(lambda: now)
    assert not keeping.renew()
    now["m"].revisions.append(revision("2", "ready"))
    assert not keeping.renew()
    assert keeping.wanted == {"key-1", "key-2"}
    del now["m"].revisions[0]
    assert keeping.renew()
    assert not keeping.renew()
