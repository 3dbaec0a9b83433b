"""The primaries above this one, and what is below its child primaries."""
