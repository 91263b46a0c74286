"""The web page: first view of a large run, and open pages beside a busy service."""
