"""The article's claims, decided anew: `flicker article`. docs/protocol.md fixes the method beforehand; read it first.

    grid.py      which arms, settings and seeds are run on a world; runs what is missing of them
    table.py     those lines, means over units with their intervals, and the least instability at a log loss, of one
                 family of settings against another
    claims.py    each claim: how it is decided
    figures.py   what the pages draw, as SVG files
    pages.py     docs/results.md and docs/decide.md

It stands on the public results of `flicker run` alone, and nothing imports it.
"""
