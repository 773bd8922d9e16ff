"""What composes the operations into V4.1's text path, beside `dsv4.model`, from which it takes what is alike.

Spans, rows, caches, padding, weights and the drafting of blocks are V4's. The letters for shapes are those there.
"""
