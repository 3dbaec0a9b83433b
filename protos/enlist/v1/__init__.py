"""The generated stubs of `enlist.v1`, one pair of modules per `.proto` file; `scripts/generate` makes them."""
