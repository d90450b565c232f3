"""The flags of `flicker query`: what cannot be asked is one line, before anybody is asked."""

from __future__ import annotations

import pytest

from serving.query import QueryFlags
from simulator.errors import FlickerError
from simulator.flags import parse_flags


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--address", "50051"], "address = 50051: host:port, a port from 1 to 65535"),
        (["--address", "a:1,b:99999"], "address = b:99999: host:port, a port from 1 to 65535"),
        (["--timeout", "inf"], "timeout = inf: more than 0 seconds, at most 3,600"),
        (["--timeout", "nan"], "timeout = nan: more than 0 seconds, at most 3,600"),
        (["--user", ""], "user = : an id or a number"),
        (["--times", "0"], "times = 0: from 1 to 100"),
    ],
)
def test_a_bad_flag_is_one_line(flags: list[str], said: str) -> None:
    with pytest.raises(FlickerError) as error:
        parse_flags(QueryFlags, "flicker query", flags)
    assert str(error.value).startswith(said)
