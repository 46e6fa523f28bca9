"""Take from this process everything that decoding does not need (Linux; elsewhere only limits).

After `confine`, the process can compute, allocate memory, and read and write the pipes that it has
open. It cannot open, connect, execute, fork, signal or trace anything: Landlock without a rule
denies files and TCP, and a seccomp allow-list denies every other system call. What the kernel lacks
is left out and reported, so that the caller decides.

Written with ctypes, because no maintained package does both without a library of the system:
docs/decisions.md.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
import sys
from collections.abc import Callable, Collection
from enum import IntFlag

CPU_S = 3600
"""CPU time of a decoder. An honest one that reaches it is replaced."""
_SPARE_BYTES = 256_000_000
"""Address space above the libraries and the budget: allocators reserve more than they use."""

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38


class Layer(IntFlag):
    """The layers of the confinement."""

    LIMITS = 1
    NOT_DUMPABLE = 2
    NO_NEW_PRIVILEGES = 4
    LANDLOCK = 8
    SECCOMP = 16


_NEEDS = {
    Layer.LIMITS: "resource limits for memory, files and processes",
    Layer.NOT_DUMPABLE: "PR_SET_DUMPABLE (Linux)",
    Layer.NO_NEW_PRIVILEGES: "PR_SET_NO_NEW_PRIVS (Linux)",
    Layer.LANDLOCK: "Landlock (Linux 5.13 or newer with landlock in its list of security modules, "
    "permitted by the container)",
    Layer.SECCOMP: "seccomp filters (Linux on x86-64 or ARM64, permitted by the container)",
}


def describe_missing(layers: Layer) -> str:
    """What the kernel or the container lacks, for people; empty if nothing is missing."""
    return "; ".join(text for layer, text in _NEEDS.items() if layer not in layers)


def protect_memory() -> None:
    """Keep what this process holds from the disk and from other processes of the same user.

    A core limit of 0 does not stop the kernel from piping a core to a program; not being dumpable
    does. A process that this one starts with exec is dumpable again.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _control_process(_PR_SET_DUMPABLE, 0)


def confine(descriptors: Collection[int], memory_bytes: int) -> Layer:
    """Give up everything but the open `descriptors` and `memory_bytes` of new memory.

    Returns the layers that are in force. Call it in a process with a single thread; it cannot be
    undone.
    """
    _close_others(descriptors)
    address_space = _measure_address_space() + memory_bytes + _SPARE_BYTES
    if sys.platform == "linux":
        _control_process(_PR_SET_PDEATHSIG, signal.SIGKILL)
    steps: tuple[tuple[Layer, Callable[[], bool]], ...] = (
        (Layer.NOT_DUMPABLE, lambda: _control_process(_PR_SET_DUMPABLE, 0)),
        (Layer.NO_NEW_PRIVILEGES, lambda: _control_process(_PR_SET_NO_NEW_PRIVS, 1)),
        (Layer.LANDLOCK, _deny_files_and_network),
        # After Landlock, which needs a descriptor for its ruleset.
        (Layer.LIMITS, lambda: _limit_resources(address_space)),
        (Layer.SECCOMP, _filter_system_calls),
    )
    layers = Layer(0)
    for layer, is_applied in steps:
        if is_applied():
            layers |= layer
    return layers


def _close_others(descriptors: Collection[int]) -> None:
    start = 0
    for descriptor in sorted(descriptors):
        os.closerange(start, descriptor)
        start = descriptor + 1
    os.closerange(start, os.sysconf("SC_OPEN_MAX"))


def _limit_resources(address_space: int) -> bool:
    limits = {
        resource.RLIMIT_AS: address_space,
        resource.RLIMIT_CPU: CPU_S,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_NOFILE: 0,
    }
    is_complete = True
    for kind, limit in limits.items():
        _, hard = resource.getrlimit(kind)
        value = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        try:
            resource.setrlimit(kind, (value, value))
        except (OSError, ValueError):
            is_complete = False
    return is_complete


def _measure_address_space() -> int:
    try:
        with open("/proc/self/statm") as file:  # noqa: PTH123
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not Linux
        return 4 << 30


# ---------------------------------------------------------------- calls of the kernel


def _call(number: int, *arguments: object) -> int:
    """A system call by number; -1 if it fails."""
    return int(ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *arguments))


def _control_process(option: int, value: int) -> bool:
    if sys.platform != "linux":
        return False
    zero = ctypes.c_ulong(0)
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero)) == 0


# ---------------------------------------------------------------- Landlock

_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446  # alike on all architectures
_CREATE_RULESET_VERSION = 1
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
"""How many rights of files each version of Landlock knows."""
_BIND_AND_CONNECT_TCP, _NETWORK_SINCE = 0b11, 4
_SOCKETS_AND_SIGNALS, _SCOPES_SINCE = 0b11, 6


def _deny_files_and_network() -> bool:
    """Handle every right that this kernel knows, and allow none."""
    if sys.platform != "linux":
        return False
    version = _call(
        _LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(_CREATE_RULESET_VERSION)
    )
    if version < 1:
        return False
    rights = max(count for since, count in _FILE_RIGHTS.items() if since <= version)
    handled = [(1 << rights) - 1]
    if version >= _NETWORK_SINCE:
        handled.append(_BIND_AND_CONNECT_TCP)
    if version >= _SCOPES_SINCE:
        handled.append(_SOCKETS_AND_SIGNALS)
    attributes = struct.pack(f"={len(handled)}Q", *handled)
    ruleset = _call(
        _LANDLOCK_CREATE_RULESET,
        attributes,
        ctypes.c_size_t(len(attributes)),
        ctypes.c_uint(0),
    )
    if ruleset < 0:
        return False
    is_restricted = _call(_LANDLOCK_RESTRICT_SELF, ruleset, ctypes.c_uint(0)) == 0
    os.close(ruleset)
    return is_restricted


# ---------------------------------------------------------------- seccomp

# The allowed calls with their numbers on x86-64 and on ARM64. None of them takes a path, makes a
# descriptor, or names another process.
_CALLS = {
    "mmap": (9, 222), "mprotect": (10, 226),
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "close": (3, 57),
    "munmap": (11, 215), "brk": (12, 214), "mremap": (25, 216), "madvise": (28, 233),
    "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "restart_syscall": (219, 128),
    "sched_yield": (24, 124), "futex": (202, 98), "rseq": (334, 293), "membarrier": (324, 283),
    "getpid": (39, 172), "gettid": (186, 178), "getcpu": (309, 168), "getrandom": (318, 278),
    "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "clock_gettime": (228, 113),
    "gettimeofday": (96, 169), "exit": (60, 93), "exit_group": (231, 94),
}  # fmt: skip
_MEMORY_CALLS = ("mmap", "mprotect")  # without the right to execute
_MACHINES = {"x86_64": (0, 0xC000_003E, 317), "aarch64": (1, 0xC000_00B7, 277)}
"""The column of `_CALLS`, the audit architecture, and the number of seccomp."""
_SET_MODE_FILTER, _ON_ALL_THREADS = 1, 1
_KILL, _ALLOW, _DENY = 0x8000_0000, 0x7FFF_0000, 0x0005_0001  # _DENY: error 1, EPERM
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _MACHINE_AT, _PROTECTION_AT = 0, 4, 32  # offsets in struct seccomp_data
_OTHER_NUMBERING = 0x4000_0000  # calls of the x32 variant of x86-64
_PROT_EXEC = 4


def build_filter(machine: int, calls: dict[str, int]) -> bytes:
    """The BPF program of the allow-list: instructions of code, jumps and a constant."""
    steps = [
        (_LOAD, 0, 0, _MACHINE_AT),
        (_IF_EQUAL, 1, 0, machine),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_IF_AT_LEAST, 0, 1, _OTHER_NUMBERING),
        (_RETURN, 0, 0, _DENY),
    ]
    for name, number in calls.items():
        if name in _MEMORY_CALLS:
            steps += [
                (_IF_EQUAL, 0, 4, number),
                (_LOAD, 0, 0, _PROTECTION_AT),
                (_IF_ANY_BIT, 0, 1, _PROT_EXEC),
                (_RETURN, 0, 0, _DENY),
                (_RETURN, 0, 0, _ALLOW),
            ]
        else:
            steps += [(_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    steps.append((_RETURN, 0, 0, _DENY))
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


class _Program(ctypes.Structure):
    """struct sock_fprog of <linux/filter.h>."""

    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def _filter_system_calls() -> bool:
    machine = _MACHINES.get(platform.machine()) if sys.platform == "linux" else None
    if machine is None or sys.maxsize <= 2**32:
        return False
    column, audit, seccomp = machine
    steps = build_filter(audit, {name: numbers[column] for name, numbers in _CALLS.items()})
    program = _Program(len(steps) // 8, steps)
    mode, flags = ctypes.c_uint(_SET_MODE_FILTER), ctypes.c_uint(_ON_ALL_THREADS)
    return _call(seccomp, mode, flags, ctypes.byref(program)) == 0
