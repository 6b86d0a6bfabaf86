"""A process that shares an end is killed in the middle of a send: the others go on.

Where in the send it dies is chance; one in a few of these leaves a lock behind.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from behaviour.two_ends import same
from sessions import Session


@pytest.mark.parametrize("who", ["parent", "sibling", "id-used-again"])
def test_sharers_survive_one_that_is_killed(
    plain: Session, fused: Session, programs: Path, who: str
) -> None:
    said = same(plain, fused, programs / "wait_owners", who)
    assert said == "each send came back\n"
