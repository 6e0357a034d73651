"""Cameras by number or name: how each system has FFmpeg open them, and why one cannot be opened."""

from __future__ import annotations

import errno
import glob
import os
import re
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from ferplus_tvm.errors import InputError, one_line
from ferplus_tvm.videos.opening import import_av, without_password

# FFmpeg's name of the system's cameras.
_FORMATS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}


@dataclass(frozen=True)
class Listed:
    """A camera of this machine.

    Attributes
    ----------
    number
        The one that names it: on Linux that of ``/dev/videoN``, elsewhere its place in the list.
    file
        What FFmpeg opens.
    name
        What its maker calls it.
    """

    number: int
    file: str
    name: str

    def __str__(self) -> str:
        return f"{self.number} ({self.name})"


@dataclass(frozen=True)
class Device:
    """What is to be opened.

    Attributes
    ----------
    file, format
        Those of ``av.open``.
    name
        What messages call it.
    attempts
        Options of ``av.open``, to be tried in turn.
    camera
        Whether it is a camera of this machine, and no stream.
    """

    file: str
    format: str | None
    name: str
    attempts: tuple[dict[str, str], ...]
    camera: bool = True


def list_cameras() -> list[Listed]:
    """Return the cameras of this machine that may be opened, in the order of their numbers."""
    av = import_av()
    try:
        found = av.enumerate_input_devices(_FORMATS.get(sys.platform, ""))
    except (ValueError, av.FFmpegError):  # a build of FFmpeg without cameras
        return []
    # Video4Linux names no kinds, and lists cameras alone.
    found = [each for each in found if not each.media_types or "video" in each.media_types]
    listed = []
    for place, each in enumerate(found):
        if sys.platform == "linux":
            number = re.fullmatch(r"/dev/video(\d+)", each.name)
            if number:
                listed.append(Listed(int(number[1]), each.name, each.description))
        elif sys.platform == "win32":
            listed.append(Listed(place, f"video={each.name}", each.description))
        else:
            listed.append(Listed(int(each.name), f"{each.name}:none", each.description))
    return sorted(listed, key=lambda each: each.number)


def find_device(device: int | str, size: tuple[int, int] | None) -> Device:
    """Return what a number, a name, a path or an address stands for.

    Parameters
    ----------
    device
        A camera's number; a part of its name; on Linux its path; or the address of a live stream,
        such as ``rtsp://...``, ``http://...`` or the path of a named pipe.
    size
        The width and height that a camera is asked for.

    Raises
    ------
    InputError
        If there is no such camera, or it is a file.
    """
    if isinstance(device, str) and device.isdecimal():
        device = int(device)
    if isinstance(device, str):
        if "://" in device:
            name = without_password(device)
            return Device(device, None, name, ({"fflags": "nobuffer"},), camera=False)
        if os.path.exists(device):
            mode = os.stat(device).st_mode
            if stat.S_ISFIFO(mode):
                return Device(device, None, device, ({"fflags": "nobuffer"},), camera=False)
            if not stat.S_ISCHR(mode):
                raise InputError(
                    f"{device} is a file, and no camera: read it as a video (fer.video, or "
                    "ferplus-tvm video)"
                )
    return _camera(device, size)


def _camera(device: int | str, size: tuple[int, int] | None) -> Device:
    kind = _FORMATS.get(sys.platform)
    if kind is None:
        raise InputError(
            f"cameras cannot be read on {sys.platform}: give the address of a stream in place of "
            f"{device!r}"
        )
    options: dict[str, str] = {}
    if size is not None:
        options["video_size"] = f"{size[0]}x{size[1]}"
    attempts: tuple[dict[str, str], ...] = (options,)
    if kind == "v4l2":
        # What is not compressed gives a few pictures a second only, where they are large.
        attempts = ({**options, "input_format": "mjpeg"}, options)
        if isinstance(device, str) and device.startswith("/dev/"):
            return Device(device, kind, device, attempts)
        if isinstance(device, int):
            # It is opened even where it is not listed: the system says why it cannot be.
            return Device(f"/dev/video{device}", kind, f"/dev/video{device}", attempts)
    elif kind == "avfoundation":
        # FFmpeg asks for 29.97 pictures a second, which no built-in camera gives.
        attempts = ({**options, "framerate": "30"}, options)
    listed = list_cameras()
    for each in listed:
        if each.number == device or (isinstance(device, str) and _names(device, each)):
            return Device(each.file, kind, f"camera {each}", attempts)
    raise _absent(device, listed)


def _names(text: str, camera: Listed) -> bool:
    return bool(text) and text.casefold() in camera.name.casefold()


def _absent(device: int | str, listed: Sequence[Listed]) -> InputError:
    which = f"{device}" if isinstance(device, int) else repr(device)
    return InputError(f"there is no camera {which}: {_choice(listed)}")


def _choice(listed: Sequence[Listed]) -> str:
    if listed:
        return f"expected one of {', '.join(map(str, listed))}"
    for path in sorted(glob.glob("/dev/video*")):
        if not os.access(path, os.R_OK | os.W_OK):
            return f"{path} may not be read by this user, so {_permission(path)}"
    return "none was found, so plug one in, or give the address of a stream"


def cannot_open(device: Device, error: Exception) -> InputError:
    """Return the sentence for what cannot be opened."""
    number = getattr(error, "errno", None)
    if not device.camera:
        return InputError(
            f"the stream {device.name} cannot be opened ({_reason(error)}): check its address, and "
            "that it is being sent"
        )
    if number in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
        return InputError(f"there is no camera {device.name}: {_choice(list_cameras())}")
    if number in (errno.EACCES, errno.EPERM):
        return InputError(f"{device.name} may not be read by this user: {_permission(device.file)}")
    if number == errno.EBUSY:
        return InputError(f"{device.name} is used by another program: close that, and try again")
    if number in (errno.ENOTTY, errno.EINVAL, errno.ENOSYS):
        return InputError(f"{device.name} gives no pictures: {_choice(list_cameras())}")
    # Windows and macOS say no more than that it failed.
    return InputError(
        f"{device.name} cannot be opened ({_reason(error)}): close other programs that use it, and "
        "see that the system's privacy settings let this program use the camera"
    )


def _permission(path: str) -> str:
    try:
        import grp

        group = grp.getgrgid(os.stat(path).st_gid).gr_name
    except (ImportError, KeyError, OSError):
        return "ask for the permission to use it"
    return f"add the user to the group {group} (sudo usermod -aG {group} USER), and log in again"


def stopped(device: Device, error: Exception) -> InputError:
    """Return the sentence for what gives no more pictures."""
    if device.camera and getattr(error, "errno", None) in (errno.ENODEV, errno.ENXIO):
        return InputError(f"{device.name} is gone: it was unplugged, or switched off")
    what = device.name if device.camera else f"the stream {device.name}"
    return InputError(f"{what} stopped ({_reason(error)}): see whether it is still there")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or one_line(error)
