"""How a command ended, as the Status object that v4 and later protocols carry. Pure."""

from __future__ import annotations

from typing import Any

__all__ = ["error_status", "exit_status", "success_status"]

Status = dict[str, Any]


def success_status() -> Status:
    return {"metadata": {}, "status": "Success"}


def exit_status(code: int) -> Status:
    """Of a command that ran and gave this exit code."""
    if code == 0:
        return success_status()
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def error_status(message: str) -> Status:
    """Of a command that could not be run."""
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"Internal error occurred: {message}",
        "reason": "InternalError",
        "details": {"causes": [{"message": message}]},
        "code": 500,
    }
