"""From one release to another: what changes for a deployment, and the spec that keeps or betters what it serves.

Plain functions from a spec and its facts to one record (`records.Upgrade`). `sides` judges one release, `memory` and
`changes` say what differs and why, `keep` makes the spec to go on with, `page` writes the answer for people.
"""

from tgi_advisor.upgrades.records import Surroundings, Upgrade
from tgi_advisor.upgrades.upgrade import upgrade

__all__ = ["Surroundings", "Upgrade", "upgrade"]
