"""docs/lifecycle.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.models.states import COMING, OVER, TRANSITIONS, ForbiddenTransition, follow

PAGE = (Path(__file__).parents[3] / "docs" / "lifecycle.md").read_text()


def test_the_page_shows_the_transitions_of_the_code():
    rows = re.findall(r"^\| (\w+) \| ([\w, ]+) \|$", PAGE.split("| from | to |")[1].split("\n\n")[0], re.M)
    assert {state: frozenset(after.split(", ")) for state, after in rows} == TRANSITIONS


def test_the_picture_of_the_page_shows_only_transitions_of_the_code():
    arrows = re.findall(r"^  (\S+) --> (\w+)", PAGE, re.M)
    assert len(arrows) > 5
    for before, after in arrows:
        assert after in TRANSITIONS["new" if before == "[*]" else before], (before, after)


def test_every_state_can_be_reached_and_left_again_or_is_known_to_be_over():
    reached = {after for follows in TRANSITIONS.values() for after in follows}
    assert reached == set(TRANSITIONS) - {"new"}
    assert reached == COMING | OVER | {"ready"}


def test_a_step_that_the_table_lacks_is_refused():
    assert follow("loading", "ready") == "ready"
    with pytest.raises(ForbiddenTransition, match="barred -> ready"):
        follow("barred", "ready")
