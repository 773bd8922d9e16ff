"""What may depend on what: a token on the ones before it, an entry from its last token on, a row on itself alone."""

import numpy as np
import pytest

import tiny

LENGTH = 270


def logits_of(model, ids, **options):
    return model.ops.to_numpy(model(ids, **options))


def changed_positions(model, ids, position):
    """[S] where the logits change when the token at a position does.

    By more than rounding: where a token goes to another expert, NumPy multiplies other numbers of tokens at a time,
    and on some processors that changes the last bits of each of them.
    """
    other = ids.copy()
    other[position] = (other[position] + 1) % model.config.vocab_size
    return (np.abs(logits_of(model, ids) - logits_of(model, other)) > 1e-11)[0].any(axis=-1)


@pytest.mark.parametrize("position", [0, 3, 4, 100, 127, 128, 255, 256, LENGTH - 1])
def test_a_token_changes_nothing_before_it(backend, position):
    changed = changed_positions(tiny.model(backend), tiny.tokens(3, LENGTH), position)
    assert not changed[:position].any()
    assert changed[position]


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("position", [0, 5, 7, 10, 127, 128, 200])
def test_an_entry_is_visible_from_its_last_token_on(backend, window, position):
    """With one layer and a short window, only compressed entries carry a token further."""
    where = np.arange(LENGTH)
    in_window = (where >= position) & (where < position + window)
    for ratio in (0, 4, 128):
        model = one_layer(backend, ratio, window)
        complete = (position // ratio + 1) * ratio - 1 if ratio else LENGTH  # the last token of its block
        expected = in_window | (where >= complete)
        np.testing.assert_array_equal(changed_positions(model, tiny.tokens(4, LENGTH), position), expected, f"{ratio}")


def test_a_csa_entry_reads_the_block_before_its_own(backend):
    """With the newest entry alone to read, a token matters through its own entry and the next one."""
    model = one_layer(backend, ratio=4, window=1, index_topk=1, rule=newest_entry)
    changed = np.nonzero(changed_positions(model, tiny.tokens(5, 40), 9))[0]
    assert changed.tolist() == [9, *range(11, 19)]  # entry 2 from position 11 to 14, entry 3 from 15 to 18


def newest_entry(ops):
    class Newest(type(ops)):
        def index_top_k(self, queries, keys, weights, visible, k):
            assert k == 1
            return (visible - 1)[..., None]

    return Newest()


def one_layer(backend, ratio, window, rule=None, index_topk=LENGTH):
    changes = {"compress_ratios": (ratio,), "num_nextn_predict_layers": 0, "sliding_window": window}
    return tiny.model(rule(backend) if rule else backend, **changes, index_topk=index_topk)


def test_the_order_of_rows_does_not_matter(backend):
    model = tiny.model(backend)
    ids, order = tiny.tokens(6, 4, 140), [2, 0, 3, 1]
    tiny.close(logits_of(model, ids[order]), logits_of(model, ids)[order])


def test_each_row_is_on_its_own(backend):
    model = tiny.model(backend)
    ids = tiny.tokens(7, 3, 140)
    ids[2] = ids[0]
    together = logits_of(model, ids)
    for row in range(3):
        tiny.close(together[row], logits_of(model, ids[row])[0])
    assert np.abs(together[0] - together[1]).max() > 1


def test_copies_of_a_row_give_equal_results(backend):
    copies = logits_of(tiny.model(backend), np.repeat(tiny.tokens(8, 1, 140), 3, axis=0))
    np.testing.assert_allclose(copies, np.broadcast_to(copies[:1], copies.shape), rtol=0, atol=1e-12)
