"""Pure: states, tables, rules. No clock, no I/O, no gRPC."""
