"""A version whose answers are not what they were is left, through a real gateway."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.harness import Gateway, manifest, scaled, scratch, wait_for
from edgeway.client import Client

pytestmark = pytest.mark.system
CONFIG = {"budget": {"defaultMs": 20000}, "workers": [{"name": "cpu", "backend": "cpu"}]}
WATCHED = """
drift: {reference: 'file:reference.npz', window: 100}
rollback: {maxDrift: 0.2, previousVersion: '1'}
"""


def rows(random, count, sharpness):
    shares = np.exp(random.normal(0, 1, (count, 6)) * sharpness)
    return (shares / shares.sum(1, keepdims=True)).astype(np.float32)


def test_a_version_whose_outputs_drift_is_rolled_back_with_what_moved():
    random = np.random.default_rng(0)
    with scratch() as folder, Gateway(folder, CONFIG) as gateway, Client(gateway.unix) as client:

        def version(label):
            return next(each for each in gateway.get("deployments")[0]["versions"] if each["version"] == label)

        def ask(rows):
            for row in rows:
                client.infer("m", {"x": row})

        np.savez(folder / "reference.npz", y=rows(random, 500, 4.0))
        for label, factor, more in (("1", 1.0, ""), ("2", 1.5, WATCHED)):
            file = manifest(folder, "m", label, scaled(factor).SerializeToString(), more)
            gateway.deploy(file)
        wait_for(lambda: version("2")["driftDetail"].startswith("no drift score yet"), 20, "the reference")
        ask(rows(random, 150, 4.0) / 1.5)
        wait_for(lambda: version("2")["drift"] is not None, 20, "a first score")
        assert version("2")["drift"] < 0.1
        assert version("2")["current"]
        ask(rows(random, 150, 0.5))
        wait_for(lambda: version("2")["state"] == "rolledBack", 20, "the roll-back")
        assert "margin of 100 answers against 500 of the reference" in version("2")["reason"]
        assert version("1")["current"]
