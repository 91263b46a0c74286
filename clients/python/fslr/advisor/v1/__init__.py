"""Generated from protos/fslr/advisor/v1 by `make protos`; not edited by hand."""
