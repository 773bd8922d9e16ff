"""Spans that meet each case of a ring: the first position of each sequence, its tokens, and the padded length."""

SPANS = {
    "a step": ((9,), (1,), 1),
    "a step at the beginning": ((0,), (1,), 1),
    "three sequences, one of them finished": ((3, 40, 16), (1, 0, 1), 1),
    "a prompt with padding": ((0, 5), (7, 4), 7),
    "more rows than the ring has": ((2, 11), (20, 13), 20),
}
