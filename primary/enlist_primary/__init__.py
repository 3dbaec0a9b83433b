"""The primary: the server in charge. It holds accounts, their trees of servers, and the links to them."""
