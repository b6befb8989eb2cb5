# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The reader on a hand-cut program that holds every form it knows."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from podium.aot.groups import parse_groups
from podium.aot.hlo import Collective, Compute, Done, Kernel, Loop, Start, read
from podium.aot.hlo_flops import matmul_flops
from podium.aot.hlo_text import parse

TEXT = (Path(__file__).parent / "step.hlo").read_text()


@pytest.fixture(scope="module")
def by_name():
    return {event.name: (times, event) for times, event in read(TEXT).flat()}


def test_a_loop_runs_as_often_as_its_condition_says(by_name):
    loop = next(e for e in read(TEXT).events if isinstance(e, Loop))
    assert loop.trips == 5
    assert by_name["fusion.1"][0] == 5
    assert by_name["fusion.3"][0] == 1


def test_a_fusion_has_the_compilers_cycles_and_exact_matmul_operations(by_name):
    fusion = by_name["fusion.1"][1]
    assert isinstance(fusion, Compute)
    assert fusion.cycles == 1000
    assert fusion.flops == 2 * (2 * 64) * 128 * 512
    assert by_name["fusion.3"][1].flops == 2 * 128**3
    assert by_name["norm"][1].flops == 0


def test_a_copy_on_the_device_that_the_core_makes_itself_takes_its_cycles(by_name):
    times, copy = by_name["copy.1"]
    assert isinstance(copy, Compute)
    assert (times, copy.cycles, copy.flops) == (1, 70, 0)


def test_attention_kernels_count_the_pairs_that_causality_leaves(by_name):
    times, kernel = by_name["splash_mha_fwd_residuals.1"]
    assert isinstance(kernel, Kernel)
    # Scores over keys of 32 channels, values of 16.
    assert (times, kernel.flops) == (5, 2 * (2 * 4) * (64 * 65 / 2) * (32 + 16))


GROUPED = """HloModule grouped

ENTRY %main (x: bf16[64,32], w: bf16[4,32,16]) -> bf16[64,16] {
  %x = bf16[64,32]{1,0} parameter(0)
  %w = bf16[4,32,16]{2,1,0} parameter(1)
  ROOT %gmm.1 = bf16[64,16]{1,0} custom-call(%x, %w), custom_call_target="tpu_custom_call"
}
"""


@pytest.mark.parametrize("used", [1.0, 0.25])
def test_a_grouped_matmul_counts_the_rows_that_its_matrices_multiply(used):
    ((_, kernel),) = read(GROUPED, used).flat()
    assert kernel.flops == 2 * 64 * 32 * 16 * used


@pytest.mark.parametrize(
    ("name", "kind", "num_bytes", "size", "is_async", "count"),
    [
        ("all-gather-start.1", "all-gather", 128 * 512 * 2, 8, True, 5),
        ("7", "reduce-scatter", 128 * 512 * 2, 8, False, 5),
        ("collective-permute-start.1", "collective-permute", 16 * 512 * 2, 2, True, 5),
        ("20", "all-gather", 128 * 128 * 2, 8, True, 1),
        ("all-to-all.9", "all-to-all", 8 * 128 * 2, 4, True, 1),
        ("all-reduce.1", "all-reduce", 2 * 64 * 4, 0, False, 1),
    ],
)
def test_collectives_in_every_form(
    by_name, name, kind, num_bytes, size, is_async, count
):
    times, c = by_name[name]
    assert isinstance(c, Collective)
    assert (c.kind, c.num_bytes, c.groups.size) == (kind, num_bytes, size)
    assert (c.is_async, times) == (is_async, count)


def test_what_another_core_runs_ends_where_it_ends():
    computations = parse(TEXT).computations
    assert len(computations["on_sparsecore"].instructions) == 1
    assert len(computations["matmul"].instructions) == 4


def test_a_collective_carried_by_fusions_starts_once_and_ends_once():
    events = read(TEXT).events
    keys = [e.key for e in events if not isinstance(e, Compute | Loop | Collective)]
    assert keys.count("channel 20") == 2
    starts = [e for e in events if isinstance(e, Start)]
    assert len(starts) == len({s.key for s in starts})


SPARSE_CORE = """HloModule jit_step, is_scheduled=true

%called (p: bf16[2,128]) -> bf16[8,128] {
  %p = bf16[2,128]{1,0} parameter(0)
  ROOT %all-gather.1 = bf16[8,128]{1,0} all-gather(%p), replica_groups={{0,1,2,3}}, \
dimensions={0}, backend_config={"all_gather_offload_config":{"color_strategies":[\
{"phase_rings":[{"ring":"X"}]},{"phase_rings":[{"ring":"Y"}]}]}}
}, execution_thread="sparsecore"

ENTRY %main (a: bf16[2,128]) -> bf16[8,128] {
  %a = bf16[2,128]{1,0} parameter(0)
  %call-start.1 = ((bf16[2,128]{1,0}), bf16[8,128]{1,0}) call-start(%a), \
async_execution_thread="sparsecore", to_apply=%called
  ROOT %call-done.1 = bf16[8,128]{1,0} call-done(%call-start.1)
}
"""


NAMELESS = """HloModule jit_step, is_scheduled=true

%start (p: bf16[2,128]) -> (bf16[2,128], bf16[8,128]) {
  %p = bf16[2,128]{1,0} parameter(0)
  %all-gather.1 = bf16[8,128]{1,0} all-gather(%p), channel_id=7, \
replica_groups={{0,1,2,3}}, dimensions={0}
  %begin = bf16[8,128]{1,0} custom-call(%all-gather.1), \
custom_call_target="AsyncCollectiveStart"
  ROOT %tuple = (bf16[2,128]{1,0}, bf16[8,128]{1,0}) tuple(%p, %begin)
}

%done (p: bf16[8,128]) -> bf16[8,128] {
  %p = bf16[8,128]{1,0} parameter(0)
  %all-gather.2 = bf16[8,128]{1,0} all-gather(%p), channel_id=7, \
replica_groups={{0,1,2,3}}, dimensions={0}
  ROOT %end = bf16[8,128]{1,0} custom-call(%all-gather.2), \
custom_call_target="AsyncCollectiveDone"
}

ENTRY %main (a: bf16[2,128]) -> bf16[8,128] {
  %a = bf16[2,128]{1,0} parameter(0)
  %made = bf16[2,128]{1,0} negate(%a), metadata={op_name="made" stack_frame_id=2}
  %carried = (bf16[2,128]{1,0}, bf16[8,128]{1,0}) fusion(%made), calls=%start, \
metadata={op_name="a matmul beside it"}
  %part.0 = bf16[2,128]{1,0} get-tuple-element(%carried), index=0
  %other = bf16[2,128]{1,0} negate(%part.0), metadata={op_name="another"}
  %part.1 = bf16[8,128]{1,0} get-tuple-element(%carried), index=1
  %whole = bf16[8,128]{1,0} fusion(%part.1), calls=%done
  %read = bf16[8,128]{1,0} negate(%whole), metadata={op_name="reads" stack_frame_id=3}
  ROOT %all-reduce.1 = bf16[8,128]{1,0} all-reduce(%read), replica_groups={{0,1,2,3}}
}
"""


def test_a_collective_without_a_name_has_that_of_who_reads_or_made_its_array():
    gather, reduce = (e for _, e in read(NAMELESS).flat() if isinstance(e, Collective))
    assert (gather.kind, gather.op_name, gather.stack_frame) == (
        "all-gather",
        "reads",
        3,
    )
    assert (reduce.kind, reduce.op_name, reduce.stack_frame) == (
        "all-reduce",
        "reads",
        3,
    )


PREPARED = SPARSE_CORE.replace(
    """call-start(%a), \
async_execution_thread="sparsecore", to_apply=%called
  ROOT %call-done.1 = bf16[8,128]{1,0} call-done(%call-start.1)""",
    """custom-call-start(), \
async_execution_thread="sparsecore", called_computations={%called}
  %call-update.1 = ((bf16[2,128]{1,0}), bf16[8,128]{1,0}) \
custom-call-update(%call-start.1, %a)
  ROOT %call-done.1 = bf16[8,128]{1,0} custom-call-done(%call-update.1)""",
)


@pytest.mark.parametrize("text", [SPARSE_CORE, PREPARED])
def test_a_sparse_core_gathers_beside_the_core_on_the_rings_that_it_was_given(text):
    start, done = read(text).events
    assert isinstance(start, Start)
    assert isinstance(start.transfer, Collective)
    assert (start.transfer.kind, start.transfer.num_bytes) == ("all-gather", 2048)
    assert (start.transfer.is_async, start.transfer.rings) == (True, 2)
    assert done == Done(start.key)


def test_offloaded_data_is_a_copy_and_no_work_of_the_core(by_name):
    out, back = by_name["dynamic-update-slice-start"], by_name["dynamic-slice-start"]
    size = 2 * 64 * 128 * 2
    assert (out[1].num_bytes, out[1].to_host) == (size, True)
    assert (back[1].num_bytes, back[1].to_host) == (size, False)


def test_between_slices_a_send_leaves_and_the_recv_waits():
    text = """HloModule m
ENTRY %main (a: bf16[64,128]) -> bf16[64,128] {
  %a = bf16[64,128]{1,0} parameter(0)
  %token = token[] after-all()
  %send.1 = (bf16[64,128]{1,0}, u32[], token[]) send(%a, %token), channel_id=2, ATTR
  %recv.1 = (bf16[64,128]{1,0}, u32[], token[]) recv(%token), channel_id=1, ATTR
  %send-done.1 = token[] send-done(%send.1), channel_id=2
  %recv-done.1 = (bf16[64,128]{1,0}, token[]) recv-done(%recv.1), channel_id=1
  ROOT %out = bf16[64,128]{1,0} get-tuple-element(%recv-done.1), index=0
}
""".replace(
        "ATTR",
        'frontend_attributes={_xla_host_transfer_rendezvous="all-reduce.13_0"}',
    )
    start, done = read(text).events
    assert isinstance(start, Start)
    assert (start.key, start.transfer.kind) == (done.key, "all-reduce")
    assert start.transfer.over_dcn
    assert start.transfer.num_bytes == 64 * 128 * 2


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("replica_groups={{0,2},{1,3}}", ((0, 2), (1, 3))),
        ("replica_groups=[2,2]<=[4]", ((0, 1), (2, 3))),
        ("replica_groups=[2,2]<=[2,2]T(1,0)", ((0, 2), (1, 3))),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}", ((0, 2), (1, 3))),
        ("replica_groups=mesh['a'=2,'b'=2] {'b'}", ((0, 1), (2, 3))),
        (
            "replica_groups=mesh['a'=2,'b'=4], device_ids=([2,2,2]T(1,0,2)) {'a'}, x=1",
            ((0, 2), (1, 3), (4, 6), (5, 7)),
        ),
        ("replica_groups=mesh['a'=4], device_ids=([4]) {'a'}", ((0, 1, 2, 3),)),
        ("replica_groups=mesh['a'=4] {'a':(2)2}", ((0, 1), (2, 3))),
        ("replica_groups=mesh['a'=4] {'a':(1)2}", ((0, 2), (1, 3))),
        ("source_target_pairs={{0,1},{1,0}}", ((0, 1), (1, 0))),
        ("channel_id=3", ()),
    ],
)
def test_groups_in_every_spelling(text, groups):
    assert parse_groups(text).members == groups


def test_a_convolution_that_slides_into_padding_counts_what_meets_an_element():
    """How XLA:TPU writes [3, 64, 128] x [128, 8, 16]: the window slides over heads."""
    text = """HloModule m
ENTRY %main (a: bf16[3,64,128,1], b: bf16[128,8,16,1]) -> bf16[3,64,8,16] {
  %a = bf16[3,64,128,1]{3,2,1,0} parameter(0)
  %b = bf16[128,8,16,1]{3,2,1,0} parameter(1)
  ROOT %c = bf16[3,64,8,16]{3,2,1,0} convolution(%a, %b), WHERE
}
""".replace(
        "WHERE",
        "window={size=1x8 pad=0_0x7_7 rhs_reversal=0x1}, dim_labels=0bf1_i1o0->0b1f",
    )
    main = parse(text).computations["main"]
    assert matmul_flops(main.root, main) == 2 * 3 * 64 * 128 * 8 * 16


def test_a_real_program_of_this_jax_reads_to_its_own_operation_count():
    def step(w, x):
        return jax.lax.scan(lambda h, _: (jnp.tanh(h @ w), None), x, None, length=7)[0]

    w, x = jnp.zeros((32, 32)), jnp.zeros((16, 32))
    text = jax.jit(step).lower(w, x).compile().as_text()
    flops = sum(n * e.flops for n, e in read(text).flat() if isinstance(e, Compute))
    # XLA:CPU calls a library for a plain dot; only its own dots are visible.
    assert flops in (0.0, 7 * 2 * 16 * 32 * 32)


def test_text_that_is_not_hlo_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        read("hello")
