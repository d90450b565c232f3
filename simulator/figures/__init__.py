"""Every figure of the article from finished sweeps, each titled by what holds in them.

sweep.py       which runs belong together
claims.py      the article's claims, decided by intervals
planes.py      1, 2: PD against accuracy loss; the sweep of beta
runs.py        3, 5, 9, 10: activations, over time, where, churn
surface.py     4: local minima of a small network
conditions.py  6, 7: when the gain shows; sources of noise
costs.py       8: ensembles and other costly cures, as a figure and as a table
compose.py     one figure as one SVG; pages.py all on a page, and docs/results.md (templates in report/templates)
"""
