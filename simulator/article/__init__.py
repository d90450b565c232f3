"""The article's claims, decided anew: `flicker article`. docs/protocol.md fixes the method beforehand; read it first.

    grid.py      which arms, settings and seeds are run on a world
    run.py       runs what is missing, and keeps a line per finished cell
    table.py     those lines, and means over units with their intervals
    frontier.py  the least instability at a log loss, of one family of settings against another
    claims.py    each claim: how it is decided
    figures.py   what the pages draw
    decide.py    what to do, by situation
    pages.py     docs/results.md and docs/decide.md

It stands on the public results of `flicker run` alone, and nothing imports it.
"""
