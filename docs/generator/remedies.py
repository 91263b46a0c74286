"""What to do about each error reason."""

from __future__ import annotations

REMEDIES: dict[str, str] = {
    "INVALID_VALUE": "Correct the field that the message names.",
    "OPENING_MISSING": "Correct the client: the first message of a stream carries `opening`.",
    "OPENING_REPEATED": "Correct the client: only the first message of a stream carries `opening`.",
    "MESSAGE_UNREADABLE": "Generate the client from this version's protos.",
    "MESSAGE_TOO_LARGE": "Send fewer groups or points, or raise `--max-message-bytes`.",
    "TOO_MANY_GROUPS": "Put several tensors into one group, or raise `--max-groups`.",
    "TOO_MANY_METRICS": "Report fewer metrics; keep steps and other numbers out of their names.",
    "LAYOUT_MISMATCH": "Run `advisor profile check`. Then add a line to the profile's "
    "`group_aliases`, give role templates, or set `unmatched_rule` to `hold`. See "
    "[the policy](../explanation/policy.md#which-base-groups-a-group-stands-for).",
    "PROFILE_NOT_FOUND": "Correct the name. The message lists the nearest ones.",
    "VERSION_NOT_FOUND": "Correct the version or alias. The message lists those that exist.",
    "RUN_NOT_FOUND": "Correct the name. Runs are kept for 30 days after their last measurement.",
    "POLICY_NOT_FOUND": "Correct the name or the version.",
    "POLICY_IN_USE": "Delete the profile versions that name the policy first.",
    "POLICY_MOVED": "Somebody else changed the policy. Read it again, then decide.",
    "RECIPE_NOT_FOUND": "Correct the name or the version. The message lists the nearest ones.",
    "RECIPE_IN_USE": "Delete the policies and profile versions that name the recipe first.",
    "RECIPE_MOVED": "Somebody else changed the recipe. Read it again, then decide.",
    "ALIAS_MOVED": "Somebody else moved the alias. Read it again, then decide.",
    "VERSION_IN_USE": "Move or delete the alias first.",
    "REQUEST_REUSED": "Use a new `request_id` for each request.",
    "AUDIT_UNAVAILABLE": "Repair the project's audit stream in Redis.",
    "STORE_UNAVAILABLE": "Retry after the delay in `RetryInfo`. Check Redis, and the "
    "[rights of its user](../how-to/redis.md#rights).",
    "PROFILE_DAMAGED": "Restore a backup, or register the same profile again.",
    "PROFILE_TOO_NEW": "Upgrade this service.",
    "STORE_DAMAGED": "Find out what else writes to this Redis, then restore a backup.",
    "UNAUTHENTICATED": "Create a token with `advisor token create`, and set `FSLR_TOKEN`.",
    "PERMISSION_DENIED": "Use a token with the role and the project that the call needs.",
    "QUOTA_EXCEEDED": "Retry after the delay in `RetryInfo`. Give each team its own token.",
    "TOO_BUSY": "Retry after the delay in `RetryInfo`. Add replicas.",
    "STOPPING": "Connect again.",
    "INTERNAL": "Report it; the trace is in the service's log.",
}
