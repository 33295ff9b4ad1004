"""Figures of a run on chips that are not there, each beside a hand-worked one."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gl_jax import arithmetic
from gl_jax.config import Config, Phase, RunConfig, ScheduleConfig, UsageError
from gl_jax.planning import hlo, search, table
from gl_jax.planning.bounds import PhasePlan, Plan, bounds_of, updates_of
from gl_jax.planning.compiling import needed_of
from gl_jax.planning.needs import Need
from gl_jax.planning.topologies import topology_of

# --- topologies


@pytest.mark.parametrize(
    ("name", "count", "hosts"),
    [
        ("v5e:4x4", 16, 4),
        ("v4:2x4x4", 32, 8),
        ("v5e:1x1", 1, 1),
        ("gpu:h100x12", 12, 2),
    ],
)
def test_a_topology_has_as_many_chips_as_its_name_says(name, count, hosts):
    topology = topology_of(name)
    assert (topology.count, topology.hosts) == (count, hosts)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("v5e:4x5", "v5e:4x4"),
        ("v4:2x2", "v4:2x2x1"),
        ("v5x:4x4", "v5e:4x4"),
        ("h100x8", "gpu:h100x8"),
        ("gpu:h100x0", "gpu:h100x1"),
        ("gpu:v5ex4", "v5e:"),
        ("h100:8", "gpu:h100x8"),
        ("", "v4:2x2x1"),
    ],
)
def test_an_unknown_topology_is_told_the_nearest(name, nearest):
    with pytest.raises(UsageError, match="there is no topology") as error:
        topology_of(name)
    assert nearest in str(error.value)
    assert "\n" not in str(error.value)


# --- compiled programs

PROGRAM = """\
HloModule jit__fun, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%body.1 (state: (f32[2,4])) -> (f32[2,4]) {
  %state = (f32[2,4]{1,0:T(2,128)}) parameter(0)
  %one = f32[2,4]{1,0:T(2,128)S(1)} get-tuple-element(%state), index=0
  %psum.1 = f32[2,4]{1,0:T(2,128)S(1)} all-reduce(%one), channel_id=1, to_apply=%add
  ROOT %out = (f32[2,4]{1,0:T(2,128)S(1)}) tuple(%psum.1)
}

%gather (state: (f32[8])) -> (f32[8]) {
  %state.2 = (f32[8]{0}) parameter(0)
  %two = f32[8]{0} get-tuple-element(%state.2), index=0
  %cut = f32[8]{0} copy(%two)
  ROOT %out.2 = (f32[8]{0}) tuple(%cut)
}

ENTRY %main (x: bf16[16], y: f32[2,4]) -> f32[2,4] {
  %x = bf16[16]{0:T(128)} parameter(0)
  %y = f32[2,4]{1,0:T(2,128)} parameter(1)
  %copy-start = (bf16[16]{0:T(128)S(1)}, bf16[16]{0:T(128)}, u32[]{:S(2)}) copy-start(%x)
  %copy-done = bf16[16]{0:T(128)S(1)} copy-done(%copy-start)
  %fused = f32[16]{0:T(128)} fusion(%copy-done, %y), kind=kLoop, calls=%add
  %all-reduce.5 = (f32[16]{0:T(128)}, f32[3]{0:S(1)}) all-reduce(%fused, %fused), to_apply=%add
  %start = (f32[16]{0}, f32[16]{0}) all-reduce-start(%fused), to_apply=%add
  %done = f32[16]{0} all-reduce-done(%start)
  %loop = (f32[2,4]{1,0:T(2,128)}) while(%y), condition=%c, body=%body.1
  %other = (f32[8]{0}) while(%y), condition=%c, body=%gather
  ROOT %r = f32[2,4]{1,0} get-tuple-element(%loop), index=0
}
"""


def test_collectives_of_a_program_with_the_pieces_of_its_loop():
    once, twice = (hlo.figures(PROGRAM, pieces=pieces) for pieces in (1, 2))
    # In the entry one of 16 + 3 numbers and one of 16; in the loop one of 8.
    assert (once.collectives, once.collective_bytes) == (3, 4 * (16 + 3 + 16 + 8))
    assert (twice.collectives, twice.collective_bytes) == (4, 4 * (16 + 3 + 16 + 8 + 8))


def test_a_loop_that_says_how_often_it_runs_is_believed():
    told = PROGRAM.replace(
        "body=%body.1", 'body=%body.1, backend_config={"known_trip_count":{"n":"5"}}'
    )
    assert hlo.figures(told, pieces=2).collectives == 2 + 5


def test_traffic_leaves_out_what_stays_on_the_chip():
    # A copy reads 32 bytes and leaves them on the chip; the fusion reads y (32) and writes
    # 64; the first sum reads that twice and writes 64, the second reads it and its type
    # holds both ends; a loop's copy reads and writes 32. The other loop's sum moves nothing.
    moved = 32 + (32 + 64) + (64 + 64 + 64) + (64 + 64 + 64) + (32 + 32)
    assert hlo.figures(PROGRAM).traffic == moved


def test_sizes_of_types():
    assert hlo.size_of("(f32[2,4]{1,0}, bf16[8]{0}, pred[3], s32[], u8[5])") == (
        32 + 16 + 3 + 4 + 5
    )


def test_the_size_in_a_compilers_refusal():
    gib = 2**30
    first = "the total memory required for HLO temporaries (130.51G) exceeds available"
    second = "Ran out of memory in memory space hbm. Used 512.5M of 15.75G hbm."
    assert needed_of(first) == 130.51 * gib
    assert needed_of(second) == 512.5 * 2**20


# --- arithmetic


def product_of(function, *shapes):
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return arithmetic.work_of(arithmetic.traced(function, *arrays))


convolve = partial(
    jax.lax.conv_general_dilated, dimension_numbers=("NHWC", "HWIO", "NHWC")
)


def test_work_of_a_convolution():
    inside = partial(convolve, window_strides=(1, 1), padding="VALID")
    work = product_of(inside, (2, 6, 6, 3), (3, 3, 3, 5))
    assert work.flops == 2 * (2 * 4 * 4) * 5 * (3 * 3 * 3)
    assert work.traffic == 4 * (2 * 6 * 6 * 3 + 3 * 3 * 3 * 5 + 2 * 4 * 4 * 5)


def test_products_with_a_padding_do_not_count():
    padded = partial(convolve, window_strides=(1, 1), padding="SAME")
    # Along an axis of 6 the middle tap meets 6 values, the outer ones 5.
    work = product_of(padded, (1, 6, 6, 1), (3, 3, 1, 1))
    assert work.flops == 2 * 16 * 16


def test_products_with_zeros_between_values_do_not_count():
    spread = partial(
        convolve, window_strides=(1, 1), padding=[(0, 0)] * 2, lhs_dilation=(2, 1)
    )
    # Three values with zeros between, v0v0v, under a kernel of 3: v0v, 0v0, v0v.
    assert product_of(spread, (1, 3, 3, 1), (3, 3, 1, 1)).flops == 2 * 5 * 3


def test_work_of_loops_and_conditions():
    def looped(x):
        def once(x, _):
            return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x, lambda x: x, x), None

        return jax.lax.scan(once, x, None, length=3)[0]

    assert product_of(looped, (4, 4)).flops == 3 * 2 * 4**3


@pytest.mark.parametrize(("save", "arrays"), [(False, 6), (True, 4)])
def test_what_is_kept_for_the_way_back(save, arrays):
    def layer(kernel, x):
        return jnp.sin(x @ kernel)

    def loss(kernels, x):
        for kernel in kernels:
            x = (jax.checkpoint(layer) if save else layer)(kernel, x)
        return jnp.sum(x)

    kernels = [jax.ShapeDtypeStruct((8, 8), jnp.float32)] * 3
    x = jax.ShapeDtypeStruct((1024, 8), jnp.float32)
    kept = arithmetic.kept_bytes(arithmetic.traced(jax.grad(loss), kernels, x))
    # The products and sines of two layers, the third's product and its slope; computed
    # again, the two sines and these.
    wide, kernel = 4 * 1024 * 8, 4 * 8 * 8
    assert arrays * wide <= kept <= arrays * wide + 3 * kernel


# --- bounds


def need(**changed):
    figures = {"memory": 1e9, "flops": 197e9, "state": 0.0, "batches": 0.0}
    return Need(**figures | changed)


def test_bounds_of_a_step():
    v5e = topology_of("v5e:2x2")
    found = bounds_of(need(traffic=819e6, collective_bytes=200e6), v5e, "bfloat16")
    assert (found.matrices, found.memory) == (pytest.approx(1e-3), pytest.approx(1e-3))
    # Three quarters of 200 MB, twice, at 200 GB/s.
    assert found.interconnect == pytest.approx(1.5e-3) == found.seconds


def test_one_chip_sends_nothing():
    one = topology_of("v5e:1x1")
    assert bounds_of(need(collective_bytes=1e9), one, "float32").interconnect == 0


def test_hours_and_speeds_of_a_run():
    v5e = topology_of("v5e:4x4")
    bounds = bounds_of(need(), v5e, "bfloat16")
    phases = [PhasePlan(phase, 1_800_000, need(), True, bounds) for phase in (*Phase,)]
    plan = Plan("name", v5e, "arithmetic", 96, 1, tuple(phases))
    assert plan.speed(plan.phases[0]) == pytest.approx(96_000)
    assert plan.input_rate() == pytest.approx(96_000 / 4)
    assert plan.hours(0.5) == pytest.approx(3.0)
    text = table.of_plan(plan, [], None)
    assert "96,000" in text
    assert "1.5 h at 100%" in text


def test_updates_of_a_run():
    config = Config(schedule=ScheduleConfig(10, 4, 20, discriminator_updates=2))
    assert updates_of(config) == {
        Phase.COMPLETION: 10,
        Phase.DISCRIMINATOR: 4 + 3,
        Phase.JOINT: 3,
    }
    by_step = [config.update_at(step) for step in range(20)]
    assert all(by_step.count(phase) == n for phase, n in updates_of(config).items())


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.93e12, "1.93 TB"), (47.5e6, "47.5 MB"), (614e6, "614 MB"), (4.2e-4, "420 µB"),
     (0, "0 B"), (7, "7.00 B"), (None, "unknown")],
)  # fmt: skip
def test_figures_have_three_digits(value, text):
    assert table.si(value, "B") == text


# --- search


@pytest.mark.parametrize("limit", [0, 1, 7, 8, 9, 100, 1000])
@pytest.mark.parametrize("curve", [lambda n: n, lambda n: n**2 / 50, np.sqrt])
def test_the_largest_count_is_measured_and_so_is_the_one_above(limit, curve):
    asked = []

    def memory_of(count):
        asked.append(count)
        return curve(count)

    found = search.largest(memory_of, curve(limit), 8, None)
    assert found == limit
    assert {found, found + 1} - {0} <= {*asked}
    assert len(asked) == len({*asked}) < 30


def test_a_straight_line_is_soon_followed_to_its_end():
    asked = []
    search.largest(lambda n: asked.append(n) or 3 + 2 * n, 2003, 6, None)
    assert asked == [6, 12, 24, 48] or len(asked) <= 14


def test_a_search_stays_below_its_limit():
    assert search.largest(lambda n: n, 100, 8, 8) == 8
    assert search.largest(lambda n: n, 5, 8, 8) == 5


def test_options_that_save_memory_alone_and_together():
    config = Config()
    assert [options for options, _ in search.alone(config, 6)] == [
        "--run.accumulate 2",
        "--model.compute-dtype bfloat16",
        "--model.rematerialize",
    ]
    both = "--model.compute-dtype bfloat16 --model.rematerialize"
    assert [options for options, _ in search.together(config, 6)] == [
        both,
        f"{both} --run.accumulate 2",
        f"{both} --run.accumulate 6",
    ]
    last = search.together(config, 6)[-1][1]
    assert last.model.rematerialize
    assert last.run == RunConfig(accumulate=6)
