"""The first process of a test cluster's namespaces: starts the control plane and the pod runner, and stops them when its input closes.

Started by session.py as `python -m cluster.host STATE_FOLDER` inside new process, network and mount namespaces. It reads
`STATE_FOLDER/config.json`, prints one line of JSON when the cluster is ready (or cannot be), and runs until its standard input ends or
SIGTERM comes. Being process 1 of its namespace, its end, however it comes, is the end of every process of the cluster.
"""

import asyncio
import collections.abc
import contextlib
import json
import logging
import os
import pathlib
import signal
import sys
import time
import typing

from . import credentials
from .binaries import Binaries
from .control_plane import ControlPlane, StartError, components
from .pod_runner import addresses, network, nodes
from .pod_runner.api import Api
from .pod_runner.runner import Runner

log = logging.getLogger("host")
REAP_SECONDS = 1.0
SETTLE_SECONDS = 30.0


async def main(folder: pathlib.Path) -> int:
    """Bring the cluster up, wait, take it down."""
    config = json.loads((folder / "config.json").read_text())
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_reader(sys.stdin.fileno(), lambda: stop.set() if not os.read(sys.stdin.fileno(), 4096) else None)
    reaper = asyncio.ensure_future(_reap())
    try:
        async with contextlib.AsyncExitStack() as stack:
            ready = await _start(folder, config, stack)
            print(json.dumps(ready), flush=True)
            await stop.wait()
    except (StartError, network.NetworkError, TimeoutError) as error:
        print(json.dumps({"error": str(error) or "the controllers did not settle"}), flush=True)
        return 1
    finally:
        reaper.cancel()
    return 0


async def _start(
    folder: pathlib.Path, config: dict[str, typing.Any], stack: contextlib.AsyncExitStack
) -> dict[str, typing.Any]:
    begin = time.monotonic()
    await network.set_up_host()
    (folder / "secret").mkdir()
    (folder / "logs").mkdir()
    made = await asyncio.to_thread(credentials.create, folder / "secret")
    binaries = Binaries({name: pathlib.Path(path) for name, path in config["binaries"].items()})
    plane = ControlPlane(components(binaries, made, folder), folder / "logs", made.ca_certificate)
    stack.push_async_callback(plane.stop)
    await plane.start()
    ready = {"kubeconfig": str(made.kubeconfig("admin")), "started_after": plane.started_after}
    if not binaries.missing:
        token = made.tokens["pod-runner"]
        api = Api.connect(addresses.API_SERVER_URL, token=token, ca_certificate=str(made.ca_certificate))
        stack.push_async_callback(api.close)
        images_file = folder / "images.json"
        runner = Runner(api, folder=folder, images_file=images_file, back_off_seconds=config["back_off_seconds"])
        stack.push_async_callback(runner.stop)
        await runner.start([nodes.NodeSpec(**row) for row in config["nodes"]])
        await _settled(api)
    return {**ready, "seconds": round(time.monotonic() - begin, 2)}


async def _settled(api: Api) -> None:
    """Wait until a pod could be made and placed: there is a service account for it, and nodes lost their first taint."""
    async with asyncio.timeout(SETTLE_SECONDS):
        while True:
            accounts = await api.call("GET", "/api/v1/namespaces/default/serviceaccounts")
            listed = await api.call("GET", "/api/v1/nodes")
            taints = [taint["key"] for node in listed["items"] for taint in node["spec"].get("taints") or []]
            if accounts["items"] and "node.kubernetes.io/not-ready" not in taints:
                return
            await asyncio.sleep(0.05)


async def _reap() -> None:
    """Collect orphans, which process 1 inherits. Our own children are asyncio's to collect, and it does so at once: whoever is found
    dead twice in a row is an orphan.
    """
    seen: set[int] = set()
    while True:
        await asyncio.sleep(REAP_SECONDS)
        dead = set(_zombies())
        for pid in dead & seen:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        seen = dead


def _zombies() -> collections.abc.Iterator[int]:
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid, _, rest = path.read_text().partition(" (")
            state, parent = rest.rpartition(") ")[2].split()[:2]
            if (state, parent) == ("Z", "1"):
                yield int(pid)


if __name__ == "__main__":
    state = pathlib.Path(sys.argv[1])
    logging.basicConfig(
        filename=state / "host.log", level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    sys.exit(asyncio.run(main(state)))
