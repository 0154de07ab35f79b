"""How many cells stream side by side: as many as leave each other undisturbed. Pure.

How many that is depends on the machine and on who else uses it, and changes while a run goes on.
So the number is searched for as TCP searches for a rate, by additive increase and multiplicative
decrease (Chiu and Jain 1989, doi:10.1016/0169-7552(89)90019-6).
"""

from __future__ import annotations


class Headroom:
    """Begins with half of what is allowed at most: a first wave meets cold caches."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._quiet = 0
        self._falls = 0
        self.at_once = -(-most // 2)
        """Cells that may stream now."""

    def begin(self) -> int:
        """A cell begins; what :meth:`end` wants to hear when it ends."""
        return self._falls

    def end(self, began: int, disturbed: bool) -> None:
        """A cell ended. One that began before the last fall shows what was already answered."""
        if disturbed:
            if began == self._falls:
                self._falls += 1
                self._quiet = 0
                self.at_once = max(1, self.at_once // 2)
            return
        self._quiet += 1
        if self._quiet >= self.at_once:
            self._quiet = 0
            self.at_once = min(self._most, self.at_once + 1)
