"""The gRPC edge: parse, call once, render. One servicer per service."""
