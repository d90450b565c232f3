"""A further file for Locust: rates are those of the last three seconds instead of ten, so that tests wait less."""

from __future__ import annotations

import load.tally

load.tally.RECENT = 3
