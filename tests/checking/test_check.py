"""`dsv4.check`: right functions pass, and each known mistake is named with its shapes and its error."""

import re

import numpy as np
import pytest

import dsv4
from backends import backend_names
from checking import wrong, wrong41
from conftest import created
from dsv4.errors import SettingError
from dsv4.ops import OPERATIONS, OPERATIONS_41, Ops

WRONG = [
    (wrong.without_the_sink, "sparse_attention"),
    (wrong.minus_one_reads_the_last_row, "sparse_attention"),
    (wrong.scaled_by_the_width, "sparse_attention"),
    (wrong.bias_in_the_weights, "route"),
    (wrong.half_precision_sums, "linear"),
    (wrong.half_precision_sums, "linear fp4"),
    (wrong.relu_after_the_weight, "index_scores"),
    (wrong.largest_number_first_among_equals, "top_k"),
    (wrong.comb_as_it_stands, "mhc_mix"),
    (wrong.one_round_too_few, "mhc_weights"),
    (wrong.halves_for_pairs, "rope"),
    (wrong.ties_away_from_zero, "fake_quant_fp4"),
    (wrong.batch_statistics, "rms_scale"),
    (wrong.clamp_forgotten, "expert"),
    (wrong41.powers_of_two_as_scales, "fake_quant_nvfp4"),
    (wrong41.scales_that_are_not_rounded, "fake_quant_nvfp4"),
    (wrong41.newest_block_only_if_it_is_good, "index_candidates"),
    (wrong41.mean_of_a_block, "index_candidates"),
    (wrong41.one_pool_for_all_queries, "index_top_k_among"),
    (wrong41.others_than_the_pool, "index_top_k_among"),
    (wrong41.single_weight_divided, "route41"),
    (wrong41.inputs_in_blocks_of_128, "mx_experts"),
    (wrong41.shared_inputs_in_blocks_of_128, "mx_expert"),
    (wrong41.value_before_the_keys, "engram_gate"),
    (wrong41.gate_without_the_root, "engram_gate"),
    (wrong41.gate_without_the_sign, "engram_gate"),
    (wrong41.one_norm_for_all_streams, "engram_gate"),
    (wrong41.multipliers_from_the_oldest, "engram_rows"),
    (wrong41.hashes_of_32_bits, "engram_rows"),
    (wrong41.columns_share_their_rows, "engram_rows"),
]
EXACT = {
    *("embedding", "overlap", "fake_quant_fp8", "fake_quant_fp4", "top_k", "index_top_k"),
    *("fake_quant_nvfp4", "index_candidates", "index_top_k_among", "engram_rows"),
}
EVERY = (*OPERATIONS, *OPERATIONS_41)


def failed(report):
    """The findings that failed, by name."""
    return {finding.name: finding for finding in report.findings if not finding.holds}


@pytest.mark.parametrize("operation", EVERY)
def test_the_definition_passes(operation):
    report = dsv4.check(getattr(Ops, operation), operation)
    assert report.passed, report
    assert report.findings[0].verdict == ("exact" if operation in EXACT else "as good")


@pytest.mark.parametrize("operation", EVERY)
def test_numbas_operations_pass(operation):
    if "numba" not in backend_names():
        pytest.skip("numba is not registered")
    report = dsv4.check(getattr(created("numba"), operation), operation)
    assert report.passed, report


@pytest.mark.parametrize(
    ("function", "operation"), [(wrong.right_attention, "sparse_attention"), (wrong41.right_gate, "engram_gate")]
)
def test_another_way_to_the_same_result_passes(function, operation):
    report = dsv4.check(function, operation)
    assert report.passed, report
    assert report.findings[0].worst.error > 0


@pytest.mark.parametrize(("function", "operation"), WRONG, ids=lambda one: getattr(one, "__name__", one))
def test_a_mistake_is_found_with_its_shapes(function, operation):
    report = dsv4.check(function, operation)
    assert not report.passed
    finding = next(iter(failed(report).values()))
    assert re.search(r"error [\d.e+-]+ is above|numbers differ|not finite", finding.failure.message), finding
    assert re.search(r"\[\d+(, \d+)*\]", finding.failure.shapes), finding
    assert finding.failure.message in str(report)
    assert finding.failure.shapes in str(report)


def test_the_smallest_case_that_fails_is_the_one_that_is_shown():
    finding = failed(dsv4.check(wrong.without_the_sink, "sparse_attention"))["result"]
    assert finding.failure.shapes.startswith("queries [1, 1, 1, 1], window [1, 1, 1]")
    finding = failed(dsv4.check(wrong.comb_as_it_stands, "mhc_mix"))["result"]
    assert finding.failure.shapes.startswith("streams [1, 1, 2, 3]")  # with one stream, comb is its own transpose


def test_the_case_at_the_limits_is_named():
    report = dsv4.check(wrong.largest_number_first_among_equals, "top_k")
    assert failed(report)["at the limits"].failure.what == "ties"
    assert "at the limits (ties): " in str(report)


def test_the_error_stands_beside_numpys():
    [worst] = [one.worst for one in dsv4.check(wrong.right_attention, "sparse_attention").findings[:1]]
    assert 0 < worst.error < 1e-6
    assert 0 < worst.numpys_error < 1e-6


@pytest.mark.parametrize(
    ("function", "operation", "property_name", "message"),
    [
        (lambda x, eps: Ops.rms_scale(x, eps).astype(np.float64), "rms_scale", "result", "dtype: expected float32"),
        (lambda x, eps: Ops.rms_scale(x, eps)[..., :1], "rms_scale", "result", r"shape: expected \[1, 1, 3, 6\]"),
        (lambda x, eps: None, "rms_scale", "result", "dtype: expected float32"),
        (wrong.two_of_three, "mhc_weights", "result", "expected 3 results, found 2"),
        (lambda x, eps: 1 / 0, "rms_scale", "result", "raised ZeroDivisionError: division by zero"),
    ],
)
def test_what_is_not_the_result_is_named(function, operation, property_name, message):
    assert re.search(message, failed(dsv4.check(function, operation))[property_name].failure.message)


def writes(x, eps):
    result = Ops.rms_scale(x, eps)
    x[...] = 0
    return result


def sees_memory(x, eps):
    """As a kernel does that takes an address and forgets the strides."""
    memory = np.ravel(x.base if x.base is not None and not x.flags.c_contiguous else x)
    return Ops.rms_scale(np.resize(memory, x.shape), eps)


def needs_tokens(x, eps):
    if not x.size:
        raise ValueError("expected at least one token")
    return Ops.rms_scale(x, eps)


def hides_nan(x, eps):
    return np.nan_to_num(Ops.rms_scale(x, eps))


@pytest.mark.parametrize(
    ("function", "property_name", "message"),
    [
        (writes, "arguments untouched", "the function wrote to its argument 1"),
        (sees_memory, "memory layout", "error|not finite"),
        (needs_tokens, "nothing to do", "raised ValueError: expected at least one token"),
        (hides_nan, "inf, NaN, −0", "NaN is at other positions"),
        (wrong.batch_statistics, "rows alone", "error"),
    ],
)
def test_each_property_is_found_by_its_own_finding(function, property_name, message):
    found = failed(dsv4.check(function, "rms_scale"))
    assert property_name in found
    assert re.search(message, found[property_name].failure.message)
    if function is not wrong.batch_statistics:  # which is wrong at once
        assert "result" not in found


def test_one_form_can_be_checked_by_itself():
    def fp4_alone(x, weight, *rounds):
        assert type(weight).__name__ == "Fp4Weight", "expected an FP4 weight"
        return Ops.linear(x, weight, *rounds)

    assert dsv4.check(fp4_alone, "linear fp4").passed
    failure = failed(dsv4.check(fp4_alone, "linear"))["result"].failure
    assert failure.message.startswith("expected an FP4 weight")


def test_an_unknown_operation_lists_the_known_ones():
    with pytest.raises(SettingError) as raised:
        dsv4.check(print, "attention")
    assert str(raised.value).startswith("operation: expected one of embedding, linear, ")
    assert str(raised.value).endswith("found 'attention'")
    assert {*EVERY, "linear fp4", "mx_expert fp8"} <= set(re.findall(r"(?:of|,) ([\w ]+?)(?=,)", str(raised.value)))


def test_what_cannot_be_called_is_refused():
    with pytest.raises(SettingError, match="function: expected something that can be called, found int"):
        dsv4.check(3, "rope")


def test_the_report_is_a_table():
    lines = str(dsv4.check(Ops.rms_scale, "rms_scale")).splitlines()
    assert lines[0] == "rms_scale: 7 of 7 properties hold"
    assert lines[2].split() == ["property", "verdict", "cases", "error", "NumPy", "worst", "case"]
    assert repr(dsv4.check(Ops.rms_scale, "rms_scale")) == "\n".join(lines)
    assert "x [" in lines[3]
