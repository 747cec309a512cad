"""The small process between the kubelet and one container, which outlives the kubelet.

Run as `python -I -S shim.py RUNTIME_DIR`, with the standard library alone, it is a launcher: one
JSON request a line on standard input, and for each a forked, orphaned child that becomes the
shim of one container (`"op": "container"`) or holds one pod's namespaces (`"op": "sandbox"`).
Forking from a warm interpreter makes a start cost milliseconds, and the children share its memory.
The launcher ends with its standard input; its children do not.

A shim owns its container's directory: it reads `shim.json`, and writes `state.json` when the
container runs and `exit.json` when it has ended, each by rename. It keeps the logs in CRI's format
(`shim_log`) and serves who attaches (`shim_attach`).
SIGTERM: hand the stop signal on. SIGUSR1: kill everything. After each change it sends the
container's id to `events.sock` in RUNTIME_DIR, if anyone listens.

Every descendant of the container is the shim's to reap (it is a subreaper), and none outlives the
container's first process. An overlay is mounted in a mount namespace of the shim's own: when the
last process has ended the kernel has unmounted it, whatever died in between.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
import termios
import time
from typing import Any, NoReturn

if __name__ == "__main__":  # run by its path and isolated: our package is four directories up
    sys.path.append(__file__.rpartition("/k8slite/kubelet/runtime/")[0])

from k8slite.kubelet.runtime.shim_attach import Attachments
from k8slite.kubelet.runtime.shim_log import Log
from k8slite.kubelet.runtime.shim_streams import Streams, console_path, read_output

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWNET = 0x40000000
MS_REC = 0x4000
MS_SLAVE = 1 << 19
MNT_DETACH = 2
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
DRAIN_SECONDS = 2.0
ANNOUNCE_SECONDS = 1.0
LAG_SECONDS = 0.05  # how often output looks whether slow clients have caught up

libc = ctypes.CDLL(None, use_errno=True)


class Failure(Exception):
    """The start failed; the text is for users."""


def check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise Failure(f"{what}: {os.strerror(number)}")


def write_json(path: str, value: dict[str, Any]) -> None:
    temporary = f"{path}.tmp"
    with open(temporary, "w") as file:
        json.dump(value, file)
    os.rename(temporary, path)


def start_time(pid: int) -> int:
    """Clock ticks from boot to the process's start: with the pid an identity, never reused."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


# ---------------------------------------------------------------- starting


def exec_child(spec: dict[str, Any], streams: tuple[int, int, int], failed: int) -> NoReturn:
    """In the forked child: become the command. What goes wrong is told through `failed`."""
    doing = "start"
    try:
        if spec.get("die_with_shim", True):
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.setsid()
        for target, source in enumerate(streams):
            os.dup2(source, target)
        if spec.get("tty") and "oci" not in spec:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number in (
            signal.SIGTERM,
            signal.SIGUSR1,
            signal.SIGCHLD,
            signal.SIGPIPE,
            signal.SIGINT,
        ):
            signal.signal(number, signal.SIG_DFL)
        if spec.get("groups") is not None:
            os.setgroups(spec["groups"])
        if spec.get("gid") is not None:
            os.setgid(spec["gid"])
        if spec.get("uid") is not None:
            os.setuid(spec["uid"])
        os.umask(0o022)
        doing = f"chdir to {spec['cwd']!r}"
        os.chdir(spec["cwd"])
        doing = "exec"
        os.execvpe(spec["argv"][0], spec["argv"], spec["env"])
    except OSError as error:
        name = spec["argv"][0]
        if doing == "exec" and isinstance(error, FileNotFoundError) and "/" not in name:
            text = f'exec: "{name}": executable file not found in $PATH'
        elif doing == "exec":
            text = f'exec: "{name}": {str(error.strerror).lower()}'
        else:
            text = f"{doing}: {error.strerror}"
        os.write(failed, f"unable to start container process: {text}".encode())
    os._exit(128)


def spawn(spec: dict[str, Any], streams: tuple[int, int, int]) -> int:
    """Fork and exec with these standard streams; the child's pid. Raises Failure."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        exec_child(spec, streams, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        problem = pipe.read()
    if problem:
        os.waitpid(pid, 0)
        raise Failure(problem.decode(errors="replace"))
    return pid


def mount(source: str, target: str, kind: str, flags: int, options: str) -> None:
    check(
        libc.mount(source.encode(), target.encode(), kind.encode(), flags, options.encode()),
        f"mount {kind or 'change'} on {target}",
    )


def prepare_mounts(spec: dict[str, Any]) -> None:
    """A mount namespace of our own, and in it the container's root."""
    check(libc.unshare(CLONE_NEWNS), "unshare the mount namespace")
    mount("none", "/", "", MS_REC | MS_SLAVE, "")
    for path in spec.get("unmount", ()):
        libc.umount2(path.encode(), MNT_DETACH)
    overlay = spec["overlay"]
    options = f"lowerdir={overlay['lower']},upperdir={overlay['upper']},workdir={overlay['work']}"
    mount("overlay", overlay["target"], "overlay", 0, options)


def start_oci(spec: dict[str, Any], streams: tuple[int, int, int]) -> int:
    """Create and start by the OCI runtime; the pid of the container's first process."""
    prepare_mounts(spec)
    oci = spec["oci"]
    command = {"cwd": spec["dir"], "env": oci["env"], "die_with_shim": False}
    create = list(oci["create"])
    if spec.get("tty"):  # by way of our working directory: a socket's path must be short
        path = f"/proc/{os.getpid()}/cwd/{console_path(spec)}"
        create[-1:] = ["--console-socket", path, create[-1]]
    for argv in (create, oci["start"]):
        pid = spawn({**command, "argv": argv}, streams)
        _, status = os.waitpid(pid, 0)
        if status != 0:
            raise Failure(oci_error(oci["log"]) or f"{argv[0]} failed with status {status}")
    with open(oci["pid_file"]) as file:
        return int(file.read())


def oci_error(path: str) -> str:
    """The last error in the OCI runtime's own log (JSON lines)."""
    text = ""
    try:
        with open(path) as file:
            for line in file:
                record = json.loads(line)
                if record.get("level") == "error":
                    text = record["msg"]
    except (OSError, ValueError, KeyError):
        return text
    return text


# ---------------------------------------------------------------- watching over it


class Shim:
    """One container, from start to exit."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.pid = 0
        self.status: int | None = None

    def run(self, reply: Any) -> None:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        wake_reader, wake_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake_writer)
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        log = Log(self.spec["log_path"], self.spec["log_size_max"], self.spec["log_files_max"])
        started = time.time()
        poll = select.poll()
        try:
            streams = Streams(self.spec)
            start = start_oci if "oci" in self.spec else spawn
            self.pid = start(self.spec, streams.given)
            streams.started(self.spec)
            attached = Attachments(
                f"containers/{self.spec['id']}/attach.sock",
                poll,
                stdin=streams.stdin,
                stdin_once=bool(self.spec.get("stdin_once")),
                terminal=streams.terminal,
            )
        except (Failure, OSError) as failure:
            self.kill_all()
            self.delete()
            self.finish(
                started, {"exit_code": 128, "reason": "StartError", "message": str(failure)}
            )
            reply({"error": str(failure)})
            return
        write_json(
            f"{self.spec['dir']}/state.json",
            {
                "shim": os.getpid(),
                "shim_start": start_time(os.getpid()),
                "pid": self.pid,
                "started_at": started,
            },
        )
        reply({"pid": self.pid})
        self.watch(wake_reader, streams.outputs, log, poll, attached)
        self.finish(started, self.verdict())
        attached.finish()

    def watch(
        self,
        wake: int,
        streams: dict[int, str],
        log: Log,
        poll: select.poll,
        attached: Attachments,
    ) -> None:
        """Pump the output and obey signals until the container has ended and its pipes are dry."""
        for fd in (wake, *streams):
            poll.register(fd, select.POLLIN)
        deadline: float | None = None
        held = False
        self.reap()
        while streams or self.status is None:
            if self.status is not None and deadline is None:
                self.kill_all()
                deadline = time.monotonic() + DRAIN_SECONDS
            if attached.lags() is not held:
                held = not held
                for fd in streams:
                    if held:
                        poll.unregister(fd)
                    else:
                        poll.register(fd, select.POLLIN)
                if deadline is not None:
                    deadline = time.monotonic() + DRAIN_SECONDS
            wait = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            ready = poll.poll(LAG_SECONDS * 1000 if held else wait)
            if not ready and deadline is not None and not held:
                break
            for fd, events in ready:
                if fd == wake:
                    self.obey(os.read(wake, 512))
                elif attached.owns(fd):
                    attached.ready(fd, events)
                elif fd in streams:  # else of a client who was dropped since the poll
                    data = read_output(fd)
                    if data:
                        log.feed(streams[fd], data)
                        attached.feed(streams[fd], data)
                    elif data is not None:
                        poll.unregister(fd)
                        log.end(streams.pop(fd))
        for stream in ("stdout", "stderr"):
            log.end(stream)

    def obey(self, signals: bytes) -> None:
        for number in signals:
            if number == signal.SIGCHLD:
                self.reap()
            elif self.status is not None:
                continue
            elif number == signal.SIGTERM:
                self.send(self.spec.get("stop_signal", signal.SIGTERM))
            elif number == signal.SIGUSR1:
                self.send(signal.SIGKILL)

    def send(self, number: int) -> None:
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            self.reap()

    def reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.pid:
                self.status = status

    def kill_all(self) -> None:
        """Kill whatever descends from us. Orphans come to us, so a few rounds find them all."""
        for _ in range(100):
            found = False
            try:
                with open(f"/proc/self/task/{os.getpid()}/children") as file:
                    children = [int(pid) for pid in file.read().split()]
            except FileNotFoundError:
                return
            for pid in children:
                found = True
                try:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                except (ProcessLookupError, ChildProcessError):
                    continue
            if not found:
                return

    def verdict(self) -> dict[str, Any]:
        assert self.status is not None, "watch returns only after the exit"
        if os.WIFSIGNALED(self.status):
            number = os.WTERMSIG(self.status)
            result: dict[str, Any] = {"exit_code": 128 + number, "signal": number}
        else:
            result = {"exit_code": os.WEXITSTATUS(self.status), "signal": 0}
        if result["exit_code"] == 137 and self.out_of_memory():
            result["reason"] = "OOMKilled"
        self.delete()
        return result

    def out_of_memory(self) -> bool:
        for path in self.spec.get("oom_files", ()):
            try:
                with open(path) as file:
                    words = dict(line.split() for line in file if len(line.split()) == 2)
            except OSError:
                continue
            if int(words.get("oom_kill", 0)) > 0:
                return True
        return False

    def delete(self) -> None:
        if "oci" in self.spec:
            null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
            oci = self.spec["oci"]
            command = {"cwd": self.spec["dir"], "env": oci["env"], "argv": oci["delete"]}
            try:
                os.waitpid(spawn(command, (null, null, null)), 0)
            except (Failure, ChildProcessError):
                return

    def finish(self, started: float, result: dict[str, Any]) -> None:
        result.update(started_at=started, finished_at=time.time())
        write_json(f"{self.spec['dir']}/exit.json", result)
        announce(self.spec["id"])


def announce(container_id: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(ANNOUNCE_SECONDS)  # the queue of such a socket is short
        try:
            sock.sendto(container_id.encode(), "events.sock")
        except OSError:
            return  # nobody listens; who comes later reads exit.json


def hold_namespaces(spec: dict[str, Any], reply: Any) -> None:
    """Be the process that a pod's network, IPC and UTS namespaces belong to."""
    try:
        flags = CLONE_NEWUTS
        flags |= 0 if spec["host_ipc"] else CLONE_NEWIPC
        flags |= 0 if spec["host_network"] else CLONE_NEWNET
        check(libc.unshare(flags), "unshare the pod's namespaces")
        socket.sethostname(spec["hostname"])
        if not spec["host_network"]:
            bring_loopback_up()
        for name, value in spec["sysctls"]:
            with open("/proc/sys/" + name.replace(".", "/"), "w") as file:
                file.write(value)
    except (Failure, OSError) as failure:
        reply({"error": str(failure)})
        return
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    pid = os.getpid()
    write_json(f"{spec['dir']}/state.json", {"pid": pid, "start": start_time(pid)})
    reply({"pid": pid})
    while True:
        signal.pause()


def bring_loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh", b"lo", 0)
        answer = fcntl.ioctl(sock, SIOCGIFFLAGS, request)
        flags = struct.unpack("16sh", answer)[1]
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh", b"lo", flags | IFF_UP))


# ---------------------------------------------------------------- the launcher


def become(request: dict[str, Any]) -> NoReturn:
    """In the orphaned grandchild: answer on standard output, let go of it, and do the work."""

    def reply(answer: dict[str, Any]) -> None:
        line = json.dumps({"ticket": request["ticket"], **answer}).encode() + b"\n"
        with contextlib.suppress(BrokenPipeError):  # the kubelet died: state.json tells the next
            os.write(1, line)
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)

    os.setsid()
    with open(f"{request['dir']}/shim.json") as file:
        spec = json.load(file)
    if request["op"] == "sandbox":
        hold_namespaces(spec, reply)
    else:
        Shim(spec).run(reply)
    os._exit(0)


def launch(request: dict[str, Any]) -> None:
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            become(request)
        os._exit(0)
    os.waitpid(child, 0)


def main() -> None:
    os.chdir(sys.argv[1])
    os.write(1, b'{"ticket": 0}\n')
    for line in sys.stdin.buffer:
        launch(json.loads(line))


if __name__ == "__main__":
    main()
