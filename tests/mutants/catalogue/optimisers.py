"""Mistakes in the optimisers and in what they optimise."""

from mutants.mutant import Mutant

MUON = "learn/muon.py"
ADAMW = "learn/adamw.py"
OPTIMISER = "learn/optimiser.py"

ALGORITHM_1 = ("learn/test_muon.py::test_steps_are_algorithm_1",)
UPDATE_SIZE = ("learn/test_muon.py::test_an_update_of_full_rank_has_a_root_mean_square_of_018",)
EACH_MATRIX = ("learn/test_optimiser.py::test_a_step_is_that_of_each_matrix_by_itself",)
SPLIT = ("learn/test_optimiser.py::test_every_parameter_has_one_optimiser_or_no_gradient",)
RESUMED = ("learn/test_optimiser.py::test_a_resumed_optimiser_goes_on_with_the_same_bits",)
ADAMW_BY_HAND = ("learn/test_adamw.py::test_two_steps_by_hand",)

OPTIMISERS = (
    Mutant(
        name="muon-scale-of-others",
        trap="the update is scaled by .2, as in other versions of Muon",
        file=MUON,
        old="UPDATE_RMS = 0.18",
        new="UPDATE_RMS = 0.2",
        tests=UPDATE_SIZE,
    ),
    Mutant(
        name="muon-scale-of-1",
        trap="the update is not scaled at all",
        file=MUON,
        old="UPDATE_RMS * float(np.sqrt(max(weight.shape[-2:])))",
        new="1.0",
        tests=UPDATE_SIZE,
    ),
    Mutant(
        name="muon-smaller-side",
        trap="the update is scaled by the root of the smaller side",
        file=MUON,
        old="np.sqrt(max(weight",
        new="np.sqrt(min(weight",
        tests=UPDATE_SIZE,
    ),
    Mutant(
        name="muon-without-nesterov",
        trap="the momentum is made orthogonal, and not the momentum moved on by the gradient",
        file=MUON,
        old="newton_schulz(MOMENTUM * momentum + gradient)",
        new="newton_schulz(momentum)",
        tests=ALGORITHM_1,
    ),
    Mutant(
        name="muon-averaged-momentum",
        trap="the momentum is a running mean, with a factor 1 − μ, and Nesterov's step adds a whole gradient to it",
        file=MUON,
        old="momentum = MOMENTUM * momentum + gradient",
        new="momentum = MOMENTUM * momentum + (1 - MOMENTUM) * gradient",
        tests=ALGORITHM_1,
    ),
    Mutant(
        name="muon-decay-without-the-rate",
        trap="weight decay is not scaled by the learning rate",
        file=MUON,
        old="(1 - learning_rate * DECAY)",
        new="(1 - DECAY)",
        tests=ALGORITHM_1,
    ),
    Mutant(
        name="muon-zeros-divided",
        trap="a gradient of zeros is divided by its norm",
        file=MUON,
        old="x = x / np.where(norm == 0, x.dtype.type(1), norm)",
        new='with np.errstate(all="ignore"):\n        x = x / norm',
        tests=("learn/test_muon.py::test_a_matrix_without_gradients_decays_and_does_not_move",),
    ),
    Mutant(
        name="muon-norm-of-lost-squares",
        trap="the norm of a tiny gradient comes from squares that have lost their digits, and the iteration diverges",
        file=MUON,
        old="x = np.ldexp(x, -np.frexp(largest)[1])",
        new="x = np.ldexp(x, 0 * np.frexp(largest)[1])",
        tests=("learn/test_muon.py::test_a_matrix_of_any_size_has_the_same_direction",),
    ),
    Mutant(
        name="muon-stack-as-one-matrix",
        trap="experts of one shape are made orthogonal as one tall matrix",
        file=OPTIMISER,
        old="stacks = muon_step(weight, gradient, momentum, learning_rate)",
        new="""shape = weight.shape
            tall = [array.reshape(-1, shape[2]) for array in (weight, gradient, momentum)]
            stacks = [array.reshape(shape) for array in muon_step(*tall, learning_rate)]""",
        tests=EACH_MATRIX,
    ),
    Mutant(
        name="muon-groups-as-one-matrix",
        trap="the groups of the output projection are one matrix",
        file=OPTIMISER,
        old="rank = rows // config.o_groups",
        new="rank = rows",
        tests=SPLIT,
    ),
    Mutant(
        name="muon-hyper-connection-as-one-matrix",
        trap="the projections to pre, post and comb are one matrix",
        file=OPTIMISER,
        old='if name.endswith(("hc_attn_fn", "hc_ffn_fn")):',
        new='if name.endswith("no hyper-connection"):',
        tests=SPLIT,
    ),
    Mutant(
        name="muon-on-the-embedding",
        trap="the embedding and the head are matrices for Muon",
        file=OPTIMISER,
        old='name in ("embed.weight", "head.weight") or ',
        new="",
        tests=SPLIT,
    ),
    Mutant(
        name="bias-in-the-optimiser",
        trap="the routing bias is in the optimiser, which makes it decay",
        file=OPTIMISER,
        old=' and not parameter.name.endswith("gate.bias")',
        new="",
        tests=SPLIT,
    ),
    Mutant(
        name="adamw-without-correction",
        trap="the running means of AdamW, which start from zero, are not corrected",
        file=ADAMW,
        old="first / (1 - BETA_1**step), second / (1 - BETA_2**step)",
        new="first, second",
        tests=ADAMW_BY_HAND,
    ),
    Mutant(
        name="adamw-betas-of-others",
        trap="the squares are averaged over 1,000 steps, as AdamW's defaults say",
        file=ADAMW,
        old="BETA_1, BETA_2 = 0.9, 0.95",
        new="BETA_1, BETA_2 = 0.9, 0.999",
        tests=ADAMW_BY_HAND,
    ),
    Mutant(
        name="adam-with-l2",
        trap="weight decay joins the gradient, as in Adam, and is divided by its size",
        file=ADAMW,
        old="    first = BETA_1 * first",
        new="    gradient = gradient + DECAY * weight\n    first = BETA_1 * first",
        tests=("learn/test_adamw.py::test_without_a_gradient_a_weight_only_decays",),
    ),
    Mutant(
        name="resume-counts-anew",
        trap="a resumed AdamW counts its steps from 0",
        file=OPTIMISER,
        old="self._steps = {name: int(state[STEPS + name]) for name in self._steps}",
        new="self._steps = dict.fromkeys(self._steps, 0)",
        tests=RESUMED,
    ),
    Mutant(
        name="resume-in-another-layout",
        trap="weights keep the layout in memory that their gradients had, which no file keeps",
        file=OPTIMISER,
        old="return np.ascontiguousarray(array)",
        new="return np.asfortranarray(array) if array.ndim == 2 else array",
        tests=("learn/test_optimiser.py::test_weights_lie_in_memory_as_a_file_holds_them",),
    ),
    Mutant(
        name="clip-each-alone",
        trap="each gradient is clipped by its own norm",
        file="learn/clip.py",
        old="gradient * (clip_norm / norm)",
        new="gradient * min(1, clip_norm / float(np.linalg.norm(gradient)))",
        tests=("learn/test_clip.py::test_one_norm_over_all_gradients",),
    ),
    Mutant(
        name="decay-a-step-short",
        trap="the cosine ends behind the last step",
        file="learn/schedule.py",
        old="(step + 1) / steps)) / 2",
        new="step / steps)) / 2",
        tests=("learn/test_schedule.py::test_the_learning_rate_rises_stays_and_falls_over_the_whole_decay",),
    ),
)
