"""How bytes reach a primary. Nothing outside this folder opens a channel or a TLS connection to one."""
