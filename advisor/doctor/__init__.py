"""Looks at a deployment from the outside, as a training job would reach it."""
