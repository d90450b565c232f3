"""From results to decisions, in one place: what a user sees, what lowers it, which arm to try, whether a gate opens.

    evidence.py    what an interval shows, and whether a model has learned enough to speak of
    situation.py   how a recommender is served, and the share of results that a user sees change there
    choice.py      which arm to try, what else lowers that share, and at which price: the page and `flicker recommend`
    gating.py      `flicker gate`: pass, hold back, or inconclusive

All commands decide here, so that they cannot contradict each other. Three rules:

- Nothing is claimed but what an interval shows. An arm costs no accuracy where the whole interval of its log loss's
  ratio lies below a stated margin (non-inferiority), never because an interval is wide enough to include 1.
- A model that does not beat the base rate and popularity, or loses to a logistic regression, gets no advice.
- What counts is what a user sees in the situation at hand, not one cause of it.
"""
