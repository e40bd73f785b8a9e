"""The one exception that says: this file cannot be used, and this is what to do."""


class InputError(ValueError):
    """A file (or the request made of it) cannot be used.

    Its text is a single line: the file and the place in it, what is wrong, and what to do.

    Args:
        where (str): file, with the place inside it where there is one.
        problem (str): what is wrong.
        remedy (str): what the user can do about it.
    """

    def __init__(self, where: object, problem: str, remedy: str) -> None:
        line = " ".join(f"{where}: {problem}; {remedy}".split())
        super().__init__(line.encode("utf-8", "backslashreplace").decode())  # file names need not be decodable
