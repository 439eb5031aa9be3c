#!/usr/bin/python
# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Ansible module: does every NVIDIA GPU compute, and correctly?"""

from __future__ import annotations

DOCUMENTATION = r"""
module: cuda_check
short_description: Let every NVIDIA GPU compute something and check the result
version_added: 0.2.0
description:
  - Runs a small program on each GPU through the driver's own interface (C(libcuda.so.1)) and compares its result with
    what it must be. Needs nothing but the driver, and no root.
  - A driver that is listed, loaded and answers C(nvidia-smi) may still not compute; this fails then, and says why.
author:
  - The faceswap-oci maintainers
options:
  gpus:
    description: How many GPUs there must be at least.
    type: int
    default: 1
  timeout_s:
    description: After how many seconds without a result a GPU counts as broken.
    type: int
    default: 120
attributes:
  check_mode:
    description: Changes nothing in any mode; computes in all.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
  idempotent:
    description: Changes nothing.
    support: full
"""

EXAMPLES = r"""
- name: Let every GPU compute
  faceswap.ops.cuda_check:
    gpus: 2
"""

RETURN = r"""
cards:
  description: The GPUs, each of which computed correctly.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      type: str
      description: Its name.
      sample: NVIDIA A10
    compute_capability:
      type: str
      description: What its processors can do, as NVIDIA numbers it.
      sample: "8.6"
    memory_mb:
      type: int
      description: Its memory in MiB.
      sample: 22724
compute_capability:
  description: The lowest of all GPUs, for which programs must be built.
  returned: success
  type: str
  sample: "8.6"
cuda_version:
  description: The newest CUDA that the driver supports.
  returned: success
  type: str
  sample: "13.0"
elements:
  description: How many results each GPU had to get right.
  returned: success
  type: int
  sample: 4096
busy:
  description: Whether it failed just because other programs have the GPU or its memory.
  returned: failure
  type: bool
"""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

from ansible.module_utils.basic import AnsibleModule

ELEMENTS = 4096
ROUNDS = 64
KILLED_S = 5  # for which a killed process is waited for: one that hangs in the kernel does not end
BLOCK = 128  # threads of a block
# One step of the generator x -> x * 1664525 + 1013904223 modulo 2**32 (Numerical Recipes): whole numbers, so the
# result is right or wrong, whatever the card.
MULTIPLIER, INCREMENT = 1664525, 1013904223

# PTX, the driver's assembly, which it translates for the card it meets: version and target are old enough for each
# from Maxwell on. Thread i takes element i through ROUNDS steps.
PTX = f"""
.version 6.0
.target sm_50
.address_size 64

.visible .entry faceswap_check(.param .u64 data, .param .u32 count, .param .u32 rounds)
{{
    .reg .pred %p<3>;
    .reg .b32 %r<9>;
    .reg .b64 %rd<5>;

    ld.param.u64 %rd1, [data];
    ld.param.u32 %r1, [count];
    ld.param.u32 %r2, [rounds];
    mov.u32 %r3, %ctaid.x;
    mov.u32 %r4, %ntid.x;
    mov.u32 %r5, %tid.x;
    mad.lo.u32 %r6, %r3, %r4, %r5;
    setp.ge.u32 %p1, %r6, %r1;
    @%p1 bra finished;
    cvta.to.global.u64 %rd2, %rd1;
    mul.wide.u32 %rd3, %r6, 4;
    add.u64 %rd4, %rd2, %rd3;
    ld.global.u32 %r7, [%rd4];
    mov.u32 %r8, 0;
step:
    setp.ge.u32 %p2, %r8, %r2;
    @%p2 bra write;
    mad.lo.u32 %r7, %r7, {MULTIPLIER}, {INCREMENT};
    add.u32 %r8, %r8, 1;
    bra step;
write:
    st.global.u32 [%rd4], %r7;
finished:
    ret;
}}
"""

CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR (cuda.h)

# What to do about the failures that have a usual cause (CUresult of cuda.h).
REMEDIES = {
    2: "other programs fill the card's memory: nvidia-smi there lists them; run the same again when they are done",
    46: "another program has the card for itself: nvidia-smi there lists it; run the same again when it is done",
    100: "the driver finds no card it supports: the branch or the flavour may be the wrong one for the card",
    101: "the card is there for graphics alone, or hidden from this process",
    222: "the driver is older than this test's PTX",
    802: "the cards are not ready yet: those behind NVSwitches need the service nvidia-fabricmanager",
    803: "the library and the loaded kernel modules are of two versions: reboot the host",
    999: "the module nvidia-uvm may not be loaded: reboot the host and look at the kernel's messages",
}


BUSY = (2, 46)


class CudaError(Exception):
    """A GPU does not compute; the text is one sentence. `busy`: for now, as other programs use it."""

    def __init__(self, text: str, busy: bool = False) -> None:
        super().__init__(text)
        self.busy = busy


def expected(value: int) -> int:
    """Return what the GPU must make of an element."""
    for _ in range(ROUNDS):
        value = (value * MULTIPLIER + INCREMENT) & 0xFFFFFFFF
    return value


class Cuda:
    """The driver's interface: each call that fails is a CudaError."""

    def __init__(self, library: str = "libcuda.so.1") -> None:
        try:
            self.library = ctypes.CDLL(library)
        except OSError as error:
            raise CudaError(f"The driver's library cannot be loaded ({error}): install the driver.") from error

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the library.

        Raises CudaError if it is not there or returns anything but success.
        """
        try:
            code = getattr(self.library, name)(*arguments)
        except AttributeError as error:
            raise CudaError(f"The driver's library has no {name}: it is too old.") from error
        if code:
            text = ctypes.c_char_p()
            known = self.library.cuGetErrorName(code, ctypes.byref(text)) == 0 and text.value
            meaning = text.value.decode() if known and text.value else "an unknown error"
            remedy = REMEDIES.get(code, "look at the kernel's messages for lines with NVRM or Xid")
            raise CudaError(f"{name} failed with {meaning} ({code}): {remedy}.", code in BUSY)

    @contextlib.contextmanager
    def finally_call(self, name: str, *arguments: Any) -> Iterator[None]:
        """Call a function in the end; what failed before is the better reason then."""
        try:
            yield
        except CudaError:
            with contextlib.suppress(CudaError):
                self.call(name, *arguments)
            raise
        self.call(name, *arguments)

    def integer(self, name: str, *arguments: Any) -> int:
        """Return the number that a function writes to its first argument."""
        number = ctypes.c_int()
        self.call(name, ctypes.byref(number), *arguments)
        return number.value


def compute(cuda: Cuda) -> list[int]:
    """Return what the GPU of the current context makes of the numbers from 0 to ELEMENTS."""
    module, function, data = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_uint64()
    numbers = (ctypes.c_uint32 * ELEMENTS)(*range(ELEMENTS))
    size = ctypes.c_size_t(ctypes.sizeof(numbers))
    cuda.call("cuModuleLoadData", ctypes.byref(module), PTX.encode())
    with cuda.finally_call("cuModuleUnload", module):
        cuda.call("cuModuleGetFunction", ctypes.byref(function), module, b"faceswap_check")
        cuda.call("cuMemAlloc_v2", ctypes.byref(data), size)
        with cuda.finally_call("cuMemFree_v2", data):
            cuda.call("cuMemcpyHtoD_v2", data, numbers, size)
            values = (data, ctypes.c_uint32(ELEMENTS), ctypes.c_uint32(ROUNDS))
            pointers = (ctypes.c_void_p * len(values))(*[ctypes.addressof(value) for value in values])
            blocks = -(-ELEMENTS // BLOCK)
            cuda.call("cuLaunchKernel", function, blocks, 1, 1, BLOCK, 1, 1, 0, None, pointers, None)
            cuda.call("cuCtxSynchronize")
            cuda.call("cuMemcpyDtoH_v2", numbers, data, size)
    return list(numbers)


def check_card(cuda: Cuda, index: int) -> dict[str, Any]:
    """Return the description of a GPU that computed correctly, or raise CudaError."""
    device, context = cuda.integer("cuDeviceGet", index), ctypes.c_void_p()
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
    cuda.call("cuDeviceGetName", name, len(name), device)
    cuda.call("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    major, minor = (
        cuda.integer("cuDeviceGetAttribute", number, device) for number in (CAPABILITY_MAJOR, CAPABILITY_MINOR)
    )
    cuda.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    with cuda.finally_call("cuDevicePrimaryCtxRelease_v2", device):
        cuda.call("cuCtxSetCurrent", context)
        found = compute(cuda)
    wrong = [i for i in range(ELEMENTS) if found[i] != expected(i)]
    title = name.value.decode()
    if wrong:
        raise CudaError(
            f"GPU {index} ({title}) computes wrongly: {len(wrong)} of {ELEMENTS} results, the first for {wrong[0]}, "
            f"which became {found[wrong[0]]} and not {expected(wrong[0])}: do not use this card."
        )
    return {
        "name": title,
        "compute_capability": f"{major}.{minor}",
        "memory_mb": memory.value // 2**20,
    }


def check(library: str, gpus: int) -> dict[str, Any]:
    """Return the description of all GPUs, or raise CudaError."""
    cuda = Cuda(library)
    cuda.call("cuInit", 0)
    version, count = cuda.integer("cuDriverGetVersion"), cuda.integer("cuDeviceGetCount")
    if count < gpus:
        raise CudaError(
            f"The driver shows {count} of {gpus} GPUs: look at the kernel's messages for lines with NVRM."
        )
    cards = [check_card(cuda, index) for index in range(count)]
    return {
        "cards": cards,
        "compute_capability": min(
            (card["compute_capability"] for card in cards),
            key=lambda text: [int(part) for part in text.split(".")],
        ),
        "cuda_version": f"{version // 1000}.{version % 1000 // 10}",  # 12040 is 12.4
        "elements": ELEMENTS,
    }


def work(sender: Connection, library: str, gpus: int) -> None:
    """Send the check's result, or the sentence of what failed and whether that is for now."""
    # Ansible waits until nobody has the module's output open any more, and this process may not end.
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nothing, stream)
    try:
        sender.send(check(library, gpus))
    except CudaError as error:
        sender.send((str(error), error.busy))


def check_apart(library: str, gpus: int, timeout_s: float) -> dict[str, Any]:
    """Check in a process of its own, so that a driver that hangs or crashes is a CudaError too."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(sender, library, gpus))
    process.start()
    sender.close()
    try:
        if not receiver.poll(timeout_s):
            raise CudaError(
                f"The driver gave no result within {timeout_s:g} s: look at the kernel's messages and reboot the "
                "host."
            )
        result: dict[str, Any] | tuple[str, bool] = receiver.recv()
    except EOFError as error:
        process.join(KILLED_S)
        code = process.exitcode or 0
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        raise CudaError(f"The driver's library broke down (its process {how}): reboot the host.") from error
    finally:
        process.kill()
        process.join(KILLED_S)
    if isinstance(result, tuple):
        raise CudaError(*result)
    return result


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "gpus": {"type": "int", "default": 1},
            "timeout_s": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    try:
        result = check_apart("libcuda.so.1", module.params["gpus"], module.params["timeout_s"])
    except CudaError as error:
        try:
            module.fail_json(msg=str(error), busy=error.busy)
        finally:
            if multiprocessing.active_children():  # one that cannot be killed, for which Python would wait now
                sys.stdout.flush()
                os._exit(1)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
