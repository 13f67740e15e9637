"""Ray's processes for tests: forks of one process that has imported what they need: 2 to 9 s of CPU each.

Ray starts a worker by running `py_executable` of its runtime environment with a script and arguments. Here that is this
file, which hands both, with its environment, folder and open files, to a server whose fork runs the script. Processes
of other jobs (submitted ones, drivers that tests start, and their workers) start as users' do.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys

PRELOADED = (
    "learner.algorithm_config",
    "learner.module",
    "rollout_workers.runner",
    "reward_service.actor",
    "addiffusion.backbones.stable_diffusion",
    "addiffusion.scorers.embedded",
)
THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""Pools of threads would be missing in every fork."""
END_S = 60.0


class ForkServer:
    """The server as a process; ends with ``stop``, or with the process that has started it."""

    def __init__(self, path: str, root: str) -> None:
        """Choose the socket's path; ``root`` is where `tests` lies. Nothing is started yet."""
        self._path, self._root = path, root
        self.executable = shlex.join([sys.executable, "-I", "-S", __file__, path])
        """The `py_executable` of its clients."""

    def start(self) -> None:
        """Return when it listens. Ray must have started: its library reads once what a worker's environment holds."""
        import subprocess  # noqa: PLC0415 - what a client does not need, it does not import

        import ray  # noqa: PLC0415

        raylet = ray._private.worker._global_node.all_processes["raylet"][0].process
        job = {"RAY_JOB_ID": ray.get_runtime_context().get_job_id(), "RAY_RAYLET_PID": str(raylet.pid)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.forked_workers", self._path],
            cwd=self._root,
            env=os.environ | THREADS | job,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the tests
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline(), "what Ray's processes need can't be imported"

    def stop(self) -> None:
        """Forks that still run are left to Ray, which ends them."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=END_S)


def main(path: str, *command: str) -> None:
    """With a command, have a fork run it and wait for its end; without, serve."""
    if command:
        ask(path, command)
    else:
        serve(path)


def ask(path: str, command: tuple[str, ...]) -> None:
    request = json.dumps(
        {"command": command, "folder": os.path.realpath("."), "environment": dict(os.environ)}
    ).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        socket.send_fds(connection, [len(request).to_bytes(4, "big")], [0, 1, 2])
        connection.sendall(request)
        connection.recv(1)  # nothing comes: the fork's end closes the other side


def serve(path: str) -> None:
    """Import, then fork for each client, until the standard input ends."""
    import gc  # noqa: PLC0415 - as all that clients do not need
    import selectors  # noqa: PLC0415
    import signal  # noqa: PLC0415
    from importlib import import_module  # noqa: PLC0415

    for name in PRELOADED:
        import_module(name)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # forks are nobody's business but Ray's
    with socket.socket(socket.AF_UNIX) as server, selectors.DefaultSelector() as waiting:
        server.bind(path)
        server.listen(64)
        print("listens", flush=True)
        waiting.register(server, selectors.EVENT_READ)
        waiting.register(0, selectors.EVENT_READ)
        while not any(key.fd == 0 for key, _ in waiting.select()):
            connection, _ = server.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.setpgid(0, 0)  # as Ray's own processes: it ends whole groups
                server.close()
                break
            connection.close()
        else:
            os._exit(0)  # without a word about what libraries leave behind
    run(connection)


def run(connection: socket.socket) -> None:
    """Become what the client was started as."""
    import runpy  # noqa: PLC0415

    size, files, _, _ = socket.recv_fds(connection, 4, 3)
    request = json.loads(connection.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL))
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = request["command"]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
