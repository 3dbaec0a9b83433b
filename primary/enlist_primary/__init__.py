"""The primary: the server in charge. It holds accounts, their trees of servers, and the links to them."""

__version__ = "0.1.0"
