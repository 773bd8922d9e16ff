"""Mistakes in CUDA's kernels of products: stored weights, experts, routing and attention."""

from mutants.catalogue.kernels import kernel


def experts(case: str) -> tuple[str, ...]:
    """The test of one routing of `cuda.test_experts_large.ROUTINGS`, with experts in FP4."""
    return (f"cuda/test_experts_large.py::test_experts[{case}-fp4]",)


def attention(case: str, multiprocessors: int) -> tuple[str, ...]:
    """The test of one of `cuda.test_attention_large.SHAPES`: 1 multiprocessor has one block for a query."""
    return (f"cuda/test_attention_large.py::test_attention[{case}-{multiprocessors}]",)


SINGLE = "cuda/test_experts_large.py::test_the_visits_of_a_single_token_are_grouped_where_they_are_chosen"

LINEAR = (
    kernel(
        name="cuda-fp4-nibbles-swapped",
        trap="the even column is read from the high nibble of a packed FP4 byte",
        file="cuda/weights.cuh",
        old="unsigned codes = word_of(items, number);",
        new="unsigned codes = word_of(items, number);\n"
        "        codes = (codes & 0x0f0f0f0fu) << 4 | (codes >> 4 & 0x0f0f0f0fu);",
        tests=("ops/test_linear.py::test_a_packed_byte_is_two_columns_and_its_scale_a_power_of_two[cuda-on-host]",),
    ),
    kernel(
        name="cuda-fp4-scale-of-the-first-block",
        trap="the four FP4 blocks of a chunk of 128 columns take the scale of the first",
        file="cuda/weights.cuh",
        old="__ldg(scales + block)",
        new="__ldg(scales + block / 4 * 4)",
        tests=("ops/test_linear.py::test_a_packed_byte_is_two_columns_and_its_scale_a_power_of_two[cuda-on-host]",),
    ),
    kernel(
        name="cuda-fp8-scales-transposed",
        trap="the scales of an FP8 weight's 128 × 128 squares are taken column by column",
        file="cuda/weights.cuh",
        old="scales + row / 128 * chunks + chunk",
        new="scales + chunk * chunks + row / 128",
        tests=("ops/test_linear.py::test_edge_squares_have_scales_of_their_own[cuda-on-host]",),
    ),
    kernel(
        name="cuda-scale-byte-255-is-infinite",
        trap="E8M0 byte 255 is read as infinity instead of as NaN",
        file="cuda/weights.cuh",
        old="scale == 255 ? 0x7fc0u",
        new="scale == 255 ? 0x7f80u",
        tests=("ops/test_products_at_the_limits.py::test_a_scale_that_is_nan_is_not_infinite[cuda-on-host-1-fp4]",),
    ),
    kernel(
        name="cuda-chunks-that-fill-no-parts",
        trap="four parts share the columns in equal numbers of chunks, and chunks that are left over are lost",
        file="cuda/products.cuh",
        old="part * chunks / PARTS, end = (part + 1) * chunks / PARTS",
        new="part * (chunks / PARTS), end = (part + 1) * (chunks / PARTS)",
        tests=("ops/test_linear.py::test_edge_squares_have_scales_of_their_own[cuda-on-host]",),
    ),
    kernel(
        name="cuda-chunk-that-was-next",
        trap="of three chunks on their way, each is followed by the next chunk and not by the third one after it",
        file="cuda/products.cuh",
        old="load(i, chunk + AHEAD);",
        new="load(i, chunk + 1);",
        tests=("cuda/test_products_large.py::test_rows_of_many_chunks[fp4]",),
    ),
    kernel(
        name="cuda-pieces-of-one-row",
        trap="where an input has three pieces, the first one counts three times",
        file="cuda/products.cuh",
        old="load16(columns[0] + i * product.piece_size + place)",
        new="load16(columns[0] + i * 0 + place)",
        tests=("cuda/test_products_large.py::test_rows_of_many_chunks[fp4]",),
    ),
    kernel(
        name="cuda-rows-behind-the-last-written",
        trap="a block writes all of its rows, those behind the matrix's last one over the next token's first",
        file="cuda/products.cuh",
        old="if (here < behind) out[",
        new="out[",
        tests=("ops/test_linear.py::test_edge_squares_have_scales_of_their_own[cuda-on-host]",),
    ),
    kernel(
        name="cuda-groups-read-the-first-channels",
        trap="every group of the output projection reads the channels of the first one",
        file="cuda/linear.cu",
        old="return (first + number) * groups + group;",
        new="return (first + number) * groups;",
        tests=(
            "ops/test_linear.py::"
            "test_grouped_linear_takes_stored_weights_and_an_input_that_is_not_rounded[cuda-on-host-fp4]",
        ),
    ),
)

EXPERTS = (
    kernel(
        name="cuda-up-not-clamped-below",
        trap="up is clipped above only",
        file="cuda/swiglu.cuh",
        old="    up = up < -limit ? -limit : up;\n",
        new="",
        tests=("ops/test_moe.py::test_each_clamp_by_hand[cuda-on-host-float32-1--30--7.310585786300049]",),
    ),
    kernel(
        name="cuda-one-routing-weight-for-all",
        trap="all visits count as much as the first one",
        file="cuda/activations.cu",
        old="weights ? weights[blockIdx.x] : 1",
        new="weights ? weights[0] : 1",
        tests=experts("one token, six experts"),
    ),
    kernel(
        name="cuda-w3-forgotten",
        trap="w1 makes both the gate and what it gates",
        file="cuda/experts.cu",
        old="(tile[0] * 3ll + matrix + blockIdx.z) * 2",
        new="(tile[0] * 3ll + matrix) * 2",
        tests=experts("one token, six experts"),
    ),
    kernel(
        name="cuda-tile-goes-on-to-the-next-expert",
        trap="an expert's last tile is filled with the visits to the next expert",
        file="cuda/grouping.cu",
        old="tile[2] = min(tile_slots, count - done);",
        new="tile[2] = tile_slots;",
        tests=("cuda/test_experts_large.py::test_slots_are_grouped_by_expert[33-8-5-8]",),
    ),
    kernel(
        name="cuda-first-chunk-not-counted",
        trap="the first chunk of slots is not counted among those before another, whose visits take its places",
        file="cuda/grouping.cu",
        old="if (other < chunk) earlier += here;",
        new="if (other < chunk && other > 0) earlier += here;",
        tests=("cuda/test_experts_large.py::test_slots_are_grouped_by_expert[1030-1-2-64]",),
    ),
    kernel(
        name="cuda-last-visit-left-out",
        trap="the result of a token's last expert is not added where tokens are many",
        file="cuda/moe.cu",
        old="visit < k; ++visit",
        new="visit + 1 < k; ++visit",
        tests=experts("experts without tokens"),
    ),
)

ROUTING = (
    kernel(
        name="cuda-bias-in-the-weights",
        trap="the routing bias leaks into the routing weights",
        file="cuda/route.cu",
        old="float scale,\n    unsigned long long* status) {\n    const int lane",
        new="float scale,\n    unsigned long long* status, const float* bias = nullptr) {\n    const int lane",
        also=(
            (
                "gate.score((int)indices[visit]) :",
                "gate.score((int)indices[visit]) + (bias ? bias[indices[visit]] : 0) :",
            ),
            (
                "    }\n    weigh(gate, indices + token * k, weights + token * k, experts, k, scale, status);",
                "    }\n    weigh(gate, indices + token * k, weights + token * k, experts, k, scale, status, bias);",
            ),
        ),
        tests=("cuda/test_experts_large.py::test_routes_among_many_experts[1-256-6-sqrtsoftplus]",),
    ),
    kernel(
        name="cuda-experts-ties-broken-the-wrong-way",
        trap="among equal scores the expert with the highest number comes first",
        file="cuda/route.cu",
        old="<< 32 | ~(unsigned)expert;",
        new="<< 32 | (unsigned)expert;",
        also=(("= ~(unsigned)last;", "= (unsigned)last;"),),
        tests=("ops/test_moe.py::test_among_equal_scores_the_lowest_number_comes_first[cuda-on-host]",),
    ),
    kernel(
        name="cuda-single-token-in-one-slot",
        trap="all experts of a single token are given its first slot",
        file="cuda/route.cu",
        old="tiles[3 * visit + 1] = visit;",
        new="tiles[3 * visit + 1] = 0;",
        tests=(f"{SINGLE}[False-1]",),
    ),
    kernel(
        name="cuda-groups-of-dead-choices",
        trap="the experts of a token are taken for those of an earlier one, whose numbers stood at the same place",
        file="cuda/grouping.py",
        old="if known is not None and known[0]() is not None:",
        new="if known is not None or (known := next(iter(_to_come.values()), None)):",
        tests=(f"{SINGLE}[False-1]",),
    ),
)

ATTENTION = (
    kernel(
        name="cuda-no-sink",
        trap="the sink takes no share of the softmax",
        file="cuda/softmax.cuh",
        old="softmax.total = share_of(sink, sink);",
        new="softmax.total = 0;",
        tests=("ops/test_attention.py::test_each_head_has_a_sink_of_its_own[cuda-on-host-float32]",),
    ),
    kernel(
        name="cuda-sinks-of-the-first-heads",
        trap="heads from the 17th on take the sinks of the first 16",
        file="cuda/attention.cu",
        old="? attn_sink[place.own_head] : 0",
        new="? attn_sink[place.own] : 0",
        tests=attention("tiles, heads and slices of channels that are not full", 1),
    ),
    kernel(
        name="cuda-window-row-0-masked",
        trap="row 0 of window and entries counts as no row, as −1 does",
        file="cuda/attention_keys.cuh",
        old="if (found < 0 || !is_within(",
        new="if (found <= 0 || !is_within(",
        tests=attention("the released width, several splits", 1000),
    ),
    kernel(
        name="cuda-values-not-shrunken",
        trap="where a tile has a larger logit, the sums over the values before it do not shrink",
        file="cuda/attention.cu",
        old="memory.factors[head] = make_float2(factor, 0);",
        new="memory.factors[head] = make_float2(min(factor, 0.0f) + 1, 0);",
        tests=attention("tiles, heads and slices of channels that are not full", 1000),
    ),
    kernel(
        name="cuda-next-tile-too-early",
        trap="the barrier is missing between the values of a tile and the copy of the next one to their place",
        file="cuda/attention.cu",
        old="        __syncthreads();  // whoever reads the tile before has done so\n",
        new="",
        tests=attention("tiles, heads and slices of channels that are not full", 1000),
    ),
)

TOGETHER = "ops/test_together.py::test_"
SHARED = "cuda/test_shared_inputs.py::test_"

AT_ONCE = (
    kernel(
        name="cuda-matrices-beside-in-one-place",
        trap="the results of several matrices with one input are written over those of the first",
        file="cuda/linear.cu",
        old="out + tokens * place[4]",
        new="out",
        tests=(f"{SHARED}products_of_one_input_share_a_launch[3]",),
    ),
    kernel(
        name="cuda-chunk-rounded-too-early",
        trap="a chunk is rounded when half of its blocks are done",
        file="cuda/rounded_chunks.cuh",
        old="is_last_block(arrived + group * chunks + chunk, blocks)",
        new="is_last_block(arrived + group * chunks + chunk, blocks / 2 + 1)",
        tests=(f"{SHARED}a_grouped_product_lays_out_its_result_rounded[3]",),
    ),
    kernel(
        name="cuda-hidden-of-the-gate-alone",
        trap="what is between an expert's products is made before all blocks of both matrices are done",
        file="cuda/experts.cu",
        old="2 * blocks_of_chunk(",
        new="1 + blocks_of_chunk(",
        tests=(f"{SHARED}the_first_product_of_experts_makes_what_the_second_takes[3]",),
    ),
    kernel(
        name="cuda-one-weight-for-few-visits",
        trap="all of few visits count as much as the first one",
        file="cuda/experts.cu",
        old="weights ? weights[slot] : 1",
        new="weights ? weights[0] : 1",
        tests=(f"{SHARED}the_first_product_of_experts_makes_what_the_second_takes[3]",),
    ),
    kernel(
        name="cuda-expert-not-added",
        trap="what the routed experts gave stands for the sum with the shared one's result",
        file="cuda/experts.cu",
        old="added[token * rows + row] + sum : sum",
        new="added[token * rows + row] : sum",
        tests=(f"{TOGETHER}an_expert_is_added[cuda-on-host-True-quantise_fp8-few]",),
    ),
    kernel(
        name="cuda-dense-weights-kept",
        trap="what is kept of an expert holds its dense matrices, so that they are never given back",
        file="cuda/matrix.py",
        old="return [array for array in arrays if device.address(array) not in own]",
        new="return list(arrays)",
        tests=("cuda/test_experts_large.py::test_what_is_kept_of_an_expert_does_not_hold_its_matrices[256-float32]",),
    ),
    kernel(
        name="cuda-last-visit-of-few-left-out",
        trap="the result of a token's last expert is not added where tokens are few",
        file="cuda/experts.cu",
        old="visit < visits; ++visit",
        new="visit + 1 < visits; ++visit",
        tests=experts("one token, six experts"),
    ),
    kernel(
        name="cuda-visits-added-too-early",
        trap="the visits of tokens are added up when four of their experts are done",
        file="cuda/experts.cu",
        old="is_last_block(arrived + blockIdx.y, gridDim.x)",
        new="is_last_block(arrived + blockIdx.y, 4)",
        tests=experts("one token, six experts"),
    ),
    kernel(
        name="cuda-output-turned-with-its-pairs-swapped",
        trap="the two channels of a pair change places where attention's output is turned back",
        file="cuda/attention.cu",
        old="turned(is_odd ? make_float2(other, own) : make_float2(own, other)",
        new="turned(is_odd ? make_float2(own, other) : make_float2(other, own)",
        tests=(f"{TOGETHER}the_output_of_attention_is_turned[cuda-on-host-1-one token]",),
    ),
)

CUDA_PRODUCTS = LINEAR + EXPERTS + ROUTING + ATTENTION + AT_ONCE
