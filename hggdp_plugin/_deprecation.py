"""Old names of arguments keep working for a while, with a warning."""

import functools
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def warn_deprecated(message: str, stacklevel: int = 3) -> None:
    """Issue a DeprecationWarning that points at the caller of the function that calls this.

    Args:
        message (str): What is deprecated and what to use instead.
        stacklevel (int): As in :func:`warnings.warn`, seen from this function.
    """
    warnings.warn(message, DeprecationWarning, stacklevel)


def renamed_arguments(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function accept old names of keyword arguments, with a DeprecationWarning.

    Args:
        **names: ``old="new"`` for each argument that was renamed.

    Returns:
        function: Decorator.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            for old, new in names.items():
                if old in kwargs:
                    warn_deprecated(f"{old} is now called {new}")
                    kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return wrapper

    return decorate
