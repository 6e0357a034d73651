"""What the CPU can do and may be used for, read from texts of other machines."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from ferplus_tvm.host import cpu

Files = Callable[[dict[str, str]], None]

ZEN_3 = """\
processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC 7763 64-Core Processor
flags\t\t: fpu sse sse2 ht syscall nx pni ssse3 fma cx16 sse4_1 sse4_2 movbe popcnt avx f16c abm \
sse4a bmi1 avx2 bmi2 rdseed adx sha_ni vaes vpclmulqdq
vmx flags\t: avx512f
bugs\t\t: sysret_ss_attrs

processor\t: 1
flags\t\t: fpu
"""
ZEN_3_LLVM = """
sse sse2 sse3 ssse3 sse4.1 sse4.2 popcnt avx avx2 fma f16c bmi bmi2 lzcnt movbe adx vaes vpclmulqdq
"""
SAPPHIRE_RAPIDS = """\
model name : Intel(R) Xeon(R) Platinum 8481C
flags : avx512f avx512dq avx512ifma avx512cd avx512bw avx512vl avx_vnni avx512_bf16 avx512vbmi \
avx512_vbmi2 gfni avx512_vnni avx512_bitalg avx512_vpopcntdq avx512_fp16 amx_tile
"""
SAPPHIRE_RAPIDS_LLVM = """
avx512f avx512dq avx512ifma avx512cd avx512bw avx512vl avxvnni avx512bf16 avx512vbmi avx512vbmi2
gfni avx512vnni avx512bitalg avx512vpopcntdq avx512fp16
"""
GRAVITON_3 = """\
processor\t: 0
BogoMIPS\t: 2100.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt \
fcma lrcpc dcpop sha3 sm3 sm4 asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs paca pacg \
dcpodp svei8mm svebf16 i8mm bf16 dgh rng
CPU implementer\t: 0x41
"""


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Files:
    """Return a function that puts texts in place of all files that are read."""

    def put(texts: dict[str, str]) -> None:
        monkeypatch.setattr(cpu, "_read", lambda path: texts.get(Path(path).as_posix(), ""))

    return put


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Return a function that sets the system and machine that Python reports."""

    def be(system: str, machine: str) -> None:
        monkeypatch.setattr(sys, "platform", system)
        monkeypatch.setattr(platform, "machine", lambda: machine)
        cpu.features.cache_clear()

    yield be
    monkeypatch.undo()
    cpu.features.cache_clear()


@pytest.mark.parametrize(
    ("said", "arch"),
    [
        ("x86_64", "x86_64"),
        ("AMD64", "x86_64"),
        ("arm64", "aarch64"),
        ("ARM64", "aarch64"),
        ("aarch64", "aarch64"),
        ("riscv64", "riscv64"),
    ],
)
def test_architectures_have_llvms_names(
    machine: Callable[[str, str], None], said: str, arch: str
) -> None:
    machine("linux", said)
    assert cpu.architecture() == arch


@pytest.mark.parametrize(
    ("said", "system"), [("linux", "linux"), ("darwin", "darwin"), ("win32", "windows")]
)
def test_systems_have_plain_names(
    machine: Callable[[str, str], None], said: str, system: str
) -> None:
    machine(said, "x86_64")
    assert cpu.system() == system


def test_features_of_an_x86_have_llvms_names(
    files: Files, machine: Callable[[str, str], None]
) -> None:
    machine("linux", "x86_64")
    files({"/proc/cpuinfo": ZEN_3})
    assert cpu.features() == set(ZEN_3_LLVM.split())


def test_avx512_features_have_llvms_names(
    files: Files, machine: Callable[[str, str], None]
) -> None:
    machine("linux", "x86_64")
    files({"/proc/cpuinfo": SAPPHIRE_RAPIDS})
    assert cpu.features() == set(SAPPHIRE_RAPIDS_LLVM.split())


def test_features_of_an_arm_have_llvms_names(
    files: Files, machine: Callable[[str, str], None]
) -> None:
    machine("linux", "aarch64")
    files({"/proc/cpuinfo": GRAVITON_3})
    assert cpu.features() == {"neon", "crc", "lse", "fullfp16", "dotprod", "sve", "i8mm", "bf16"}


@pytest.mark.parametrize("text", ["", "flags", "processor : 0\n", "flags :\n"])
def test_a_cpu_that_says_nothing_has_no_features(
    files: Files, machine: Callable[[str, str], None], text: str
) -> None:
    machine("linux", "x86_64")
    files({"/proc/cpuinfo": text})
    assert cpu.features() == frozenset()


def test_a_mac_is_asked_by_sysctl(
    monkeypatch: pytest.MonkeyPatch, machine: Callable[[str, str], None]
) -> None:
    machine("darwin", "arm64")
    has = {"hw.optional.arm.FEAT_DotProd": "1\n", "hw.optional.arm.FEAT_BF16": "0\n"}
    monkeypatch.setattr(
        subprocess, "run", lambda command, **_: SimpleNamespace(stdout=has.get(command[-1], ""))
    )
    assert cpu.features() == {"neon", "crc", "lse", "dotprod"}


@pytest.mark.parametrize(
    "detected",
    [
        {"SSE41": True, "FMA3": True, "AVX2": True, "AVX512F": False},  # numpy before 2.4
        {"SSE41": True, "FMA3": True, "AVX2": True, "BMI": True, "BMI2": True, "LZCNT": True,
         "MOVBE": True, "X86_V3": True, "AVX512F": False},
    ],
)  # fmt: skip
def test_windows_asks_numpy_whatever_its_version(
    monkeypatch: pytest.MonkeyPatch,
    machine: Callable[[str, str], None],
    detected: dict[str, bool],
) -> None:
    machine("win32", "AMD64")
    monkeypatch.setattr(
        cpu.importlib, "import_module", lambda name: SimpleNamespace(__cpu_features__=detected)
    )
    assert cpu.features() == {"sse4.1", "fma", "avx2", "bmi", "bmi2", "lzcnt", "movbe"}


@pytest.mark.skipif(sys.platform != "linux", reason="compares with /proc/cpuinfo")
def test_numpy_and_the_kernel_agree_about_this_cpu() -> None:
    seen_by_numpy = cpu._numpy_features() & cpu.known_features(cpu.architecture())
    assert seen_by_numpy
    assert seen_by_numpy <= cpu.features()


def test_the_name_is_the_marketing_name(
    files: Files, monkeypatch: pytest.MonkeyPatch, machine: Callable[[str, str], None]
) -> None:
    files({"/proc/cpuinfo": ZEN_3})
    assert cpu.name() == "AMD EPYC 7763 64-Core Processor"
    files({"/proc/cpuinfo": GRAVITON_3})
    machine("linux", "aarch64")
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert cpu.name() == "aarch64"


V2 = "/sys/fs/cgroup"
V1 = "/sys/fs/cgroup/cpu,cpuacct"


@pytest.mark.parametrize(
    ("texts", "quota"),
    [
        ({}, None),
        ({"/proc/self/cgroup": "0::/\n"}, None),
        ({"/proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "max 100000\n"}, None),
        ({"/proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "250000 100000\n"}, 2.5),
        ({"/proc/self/cgroup": "0::/a/b\n", f"{V2}/a/b/cpu.max": "50000 100000"}, 0.5),
        # a parent's limit binds too, wherever the smallest is
        (
            {
                "/proc/self/cgroup": "0::/pod/app\n",
                f"{V2}/pod/app/cpu.max": "max 100000",
                f"{V2}/pod/cpu.max": "300000 100000",
                f"{V2}/cpu.max": "800000 100000",
            },
            3,
        ),
        (
            {
                "/proc/self/cgroup": "12:memory:/x\n4:cpu,cpuacct:/docker/1\n1:name=systemd:/\n",
                f"{V1}/docker/1/cpu.cfs_quota_us": "150000\n",
                f"{V1}/docker/1/cpu.cfs_period_us": "50000\n",
            },
            3,
        ),
        # -1 is version 1's word for no limit; in a container the group's own folder is the root
        (
            {
                "/proc/self/cgroup": "4:cpu,cpuacct:/docker/1\n",
                f"{V1}/docker/1/cpu.cfs_quota_us": "-1\n",
                f"{V1}/docker/1/cpu.cfs_period_us": "100000\n",
                f"{V1}/cpu.cfs_quota_us": "200000\n",
                f"{V1}/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        (
            {
                "/proc/self/cgroup": "4:cpuset:/docker/1\n",
                "/sys/fs/cgroup/cpuset/cpu.cfs_quota_us": "100000",
                "/sys/fs/cgroup/cpuset/cpu.cfs_period_us": "100000",
            },
            None,
        ),
        ({"/proc/self/cgroup": "nonsense\n\n0::\n", f"{V2}/cpu.max": "garbage"}, None),
        (
            {"/proc/self/cgroup": "0::/../../other\n", f"{V2}/other/cpu.max": "100000 100000"},
            1,
        ),
    ],
)
def test_cgroup_quotas(files: Files, texts: dict[str, str], quota: float | None) -> None:
    files(texts)
    assert cpu.cgroup_quota() == quota


@pytest.mark.parametrize(
    ("mask", "limit", "threads"),
    [
        ({0, 1, 2, 3}, None, 4),
        ({5}, None, 1),
        ({3, 7, 9}, "200000 100000", 2),
        ({0, 1, 2, 3}, "250000 100000", 2),
        ({0, 1, 2, 3}, "50000 100000", 1),
        ({0, 1}, "6400000 100000", 2),
    ],
)
def test_the_default_is_as_many_threads_as_affinity_and_quota_keep_busy(
    files: Files,
    monkeypatch: pytest.MonkeyPatch,
    mask: set[int],
    limit: str | None,
    threads: int,
) -> None:
    files({"/proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": limit or ""})
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: mask, raising=False)
    assert cpu.allowed() == sorted(mask)
    assert cpu.default_threads() == threads


def test_without_affinity_all_cpus_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert cpu.allowed() == [0, 1, 2]
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cpu.allowed() == [0]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_a_process_sees_its_own_affinity() -> None:
    one = min(os.sched_getaffinity(0))
    script = (
        f"import os; os.sched_setaffinity(0, [{one}]); from ferplus_tvm.host import cpu; "
        "print(cpu.allowed(), cpu.default_threads())"
    )
    package_parent = str(Path(cpu.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": package_parent},
    )
    assert done.stdout.split() == [f"[{one}]", "1"], done.stderr
