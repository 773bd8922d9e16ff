"""Decoupled DiLoCo: many learners that never wait, and a syncer that merges what they learn (arXiv 2604.21428).

The paper's full text was not at hand. What is said here to be the paper's is second-hand, and what was found nowhere is
said to be ours. `docs/diloco.md` has the whole in order.
"""
