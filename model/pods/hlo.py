"""Reads a compiled program's text: what one device computes and sends in one run.

XLA's own totals count the body of a loop once, and T5's blocks are the bodies of loops. So the
text of the program is walked from its entry, loops times their trips.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Sequence

import numpy as np

_BYTES = {
    "pred": 1, "s4": 1, "u4": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2,
    "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "c128": 16,
    "f8e4m3fn": 1, "f8e5m2": 1, "token": 0,
}  # fmt: skip

_COLLECTIVES = (
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Collective:
    """One exchange between devices, and how often a run does it."""

    kind: str  #: "all-reduce", "all-gather", "reduce-scatter", "all-to-all" or another
    #: Of the result on one device; of the operand for a reduce-scatter: the larger of both ends.
    num_bytes: int
    group: tuple[int, ...]  #: positions in the mesh of the devices that exchange; the first group
    overlaps: bool  #: whether the program computes meanwhile
    times: float


@dataclasses.dataclass(frozen=True)
class ProgramCost:
    """Of one device in one run."""

    flops: float  #: of matrix products, kernels of other makers not counted
    #: That XLA expects the device to work, each instruction as long as its arithmetic or its
    #: memory traffic takes; exchanges are left out.
    cycles: float
    collectives: tuple[Collective, ...]

    def plus(self, other: "ProgramCost", times: float = 1.0) -> "ProgramCost":
        """Return the cost of this and so many runs of another."""
        return ProgramCost(
            self.flops + other.flops * times,
            self.cycles + other.cycles * times,
            self.collectives
            + tuple(dataclasses.replace(c, times=c.times * times) for c in other.collectives),
        )


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str  #: all that follows the operands


def program_cost(text: str, devices: int) -> ProgramCost:
    """Add up the cost of a program.

    Args:
      text: ``jax.stages.Compiled.as_text()``.
      devices: that run it together.

    Raises:
      ValueError: the text is not that of a compiled program.
    """
    program = _Program(text, devices)
    return program.cost(program.entry)


class _Program:
    def __init__(self, text: str, devices: int) -> None:
        self._devices = devices
        self._computations: dict[str, dict[str, _Instruction]] = {}
        entry = None
        current: dict[str, _Instruction] = {}
        for line in text.splitlines():
            header = _HEADER.match(line)
            if header:
                current = self._computations[header["name"]] = {}
                if header["entry"]:
                    entry = header["name"]
            elif line.startswith("  "):
                instruction = _instruction(line)
                if instruction is not None:
                    current[instruction.name] = instruction
        if entry is None:
            raise ValueError("no ENTRY in the program's text: pass what Compiled.as_text() gives")
        self.entry: str = entry

    def cost(self, name: str) -> ProgramCost:
        """Return the sums over the instructions of a computation, unless it is fused."""
        total = ProgramCost(0.0, 0.0, ())
        seen: set[str] = set()  # an exchange in pieces has one channel
        for instruction in self._computations[name].values():
            opcode = instruction.opcode
            if opcode == "while":
                trips = self._trips(instruction)
                for called in (_called(instruction, "body"), _called(instruction, "condition")):
                    total = total.plus(self.cost(called), trips)
            elif opcode == "call":
                total = total.plus(self.cost(_called(instruction, "to_apply")))
            elif opcode == "conditional":
                # One branch runs; which one is unknown, so the most expensive one is counted.
                branches = [self.cost(branch) for branch in _branches(instruction)]
                total = total.plus(max(branches, key=lambda branch: branch.cycles))
            else:
                cycles = _CYCLES.search(instruction.attributes)
                one = ProgramCost(
                    sum(map(self._flops_of_product, self._inside(instruction, name))),
                    float(cycles[1]) if cycles else 0.0,
                    tuple(self._exchanges(instruction, name, seen)),
                )
                total = total.plus(one)
        return total

    def _inside(self, instruction: _Instruction, name: str) -> Iterator[tuple[_Instruction, str]]:
        """Yield the instruction and all that are fused into it, with their computations' names."""
        yield instruction, name
        called = _CALLS.search(instruction.attributes)
        if called:
            for inner in self._computations[called[1]].values():
                yield from self._inside(inner, called[1])

    def _exchanges(
        self, instruction: _Instruction, name: str, seen: set[str]
    ) -> Iterator[Collective]:
        for inner, inner_name in self._inside(instruction, name):
            started = inner.opcode.endswith("-start")
            kind = inner.opcode.removesuffix("-start")
            if kind not in _COLLECTIVES:
                continue
            channel = _CHANNEL.search(inner.attributes)
            key = channel[1] if channel else inner.name
            if key in seen:
                continue
            seen.add(key)
            operands = self._operand_types(inner, inner_name)
            # An async start's type holds its operands too.
            ends = [sum(map(_size_of, operands))] + ([] if started else [_size_of(inner.type)])
            if started:
                ends.append(_size_of(inner.type) - ends[0])
            yield Collective(
                kind,
                max(ends),
                first_group(inner.attributes, self._devices),
                overlaps=started or inner is not instruction,
                times=1.0,
            )

    def _operand_types(self, instruction: _Instruction, name: str) -> list[str]:
        scope = self._computations[name]
        return [scope[operand].type for operand in instruction.operands if operand in scope]

    def _trips(self, loop: _Instruction) -> float:
        """Return how often the body runs: as XLA notes it, or the constant in the condition."""
        noted = _TRIPS.search(loop.attributes)
        if noted:
            return float(noted[1])
        condition = self._computations[_called(loop, "condition")]
        constants = [
            int(each.operands[0])
            for each in condition.values()
            if each.opcode == "constant" and re.fullmatch(r"\d+", each.operands[0])
        ]
        # A loop whose end depends on its results has none, or several; T5's have one.
        return math.ceil(constants[0] / self._stride(loop)) if len(constants) == 1 else 1.0

    def _stride(self, loop: _Instruction) -> int:
        """Return the step of the counter: two if XLA has joined two iterations."""
        condition = self._computations[_called(loop, "condition")]
        body = self._computations[_called(loop, "body")]
        compared = [each for each in condition.values() if each.opcode == "compare"]
        counter = condition.get(compared[0].operands[0]) if compared else None
        place = _INDEX.search(counter.attributes) if counter is not None else None
        *_, result = body.values()
        if place is None or int(place[1]) >= len(result.operands):
            return 1
        grown = body.get(result.operands[int(place[1])])
        if grown is None or grown.opcode != "add":
            return 1
        steps = [
            int(body[each].operands[0])
            for each in grown.operands
            if each in body and body[each].opcode == "constant" and body[each].operands[0].isdigit()
        ]
        return steps[0] if steps and steps[0] > 0 else 1

    def _flops_of_product(self, located: tuple[_Instruction, str]) -> float:
        instruction, name = located
        if instruction.opcode not in ("dot", "convolution"):
            return 0.0
        left, right = (_dims(each) for each in self._operand_types(instruction, name)[:2])
        out = _dims(instruction.type)
        if instruction.opcode == "dot":
            contracted = _LEFT_CONTRACTED.search(instruction.attributes)
            depth = math.prod(left[int(axis)] for axis in contracted[1].split(",") if axis) \
                if contracted else 1  # fmt: skip
            return 2.0 * math.prod(out) * depth
        labels = _LABELS.search(instruction.attributes)
        if labels is None:
            return 0.0
        of_left, of_kernel, of_out = labels.groups()
        window = _WINDOW.search(instruction.attributes)
        spatial = sorted(letter for letter in of_kernel if letter.isdigit())
        products = 1
        for number, letter in enumerate(spatial):
            products *= window_products(
                left[of_left.index(letter)],
                out[of_out.index(letter)],
                _window_of(window[1] if window else "", number),
            )
        depth = right[of_kernel.index("i")]
        plane = out[of_out.index("b")] * out[of_out.index("f")]
        return 2.0 * plane * depth * products


@dataclasses.dataclass(frozen=True)
class _Window:
    size: int = 1
    stride: int = 1
    pad_low: int = 0
    input_dilation: int = 1
    kernel_dilation: int = 1


_WINDOW_FIELDS = {
    "size": "size", "stride": "stride", "pad": "pad_low", "lhs_dilate": "input_dilation",
    "rhs_dilate": "kernel_dilation",
}  # fmt: skip


def _window_of(text: str, number: int) -> _Window:
    """Return one dimension of ``size=16x8 stride=15x7 pad=0_0x3_3 lhs_dilate=16x8``."""
    fields = dict(part.split("=", 1) for part in text.split())
    return _Window(
        **{
            ours: int(fields[name].split("x")[number].split("_")[0])
            for name, ours in _WINDOW_FIELDS.items()
            if name in fields
        }
    )


@functools.lru_cache(maxsize=4096)
def window_products(size_in: int, size_out: int, window: _Window) -> int:
    """Return how often a kernel's element meets an element of the input, along one dimension.

    XLA writes products of many small matrices as convolutions whose windows mostly meet padding
    or holes; these cost nothing and are not counted.
    """
    out = np.arange(size_out, dtype=np.int64)[:, None] * window.stride
    kernel = np.arange(window.size, dtype=np.int64)[None, :] * window.kernel_dilation
    place = out + kernel - window.pad_low
    inside = (place >= 0) & (place <= (size_in - 1) * window.input_dilation)
    return int(np.count_nonzero(inside & (place % window.input_dilation == 0)))


def first_group(attributes: str, devices: int) -> tuple[int, ...]:
    """Return the first of the groups of devices that exchange among themselves.

    Reads the three notations of XLA. Without any, all devices: the most expensive case.

    >>> first_group("replica_groups={{0,2},{1,3}}", 4), first_group("replica_groups=[2,2]<=[4]", 4)
    ((0, 2), (0, 1))
    >>> first_group("replica_groups=[2,2]<=[2,2]T(1,0)", 4)
    (0, 2)
    >>> first_group("replica_groups=mesh['a'=2,'b'=2] {'a'}", 4)
    (0, 2)
    >>> first_group("source_target_pairs={{0,1},{1,2},{2,3},{3,0}}", 4)
    (0, 1)
    """
    listed = re.search(r"(?:replica_groups|source_target_pairs)=\{\{([\d,]+)\}", attributes)
    if listed:
        return tuple(int(number) for number in listed[1].split(","))
    strided = re.search(
        r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes
    )
    if strided:
        sizes = [int(size) for size in strided[3].split(",")]
        order = [int(axis) for axis in strided[4].split(",")] if strided[4] else range(len(sizes))
        numbers = np.arange(math.prod(sizes)).reshape(sizes).transpose(order)
        return tuple(numbers.reshape(-1)[: int(strided[2])].tolist())
    named = re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", attributes)
    if named:
        axes = dict(re.findall(r"'([^']+)'=(\d+)", named[1]))
        together = re.findall(r"'([^']+)'", named[2])
        if set(together) <= set(axes) and ":" not in named[2]:
            numbers = np.arange(math.prod(map(int, axes.values())))
            grid = numbers.reshape([int(size) for size in axes.values()])
            picked = tuple(slice(None) if axis in together else 0 for axis in axes)
            return tuple(grid[picked].reshape(-1).tolist())
    return tuple(range(devices))


_HEADER = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) \(.*\{$")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_CALLS = re.compile(r"\bcalls=%?([\w.\-]+)")
_CHANNEL = re.compile(r"\bchannel_id=(\d+)")
_INDEX = re.compile(r"\bindex=(\d+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_LEFT_CONTRACTED = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")
_LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")
_WINDOW = re.compile(r"window=\{([^}]*)\}")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
_OPERAND = re.compile(r"%([\w.\-]+)")


def _instruction(line: str) -> _Instruction | None:
    """Parse ``  ROOT %name = TYPE opcode(operands), attributes``; None for anything else."""
    left, equals, right = line.partition(" = ")
    if not equals:
        return None
    name = left.split()[-1].removeprefix("%")
    end = _closing(right, 0) + 1 if right.startswith("(") else right.find(" ")
    kind, rest = right[:end], right[end:].lstrip()
    opcode, bracket, _ = rest.partition("(")
    if not bracket:
        return None
    close = _closing(rest, len(opcode))
    inside = rest[len(opcode) + 1 : close]
    operands = _OPERAND.findall(inside) or [inside]
    return _Instruction(name, kind, opcode, tuple(operands), rest[close + 1 :])


def _closing(text: str, start: int) -> int:
    """Return the position of the bracket that closes the one at ``start``."""
    depth = 0
    for bracket in _BRACKETS.finditer(text, start):
        depth += 1 if bracket[0] == "(" else -1
        if depth == 0:
            return bracket.start()
    return len(text)


_BRACKETS = re.compile(r"[()]")


def _called(instruction: _Instruction, what: str) -> str:
    found = re.search(rf"\b{what}=%?([\w.\-]+)", instruction.attributes)
    if found is None:
        raise ValueError(f"{instruction.opcode} {instruction.name} names no {what}")
    return found[1]


def _branches(instruction: _Instruction) -> Sequence[str]:
    listed = re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes)
    if listed:
        return _OPERAND.findall(listed[1])
    return [_called(instruction, "true_computation"), _called(instruction, "false_computation")]


def _dims(text: str) -> list[int]:
    """Return the dimensions of the first array of a type.

    >>> _dims("bf16[16,512]{1,0:T(8,128)(2,1)}")
    [16, 512]
    """
    found = _ARRAY.search(text)
    return [int(size) for size in found[2].split(",") if size] if found else []


def _size_of(text: str) -> int:
    """Return the bytes of all arrays of a type, without padding of their layout.

    >>> _size_of("(f32[2,3]{1,0:T(8,128)}, /*index=1*/s32[]{:T(256)})")
    28
    """
    return sum(
        _BYTES.get(kind, 4) * math.prod(int(size) for size in sizes.split(",") if size)
        for kind, sizes in _ARRAY.findall(text)
    )
