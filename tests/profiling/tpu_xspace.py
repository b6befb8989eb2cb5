# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A trace as a TPU writes it, made by hand: no TPU was there.

After openxla/xla's xplane.proto and the names in XProf's own sources: a plane a core
with its peaks, lines 'Steps', 'XLA Modules', 'XLA Ops', 'Async XLA Ops'; an operation's
metadata is its HLO text, with category, operations, bytes and program; programs as
'Hlo Proto' under /host:metadata. XProf's converters read it as a TPU's (test_trace.py).

A step of 1000 us, from its begin: a loop of two layers, 100 to 500, each 200: a matmul
fusion 120, an elementwise fusion 40, an all-gather-done 40 (waiting for an all-gather
that was on its way from the layer's begin); then an all-reduce 100, the update 150,
a copy from the host 50. Between them nothing: 0 to 100 and 800 to 1000.
"""

import pathlib

from profiling import xspace

US = 1_000_000  # picoseconds
STEP = 1000 * US
PROGRAM = 0xF00D_0000_0000_0007  # above 2**63: as a fingerprint may be

HLO = """HloModule jit_train_step, is_scheduled=true

%fused_dot (a: bf16[128,256], b: bf16[256,512]) -> bf16[128,512] {
  %a = bf16[128,256]{1,0} parameter(0)
  %b = bf16[256,512]{1,0} parameter(1)
  ROOT %dot.1 = bf16[128,512]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%fused_mul (c: bf16[128,512]) -> bf16[128,512] {
  %c = bf16[128,512]{1,0} parameter(0)
  ROOT %mul.1 = bf16[128,512]{1,0} multiply(%c, %c)
}

%body (p: (s32[], bf16[128,256], bf16[256,512])) -> (s32[], bf16[128,256], bf16[256,512]) {
  %p = (s32[], bf16[128,256]{1,0}, bf16[256,512]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = bf16[128,256]{1,0} get-tuple-element(%p), index=1
  %w = bf16[256,512]{1,0} get-tuple-element(%p), index=2
  %fusion.1 = bf16[128,512]{1,0} fusion(%x, %w), kind=kOutput, calls=%fused_dot, metadata={op_name="jit(train_step)/PHASE/while/body/closed_call/mlp/dot_general"}
  %fusion.2 = bf16[128,512]{1,0} fusion(%fusion.1), kind=kLoop, calls=%fused_mul, metadata={op_name="jit(train_step)/PHASE/while/body/closed_call/mlp/mul"}
  %all-gather-start.1 = (bf16[128,256]{1,0}, bf16[256,256]{1,0}) all-gather-start(%x), replica_groups={{0,1}}, dimensions={0}, metadata={op_name="jit(train_step)/PHASE/while/body/closed_call/attention/all_gather"}
  %all-gather-done.1 = bf16[256,256]{1,0} all-gather-done(%all-gather-start.1), metadata={op_name="jit(train_step)/PHASE/while/body/closed_call/attention/all_gather"}
  ROOT %out = (s32[], bf16[128,256]{1,0}, bf16[256,512]{1,0}) tuple(%i, %x, %w)
}

%condition (q: (s32[], bf16[128,256], bf16[256,512])) -> pred[] {
  %q = (s32[], bf16[128,256]{1,0}, bf16[256,512]{1,0}) parameter(0)
  %j = s32[] get-tuple-element(%q), index=0
  %n = s32[] constant(2)
  ROOT %lt = pred[] compare(%j, %n), direction=LT
}

%add (s: f32[], t: f32[]) -> f32[] {
  %s = f32[] parameter(0)
  %t = f32[] parameter(1)
  ROOT %sum = f32[] add(%s, %t)
}

ENTRY %main (start: (s32[], bf16[128,256], bf16[256,512]), g: f32[65536]) -> f32[65536] {
  %start = (s32[], bf16[128,256]{1,0}, bf16[256,512]{1,0}) parameter(0)
  %g = f32[65536]{0} parameter(1)
  %while.1 = (s32[], bf16[128,256]{1,0}, bf16[256,512]{1,0}) while(%start), condition=%condition, body=%body, metadata={op_name="jit(train_step)/PHASE/while"}, backend_config={"known_trip_count":{"n":"2"}}
  %all-reduce.1 = f32[65536]{0} all-reduce(%g), replica_groups={{0,1}}, to_apply=%add, metadata={op_name="jit(train_step)/transpose(jvp(loss))/add"}
  %copy.1 = f32[65536]{0} copy(%all-reduce.1), metadata={op_name="jit(train_step)/optimizer/device_put"}
  ROOT %update.1 = f32[65536]{0} add(%copy.1, %g), metadata={op_name="jit(train_step)/optimizer/add"}
}
"""  # noqa: E501

# name -> (category, operations, bytes)
OPS = {
    "while.1": ("while", 0, 0),
    "fusion.1": ("convolution fusion", 33_554_432, 458_752),
    "fusion.2": ("loop fusion", 65_536, 262_144),
    "all-gather-start.1": ("all-gather", 0, 0),
    "all-gather-done.1": ("all-gather", 0, 196_608),
    "all-reduce.1": ("all-reduce", 65_536, 524_288),
    "update.1": ("non-fusion elementwise", 65_536, 786_432),
    "copy.1": ("host recv", 0, 262_144),
}
SCHEDULE = [  # name, begin, end in microseconds of the step
    ("while.1", 100, 500),
    ("fusion.1", 100, 220),
    ("fusion.2", 220, 260),
    ("all-gather-done.1", 260, 300),
    ("fusion.1", 300, 420),
    ("fusion.2", 420, 460),
    ("all-gather-done.1", 460, 500),
    ("all-reduce.1", 500, 600),
    ("copy.1", 600, 650),
    ("update.1", 650, 800),
]
IN_FLIGHT = [("all-gather-start.1", 100, 300), ("all-gather-start.1", 300, 500)]


def module(phase: str = "jvp(stack)") -> bytes:
    """The program, serialised."""
    from jaxlib import _hlo

    made = _hlo.hlo_module_from_text(HLO.replace("PHASE", phase))
    return made.as_serialized_hlo_module_proto()


class Plane:
    """Names become numbers as they come up."""

    def __init__(self, space, name: str):
        self.plane = space.planes.add(id=len(space.planes), name=name)
        self._stats, self._events = {}, {}

    def stat(self, owner, name: str, value):
        number = self._stats.setdefault(name, len(self._stats) + 1)
        self.plane.stat_metadata[number].id = number
        self.plane.stat_metadata[number].name = name
        stat = owner.stats.add(metadata_id=number)
        kinds = {float: "double_value", int: "uint64_value", str: "str_value"}
        setattr(stat, kinds.get(type(value), "bytes_value"), value)

    def event(self, line, name: str, start: int, end: int, *, metadata=None, **stats):
        """`metadata` is called for a name's first event."""
        is_new = name not in self._events
        number = self._events.setdefault(name, len(self._events) + 1)
        about = self.plane.event_metadata[number]
        about.id, about.name = number, name
        if is_new and metadata:
            metadata(about)
        event = line.events.add(
            metadata_id=number, offset_ps=start, duration_ps=end - start
        )
        for key, value in stats.items():
            self.stat(event, key, value)

    def line(self, name: str):
        return self.plane.lines.add(
            id=len(self.plane.lines) + 1, name=name, timestamp_ns=1_000
        )


def _text(name: str) -> str:
    (line,) = [x for x in HLO.splitlines() if f"%{name} = " in x]
    return line.strip().removeprefix("ROOT ")


def write(
    file: pathlib.Path,
    *,
    num_steps: int = 3,
    num_cores: int = 2,
    phase: str = "jvp(stack)",
    waits: tuple[int, int] | None = None,
    slower: int = 1,
    with_program: bool = True,
) -> pathlib.Path:
    """`waits`: within each step the host waits for a batch then, in microseconds.
    `slower`: so many times as long as said above. The first step is cut in half."""
    space = xspace.schema().XSpace(hostnames=["host0"])
    metadata = Plane(space, "/host:metadata")
    if with_program:
        about = metadata.plane.event_metadata[7]
        about.id, about.name = 7, f"jit_train_step({PROGRAM})"
        proto, size = module(phase), b""
        left = len(proto)
        while left > 127:
            size += bytes([left & 127 | 128])
            left >>= 7
        metadata.stat(about, "Hlo Proto", b"\x0a" + size + bytes([left]) + proto)
        metadata.stat(about, "program_id", PROGRAM)
    for core in range(num_cores):
        _core(space, core, num_steps, slower)
    host = Plane(space, "/host:CPU")
    line = host.line("python")
    for step in range(num_steps):
        at = step * STEP * slower
        host.event(line, "train", at, at + 50 * US, step_num=10 + step)
        if waits:
            a, b = (at + t * US * slower for t in waits)
            host.event(line, "podium: wait for batch", a, b)
        a = at + 60 * US
        host.event(line, "podium: batch to devices", a, a + 4 * US, bytes=4_000_000)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(space.SerializeToString())
    return file


def _core(space, core: int, num_steps: int, slower: int) -> None:
    tpu = Plane(space, f"/device:TPU:{core}")
    tpu.stat(tpu.plane, "peak_teraflops_per_second", 197.0)
    tpu.stat(tpu.plane, "peak_hbm_bw_gigabytes_per_second", 819.0)
    tpu.stat(tpu.plane, "device_type_string", "TPU v5 lite")
    steps, modules = tpu.line("Steps"), tpu.line("XLA Modules")
    ops, beside = tpu.line("XLA Ops"), tpu.line("Async XLA Ops")

    def about(name: str):
        def fill(metadata):
            category, flops, num_bytes = OPS[name]
            metadata.display_name = name
            tpu.stat(metadata, "hlo_category", category)
            tpu.stat(metadata, "program_id", PROGRAM)
            tpu.stat(metadata, "symbol_id", list(OPS).index(name) + 1)
            if flops:
                tpu.stat(metadata, "flops", flops)
            if num_bytes:
                tpu.stat(metadata, "bytes_accessed", num_bytes)

        return fill

    for step in range(num_steps):
        at = step * STEP * slower
        first = 400 if step == 0 else 0  # what the trace saw of the step
        tpu.event(steps, str(10 + step), at, at + 800 * US * slower)
        tpu.event(
            *(modules, f"jit_train_step({PROGRAM})"),
            *(at + first * US * slower, at + 800 * US * slower),
            run_id=100 + step,
            program_id=PROGRAM,
        )
        for line, schedule in ((ops, SCHEDULE), (beside, IN_FLIGHT)):
            for name, a, b in schedule:
                if a >= first:
                    tpu.event(
                        *(line, _text(name)),
                        *(at + a * US * slower, at + b * US * slower),
                        metadata=about(name),
                    )
