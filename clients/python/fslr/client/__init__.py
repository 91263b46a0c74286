"""The gRPC client of the service: calls, streams, TLS, tokens.

Nothing here knows what a training job is.
"""

from __future__ import annotations

import os

# gRPC prints a line to standard error at each fork of a process with an open stream, such as each
# start of data loader workers. It reads the variable when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
