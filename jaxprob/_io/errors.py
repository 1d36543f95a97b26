"""Failures to read a file, as types that a program can catch."""


class DamagedFileError(ValueError):
    """The file is not what was written: cut short, altered, or of another kind."""


class FileMismatchError(ValueError):
    """The file is of another model: a setting, a class, a shape or a dtype differs.

    **Fields:**

    - `differences`: one line for each, which begins with the name of the setting.
    """

    differences: tuple[str, ...]

    def __init__(self, message: str, differences: tuple[str, ...] = ()):
        super().__init__(message)
        self.differences = differences
