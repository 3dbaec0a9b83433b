"""Measurements of Enlist, each beside a floor measured in the same run: machines are shared and noisy, ratios are not."""
