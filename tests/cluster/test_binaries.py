"""Where the control plane's programs come from, in which order, and what is said when there are none."""

import os
import pathlib

import pytest

from . import binaries, external

PATH = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/root")}
ALL = (*binaries.API_SERVER, *binaries.CONTROLLERS)


def folder_with(folder: pathlib.Path, *names: str) -> pathlib.Path:
    """Make a folder with executables of these names."""
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def cache(tmp_path: pathlib.Path) -> dict[str, str]:
    """An environment whose cache is empty, and with no other source."""
    return {**PATH, "TRIMTAB_CACHE": str(tmp_path / "cache")}


def built(cache: dict[str, str]) -> pathlib.Path:
    """Return the folder that build.sh uses with this cache."""
    with pytest.raises(binaries.UnavailableError):
        binaries.find(cache)
    return binaries._go_build(cache)


def test_the_go_build_in_the_cache_is_found_and_complete(cache: dict[str, str]) -> None:
    folder = folder_with(built(cache), *ALL)
    found = binaries.find(cache)
    assert found.paths == {name: folder / name for name in ALL}
    assert found.missing == ()


def test_the_cache_goes_by_the_versions_in_go_mod(cache: dict[str, str]) -> None:
    assert built(cache).name.startswith("v1.36.3-etcd-v3.6.8-")
    assert str(built(cache)).startswith(cache["TRIMTAB_CACHE"])


def test_kubebuilder_assets_come_first_and_say_what_they_lack(cache: dict[str, str], tmp_path: pathlib.Path) -> None:
    assets = folder_with(tmp_path / "assets", *binaries.API_SERVER)
    found = binaries.find({**cache, "KUBEBUILDER_ASSETS": str(assets)})
    assert found["etcd"] == str(assets / "etcd")
    assert found.missing == ("kube-controller-manager", "kube-scheduler")


def test_the_go_build_fills_up_kubebuilder_assets(cache: dict[str, str], tmp_path: pathlib.Path) -> None:
    assets = folder_with(tmp_path / "assets", *binaries.API_SERVER)
    folder = folder_with(built(cache), *ALL)
    found = binaries.find({**cache, "KUBEBUILDER_ASSETS": str(assets)})
    assert found["kube-apiserver"] == str(assets / "kube-apiserver")
    assert found["kube-scheduler"] == str(folder / "kube-scheduler")
    assert found.missing == ()


def test_nothing_anywhere_names_the_way_out(cache: dict[str, str]) -> None:
    with pytest.raises(
        binaries.UnavailableError, match=r"no etcd, kube-apiserver.*run scripts/control_plane/build\.sh"
    ):
        binaries.find(cache)


def test_a_folder_without_programs_is_refused_by_name(cache: dict[str, str], tmp_path: pathlib.Path) -> None:
    with pytest.raises(binaries.UnavailableError, match=f"KUBEBUILDER_ASSETS={tmp_path} holds no etcd"):
        binaries.find({**cache, "KUBEBUILDER_ASSETS": str(tmp_path)})


def test_a_build_without_go_says_what_to_install(
    cache: dict[str, str], tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("bash", "awk", "sha256sum", "cut", "cat", "dirname"):
        path = next(
            pathlib.Path(folder, tool) for folder in PATH["PATH"].split(":") if pathlib.Path(folder, tool).exists()
        )
        (tools / tool).symlink_to(path)
    with pytest.raises(binaries.UnavailableError, match=r"build\.sh failed with exit code 2"):
        binaries.find({**cache, "PATH": str(tools), "TRIMTAB_BUILD_CONTROL_PLANE": "1"})
    assert "Go is not on PATH; install Go 1.26 or newer" in capfd.readouterr().err


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(binaries.UnavailableError, match=r"TRIMTAB_TEST_KUBECONFIG=.*nowhere is not a file"):
        external.ExternalCluster(tmp_path, tmp_path / "nowhere")
