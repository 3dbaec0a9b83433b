"""Rows as protobuf messages: values in, nothing else."""
