"""The same arithmetic on a GPU, in fewer and larger steps: fused kernels, captured graphs, transfers beside the work.

A room of its own inside the recommender, since all of it can be left out: what is here has a plain PyTorch twin in the
recommender, is used only for tensors on a GPU, and gives the same numbers up to rounding.

    kernels.py   Triton kernels; the only module that imports Triton
    fused.py     calls them, and says when they can be used
    rows.py      the embedding table's step: equal rows brought together, summed in a fixed order
    graphs.py    work captured once as a CUDA graph and replayed
    steps.py     the learning step on static buffers
    scoring.py   scores of a fixed number of queries per pass, on buffers that a refresh fills in place
    transfer.py  pinned buffers, copies on a stream of their own
"""
