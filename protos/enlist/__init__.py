"""What both ends of Enlist must compute alike, and what a client needs: the contract, and the rules of trust as pure functions."""

__version__ = "0.2.0"
"""The version of Enlist, as the distribution's metadata has it; read from there it would cost a daemon a megabyte."""
