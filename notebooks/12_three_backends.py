# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 12 · Three backends, one interface
#
# **Minutes:** 25 · **Read before:** [1](01_tour.ipynb) · **You should know:** rounding errors; a little C++ and CUDA
# helps.
#
# Every operation is defined by a NumPy function, written to be read. Two backends compute the same faster: Numba on the
# CPU, CUDA on a GPU. All three are classes with the same methods. So the model is written once, and the same **property
# tests** run for each backend. This notebook follows a small operation through all three, and then plants a bug to see
# which tests find it.
#
# $$\text{RMSNorm}(x) = \frac{x}{\sqrt{\frac{1}{d} \sum_i x_i^2 + \epsilon}} \odot g, \qquad
# \text{as good: } \; \text{error} \le 2 \, \text{error}_\text{NumPy} + \text{floor}, \; \text{ against float64}$$

# %%
import inspect
import sys
from types import ModuleType

import matplotlib.pyplot as plt
import numpy as np
from hypothesis import HealthCheck, Phase, settings

import show
from dsv4.ops import Ops, norm

settings.register_profile(
    "notebook",
    derandomize=True,
    deadline=None,
    max_examples=60,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],  # a busy machine is no fault of a backend
)
settings.load_profile("notebook")  # before the tests, which take the profile that is there

sys.path.insert(0, str(show.ROOT / "tests"))  # the project's own tests and their verdicts
import verdicts
from backends import UNAVAILABLE, Caller, backend_names, create_backend
from mutants.catalogue.connections import CONNECTIONS
from ops.test_norm import test_both_norms_are_their_formula as property_test

# %% [markdown]
# ## One operation, three times
# **NumPy**: the definition. It computes in the dtype of its input. In float64, it is the truth with which all backends
# are compared.

# %%
show.source(norm.rms_norm, norm.rms_scale)

# %% [markdown]
# **Numba**: a loop over rows, divided among threads, with 16 numbers in one register. Four running sums let the
# processor do four additions at once. Their order never changes, so the result has the same bits with any number of
# threads.

# %%
show.listing("accel/dsv4_accel/numba/norm.py", "@kernel", "@inlined")
show.listing("accel/dsv4_accel/numba/norm.py", "def sum_of_squares", "@inlined")

# %% [markdown]
# **CUDA**: one block of 256 threads for each row. Each thread adds up some of the squares, `block_sum` adds the sums of
# the threads in a fixed order, and each thread writes a part of the row.

# %%
show.listing("accel/dsv4_accel/cuda/norm.cu", "// x, out")

# %% [markdown]
# ## Which backends run here
# A backend that cannot run says why. The last one is the CUDA code itself, compiled by the C++ compiler of this machine
# and run on its processor. It is slow, but needs no GPU.

# %%
backends, rows = {}, []
for name in backend_names():
    try:
        backends[name] = Caller(create_backend(name))
        rows.append([name, "runs"])
    except UNAVAILABLE as error:
        rows.append([name, str(error).split("(")[0]])
show.table(["backend", "here"], rows)

# %% [markdown]
# ## A property test
# It draws random shapes, memory layouts, scales and epsilons, and compares the result with the formula, written out for
# one number at a time.

# %%
show.source(property_test.hypothesis.inner_test, verdicts.hold, verdicts.as_good)


# %%
def verdict(ops):
    """What the property test says of a backend: "passes", or the first line of its error."""
    try:
        property_test(ops=ops)
        return "passes"
    except AssertionError as error:
        return str(error).splitlines()[0]


show.table(["backend", "60 drawn examples"], [[name, verdict(ops)] for name, ops in backends.items()])

# %% [markdown]
# ## Experiment: a planted bug
# The [catalogue of mutants](../docs/mutants.md) holds mistakes that other ports have made. One of them adds $\epsilon$
# to the root instead of under it. It is planted in a copy of the file, from which a backend is made. With ordinary
# numbers the bug is hard to see: for a mean square near 1, a millionth under the root or beside it is nearly the same.
# The property test draws scales from $10^{-15}$ to $10^{15}$ and should find it. A usual test, with ordinary numbers
# only, might not. The null model is made from the same file in the same way, without a bug.

# %%
mutant = next(mutant for mutant in CONNECTIONS if mutant.name == "norm-eps-outside-the-root")
print(f"- {mutant.old}\n+ {mutant.new}")


def backend_of(source):
    """NumPy's backend with the norms of another source."""
    module = ModuleType("planted")
    exec(source, vars(module))

    class Planted(Ops):
        rms_norm = staticmethod(module.rms_norm)
        rms_scale = staticmethod(module.rms_scale)

    return Planted()


planted, unharmed = backend_of(mutant.patch(inspect.getsource(norm))), backend_of(inspect.getsource(norm))


# %%
def error_over_limit(ops, scale):
    """How far a backend is from float64, in units of what "as good" allows, on 64 rows of numbers of this scale."""
    x = (scale * np.random.default_rng(0).standard_normal((64, 128))).astype(np.float32)
    weight = np.ones(128, np.float32)
    truth = Ops.rms_norm(x.astype(np.float64), weight, 1e-6)
    error, baseline = (
        np.abs(found - truth).max() for found in (ops.rms_norm(x, weight, 1e-6), Ops.rms_norm(x, weight, 1e-6))
    )
    return float(error / (2 * baseline + verdicts.FLOOR * np.abs(truth).max()))


scales = np.logspace(-6, 6, 25)

# %% tags=["hide-input"]
figure, axes = plt.subplots()
for name, ops in {**backends, "planted": planted}.items():
    ratio = [error_over_limit(ops, scale) for scale in scales]
    style = {"color": show.RED, "linewidth": 2.5} if name == "planted" else {"linestyle": "--"}
    axes.loglog(scales, ratio, label=name, **style)
axes.axhline(1, color=show.DARK, linestyle=":")
axes.text(1e6, 1.2, "the limit", ha="right")
axes.set(title="error, in units of what “as good” allows", xlabel="scale of the input", ylabel="error / limit")
axes.legend()
show.picture(
    figure,
    "The error of each backend over the allowed limit, against the scale of the input from a millionth to "
    "a million, both logarithmic. All backends stay below the limit everywhere. The planted bug does so "
    "only for numbers of about 1 and more; for small numbers it is far above.",
)


# %%
def tried(ops):
    """The error on ordinary and on small numbers, over the limit, and what the property test says."""
    return error_over_limit(ops, 1.0), error_over_limit(ops, 1e-3), verdict(ops)


show.experiment(
    "with numbers near 1 the error stays below the limit, but the property test finds the bug",
    lambda found: found[0] < 1 and found[2] != "passes",
    tried(planted),
    nulls={"nothing planted": tried(unharmed)},
    say=lambda found: (
        f"at scale 1 the error is {found[0]:.2f} of the limit, at 0.001 {found[1]:,.2f} of it; "
        f"the test says: {found[2]}"
    ),
)

# %% [markdown]
# There are two more verdicts. **Exact** is for formats and choices: the same bits as NumPy. **Same text** is for the
# whole model: it writes the same tokens with every backend (`tests/model/test_same_text.py`).
#
# ## Exercises
# **1.** Give an input of four numbers, not all equal, for which the planted bug changes no bit, with ε = 10⁻⁶.

# %% tags=["hide-input"]
exercise_1 = show.exercise(
    lambda x: (
        np.ptp(x) > 0
        and np.array_equal(*(norms.rms_scale(np.array([x], np.float32), 1e-6) for norms in (Ops, planted)))
    ),
    mistake=(1e-3, 2e-3, 3e-3, 4e-3),
    hint="When is ε too small, beside the mean square and beside the root, to change a float32?",
)

# %%
exercise_1(...)

# %% [markdown]
# **2.** Another bug takes the root of the sum of squares instead of their mean. By which factor is the result wrong for
# rows of 64 numbers (without ε)?

# %% tags=["hide-input"]
row = np.random.default_rng(1).standard_normal((1, 64))
exercise_2 = show.exercise(
    lambda factor: np.allclose(row / np.sqrt((row**2).sum()) * factor, Ops.rms_scale(row, 0.0)),
    mistake=64,
    hint="The mean is the sum over 64, and then comes a root.",
)

# %%
exercise_2(...)

# %% [markdown]
# **3.** Write a kernel yourself: the fast Hadamard transform, which needs additions and subtractions only, and at the
# end one factor. A row of width $D$ takes $\log_2 D$ rounds. In a round with distance $h = 1, 2, 4, \dots$, each pair
# of channels $(i, i + h)$ becomes its sum and its difference. `dsv4.check` compares it with the matrix product, as it
# would [your own CUDA kernel](../docs/check-your-kernel.md).


# %% tags=["hide-input"]
def not_normalised(x):
    return Ops.hadamard(x) * x.dtype.type(np.sqrt(x.shape[-1]))


exercise_3 = show.write(
    show.properties("hadamard"),
    wrong={"without the factor": not_normalised},
    hint="Reshape the last axis to (D / 2h, 2, h): the middle axis holds the pairs. The factor is D to the power −½.",
)


# %%
def my_hadamard(x):
    """x [..., D] times the normalised Hadamard matrix, D a power of two -> the same shape and dtype."""


exercise_3(...)

# %% [markdown]
# ## Solutions
# <details><summary>Solutions</summary>
#
# 1: large numbers. 2: the root of 64. 3: in the folded cell.
#
# </details>


# %% tags=["hide-input"]
def solution_3(x):
    shape, width, distance = x.shape, x.shape[-1], 1
    while distance < width:
        pairs = x.reshape(*shape[:-1], width // (2 * distance), 2, distance)
        first, second = pairs[..., 0, :], pairs[..., 1, :]
        x = np.stack([first + second, first - second], axis=-2).reshape(shape)
        distance *= 2
    return x * x.dtype.type(width**-0.5)


exercise_1((1e6, 2e6, 3e6, 4e6))
exercise_2(8)
exercise_3(solution_3)
